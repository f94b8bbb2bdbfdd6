"""What `--what=device` measures of training: its pace, its kernels, and parity with the CPU."""

import collections
import dataclasses
import functools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.profiler import ProfileData

from epi2expr_jax.inputs.device_tracks import signal_of
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import REGISTRY, ChromoformerConfig
from epi2expr_jax.training.many_runs import Lanes, Population
from experiments.benchmarks.made_up import (
    ASSAYS,
    OneCell,
    OneTrack,
    population,
    region_trainer,
    window_trainer,
)
from experiments.benchmarks.scaling import GENE_STEPS, MFLOP
from experiments.benchmarks.turns import paces, seconds

BATCH = {"cnn": 128, "promoter_cnn": 64, "chromoformer": 64}
STEPS = {"cnn": 64, "promoter_cnn": 64, "chromoformer": 48}  # an epoch
NARROW = 0.05  # width of the models under --small
FEW = 8, 3  # genes a batch and batches an epoch under --small
TRACES = pathlib.Path(tempfile.gettempdir()) / "epi2expr-device" / "traces"


class Task(NamedTuple):
    """A figure: what it is of, how it is measured, and what can be compiled for it beforehand."""

    of: dict[str, Any]
    measure: Callable[[], dict[str, Any]]
    ahead: Callable[[], object] | None = None


def runs_of(
    model: str, runs: int, precision: str, small: bool, sizes: tuple[int, int] | None = None
) -> tuple[Population, int]:
    """A population of `runs` in as many lanes, and the genes that one of its runs trains on.

    Args:
        sizes: genes a batch, and batches an epoch; one more validates.
    """
    batch, steps = sizes or (FEW if small else (BATCH[model], STEPS[model]))
    genes, train = batch * (steps + 1), batch * steps
    width = NARROW if small else 1.0
    lanes = Lanes(runs, (jax.local_devices()[0],))
    if model == "chromoformer":
        data, config = OneCell(genes), ChromoformerConfig(assays=ASSAYS, width=width)
        if small:
            config = dataclasses.replace(config, pairwise_layers=1, regulation_layers=1)
        trainer = region_trainer(config, data, train, batch, precision)
    else:
        config = REGISTRY[model](width=width)
        data = OneTrack(genes, config.window.bins)
        trainer = window_trainer(config, batch, precision, (train, genes - train))
    return population(trainer, TrackCache(data), genes, train, runs, lanes), train


# -- pace --------------------------------------------------------------------------------------


def training(model: str, settings: tuple[tuple[int, str], ...], small: bool) -> Iterator[Task]:
    """Training of a model at lanes and precisions, the most telling first; two lanes if small."""
    for lanes, precision in settings[:1] if small else settings:
        given = model, 2 if small else lanes, precision, small
        yield Task(
            {"model": model, "lanes": given[1], "precision": precision},
            functools.partial(_pace, *given),
            functools.partial(_compile, *given),
        )


def _compile(model: str, runs: int, precision: str, small: bool) -> None:
    runs_of(model, runs, precision, small)[0].compile()


def _pace(model: str, runs: int, precision: str, small: bool) -> dict[str, Any]:
    """Gene-steps a second of a full chunk, and what the whole study would take at that."""
    trained, genes = runs_of(model, runs, precision, small)
    compile_s = seconds(trained.compile)
    # To validate a gene costs a third of a gene-step.
    steps = runs * (genes + (len(trained.inputs.target[0]) - genes) / 3)
    found = paces(trained.train_epoch, steps)
    rate = found.pop("per_s")
    found = {
        "gene_steps_per_s": rate,
        "compile_s": round(compile_s, 1),
        **found,
        "losses": [round(loss, 4) for loss in trained.logs[0].train_loss],
    }
    if model in GENE_STEPS and not small:
        found["study_minutes"] = round(GENE_STEPS[model] / rate / 60, 1)
        found["tflops"] = round(rate * MFLOP[model] / 1e6, 2)
    memory = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in memory:  # of the stage so far
        found["peak_gb"] = round(memory["peak_bytes_in_use"] / 1e9, 2)
    return found


# -- kernels -----------------------------------------------------------------------------------


