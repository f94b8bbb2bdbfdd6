"""The training loop: what it leaves in a run directory, and what it refuses."""

import dataclasses
import errno
import json
import shutil
import sys

import jax
import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import predict
from epi2expr_jax.errors import InputError, OutOfMemory
from epi2expr_jax.files import only_writer
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.study import lookup, tables
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.lookup import Share, Study
from epi2expr_jax.study.request import published
from epi2expr_jax.study.train import Machine, Watcher, train
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import TrainConfig


def test_run_directory_holds_what_it_promises(finished, small_store):
    card = checkpoint.read_card(finished)
    runs = [run for population in card["populations"] for run in population["runs"]]
    assert card["status"] == "complete"
    assert card["store_checksum"] == small_store.checksum()
    assert len(runs) == 2 * 4 * 3  # cells x assay sets x folds
    assert {population["model_config"]["assays"] for population in card["populations"]} == {1, 3}
    history = pd.read_parquet(finished / "history.parquet")
    assert set(history.run_id) == {run["run_id"] for run in runs}
    assert history.groupby("run_id").epoch.max().eq(2).all()
    assert np.isfinite(history.train_loss).all()
    splits = json.loads((finished / "splits.json").read_text())
    assert sum(fold["genes"]["test"] for fold in splits["folds"]) == len(small_store.genes)
    assert not list(finished.rglob("state-*"))
    assert not list(finished.rglob("*orbax-checkpoint-tmp*"))


def test_loaded_models_predict_only_what_they_never_saw(finished, small_store):
    ensemble = predict.load(finished)
    genes = small_store.genes
    everything = ensemble.predict(small_store)
    assert everything.dims == ("run", "gene")
    for fold in ensemble.folds.values():
        unseen = genes.chrom.isin(fold.test).to_numpy()
        part = everything[everything.fold.values == fold.name].values
        assert np.isfinite(part[:, unseen]).all()
        assert np.isnan(part[:, ~unseen]).all()
    one = genes.gene_id[3]
    np.testing.assert_array_equal(
        ensemble.predict(str(small_store.path), genes=[one]).values[:, 0],
        everything.sel(gene=one).values,
    )
    assert np.isfinite(ensemble.predict(small_store, include_seen=True)).all()
    with pytest.raises(InputError, match="unknown genes"):
        ensemble.predict(small_store, genes=["ENSG1"])


def test_genes_that_every_model_saw_are_refused(small_store, tmp_path, request_for):
    """But not those that were held out by name, here by symbol."""
    genes, cells = small_store.genes, small_store.manifest.cells[:1]
    (fold,) = Study(request_for(small_store, folds=["fold2"])).folds
    held = genes[genes.chrom.isin(fold.train)].iloc[[4, 9]]
    request = request_for(small_store, folds=["fold2"], cells=cells, test_genes=held.name.tolist())
    train(request, tmp_path / "run")
    ensemble = predict.load(tmp_path / "run")
    assert ensemble.folds["fold2"] == dataclasses.replace(fold, held_out=(*held.gene_id,))
    found = ensemble.predict(small_store, held.gene_id.tolist())
    assert np.isfinite(found).all()
    assert set(ensemble.novelty(small_store, held.index.to_numpy())) == {"left out of training"}
    seen = genes[~genes.chrom.isin(fold.test) & ~genes.gene_id.isin(held.gene_id)]
    with pytest.raises(InputError, match="every model saw"):
        ensemble.predict(small_store, genes=seen.gene_id.tolist()[:3])
    scored = predict_held_out(ensemble, small_store)
    assert scored.fold.unique().tolist() == ["fold2"]
    assert set(scored.chrom) == set(fold.test)
    with pytest.raises(InputError, match=r"a run of another request \(test_genes="):
        train(dataclasses.replace(request, test_genes=[]), tmp_path / "run")
    # The same genes by other names, in another order, are the same request.
    again = dataclasses.replace(request, test_genes=[held.gene_id.iloc[1], held.name.iloc[0]])
    assert train(again, tmp_path / "run")["request"] == Study(request).request.as_json()


