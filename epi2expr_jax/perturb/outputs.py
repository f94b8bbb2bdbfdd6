"""Outputs of models under edits, on the device; what an edit leaves alone is not redone.

An edit that alters some of a gene's regions and not its window leaves Chromoformer's promoter and
other regions as they were until they meet: their tokens are computed once a gene, and only the
altered regions are read again (`predict_rereading`).

Axes as in `edited_signal`; `R` runs.
"""

import functools
from typing import Any, cast

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import over_batches
from epi2expr_jax.inputs.masking import masked
from epi2expr_jax.models.config import ModelConfig
from epi2expr_jax.models.region_batch import RegionBatch
from epi2expr_jax.models.weights import parts_of
from epi2expr_jax.perturb.edited_signal import EditedSignal
from epi2expr_jax.training.one_run import predict_genes

BATCH = 64  # queries


def extent(values: Float[Array, "*rows L"]) -> Float[Array, "*rows 3"]:
    """Lowest, highest and mean value."""
    return jnp.stack([values.min(-1), values.max(-1), values.mean(-1)], -1)


@functools.partial(jax.jit, static_argnums=1)
def survey(signal: EditedSignal, slots: int) -> tuple[Bool[Array, "Q M 2"], Float[Array, "Q A 3"]]:
    """Of each query whether its place lies in the window (0) and each of up to `slots` regions, and
    whether signal changes there; and the `extent` of its window."""
    plan = BatchPlan(BATCH, (slots,) * BATCH if slots else ())

    def of_batch(queries: Int[Array, " B"]) -> tuple[Array, Array]:
        effects, window = signal.effects(queries, plan)
        return effects, extent(window)

    queries = jnp.arange(signal.queries)
    # Past the end the last is looked at again.
    queries = jnp.pad(queries, (0, -len(queries) % BATCH), mode="edge").reshape(-1, BATCH)
    parts = jax.lax.map(of_batch, queries)
    effects, seen = (part.reshape(-1, *part.shape[2:])[: signal.queries] for part in parts)
    return effects, seen


# Compiled once for a model, plan and size of block.
@functools.partial(jax.jit, static_argnums=(0, 1))
def predict(
    config: ModelConfig,
    plan: BatchPlan,
    weights: dict[str, Any],
    wanted: Bool[Array, "R Q"],
    signal: EditedSignal,
    present: Bool[Array, " A"] | None,
) -> Float[Array, "R Q"]:
    """Every run's outputs for its wanted queries, 0 for the others.

    Args:
        present: of masked-mark models, which assays are shown.
    """

    def one(own):
        weights, wanted = own
        shown = None
        if present is not None:
            shown = jnp.broadcast_to(present, (wanted.size, present.size))
        return predict_genes(
            parts_of(config)[0], weights["params"], weights["stats"], signal, wanted, plan, shown
        )

    return jax.lax.map(one, (weights, wanted))


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def predict_rereading(
    config: ModelConfig,
    plan: BatchPlan,
    most: int,
    weights: dict[str, Any],
    wanted: Bool[Array, "R Q"],
    signal: EditedSignal,
    present: Bool[Array, " A"] | None,
    altered: Bool[Array, "Q N"],
) -> Float[Array, "R Q"]:
    """`predict` for edits that alter no window, and at most so many regions of a gene.

    Args:
        altered: which regions each query alters.
    """
    graph, slots = parts_of(config)[0], max(plan.slots)
    edits = signal.edits.assay.shape[0]

    def shown(x: RegionBatch) -> RegionBatch:
        if present is None:
            return x
        shown = masked(x, jnp.broadcast_to(present, (plan.size, present.size)))
        return cast(RegionBatch, shown)

    def one(own):
        weights, wanted = own
        read = functools.partial(over_batches, graph, weights["params"], weights["stats"])

        def tokens(model, x, index, mask):
            return jnp.moveaxis(model.tokens(shown(x)), 0, -1)

        genes = wanted.reshape(-1, edits).any(1)
        empty = jnp.zeros((len(config.resolutions), 1 + slots, config.token_width, genes.size))
        known = read(signal.unedited(), genes, plan, tokens, empty)

        def again(model, x, index, mask):
            here = altered[index, :slots]
            slot = jnp.argsort(~here, axis=1)[:, :most]  # the altered ones first
            here = jnp.take_along_axis(here, slot, axis=1)
            of_gene = jnp.moveaxis(known[..., index // edits], -1, 0)
            return model.reread(shown(x), of_gene, slot, here)

        return read(signal, wanted, plan, again, jnp.zeros(wanted.shape))

    return jax.lax.map(one, (weights, wanted))
