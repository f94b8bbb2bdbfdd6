"""The program that trains: killed, resumed, shared and spread, it ends with the same numbers."""

import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pytest

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
