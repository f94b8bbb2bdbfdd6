"""The program of benchmarks: what may be measured, and the line it prints."""

import importlib
import json

import pytest

from epi2expr_jax.errors import InputError
from experiments import benchmark as program
from experiments.benchmarks import scaling


def test_everything_that_may_be_measured_is_there():
    for what, (_, name) in program.BENCHMARKS.items():
        measure = program.benchmark(what)
        assert measure.__name__ == name
        assert measure.__module__.startswith("experiments.benchmarks.")


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