def test_cutting_the_population_changes_nothing(finished, small_store, tmp_path, request_for):
    """Chunks of a population have the same width of arithmetic, so the same bits."""
    train(
        request_for(small_store, assays=["each", "all"]),
        tmp_path / "run",
        machine=Machine(runs_at_once=7),
    )
    columns = ["run_id", "epoch"]
    a, b = (
        pd.read_parquet(path / "history.parquet").sort_values(columns).reset_index(drop=True)
        for path in (finished, tmp_path / "run")
    )
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_a_watcher_is_told_of_every_epoch(small_store, tmp_path, request_for, capsys):
    heard, request = Heard(), request_for(small_store, assays=["each", "all"])
    card = train(request, tmp_path / "run", watcher=heard)
    ran = {population["name"] for population in card["populations"]}
    assert {name for name, _ in heard.advanced} == ran == {"1-assay", "3-assay"}
    assert len(heard.advanced) == 2 * 24  # epochs x runs
    assert (heard.said, heard.name) == ([], "ended")
    capsys.readouterr()  # the verification prints
    train(request, tmp_path / "run", watcher=heard)
    assert heard.said == [f"{tmp_path}/run is complete: nothing to do"]
    assert capsys.readouterr().out == ""
    blind = request_for(small_store, cv="monte_carlo_5", assays=["all"])
    train(blind, tmp_path / "blind", watcher=heard)
    said = heard.said[-1]
    assert said.startswith("scores will be of ")
    assert said.endswith("; --cv=chromosomes_5 tests on all genes, and takes about as long")


def test_what_is_left_out_is_warned_of(holed, tmp_path, request_for):
    request = request_for(holed[0], folds=["fold1"])
    with pytest.warns(UserWarning, match="left out: 1 of 6 combinations"):
        train(request, tmp_path / "run")


def test_a_finished_run_is_left_alone_and_another_request_refused(
    finished, small_store, request_for
):
    request = request_for(small_store, assays=["each", "all"])
    card = (finished / checkpoint.RUN_CARD).read_bytes()
    train(request, finished)
    assert (finished / checkpoint.RUN_CARD).read_bytes() == card
    for changed in (
        dataclasses.replace(request, cv="chromosomes_4"),
        dataclasses.replace(request, train_config=TrainConfig(epochs=2, batch_size=16)),
    ):
        with pytest.raises(InputError, match="a run of another request"):
            train(changed, finished)
    with pytest.raises(InputError, match="empty run directory"):
        train(request, finished, machine=Machine(resume=False))


def test_bad_requests_are_refused(small_store, tmp_path, request_for):
    for changes, message in (
        ({"cells": ["E003", "nobody"]}, "unknown cell nobody"),
        ({"assays": ["CTCF"]}, "unknown assay CTCF"),
        ({"folds": ["fold9"]}, "fold9"),
        ({"cv": "chromosomes_99"}, "groups"),
        ({"model_options": {"window_bp": 10_000}}, "at least as wide"),
        ({"target": "zscore"}, "minmax or log2"),
    ):
        with pytest.raises(InputError, match=message):
            train(request_for(small_store, **changes), tmp_path / message.replace(" ", "-"))


