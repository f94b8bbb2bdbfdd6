"""How cost grows: `--what=scaling` and `--what=grid` of `experiments.benchmark`."""

import dataclasses
import pathlib
import time
from typing import Any

import jax
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from absl import flags

from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.training.lanes import Lanes, epoch
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import TrainConfig, Trainer
from epi2expr_jax.training.planning import calibrate
from experiments.benchmarks.chromoformer import training_pace
from experiments.benchmarks.made_up import OneTrack, population, window_trainer
from experiments.benchmarks.turns import matmul_mflops

FLAGS = flags.FLAGS

_BATCH = 128
_SIZES = (1, 2, 4, 8, 16, 32, 64)  # runs
_GENES = (1_000, 2_000, 5_000, 10_000, 20_000)
_LIVING = (1.0, 0.5, 0.25, 0.125)
_OF = 16  # runs, of which so many live
_LANES = (1, 2, 4)


def _epoch_s(trained: Population, rounds: int) -> float:
    """Seconds an epoch, the median of some; the first, which may compile, not counted."""
    trained.train_epoch()
    seconds = []
    for _ in range(rounds):
        begin = time.perf_counter()
        trained.train_epoch()
        seconds.append(time.perf_counter() - begin)
    return float(np.median(seconds))


def scaling(rounds: int, out: pathlib.Path = pathlib.Path("scaling")) -> dict:
    """Seconds a run and epoch of the published CNN, against what might change them.

    Writes a table (CSV) and a plot (PNG) to `out`.
    """
    trainer, lanes = window_trainer(REGISTRY["cnn"](), _BATCH), Lanes.default()
    rows: list[dict[str, Any]] = []

    def add(what: str, value: float, runs: int, genes: int, seconds: float) -> None:
        each = seconds / runs
        rows.append(
            {"against": what, "value": value, "s_a_run": each, "ms_a_gene": 1e3 * each / genes}
        )
        print(f"{what} {value:g}: {each:.3f} s a run, {1e3 * each / genes:.3f} ms a gene")

    genes = 3 * _BATCH
    cache = TrackCache(OneTrack(genes))
    for runs in _SIZES:
        trained = population(trainer, cache, genes, genes - _BATCH, runs, lanes)
        add("runs", runs, runs, genes, _epoch_s(trained, rounds))
    for share in _LIVING:
        alive = int(_OF * share)
        trained = population(trainer, cache, genes, genes - _BATCH, _OF, lanes, _OF - alive)
        add("live share", share, alive, genes, _epoch_s(trained, rounds))
    for genes in _GENES:
        cache = TrackCache(OneTrack(genes))
        trained = population(trainer, cache, genes, genes - _BATCH, lanes.count, lanes)
        add("genes", genes, lanes.count, genes, _epoch_s(trained, 1))
    table = pd.DataFrame(rows)
    memory = {f"L={width}": _temporaries_mb(trainer, width) for width in _LANES}
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "scaling.csv", index=False, float_format="%.6g")
    _plot(table, out / "scaling.png")
    by = {name: part.set_index("value") for name, part in table.groupby("against")}
    return {
        "what": "scaling",
        "cost_a_run_64_to_1": round(_ends(by["runs"].s_a_run), 3),
        "cost_a_gene_20k_to_1k": round(_ends(by["genes"].ms_a_gene), 3),
        "cost_a_live_run_eighth_to_all": round(1 / _ends(by["live share"].s_a_run), 3),
        "temporaries_mb": memory,
        "table": str(out / "scaling.csv"),
        "plot": str(out / "scaling.png"),
        "device": jax.devices()[0].device_kind,
    }


def _ends(values: pd.Series) -> float:
    """The cost at the largest value, as a multiple of that at the smallest."""
    ordered = values.sort_index()
    return float(ordered.iloc[-1] / ordered.iloc[0])