def kernels(small: bool) -> Iterator[Task]:
    """Which kernels a training step spends its time in."""
    settings = (("cnn", 8), ("chromoformer", 16), ("promoter_cnn", 8))
    for model, lanes in settings[2:] if small else settings:
        given = model, 2 if small else lanes, "bfloat16", small
        yield Task(
            {"model": model, "lanes": given[1], "precision": "bfloat16"},
            functools.partial(_kernels, *given),
        )


def _kernels(model: str, runs: int, precision: str, small: bool) -> dict[str, Any]:
    """Of an epoch, by the profiler: kernels a step, time a step that the device is busy, and the
    dearest kernels. The trace is kept in `TRACES`.
    """
    trained, _ = runs_of(model, runs, precision, small)
    trained.train_epoch()
    alone = seconds(trained.train_epoch)
    folder = TRACES / model
    with jax.profiler.trace(str(folder)):
        trained.train_epoch()
    (trace,) = sorted(folder.rglob("*.xplane.pb"))[-1:]
    steps = FEW[1] if small else STEPS[model]
    return {
        "ms_a_step": round(1e3 * alone / steps, 3),
        **spent(ProfileData.from_file(str(trace)), steps),
    }


def spent(profile: Any, steps: int) -> dict[str, Any]:
    """Time by kernel, of a trace of so many steps; nothing where there is no device's."""
    count, time = collections.Counter(), collections.Counter()
    lines = [line for plane in profile.planes if "/device:" in plane.name for line in plane.lines]
    for line in lines:
        if line.name.startswith("Stream"):
            for event in line.events:
                count[event.name] += 1
                time[event.name] += event.duration_ns
    return {
        "kernels_a_step": round(sum(count.values()) / steps, 1),
        "busy_ms_a_step": round(sum(time.values()) / steps / 1e6, 3),
        "dearest": [
            {"us_a_step": round(ns / steps / 1e3, 1), "a_step": round(count[name] / steps, 2),
             "kernel": name[:90]}
            for name, ns in time.most_common(25)
        ],
    }  # fmt: skip


# -- the same on the device and on the CPU -------------------------------------------------------


def parity(small: bool) -> Iterator[Task]:
    """How far two steps of training are from the same two on this machine's CPU."""
    for model in ("promoter_cnn",) if small else ("cnn", "chromoformer", "promoter_cnn"):
        reference: list[Any] = []
        for on, precision in (
            ("cpu", "float32"), ("here", "float32"), ("here", "tf32"), ("here", "bfloat16"),
        ):  # fmt: skip
            given = model, precision, small
            yield Task(
                {"model": model, "on": on, "precision": precision},
                functools.partial(_updated, *given, reference, on),
                functools.partial(_compile_two_steps, *given, on),
            )


def _two_steps(model: str, precision: str, small: bool, on: str) -> tuple[Any, Any, Any]:
    """The compiled program of two steps of one run, what it is given, and the state at first."""
    where = jax.devices("cpu")[0] if on == "cpu" else jax.local_devices()[0]
    trained, _ = runs_of(model, 1, precision, small, (8, 2))
    trainer, run, data = trained.trainer, trained.runs[0], trained.cache.data
    state = trainer.init(trained.inputs.model_key[0])
    tracks = [data.track(*pair) for pair in run.tracks]
    inputs = jax.tree.map(lambda x: x[0], trained.inputs)
    given = jax.device_put((state, inputs, tracks, data.regions(run.cell)), where)
    epoch = jax.jit(
        lambda s, i, t, r: trainer.train_epoch(s, i, signal_of(t, r), platform=where.platform)
    )
    return epoch.lower(*given).compile(), given, state


def _compile_two_steps(model: str, precision: str, small: bool, on: str) -> None:
    _two_steps(model, precision, small, on)


def _updated(
    model: str, precision: str, small: bool, reference: list[Any], on: str
) -> dict[str, Any]:
    """Losses of two steps of one run, and how far its update is from that of the CPU.

    Args:
        reference: what the CPU found; filled by the first call.
    """
    epoch, given, state = _two_steps(model, precision, small, on)
    new, record = jax.device_get(epoch(*given))
    update = _flat(new.params) - _flat(state.params)
    found = {"train": float(record.train_loss), "validation": float(record.validation_loss)}
    if not reference:
        reference.append((update, found))
        return found
    theirs, losses = reference[0]
    return {
        **found,
        "update_difference": float(np.linalg.norm(update - theirs) / np.linalg.norm(theirs)),
        **{f"{name}_difference": abs(found[name] / losses[name] - 1) for name in found},
    }


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])
