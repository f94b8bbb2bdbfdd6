"""The comparison of altered marks: both sides get the same edits, and must agree."""

import types

import numpy as np
import pandas as pd
import pytest
import xarray as xr

from epi2expr_jax.errors import InputError
from experiments.benchmarks import perturb as room
from experiments.cli.flags import define_store

STORE = types.SimpleNamespace(
    manifest=types.SimpleNamespace(assays=["H3K27ac", "DNase"]),
    genes=pd.DataFrame({"gene_id": [f"g{i}" for i in range(120)]}),
)


def effect(model, gene, start, factor):
    """A made-up prediction that tells all its arguments apart."""
    return (model + 1) * (gene + 1) + start / 1e5 + factor


class Original:
    """The other side, which takes 6 s; `off` by so much."""

    off, clock = 0.0, None

    def __init__(self, ensemble, store, assay, rows):
        assert (store, assay) == (STORE, "H3K27ac")
        self.models, self.rows = len(ensemble.runs), rows

    def after(self, edits):
        self.clock.taking(6)()
        bins = [(start - 20_000, factor) for start, factor in edits]  # of the window, in bp
        return self.off + np.array(
            [
                [[effect(r, g, *edit) for edit in bins] for g in self.rows]
                for r in range(self.models)
            ]
        )


@pytest.fixture
def sides(clock, monkeypatch, parse_flags):
    """Both sides; ours takes 1 s, or 2 s for every model."""

    def run(ensemble, store, edits, genes, *, include_seen):
        clock.taking(1 + include_seen)()
        models = range(len(ensemble.runs))
        table = [
            [[effect(r, g, e.place.start, e.factor) for e in edits] for g in range(len(genes))]
            for r in models
        ]
        return xr.Dataset({"after": (("run", "gene", "edit"), table)})

    monkeypatch.setattr(room.perturb, "run", run)
    monkeypatch.setattr(room, "require_peers", lambda *names: None)
    monkeypatch.setattr(room, "WindowStore", types.SimpleNamespace(open=lambda path: STORE))
    monkeypatch.setattr(room, "_ensemble", lambda *_: types.SimpleNamespace(runs=range(4)))
    monkeypatch.setattr(Original, "clock", clock)
    monkeypatch.setattr(room, "_OneAtATime", Original)
    return lambda *arguments: parse_flags([define_store], *arguments)


def test_the_distal_preset_is_timed_on_both_sides(sides):
    sides("--store=demo.zarr")
    found = room.perturbation(2)
    assert (found["genes"], found["edits"], found["models"]) == (100, 17 * 11, 4)
    ours, theirs = 100 * 17 * 11, 3 * 6 / 6  # gene-edits a second
    rates = {"unseen_models": ours, "every_model": ours / 2, "torch": theirs}
    assert found["gene_edits_per_s"] == rates
    assert found["ratio_vs_reference"] == round(ours / theirs, 1)
    assert found["ratio_same_models"] == round(ours / 2 / theirs, 1)
    assert found["largest_difference"] < 1e-9


def test_sides_that_differ_are_not_compared(sides, monkeypatch):
    sides("--store=demo.zarr")
    monkeypatch.setattr(Original, "off", 1e-3)
    with pytest.raises(RuntimeError, match="nothing to compare"):
        room.perturbation(2)


def test_a_store_is_asked_for(sides):
    sides()
    with pytest.raises(InputError, match="--store: found none"):
        room.perturbation(2)
