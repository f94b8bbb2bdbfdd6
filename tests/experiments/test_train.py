"""The program that trains: killed, resumed, shared and spread, it ends with the same numbers."""

import itertools
import os
import re
import signal
import socket
import subprocess
import sys
import time

import jax
import numpy as np
import pandas as pd
import pytest
from flax import nnx

from data_prep.import_chromoformer import ImportConfig, import_store
from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import to_torch
from epi2expr_jax.predict.loading import load
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.lookup import Share
from epi2expr_jax.study.train import Machine
from experiments import train as train_program
from experiments.cli.flags import define_training
from experiments.cli.shares import define_machine


def command(store, run_dir, *more):
    return [
        sys.executable, "-m", "experiments.train", f"--store={store.path}", f"--run={run_dir}",
        "--model=promoter_cnn", "--width=0.02", "--cv=chromosomes_3", "--epochs=8",
        "--batch_size=32", "--checkpoint_minutes=0", *more,
    ]  # fmt: skip


def states(run_dir):
    """The whole checkpoints of runs under way."""
    found = (run_dir / "checkpoints").glob("*/*/state-*")
    return sorted(path for path in found if path.is_dir() and "partial" not in path.name)


@pytest.fixture(scope="module")
def whole(small_store, tmp_path_factory):
    """The run directory of a training that nothing disturbed, by the program."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    subprocess.run(command(small_store, run_dir), check=True, stdout=subprocess.DEVNULL)
    return run_dir


def asked_to_end(store, run_dir):
    """SIGTERM, as before a preemption: in the middle of an epoch it saves and leaves."""
    process = subprocess.Popen(
        command(store, run_dir), stdout=subprocess.PIPE, text=True, start_new_session=True
    )
    while not states(run_dir) and process.poll() is None:
        time.sleep(0.005)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "the same command resumes" in said


@pytest.mark.trial
def test_asked_to_end_or_killed_and_run_again_it_gives_the_same_weights(
    whole, small_store, tmp_path, trial_size, same_weights
):
    """kill -9 at random moments of training; the same command again ends with the same numbers.

    The first run was asked to end before, and nothing of what it had done is lost.
    """
    ranking = evaluate(whole)
    random = np.random.default_rng(1)
    interrupted = 0
    for i in range(trial_size(1, 20)):
        run_dir, done_before = tmp_path / f"run{i}", 0
        if i == 0:
            asked_to_end(small_store, run_dir)
            done_before = max(int(path.name.removeprefix("state-")) for path in states(run_dir))
        process = subprocess.Popen(
            command(small_store, run_dir), start_new_session=True, stdout=subprocess.DEVNULL
        )
        target, wait = done_before + random.integers(1, 6), random.random() * 0.1
        while process.poll() is None:
            if any(path.name >= f"state-{target:06d}" for path in states(run_dir)):
                time.sleep(wait)
                break
            time.sleep(0.005)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            interrupted += 1
        process.wait()
        done = subprocess.run(command(small_store, run_dir), capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        # Nothing whole before the first save's end: then training starts over.
        assert (
            "going on after epoch" in done.stdout or "nothing to do" in done.stdout or target == 1
        )
        same_weights(run_dir, whole)
        pd.testing.assert_frame_equal(evaluate(run_dir), ranking, check_exact=True)
        assert not [path for path in run_dir.rglob("*") if "tmp" in path.name]
        assert not list(run_dir.rglob("state-*"))
        assert not list(run_dir.rglob("*.partial"))
    assert interrupted


def with_devices(count):
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={count}"
    return {**os.environ, "XLA_FLAGS": flags, "PYTHONFAULTHANDLER": "1"}


def test_eight_devices_give_what_one_gives(small_store, tmp_path, same_weights):
    """Eight, interrupted after the first epochs, go on as one: to the bit as if eight went on.

    As many threads as devices, so the flag stays.
    """
    eight, broken = tmp_path / "eight", tmp_path / "broken"
    few = f"--cells={small_store.manifest.cells[0]}"  # nine runs: a chunk of 8, and one of 1
    arguments = command(small_store, eight, few, "--devices=8")
    subprocess.run(arguments, check=True, env=with_devices(8), stdout=subprocess.DEVNULL)
    process = subprocess.Popen(
        command(small_store, broken, few, "--devices=8"),
        env=with_devices(8),
        stdout=subprocess.DEVNULL,
    )
    while not states(broken) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    done = subprocess.run(
        command(small_store, broken, few, "--devices=1"),
        env=with_devices(8), capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "going on after epoch" in done.stdout
    same_weights(broken, eight)


def free_port():
    with socket.socket() as free:
        free.bind(("localhost", 0))
        return free.getsockname()[1]


def test_two_processes_share_the_runs(whole, small_store, tmp_path, same_weights):
    """Each trains its half at its own pace, the last one closes the run."""
    run_dir = tmp_path / "run"
    place = f"--distributed=localhost:{free_port()}"
    both = [
        subprocess.Popen(
            command(small_store, run_dir, place, f"--process={i}/2"),
            stdout=subprocess.PIPE, text=True,
        )
        for i in range(2)
    ]  # fmt: skip
    said = [process.communicate()[0] for process in both]
    assert [process.returncode for process in both] == [0, 0], said
    _shared(said, run_dir, whole, same_weights)


def test_shares_trained_one_after_the_other_are_the_run(
    whole, small_store, tmp_path, same_weights, program
):
    run_dir = tmp_path / "run"
    shares = [command(small_store, run_dir, f"--share={i}/2")[2:] for i in range(2)]
    done = [program(*share) for share in shares]
    assert [each.returncode for each in done] == [0, 0], done
    _shared([each.stdout for each in done], run_dir, whole, same_weights)


def _shared(said, run_dir, whole, same_weights):
    assert all(", 9 runs" in text for text in said)  # 18 runs in all
    same_weights(run_dir, whole)
    history = pd.read_parquet(run_dir / "history.parquet")
    pd.testing.assert_frame_equal(history, pd.read_parquet(whole / "history.parquet"))


def test_streaming_gives_the_same_weights(whole, small_store, tmp_path, same_weights, program):
    arguments = command(small_store, tmp_path / "run", "--data_gib=0.0004", "--runs_at_once=5")
    done = program(*arguments[2:])
    assert done.returncode == 0, done.stderr
    same_weights(tmp_path / "run", whole)


def test_program_reports_and_leaves_with_a_status(small_store, tmp_path, program):
    done = program(*command(small_store, tmp_path / "run", "--cells=nobody")[2:])
    assert done.returncode == 2
    assert "unknown cell nobody" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()
    shown = program("experiments.train", "--help").stdout
    assert "--assays" in shown
    assert "python -m experiments.train" in shown


def test_the_program_hands_on_what_its_flags_say(tmp_path, parse_flags, monkeypatch, capsys):
    asked = {}

    def train(request, run_dir, machine, track):
        asked.update(request=request, run_dir=run_dir, machine=machine, track=track)
        return {"status": "complete", "populations": [{"runs": [{}, {}]}], "seconds": 3.2}

    monkeypatch.setattr(train_program, "train_shown", train)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "already/chosen")
    run_dir = tmp_path / "run"
    given = ("--store=some.zarr", f"--run={run_dir}", "--seeds=2", "--share=1/4", "--noresume")
    parse_flags((define_training, define_machine), *given)
    train_program.main()
    assert (asked["request"].store, asked["request"].seeds) == ("some.zarr", 2)
    assert (asked["run_dir"], asked["track"]) == (run_dir, [])
    assert asked["machine"] == Machine(resume=False, share=Share(1, 4))
    assert f"{run_dir}: 2 runs in 3 s; next: python -m experiments.evaluate" in (
        capsys.readouterr().out
    )


@pytest.fixture
def depths(tmp_path):
    """A store of depth made of Chromoformer's arrays: four genes on each of three chromosomes."""
    random, rows = np.random.default_rng(0), []
    for chrom, place in itertools.product(("chr1", "chr2", "chr3"), range(50_000, 90_000, 10_000)):
        other = "chr1:300-5800" if place % 20_000 else ""
        rows.append((f"{chrom}_{place}", chrom, place, "+", other, "2.5" if other else ""))
        window = f"{chrom}:{place - 20_000}-{place + 20_000}"
        np.save(tmp_path / f"{window}.npy", random.poisson(3, (2, 40_000)).astype(np.float16))
    np.save(tmp_path / "chr1:300-5800.npy", random.poisson(3, (2, 5500)).astype(np.float16))
    table = pd.DataFrame(rows, columns=["gene_id", "chrom", "start", "strand", "neighbors",
                                        "scores"])  # fmt: skip
    level = random.gamma(1, 3, len(table)).round(2)
    table = table.assign(end=table.start + 1, eid="E003", expression=level, label=1)
    table.to_csv(tmp_path / "meta.csv", index=False)
    (tmp_path / "toy.chrom.sizes").write_text("".join(f"chr{n}\t200000\n" for n in (1, 2, 3)))
    return import_store(
        ImportConfig(
            str(tmp_path / "meta.csv"),
            str(tmp_path),
            str(tmp_path / "depths.zarr"),
            ("m1", "m2"),
            str(tmp_path / "toy.chrom.sizes"),
        )
    )


