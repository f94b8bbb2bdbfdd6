"""The program of benchmarks: what may be measured, and the line it prints."""

import importlib
import json
import pathlib
import subprocess
import sys

import pytest

from epi2expr_jax.errors import InputError
from experiments import benchmark as program
from experiments.benchmarks import scaling


def test_everything_that_may_be_measured_is_there():
    for what, (_, name) in program.BENCHMARKS.items():
        measure = program.benchmark(what)
        assert measure.__name__ == name
        assert measure.__module__.startswith("experiments.benchmarks.")


_WITHOUT = """
import importlib.machinery, sys
hidden = {"pyBigWig", "zarr", "dask", "distributed", "bioframe", "pyensembl"}
finder = importlib.machinery.PathFinder
find = finder.find_spec
finder.find_spec = lambda name, *more: None if name.split(".")[0] in hidden else find(name, *more)
from experiments.benchmarks.accelerators.stages import _imports
print(*_imports()["failed"])
"""


def test_without_libraries_of_file_formats_all_modules_import():
    """As on a bare machine with an accelerator; but the benchmarks of these libraries."""
    root = pathlib.Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT], capture_output=True, text=True, check=True, cwd=root
    )
    rooms = done.stdout.split()
    assert rooms == ["experiments.benchmarks.bigwig", "experiments.benchmarks.roadmap"]


def test_an_installed_package_says_that_it_holds_no_benchmarks(monkeypatch):
    def missing(name):
        raise ModuleNotFoundError(name=name.rpartition(".")[0])

    monkeypatch.setattr(importlib, "import_module", missing)
    with pytest.raises(InputError, match="a checkout of the repository"):
        program.benchmark("cnn")


def test_one_line_tells_the_result_and_the_machine(parse_flags, monkeypatch, capsys):
    monkeypatch.setattr(scaling, "scaling", lambda rounds: {"what": "scaling", "of": rounds})
    parse_flags([program.define_flags], "--what=scaling", "--rounds=3")
    program.main()
    (line,) = capsys.readouterr().out.splitlines()
    found = json.loads(line)
    assert found.pop("machine")
    assert found == {"what": "scaling", "of": 3}
