"""Training that starts from trained weights: which, what is refused, and what they have seen."""

import dataclasses

import numpy as np
import pytest

from epi2expr_jax import predict
from epi2expr_jax.errors import InputError
from epi2expr_jax.models.weights import flatten
from epi2expr_jax.study import source as room
from epi2expr_jax.study.lookup import Study
from epi2expr_jax.study.source import seen_words
from epi2expr_jax.study.train import train
from epi2expr_jax.training.one_run import TrainConfig


@pytest.fixture
def start(finished, small_store, request_for):
    """`start(...)`: a study whose runs start from a finished run of each assay and of all."""
    return lambda **changes: Study(request_for(small_store, start_from=str(finished), **changes))


def of_run(ensemble, run):
    """The weights of a run, as a dict."""
    (member,) = ensemble.select(lambda one: one == run).members
    return {k: np.asarray(v)[0] for k, v in flatten(member.weights).items()}


def test_a_run_starts_from_that_of_its_cell_fold_and_seed(finished, start):
    study, ensemble = start(assays=["each", "all"], seeds=2), predict.load(finished)
    for run in study.runs:
        own = dataclasses.replace(run, seed=0)  # the only one there is
        params, stats = study.source.weights(run)
        found = flatten({"params": params, "stats": stats})
        expected = of_run(ensemble, own)
        assert found.keys() == expected.keys()
        for name, leaf in expected.items():
            np.testing.assert_array_equal(found[name], leaf)
        said = study.started[run.run_id]["started"]
        assert (said["from"], said["seen"]) == (own.run_id, 0)
        assert said["cells"] == [run.cell]
    assert study.source.warnings(study.started) == []


def test_genes_held_out_by_name_are_test_genes(finished, small_store, start):
    genes = small_store.genes
    named = tuple(genes.gene_id[genes.chrom == "chr1"][:3])
    with pytest.raises(InputError, match="weights that have seen 3 of"):
        _ = start(test_genes=named).source


def test_weights_of_a_cell_to_be_tested_in_are_refused(finished, small_store, start, monkeypatch):
    """A pool of all but one cell is tested in that one, as in a cell that no model saw."""
    cell, other = small_store.manifest.cells
    one = predict.load(finished).select(lambda run: run.cell == cell)
    monkeypatch.setattr(room, "load", lambda _: one)
    assert start(cells=["pool"], assays=["all"]).source  # tested in its own
    runs = [dataclasses.replace(run, cell=f"{other}+X") for run in start(assays=["all"]).runs]
    rows = dict.fromkeys(runs, (one.members[0], 0))
    with pytest.raises(InputError, match=f"trained in {cell}, for models of {other}.X"):
        room._require_new_cells("--from", small_store.manifest.cells, one, rows)


def test_chromosomes_are_known_by_any_of_their_names(finished, small_store):
    one, other = predict.load(finished).folds["fold1"], small_store.genes.copy()
    other["chrom"] = other["chrom"].str.removeprefix("chr")
    for part, mask in room._spelled(one, other).masks(other).items():
        np.testing.assert_array_equal(mask, one.masks(small_store.genes)[part])


def test_what_weights_have_seen_is_not_forgotten_after_another_step(finished, start, monkeypatch):
    """Of weights that began with others which had seen test genes, any gene may have been seen."""
    ensemble = predict.load(finished)
    for population in ensemble.card["populations"]:
        for run in population["runs"]:
            run["started"] = {"seen": 2, "test_genes": 50}
    monkeypatch.setattr(room, "load", lambda _: ensemble)
    study = start()
    said = [record["started"] for record in study.started.values()]
    assert said
    assert all(one["seen"] == one["test_genes"] > 0 for one in said)
    assert study.source.warnings(study.started)


def test_what_other_weights_differ_in_is_named(start):
    for changes, words in (
        ({"model_options": {"width": 0.04}}, r"width=0\.02, now 0\.04"),
        ({"target": "minmax"}, "target=log2, now minmax"),
        ({"assays": ["pairs"]}, r"no run of .*\+"),
        ({"cv": "chromosomes_4"}, "runs of several folds"),
        ({"cells": ["pool"]}, "runs of several cells"),
    ):
        with pytest.raises(InputError, match=words):
            _ = start(**changes).source


def test_weights_that_have_seen_the_test_genes(finished, small_store, start, monkeypatch):
    """Of the only fold there is: refused, but of converted weights, which have seen all, said."""
    one = predict.load(finished).select(lambda run: run.fold == "fold1")
    monkeypatch.setattr(room, "load", lambda _: one)
    assert start(folds=["fold1"]).source
    genes = small_store.genes
    tested = genes.chrom.isin(one.folds["fold2"].test).to_numpy()
    seen = int((tested & ~genes.chrom.isin(one.folds["fold1"].test)).sum())
    assert seen == tested.sum() > 0
    words = f"have seen {seen} of {seen} test genes of fold2.*--cv"
    with pytest.raises(InputError, match=words):
        _ = start(folds=["fold2"]).source
    converted = dataclasses.replace(one, card={**one.card, "converted": {}})
    monkeypatch.setattr(room, "load", lambda _: converted)
    study = start(folds=["fold1", "fold2"], assays=["all"])
    (said,) = study.source.warnings(study.started)
    assert said.startswith("2 runs started from weights that had seen their test genes (up to ")
    assert f"up to {seen} of {seen}" in said
    assert seen_words([{"seen": 0, "test_genes": 3}]) == []


def test_frozen_weights_stay(finished, small_store, tmp_path, request_for):
    one = {"cells": small_store.manifest.cells[:1], "assays": small_store.manifest.assays[:1]}
    config = TrainConfig(epochs=2, batch_size=32, freeze=("trunk", "head.0"))
    request = request_for(
        small_store, **one, folds=["fold1"], start_from=str(finished), train_config=config
    )
    card = train(request, tmp_path / "run")
    (row,) = card["populations"][0]["runs"]
    assert row["started"]["from"] == row["run_id"]
    ensemble = predict.load(tmp_path / "run")
    (run,) = ensemble.runs
    before, after = of_run(predict.load(finished), run), of_run(ensemble, run)
    for name, leaf in before.items():
        frozen = name.startswith(("params/trunk", "params/head/0", "stats"))
        assert np.array_equal(leaf, after[name]) == frozen, name
    for other in ({"start_from": ""}, {"train_config": dataclasses.replace(config, freeze=())}):
        changed = dataclasses.replace(request, **{"train_config": TrainConfig(), **other})
        with pytest.raises(InputError, match="a run of another request"):
            train(changed, tmp_path / "run")
    with pytest.raises(InputError, match="freeze: found weights as they are drawn"):
        request_for(small_store, train_config=config)