@pytest.mark.peers
def test_training_goes_on_from_weights_that_convert_wrote(depths, tmp_path, program):
    """Of a smaller network than published: its widths are those that --width makes. No gene counts
    as held out afterwards, since nobody knows what the weights have seen."""
    torch = pytest.importorskip("torch")
    config = ChromoformerConfig(assays=2, width=0.05, resolutions=(2000,), contacts=3)
    zeros = jax.tree.map(np.zeros_like, config.build(rngs=nnx.Rngs(0)))
    state = to_torch(config, nnx.split(zeros, nnx.Param)[1])
    drawn = {name: torch.randn(array.shape) / 9 for name, array in state.items()}
    torch.save({"net": drawn}, tmp_path / "net.pt")
    done = program("experiments.convert", f"--checkpoint={tmp_path / 'net.pt'}", "--cell=E003",
                   f"--out={tmp_path / 'weights'}", "--assays=m1,m2", "--contacts=3")  # fmt: skip
    assert done.returncode == 0, done.stderr
    own = ["--model=chromoformer", f"--store={depths.path}", f"--run={tmp_path / 'run'}",
           "--resolutions=2000", "--contacts=3", "--cv=chromosomes_3", "--folds=fold1",
           "--assays=all", "--epochs=1", f"--from={tmp_path / 'weights'}"]  # fmt: skip
    done = program("experiments.train", *own, "--width=0.1")
    assert done.returncode == 2
    assert "embedding=6, now 12" in done.stderr
    words = r"weights that had seen their test genes \(up to 4 of 4\)"
    done = program("experiments.train", *own, "--width=0.05", "--learning_rate=1e-9")
    assert done.returncode == 0, done.stderr
    assert re.search(words, done.stderr)
    with pytest.warns(UserWarning, match=words):
        (run,), (source,) = load(tmp_path / "run").members, load(tmp_path / "weights").members
    for ours, theirs in zip(jax.tree.leaves(run.weights["params"]),
                            jax.tree.leaves(source.weights["params"]), strict=True):  # fmt: skip
        np.testing.assert_allclose(ours, theirs, atol=1e-6)
    with pytest.warns(UserWarning, match=words):
        done = program("experiments.predict", f"--run={tmp_path / 'run'}")
    assert "genes: 4 maybe seen by --from" in done.stdout
    done = program("experiments.verify", f"--run={tmp_path / 'run'}")
    assert "genes alone; but 1 run started from weights that had seen" in done.stdout
    done = program("experiments.verify", f"--run={tmp_path / 'weights'}")
    assert "imported weights have none" in done.stderr
