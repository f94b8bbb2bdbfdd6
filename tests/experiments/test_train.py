import dataclasses
import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

from data_prep.build_store import build
from epi2expr_jax import checkpoint, predict
from epi2expr_jax.dataset import InputConfig
from epi2expr_jax.errors import InputError
from epi2expr_jax.training import TrainConfig
from experiments.evaluate import evaluate, predict_held_out
from experiments.flags import TrainRequest
from experiments.train import train

FIELDS = {
    "model": "promoter_cnn",
    "model_options": {"width": 0.02},
    "cells": ["all"],
    "assays": ["each"],
    "folds": ["all"],
    "cv": "chromosomes_3",
    "blind": [],
    "split_seed": 0,
    "target": "log2",
    "seeds": 1,
    "input_config": InputConfig(),
    "train_config": TrainConfig(epochs=2, batch_size=32),
}


def request_for(store, **changes):
    return TrainRequest(**{**FIELDS, "store": str(store.path), **changes})


@pytest.fixture(scope="module")
def finished(small_store, tmp_path_factory):
    """A finished run of single assays and one set of all."""
    run_dir = tmp_path_factory.mktemp("run") / "run"
    train(request_for(small_store, assays=["each", "all"]), run_dir)
    return run_dir


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
    assert not list(finished.rglob("epoch-*"))
    assert not list(finished.rglob("*orbax-checkpoint-tmp*"))


def test_evaluation_uses_held_out_genes_alone(finished, small_store):
    ranked = evaluate(finished)
    predictions = pd.read_parquet(finished / "predictions.parquet")
    folds = {fold["name"]: fold for fold in json.loads(
        (finished / "splits.json").read_text())["folds"]}  # fmt: skip
    for (fold, _), part in predictions.groupby(["fold", "run_id"]):
        assert set(part.chrom) == set(folds[fold]["test"])
        assert len(part) == folds[fold]["genes"]["test"]
    row = predictions.iloc[17]
    cell = small_store.manifest.cells.index(row.cell)
    gene = small_store.genes.gene_id.tolist().index(row.gene_id)
    rpkm = small_store.read_expression(small_store.manifest.cells)[cell, gene]
    np.testing.assert_allclose(row.observed, np.log2(rpkm + 1), rtol=1e-6)
    table = pd.read_csv(finished / "ranking.csv")
    assert {"cell", "assay", "pearson", "low", "high", "spearman"} <= set(table.columns)
    assert set(table.cell) == {*small_store.manifest.cells, "all"}
    assert set(table.assay) == {*small_store.manifest.assays, "+".join(small_store.manifest.assays)}
    assert len(ranked) == len(table)


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


def test_genes_that_every_model_saw_are_refused(small_store, tmp_path):
    request = request_for(small_store, folds=["fold2"], cells=small_store.manifest.cells[:1])
    train(request, tmp_path / "run")
    ensemble = predict.load(tmp_path / "run")
    seen = small_store.genes[~small_store.genes.chrom.isin(ensemble.folds["fold2"].test)]
    with pytest.raises(InputError, match="every model saw"):
        ensemble.predict(small_store, genes=seen.gene_id.tolist()[:3])
    assert predict_held_out(ensemble, small_store).fold.unique().tolist() == ["fold2"]


def test_cutting_the_population_changes_nothing(finished, small_store, tmp_path):
    """Chunks of a population have the same width of arithmetic, so the same bits."""
    train(request_for(small_store, assays=["each", "all"]), tmp_path / "run", runs_at_once=7)
    columns = ["run_id", "epoch"]
    a, b = (
        pd.read_parquet(path / "history.parquet").sort_values(columns).reset_index(drop=True)
        for path in (finished, tmp_path / "run")
    )
    pd.testing.assert_frame_equal(a, b, check_exact=True)