def _temporaries_mb(trainer: Trainer, width: int) -> float:
    """What the compiled epoch takes besides its inputs: one program serves any number of runs."""
    genes = 3 * _BATCH
    lanes = Lanes(width, (jax.local_devices()[0],))
    cache = TrackCache(OneTrack(genes))
    trained = population(trainer, cache, genes, genes - _BATCH, width, lanes)
    trained._fill()
    chunk = trained._chunks[0]
    tracks = lanes.tracks(cache, trained.runs)
    lowered = epoch.lower(trainer, lanes, chunk.state, chunk.inputs, tracks)
    analysis = lowered.compile().memory_analysis()
    assert analysis is not None
    return round(analysis.temp_size_in_bytes / 1e6)


def _plot(table: pd.DataFrame, path: pathlib.Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    panels = (("runs", "s_a_run"), ("genes", "ms_a_gene"), ("live share", "s_a_run"))
    labels = {"s_a_run": "s a run and epoch", "ms_a_gene": "ms a gene and epoch"}
    for axis, (what, column) in zip(axes, panels, strict=True):
        part = table[table.against == what]
        axis.plot(part.value, part[column], "o-")
        top = 1.15 * part[column].max()
        axis.set(xlabel=what, ylabel=labels[column], xscale="log", ylim=(0, top))
        axis.minorticks_off()
        axis.set_xticks(part.value, [f"{value:g}" for value in part.value])
    figure.savefig(path, dpi=120)
    plt.close(figure)


# -- the whole study -------------------------------------------------------------------------

# Roadmap as published: cells x assays x folds, genes, training share, epochs until early stop.
GENE_STEPS = {"cnn": 660 * 40 * 12_700, "chromoformer": 308 * 10 * 14_200}
MFLOP = {name: REGISTRY[name].STEP_COST.gene_flops / 1e6 for name in GENE_STEPS}
# An early estimate from memory traffic; docs/accelerators.md has what one did.
_H100 = {"cnn": 280_000, "chromoformer": 150_000}


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a part of the study takes on this device."""

    gene_steps_per_s: float
    minutes: float
    tflops: float
    share_of_matmul_peak: float

    @classmethod
    def of(cls, gene_steps_per_s: float, gene_steps: float, mflop: float, peak: float) -> "Cost":
        flops = gene_steps_per_s * mflop
        return cls(
            round(gene_steps_per_s, 1),
            round(gene_steps / gene_steps_per_s / 60, 1),
            round(flops / 1e6, 4),
            round(flops / peak, 3),
        )


def whole_study(rounds: int) -> dict:
    """`grid`, with Chromoformer's pace as the other benchmark measures it."""
    return grid(FLAGS.precision, training_pace(FLAGS.precision, rounds))


def grid(precision: str, chromoformer_pace: float) -> dict:
    """The cost of 660 CNNs (40 epochs) and 308 Chromoformers (10 epochs) on this device.

    Args:
        precision: of matrix products.
        chromoformer_pace: measured gene-steps a second of Chromoformer.
    """
    config = TrainConfig(batch_size=_BATCH, precision=precision)
    trainer, lanes = Trainer(REGISTRY["cnn"](), config), Lanes.default()
    genes = 16 * _BATCH
    cache = TrackCache(OneTrack(genes))
    trained = population(trainer, cache, genes, genes - _BATCH, lanes.count, lanes)
    pace = calibrate(trainer, trained.runs, trained.inputs, cache, lanes)
    peak = matmul_mflops(precision)()
    paces = {"cnn": pace.genes_per_s, "chromoformer": chromoformer_pace}
    costs = {
        name: Cost.of(rate, GENE_STEPS[name], MFLOP[name], peak) for name, rate in paces.items()
    }
    minutes = sum(cost.minutes for cost in costs.values())
    estimate = sum(GENE_STEPS[name] / _H100[name] for name in paces) / 60
    return {
        "what": "grid",
        **{name: dataclasses.asdict(cost) for name, cost in costs.items()},
        "hours": round(minutes / 60, 1),
        "hours_cnn_at_100_epochs": round(costs["cnn"].minutes * 2.5 / 60, 1),
        "precision": precision,
        "device": jax.devices()[0].device_kind,
        "estimate_one_h100_minutes": round(estimate, 1),
        "estimate_is": "gene-steps/s from memory traffic (280k, 150k), not run",
    }
