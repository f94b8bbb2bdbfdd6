"""Predict with many runs, a chunk at a time, each run only for the genes asked of it."""

import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool

from epi2expr_jax.errors import InputError, nearest
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models.config import ModelConfig
from epi2expr_jax.models.weights import parts_of
from epi2expr_jax.training.lanes import Lanes
from epi2expr_jax.training.one_run import predict_genes
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.targets import LABEL, TargetScale
from epi2expr_jax.units import PROBABILITY, log2_of, unit_words

# Genes a batch, measured on two cores: regions are read fastest while they stay in cache.
_WINDOW_BATCH, _REGION_BATCH = 256, 64


# What outputs may be given as: log2(expression + 1); expression; the target's own scale.
SCALES: Mapping[str, Callable[[TargetScale, np.ndarray], np.ndarray]] = {
    "log2": TargetScale.raw_to_log2,
    "linear": TargetScale.raw_to_linear,
    "raw": lambda _, raw: raw,
}


def on_scale(target: TargetScale, standardised: np.ndarray, scale: str) -> np.ndarray:
    """A model's outputs, of any shape, on one of `SCALES`."""
    return SCALES[scale](target, target.unstandardise(standardised.astype(np.float64)))


def unit_on(scale: str, target: str, unit: str) -> str:
    """What outputs are on a scale, in words.

    Args:
        target: what was trained on, see `training.targets`.
        unit: of expression.

    Raises:
        InputError: for an unknown scale, or one that a classifier does not have.
    """
    words: dict[str, str] = {"log2": log2_of(unit), "linear": unit_words(unit), "raw": target}
    if target == LABEL:
        words = dict.fromkeys(("log2", "raw"), PROBABILITY)
    where, remedy = f"scale={scale!r}", nearest(scale, words) or "choose one of these"
    if scale not in words:
        meant = ", ".join(f"{name} ({what})" for name, what in words.items())
        raise InputError(where, f"no scale of {target} models", meant, remedy)
    return words[scale]


def predict_runs(
    model_config: ModelConfig,
    weights: dict[str, Any],
    runs: Sequence[Run],
    cache: TrackCache,
    wanted: Bool[np.ndarray, "R G"],
    present: Bool[np.ndarray, "R A"] | None = None,
) -> np.ndarray:
    """Standardised predictions `[R G]` of weights stacked on `R`, for the genes `wanted [R G]`.

    Args:
        present: `[R A]` of masked-mark models, which of its assays each run predicts from.
    """
    lanes, graph = Lanes.default(), parts_of(model_config)[0]
    plan = plan_of(model_config, runs, cache, wanted)
    out = np.zeros(wanted.shape, np.float32)
    own = (weights["params"], weights["stats"], wanted, present)
    for rows, stacked, tracks in chunks_of(own, runs, cache, lanes):
        predicted = np.asarray(_predict(graph, plan, lanes, stacked, tracks))
        out[rows] = predicted[: len(rows)]
    return out


def chunks_of(
    own: Any, runs: Sequence[Run], cache: TrackCache, lanes: Lanes
) -> Iterator[tuple[np.ndarray, Any, tuple[tuple, ...]]]:
    """The chunks that runs are computed in: their rows, their part of `own`, their tracks.

    Args:
        own: arrays stacked on `R`. Idle lanes repeat the last run.
    """
    for first in range(0, len(runs), lanes.count):
        rows = np.arange(first, min(first + lanes.count, len(runs)))
        taken = np.minimum(np.arange(first, first + lanes.count), len(runs) - 1)
        stacked = lanes.place(jax.tree.map(lambda x, taken=taken: np.asarray(x)[taken], own))
        yield rows, stacked, lanes.tracks(cache, [runs[i] for i in taken])


def plan_of(
    model_config: ModelConfig,
    runs: Sequence[Run],
    cache: TrackCache,
    wanted: Bool[np.ndarray, "R G"],
) -> BatchPlan:
    """One batch plan that covers the genes `wanted [R G]` of every run."""
    most = model_config.contacts
    if not most:
        return BatchPlan(_WINDOW_BATCH)
    parts = []
    for run, want in zip(runs, wanted, strict=True):
        regions = cache.data.regions(run.cell)
        assert regions is not None
        parts.append((regions.region >= 0).sum(-1)[want])
    return BatchPlan.of(_REGION_BATCH, most, parts, balanced=True)


# Compiled once for a model, plan and lanes, however many runs there are.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _predict(
    graph: Any, plan: BatchPlan, lanes: Lanes, stacked: Any, tracks: tuple[tuple, ...]
) -> Array:
    def one(params, stats, wanted, present, signal):
        if present is not None:
            present = jnp.broadcast_to(present, (wanted.size, present.size))
        return predict_genes(graph, params, stats, signal, wanted, plan, present)

    return lanes.map(one, stacked, tracks)