def test_a_model_that_makes_no_sense_leaves_no_run_directory(small_store, tmp_path, request_for):
    bad = dataclasses.replace(request_for(small_store), model_options={"width": -1.0})
    with pytest.raises(InputError, match="width=-1"):
        train(bad, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_of_a_model_that_is_not_registered_is_refused_by_name(finished, monkeypatch):
    monkeypatch.delitem(REGISTRY, "promoter_cnn")
    with pytest.raises(InputError, match=r"a model promoter_cnn; .* import the module that has it"):
        predict.load(finished)
    with pytest.raises(InputError, match="a model promoter_cnnn; "):
        published("promoter_cnnn")


def test_unfinished_training_cannot_be_loaded(small_store, tmp_path):
    checkpoint.write_card(tmp_path, {"status": "training"})
    with pytest.raises(InputError, match="resumes"):
        predict.load(tmp_path)


def test_tracks_the_store_lacks_are_named(build, build_config, roadmap, tmp_path, request_for):
    """A sheet with a hole: a cell asked for by name must have every assay."""
    table = pd.read_csv(roadmap / "tracks.csv").drop(columns="sha256")
    table["path"] = [str(roadmap / path) for path in table.path]
    hole = table.iloc[0]
    table.iloc[1:].to_csv(tmp_path / "tracks.csv", index=False)
    store = build(build_config(tmp_path / "s", tracks=str(tmp_path / "tracks.csv")))
    with pytest.raises(InputError, match=f"no track {hole.cell}-{hole.assay}"):
        train(request_for(store, cells=[hole.cell]), tmp_path / "run")


class Heard(Watcher):
    """Keeps all that a training tells."""

    def __init__(self):
        self.said: list[str] = []
        self.advanced: list[tuple[str, int]] = []

    def says(self, text):
        self.said.append(text)

    def begins(self, name, population, genes):
        assert genes.shape == (len(population.runs),)
        self.name = name

    def advances(self, advanced):
        self.advanced += [(self.name, i) for i in advanced]

    def ends(self):
        self.name = "ended"


def test_where_memory_is_short_fewer_runs_train_at_once(
    finished, small_store, tmp_path, monkeypatch, request_for, same_weights
):
    """The device gives up whenever more than two chunks are on it."""
    begin = Population._begin

    def scarce(self, *arguments):
        if self.chunks > 2:
            raise OutOfMemory("RESOURCE_EXHAUSTED")
        return begin(self, *arguments)

    monkeypatch.setattr(Population, "_begin", scarce)
    heard = Heard()
    train(request_for(small_store, assays=["each", "all"]), tmp_path / "run", watcher=heard)
    said = "out of memory; going on from the last checkpoint with 2 runs at once"
    assert any(said in text for text in heard.said)
    same_weights(tmp_path / "run", finished)
    monkeypatch.setattr(Population, "_begin", lambda *_: scarce_always())
    with pytest.raises(InputError, match="too little memory for 1 run side by side"):
        train(request_for(small_store), tmp_path / "none")


def scarce_always():
    raise OutOfMemory("RESOURCE_EXHAUSTED")


def test_a_quarantined_run_is_named_with_epoch_and_step(
    small_store, tmp_path, monkeypatch, request_for
):
    """A NaN in the targets of one run stops it alone; history, card and a warning say where."""
    plan = lookup.plan_runs

    def poisoned(*arguments):
        inputs, scales = plan(*arguments)
        inputs.target[3] = np.nan
        return inputs, scales

    monkeypatch.setattr(lookup, "plan_runs", poisoned)
    with pytest.warns(UserWarning, match="its loss was not finite in epoch 1, step 1"):
        card = train(request_for(small_store), tmp_path / "run")
    rows = [row for population in card["populations"] for row in population["runs"]]
    broken = [row for row in rows if row["status"] == "quarantined"]
    assert [row["quarantined"] for row in broken] == [{"epoch": 1, "step": 1}]
    assert [row["status"] for row in rows].count("finished") == len(rows) - 1
    history = pd.read_parquet(tmp_path / "run" / "history.parquet")
    assert history[history.bad_step >= 0].run_id.tolist() == [broken[0]["run_id"]]
    assert history[history.run_id == broken[0]["run_id"]].epoch.tolist() == [1]
    assert broken[0]["run_id"] not in evaluate(tmp_path / "run").to_string()
    assert broken[0]["run_id"] not in set(
        pd.read_parquet(tmp_path / "run" / "predictions.parquet").run_id
    )


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_damaged_weights_of_a_finished_run_are_told_and_trained_again(
    finished, small_store, tmp_path, request_for, same_weights
):
    """One flipped bit; and splits, of which nothing needs to be trained."""
    run_dir = tmp_path / "run"
    shutil.copytree(finished, run_dir)
    (weights,) = run_dir.glob("checkpoints/3-assay/*/best-*/d")
    flip(max(weights.iterdir(), key=lambda path: path.stat().st_size))
    flip(run_dir / "splits.json")
    flip(run_dir / "history.parquet")
    with pytest.raises(InputError, match=r"best-00000\d: found damage \(it has another checksum"):
        predict.load(run_dir)
    heard = Heard()
    damaged = r"made again: .*(best-00000\d|splits.json|history.parquet): damage"
    with pytest.warns(UserWarning, match=damaged):
        train(request_for(small_store, assays=["each", "all"]), run_dir, watcher=heard)
    assert {name for name, _ in heard.advanced} == {"3-assay"}
    same_weights(run_dir, finished)
    for name in ("splits.json", "history.parquet"):
        assert (run_dir / name).read_bytes() == (finished / name).read_bytes()


def test_a_run_that_grows_is_that_of_one_command_for_all(
    finished, small_store, tmp_path, request_for
):
    """Another assay and fold; then by two processes a cell. What was there is not even touched."""
    run_dir, assays = tmp_path / "run", small_store.manifest.assays
    one = {"cells": small_store.manifest.cells[:1], "assays": assays[:1], "folds": ["fold1"]}
    train(request_for(small_store, **one), run_dir)
    evaluate(run_dir)
    first = {path: path.read_bytes() for path in run_dir.rglob("best-*/**/*") if path.is_file()}
    more = {**one, "assays": assays[:2], "folds": ["fold1", "fold3"]}
    heard = Heard()
    card = train(request_for(small_store, **more), run_dir, watcher=heard)
    assert len(heard.advanced) == 2 * 3  # epochs x runs that were missing
    assert card["request"]["folds"] == ["fold1", "fold3"]
    with pytest.raises(InputError, match="an evaluation of 1 models; expected of all 4"):
        tables.require(run_dir)
    request = request_for(small_store, **{**more, "cells": ["all"]})
    half = train(request, run_dir, machine=Machine(share=Share(0, 2)))
    assert half["status"] == "training"
    train(request, run_dir, machine=Machine(share=Share(1, 2)))
    assert all(path.read_bytes() == content for path, content in first.items())
    every, grown = predict.load(finished), predict.load(run_dir)
    assert len(grown.runs) == 8
    (member,) = grown.members
    (same,) = every.select(lambda run: run in grown.runs).members
    assert same.runs == member.runs
    jax.tree.map(np.testing.assert_array_equal, same.weights, member.weights)
    evaluate(run_dir)
    tables.require(run_dir)


def test_with_more_epochs_runs_go_on_where_they_ended(finished, small_store, tmp_path, request_for):
    """As if trained that long at once, to the bit; without a last state from the start."""
    one = {"cells": small_store.manifest.cells[:1], "assays": small_store.manifest.assays[:1]}
    short = request_for(small_store, **one, train_config=TrainConfig(epochs=1, batch_size=32))
    longer = request_for(small_store, **one)
    run_dir, heard = tmp_path / "run", Heard()
    train(short, run_dir)
    (last,) = run_dir.rglob("last-*.json")
    evaluate(run_dir)
    shutil.copytree(run_dir, tmp_path / "lost")
    shutil.rmtree(tmp_path / "lost" / last.relative_to(run_dir).with_suffix(""))
    train(longer, run_dir, watcher=heard)
    assert len(heard.advanced) == 3  # an epoch of each of the runs
    assert "3 runs that took all of their epochs go on to 2" in " ".join(heard.said)
    with pytest.raises(InputError, match="an evaluation after 3 epochs; expected after all 6"):
        tables.require(run_dir)
    assert len([*run_dir.rglob("last-*.json")]) == len([*run_dir.rglob("best-*.json")]) == 1
    heard = Heard()
    train(longer, tmp_path / "lost", watcher=heard)
    assert len(heard.advanced) == 6
    assert "3 runs, whose last states were not kept, train again" in " ".join(heard.said)
    every = predict.load(finished)
    for folder in (run_dir, tmp_path / "lost"):
        (member,) = predict.load(folder).members
        (same,) = every.select(lambda run, member=member: run in member.runs).members
        jax.tree.map(np.testing.assert_array_equal, same.weights, member.weights)
    with pytest.raises(InputError, match="a run of 2 epochs, now 1"):
        train(short, run_dir)


def test_a_run_directory_has_one_training_at_a_time(small_store, tmp_path, request_for):
    request, run_dir = request_for(small_store), tmp_path / "run"
    with only_writer(run_dir), pytest.raises(InputError, match=r"found process \d+ on"):
        train(request, run_dir)
    assert list(tmp_path.iterdir()) == []
    with only_writer(run_dir / "1-of-2"), pytest.raises(InputError, match="one writer"):
        train(request, run_dir, machine=Machine(share=Share(1, 2)))
    assert list(run_dir.iterdir()) == []


def test_what_is_refused_late_leaves_no_run_directory(
    small_store, tmp_path, request_for, monkeypatch
):
    """The device proves too small once the tracks are read."""
    monkeypatch.setattr(
        sys.modules[train.__module__], "plan_memory", lambda *_, **__: scarce_always()
    )
    with pytest.raises(OutOfMemory):
        train(request_for(small_store), tmp_path / "run")
    assert list(tmp_path.iterdir()) == []


def test_a_failed_save_ends_the_training(small_store, tmp_path, request_for, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(checkpoint, "write", full)
    with pytest.raises(InputError, match=r"could not be written .*No space left"):
        train(request_for(small_store, folds=["fold1"]), tmp_path / "run")
