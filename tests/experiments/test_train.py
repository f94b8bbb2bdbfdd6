import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pandas as pd
import pytest

from data_prep.build_store import build
from epi2expr_jax import predict
from epi2expr_jax.errors import InputError, OutOfMemory
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import TrainConfig
from experiments.cli import study
from experiments.cli.evaluation import evaluate
from experiments.cli.flags import Machine, TrainRequest
from experiments.cli.training import train

FIELDS = {
    "model": "promoter_cnn",
    "model_options": {"width": 0.02},
    "cv": "chromosomes_3",
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
    assert not list(finished.rglob("state-*"))
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
    groups = pd.read_csv(finished / "groups.csv")
    assert {"expressed", "silent"} <= set(groups.group)
    called = pd.read_csv(finished / "calls.csv")
    assert called.p.between(0, 1).all()
    assert (called.q >= called.p - 1e-6).all()
    assert (called.called == (called.q <= 0.05)).all()
    quality = pd.read_csv(finished / "quality.csv")
    assert set(zip(quality.cell, quality.assay, strict=True)) == set(
        map(tuple, small_store.manifest.tracks)
    )
    assert (quality.depth > 0).all()


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
    """A sheet with a hole: a cell asked for by name must have every assay."""
    table = pd.read_csv(roadmap / "tracks.csv").drop(columns="sha256")
    table["path"] = [str(roadmap / path) for path in table.path]
    hole = table.iloc[0]
    table.iloc[1:].to_csv(tmp_path / "tracks.csv", index=False)
    store = build(build_config(tmp_path / "s", tracks=str(tmp_path / "tracks.csv")))
    with pytest.raises(InputError, match=f"no track {hole.cell}-{hole.assay}"):
        train(request_for(store, cells=[hole.cell]), tmp_path / "run")


def command(store, run_dir, *more):
    return [
        sys.executable, "-m", "experiments.train", f"--store={store.path}", f"--run={run_dir}",
        "--model=promoter_cnn", "--width=0.02", "--cv=chromosomes_3", "--epochs=6",
        "--batch_size=32", *more,
    ]  # fmt: skip


def states(run_dir):
    """The whole checkpoints of runs under way."""
    found = (run_dir / "checkpoints").glob("*/*/state-*")
    return sorted(path for path in found if path.is_dir() and "tmp" not in path.name)


def weights_of(run_dir):
    """The best weights of every run, by run."""
    ensemble = predict.load(run_dir)
    return {
        run.run_id: [np.asarray(leaf[i]) for leaf in jax.tree.leaves(member.weights)]
        for member in ensemble.members
        for i, run in enumerate(member.runs)
    }


def assert_same_weights(run_dir, expected):
    found = weights_of(run_dir)
    assert found.keys() == expected.keys()
    for run_id, leaves in expected.items():
        for a, b in zip(found[run_id], leaves, strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def whole(small_store, tmp_path_factory):
    """The run directory of a training that nothing disturbed, by the program."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(small_store, run_dir), check=True, stdout=subprocess.DEVNULL)
    return run_dir


@pytest.mark.trial
def test_killed_and_run_again_gives_the_same_weights(whole, small_store, tmp_path, trial_size):
    """kill -9 at random moments of training; the same command again ends with the same numbers."""
    expected, ranking = weights_of(whole), evaluate(whole)
    random = np.random.default_rng(1)
    interrupted = 0
    for i in range(trial_size(2, 20)):
        run_dir = tmp_path / f"run{i}"
        process = subprocess.Popen(
            command(small_store, run_dir), start_new_session=True, stdout=subprocess.DEVNULL
        )
        target, wait = random.integers(1, 6), random.random() * 0.1
        while process.poll() is None:
            if any(path.name >= f"state-{target:06d}" for path in states(run_dir)):
                time.sleep(wait)
                break
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            interrupted += 1
        process.wait()
        done = subprocess.run(
            command(small_store, run_dir), check=True, capture_output=True, text=True
        )
        # Nothing whole before the first save's end: then training starts over.
        assert (
            "going on after epoch" in done.stdout or "nothing to do" in done.stdout or target == 1
        )
        assert_same_weights(run_dir, expected)
        pd.testing.assert_frame_equal(evaluate(run_dir), ranking, check_exact=True)
        assert not [path for path in run_dir.rglob("*") if "tmp" in path.name]
        assert not list(run_dir.rglob("state-*"))
        assert not list(run_dir.rglob("*.partial"))
    assert interrupted


def test_asked_to_end_it_saves_and_leaves(whole, small_store, tmp_path):
    """SIGTERM, as before a preemption: in the middle of an epoch, nothing of it is lost."""
    run_dir = tmp_path / "run"
    process = subprocess.Popen(
        command(small_store, run_dir), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    while not states(run_dir) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command resumes" in said
    done = subprocess.run(command(small_store, run_dir), check=True, capture_output=True, text=True)
    assert "going on after epoch" in done.stdout
    assert_same_weights(run_dir, weights_of(whole))


def with_devices(count):
    flags = f"--xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONFAULTHANDLER": "1"}


def test_eight_devices_give_what_one_gives(small_store, tmp_path):
    """And four, interrupted, going on as one. (As many threads as devices, so the flag stays.)"""
    one, eight, four = (tmp_path / name for name in ("one", "eight", "four"))
    few = f"--cells={small_store.manifest.cells[0]}"  # nine runs: a chunk of 8, and one of 1
    for run_dir, devices in ((one, 1), (eight, 8)):
        arguments = command(small_store, run_dir, few, f"--devices={devices}")
        subprocess.run(arguments, check=True, env=with_devices(8), stdout=subprocess.DEVNULL)
    expected = weights_of(one)
    assert_same_weights(eight, expected)
    process = subprocess.Popen(
        command(small_store, four, few, "--devices=4"),
        env=with_devices(8),
        stdout=subprocess.DEVNULL,
    )
    while not states(four) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = subprocess.run(
        command(small_store, four, few, "--devices=1"),
        check=True, env=with_devices(8), capture_output=True, text=True,
    )  # fmt: skip
    assert "going on after epoch" in done.stdout
    assert_same_weights(four, expected)


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


@pytest.mark.parametrize("how", ["share", "distributed"])
def test_two_processes_share_the_runs(whole, small_store, tmp_path, how):
    """Each trains its half at its own pace, the last one closes the run."""
    run_dir, port = tmp_path / "run", free_port()
    flags = {
        "share": "--share={}/2",
        "distributed": f"--distributed=localhost:{port} --process={{}}/2",
    }[how]
    both = [
        subprocess.Popen(
            command(small_store, run_dir, *flags.format(i).split()),
            stdout=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    assert all(": 9 runs" in text for text in said)  # 18 runs in all
    assert_same_weights(run_dir, weights_of(whole))
    history = pd.read_parquet(run_dir / "history.parquet")
    pd.testing.assert_frame_equal(history, pd.read_parquet(whole / "history.parquet"))


def test_streaming_gives_the_same_weights(whole, small_store, tmp_path):
    arguments = command(small_store, tmp_path / "run", "--data_gib=0.0004", "--runs_at_once=5")
    subprocess.run(arguments, check=True, stdout=subprocess.DEVNULL)
    assert_same_weights(tmp_path / "run", weights_of(whole))


def test_where_memory_is_short_fewer_runs_train_at_once(small_store, tmp_path, monkeypatch, capsys):
    """The device gives up whenever more than two chunks are on it."""
    train(request_for(small_store), tmp_path / "whole")
    begin = Population._begin

    def scarce(self, *arguments):
        if self.chunks > 2:
            raise OutOfMemory("RESOURCE_EXHAUSTED")
        return begin(self, *arguments)

    monkeypatch.setattr(Population, "_begin", scarce)
    train(request_for(small_store), tmp_path / "run")
    assert "out of memory; going on from the last checkpoint with 2 runs at once" in (
        capsys.readouterr().out
    )
    assert_same_weights(tmp_path / "run", weights_of(tmp_path / "whole"))
    monkeypatch.setattr(Population, "_begin", lambda *_: scarce_always())
    with pytest.raises(InputError, match="too little memory for 1 runs side by side"):
        train(request_for(small_store), tmp_path / "none")


def scarce_always():
    raise OutOfMemory("RESOURCE_EXHAUSTED")


def test_a_quarantined_run_is_named_with_epoch_and_step(small_store, tmp_path, monkeypatch, capsys):
    """A NaN in one run's targets stops that run alone; history, card and terminal say where."""
    plan = study.plan_runs

    def poisoned(*arguments):
        inputs, scales = plan(*arguments)
        inputs.target[3] = np.nan
        return inputs, scales

    monkeypatch.setattr(study, "plan_runs", poisoned)
    card = train(request_for(small_store), tmp_path / "run")
    rows = [row for part in card["populations"] for row in part["runs"]]
    broken = [row for row in rows if row["status"] == "quarantined"]
    assert [row["quarantined"] for row in broken] == [{"epoch": 1, "step": 1}]
    assert [row["status"] for row in rows].count("finished") == len(rows) - 1
    assert "its loss was not finite in epoch 1, step 1" in capsys.readouterr().err
    history = pd.read_parquet(tmp_path / "run" / "history.parquet")
    assert history[history.bad_step >= 0].run_id.tolist() == [broken[0]["run_id"]]
    assert history[history.run_id == broken[0]["run_id"]].epoch.tolist() == [1]
    assert broken[0]["run_id"] not in evaluate(tmp_path / "run").to_string()
    assert broken[0]["run_id"] not in set(
        pd.read_parquet(tmp_path / "run" / "predictions.parquet").run_id
    )


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