def test_a_finished_run_is_left_alone_and_another_request_refused(finished, small_store):
    request = request_for(small_store, assays=["each", "all"])
    card = (finished / checkpoint.RUN_CARD).read_bytes()
    train(request, finished)
    assert (finished / checkpoint.RUN_CARD).read_bytes() == card
    for changed in (
        dataclasses.replace(request, cv="chromosomes_4"),
        dataclasses.replace(request, train_config=TrainConfig(epochs=3, batch_size=32)),
    ):
        with pytest.raises(InputError, match="a run of another request"):
            train(changed, finished)
    with pytest.raises(InputError, match="empty run directory"):
        train(request, finished, resume=False)


def test_bad_requests_are_refused(small_store, tmp_path):
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


def test_unfinished_training_cannot_be_loaded(small_store, tmp_path):
    checkpoint.write_card(tmp_path, {"status": "training"})
    with pytest.raises(InputError, match="resumes"):
        predict.load(tmp_path)


def test_tracks_the_store_lacks_are_named(build_config, roadmap, tmp_path):
    """A sheet with a hole: its runs are refused by name, the others train."""
    table = pd.read_csv(roadmap / "tracks.csv").drop(columns="sha256")
    table["path"] = [str(roadmap / path) for path in table.path]
    hole = table.iloc[0]
    table.iloc[1:].to_csv(tmp_path / "tracks.csv", index=False)
    store = build(build_config(tmp_path / "s", tracks=str(tmp_path / "tracks.csv")))
    with pytest.raises(InputError, match=f"no track {hole.cell}-{hole.assay}"):
        train(request_for(store), tmp_path / "run")


def command(store, run_dir, *more):
    return [
        sys.executable, "-m", "experiments.train", f"--store={store.path}", f"--run={run_dir}",
        "--model=promoter_cnn", "--width=0.02", "--cv=chromosomes_3", "--epochs=6",
        "--batch_size=32", *more,
    ]  # fmt: skip


@pytest.mark.trial
def test_killed_and_run_again_gives_the_same_metrics(small_store, tmp_path, trial_size):
    """kill -9 at random moments of training; the same command again ends with the same numbers."""
    whole = tmp_path / "whole"
    subprocess.run(command(small_store, whole), check=True, stdout=subprocess.DEVNULL)
    expected = evaluate(whole)
    random = np.random.default_rng(1)
    interrupted = 0
    for i in range(trial_size(2, 50)):
        run_dir = tmp_path / f"run{i}"
        process = subprocess.Popen(
            command(small_store, run_dir), start_new_session=True, stdout=subprocess.DEVNULL
        )
        target, wait = random.integers(1, 6), random.random() * 0.1
        while process.poll() is None:
            saved = list((run_dir / "checkpoints").glob("*/epoch-*"))
            if any(path.name >= f"epoch-{target:05d}" for path in saved):
                time.sleep(wait)
                break
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            interrupted += 1
        process.wait()
        # A kill within the first save leaves nothing whole, and training starts over.
        whole_saves = [
            path for path in (run_dir / "checkpoints").glob("*/epoch-*") if "tmp" not in path.name
        ]
        complete = (run_dir / "history.parquet").exists() and not whole_saves
        done = subprocess.run(
            command(small_store, run_dir), check=True, capture_output=True, text=True
        )
        resumed = "going on after epoch" in done.stdout or "nothing to do" in done.stdout
        assert resumed == bool(whole_saves or complete)
        pd.testing.assert_frame_equal(evaluate(run_dir), expected, check_exact=True)
    assert interrupted


def test_program_reports_and_leaves_with_a_status(small_store, tmp_path):
    done = subprocess.run(
        command(small_store, tmp_path / "run", "--cells=nobody"), capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "unknown cell nobody" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    shown = subprocess.run(
        [sys.executable, "-m", "experiments.train", "--help"], capture_output=True, text=True
    ).stdout
    assert "--assays" in shown
    assert "python -m experiments.train" in shown
