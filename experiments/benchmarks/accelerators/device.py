"""One shot at an accelerator: `--what=device` of `experiments.benchmark`.

A borrowed machine is bare and goes early. So every stage is a process with its share of the time,
every figure a line of JSON the moment it is known, the most telling first, and an error one more
line. Nothing here needs file formats, and peers that are not installed say so.
Compiling takes longest, and uses one core: so most programs are compiled beforehand, several at
once.
"""

import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from typing import Any

import jax
from absl import flags

from epi2expr_jax.errors import InputError
from experiments.benchmarks.accelerators.stages import ROOT, STAGES

FLAGS = flags.FLAGS


def device(_: int) -> dict:
    """Every stage in turn; a line of JSON for each figure, in `--out` (results.jsonl) as well."""
    out = pathlib.Path(FLAGS.out)
    out.mkdir(parents=True, exist_ok=True)
    begin, took = time.perf_counter(), {}
    if unknown := [name for name in FLAGS.stages if name not in STAGES]:
        raise InputError("--stages", ", ".join(unknown), f"some of {', '.join(STAGES)}", "omit it")
    weights = {name: STAGES[name][0] for name in FLAGS.stages or STAGES}
    if FLAGS.ahead:
        before = time.perf_counter()
        _compile_ahead([*weights], FLAGS.ahead, FLAGS.seconds / 2, out)
        took["ahead"] = round(time.perf_counter() - before, 1)
    for name in weights:
        left = FLAGS.seconds - (time.perf_counter() - begin)
        seconds = share(weights, name, left)
        before = time.perf_counter()
        if seconds < 5:
            _say(out, name, {"skipped": "no time left"})
            continue
        _start(name, seconds, FLAGS.small, out)
        took[name] = round(time.perf_counter() - before, 1)
    return {"what": "device", "seconds": took, "results": str(out / "results.jsonl")}


def share(weights: Mapping[str, float], name: str, left: float) -> float:
    """Seconds of stage `name`, of those left to it and the stages after it.

    What a stage does not use, the stages after it share.
    """
    names = list(weights)
    return left * weights[name] / sum(weights[other] for other in names[names.index(name) :])


def _compile_ahead(names: list[str], processes: int, seconds: float, out: pathlib.Path) -> None:
    """Compile what the stages will measure, in several processes that share the programs out.

    What they compiled lies in the cache of compiled programs, where a stage finds it.
    """
    with tempfile.TemporaryDirectory() as claims:
        call = f"device.ahead({names!r}, {claims!r}, {FLAGS.small}, {str(out.resolve())!r})"
        own = {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"}
        with concurrent.futures.ThreadPoolExecutor(processes) as pool:
            for _ in range(processes):
                pool.submit(_process, "ahead", call, seconds, FLAGS.small, out, own)


def ahead(names: list[str], claims: str, small: bool, out: str) -> None:
    """Compile the stages' programs, the most telling first, but those that another has claimed."""
    todo = [
        (name, task.of, task.ahead)
        for name in names
        for task in STAGES[name][1](small)
        if task.ahead
    ]
    for i, (name, of, compile_it) in enumerate(todo):
        try:
            (pathlib.Path(claims) / str(i)).touch(exist_ok=False)
        except FileExistsError:
            continue
        begin = time.perf_counter()
        try:
            compile_it()
            found = {"compile_s": round(time.perf_counter() - begin, 1)}
        except Exception as error:  # one program must not cost the others
            found = {"error": repr(error)[:400]}
        _say(pathlib.Path(out), "ahead", {"of": name, **of, **found})


def _start(name: str, seconds: float, small: bool, out: pathlib.Path) -> None:
    """Run a stage as a process; end it, and what it started, when its time is up."""
    call = f"device.stage({name!r}, {seconds:.0f}, {small}, {str(out.resolve())!r})"
    _process(name, call, seconds, small, out, {"XLA_PYTHON_CLIENT_MEM_FRACTION": ".7"})


def _process(
    name: str, call: str, seconds: float, small: bool, out: pathlib.Path, own: dict[str, str]
) -> None:
    compiled = pathlib.Path(tempfile.gettempdir()) / "epi2expr-device" / "compiled"
    compiled.mkdir(parents=True, exist_ok=True)
    own |= {
        "JAX_COMPILATION_CACHE_DIR": str(compiled),  # also of what XLA tried out for its kernels
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "1",
        "KERAS_BACKEND": "jax",
        "TF_CPP_MIN_LOG_LEVEL": "2",
    }
    if small:
        own["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
    program = f"from experiments.benchmarks.accelerators import device; {call}"
    with tempfile.TemporaryFile("w+") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-c", program],
            stderr=stderr,
            cwd=ROOT,
            env={**own, **os.environ},
            start_new_session=True,
        )
        try:
            code = process.wait(seconds)
        except subprocess.TimeoutExpired:
            code = f"stopped after {seconds:.0f} s"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if code != 0:
            stderr.seek(0)
            _say(out, name, {"error": code, "stderr": stderr.read()[-400:]})


def stage(name: str, seconds: float, small: bool, out: str) -> None:
    """Measure the figures of a stage, in the process that `device` starts for it.

    It ends early where less time is left than half of what the longest figure took.
    """
    begin, longest = time.perf_counter(), 0.0
    _, tasks = STAGES[name]
    todo = list(tasks(small))
    for done, task in enumerate(todo):
        before = time.perf_counter()
        if seconds - (before - begin) < longest / 2:
            skipped = f"no time left for {len(todo) - done} of {len(todo)}"
            _say(pathlib.Path(out), name, {"skipped": skipped})
            break
        try:
            found = task.measure()
        except Exception as error:  # one figure must not cost the others
            found = {"error": repr(error)[:400]}
        longest = max(longest, time.perf_counter() - before)
        _say(pathlib.Path(out), name, {**task.of, **found})
        jax.clear_caches()


def _say(out: pathlib.Path, stage: str, found: dict[str, Any]) -> None:
    line = json.dumps({"stage": stage, **found}, default=str)
    print(line, flush=True)
    with (out / "results.jsonl").open("a") as file:
        file.write(f"{line}\n")
