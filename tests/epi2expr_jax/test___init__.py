"""`import epi2expr_jax as e2e`: what it has, what it costs, and what is shown of it."""

import importlib.metadata
import inspect
import subprocess
import sys
import types

import pytest

import epi2expr_jax as e2e
from epi2expr_jax.errors import InputError
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.study.run_card import Card
from tests.conftest import REPOSITORY


def test_the_import_loads_nothing_and_has_every_name():
    """In a process of its own: here all is loaded."""
    script = (
        "import sys, epi2expr_jax as e2e; names = dir(e2e); "
        "print([n for n in ('jax', 'numpy', 'absl') if n in sys.modules], e2e.__version__); "
        "from epi2expr_jax.predict.inference import on_scale; "  # makes the folder an attribute
        "print(callable(e2e.predict), all(hasattr(e2e, name) for name in names))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    version = importlib.metadata.version("epi2expr_jax")
    assert done.stdout.split("\n")[:2] == [f"[] {version}", "True True"], done.stderr


def test_names_are_functions_and_modules_stay_modules():
    assert all(
        inspect.isfunction(getattr(e2e, name) if name != "open_store" else e2e.open_store.__func__)
        for name in ("load", "open_store", "train", "evaluate")
    )
    assert isinstance(e2e.perturb, types.ModuleType)
    assert isinstance(e2e.attribution, types.ModuleType)
    assert next(iter(inspect.signature(e2e.predict).parameters)) == "run_dir"
    with pytest.raises(AttributeError, match="no attribute 'evalute'"):
        e2e.evalute  # noqa: B018
    assert {"load", "predict", "__version__"} <= set(dir(e2e))
    assert (REPOSITORY / "epi2expr_jax" / "py.typed").exists()


def test_what_people_hold_shows_itself_in_a_few_lines(finished, small_store):
    run, store = e2e.load(finished), e2e.open_store(small_store.path)
    cells, assays = store.manifest.cells, store.manifest.assays
    data = e2e.load_dataset(store, REGISTRY["promoter_cnn"](), cells, assays)
    for held, said in (
        (store, f"genes       {len(store.genes)} on 22 chromosomes"),
        (run, f"models    {len(run.runs)}, each of"),
        (data, f"assays  3: {assays[0]}"),
        (Card(run.card), f"models   {len(run.runs)}"),
    ):
        assert said in repr(held)
        assert len(repr(held)) < 1000
        assert "<table>" in held._repr_html_()
    predicted = run.predict(store, genes=store.genes.gene_id[:1].tolist(), include_seen=True)
    assert len(repr(predicted)) < 4000


def test_a_typo_gets_the_error_of_the_command_line(finished, small_store):
    run, store = e2e.load(finished), e2e.open_store(small_store.path)
    cell, assay = store.manifest.cells[0], store.manifest.assays[0]
    data = e2e.load_dataset(store, REGISTRY["promoter_cnn"](), cell, assay)
    for call in (
        lambda: data[f"{store.genes.gene_id[0]}0"],
        lambda: data.track(cell[:-1], assay),
        lambda: data.transform(assay[:-1]),
        lambda: data.regions(cell[:-1]),
        lambda: run.only(assay[:-1]),
        lambda: run.predict(store, cell=cell[:-1]),
        lambda: store.read_signal(cell, assay[:-1]),
        lambda: e2e.predict(finished, f"{store.genes.gene_id[0]}0"),
    ):
        with pytest.raises(InputError, match=r"unknown (cell|assay|assay set|genes)|unknown gene"):
            call()
