"""Floor 6. Which bins of which mark a prediction rests on, by models that never saw the gene.

    found = attribution.integrated_gradients(ensemble, store)
    found.promoter.sel(model="E003 H3K27ac").mean("gene")    # a profile along the strand

*Integrated gradients* (Sundararajan, Taly & Yan, ICML 2017) share out the difference between a
prediction and that from no signal at all, among the features that the model reads. *Occlusion* asks
what changes if one bin is emptied. *Rollout* (Abnar & Zuidema, ACL 2020) follows Chromoformer's
attention among a promoter and its regions through all layers. None of them shows a cause.

Axes: `G` genes, `B` genes a batch, `A` assays, `W` the model's finest bins, `N` regions a gene, `L`
positions at a resolution, `J` layers, `H` heads.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from jax import lax
from jaxtyping import Array, Float, Int

from epi2expr_jax.batches import BatchPlan, RegionBatch, TokenLayout
from epi2expr_jax.dataset import load_dataset
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.predict import Ensemble, Member, gene_rows
from epi2expr_jax.resident import Signal
from epi2expr_jax.store import WindowStore
from epi2expr_jax.training import parts_of

_BATCH = 32
_NODES = 16  # of each piece of the path from no signal to all of it
_MOST_PIECES = 64


def integrated_gradients(
    ensemble: Ensemble,
    store: WindowStore,
    genes: Sequence[str] | None = None,
    *,
    tolerance: float = 1e-3,
    progress: Callable[[int], object] = lambda done: None,
) -> xr.Dataset:
    """What every bin of every assay adds to the prediction, compared with no signal at all.

    The path from nothing to the signal is cut finer until the shares add up to the difference of
    the two predictions.

    Args:
        genes: ids; by default every gene that some model never saw.
        tolerance: how far the sum may be off, in units of the target, or of the difference if that
            is larger.
        progress: told how many genes have been done since it was last told.

    Returns:
        Means over the runs of each `model` (cell and assay set) that never saw the gene, in the
        target's units: `promoter [model, gene, assay, bin]` in the model's finest bins along the
        strand (coarser resolutions spread evenly; `bin` is the middle, bp from the TSS), `regions
        [model, gene, assay, region]` for models that read regions, `difference [model, gene]`
        between the two predictions, and `residual`, by how much the shares miss it.
        NaN for assays a model does not read, and genes none of its runs may predict.

    Raises:
        InputError: for unknown genes, or genes that every model saw; for models of several windows
            at once, or masked-mark models.
    """
    if ensemble.masked:
        raise InputError(
            Problem(
                "the run",
                "masked-mark models, whose masks are no signal",
                "models that always read all of their assays",
                "use perturb, or experiments.combinations",
            )
        )
    rows, chosen = _chosen(ensemble, store, genes)
    (member,) = _one_shape(ensemble)
    config = member.model_config
    keys = list(dict.fromkeys((run.cell, run.assays) for run in member.runs))
    assays = list(dict.fromkeys(name for _, names in keys for name in names))
    bins, most = config.window.bins, getattr(config, "contacts", 0)
    shape = len(keys), len(rows)
    total = {
        "promoter": np.zeros((*shape, len(assays), bins)),
        "regions": np.zeros((*shape, len(assays), most)),
        "difference": np.zeros(shape),
        "residual": np.zeros(shape),
    }
    count = np.zeros(shape)
    graph = parts_of(config)[0]
    for k, (cell, names) in enumerate(keys):
        signal, plan = _read(ensemble, store, config, cell, names, rows)
        columns = [assays.index(name) for name in names]
        for r, run in enumerate(member.runs):
            if (run.cell, run.assays) != (cell, names):
                continue
            weights = jax.tree.map(lambda x, r=r: x[r], member.weights)
            unit = member.scales[r].deviation
            for batch in _batches(chosen[r]):
                own = _until_complete(
                    graph, plan, weights, signal, jnp.asarray(rows[batch]), tolerance / unit
                )
                here, first = np.unique(batch, return_index=True)
                promoter, regions, difference, residual = (
                    unit * np.asarray(part)[first] for part in own
                )
                where = k, here[:, None], columns
                total["promoter"][where] += promoter
                total["regions"][(*where, slice(regions.shape[2]))] += regions
                total["difference"][k, here] += difference
                total["residual"][k, here] += residual
                count[k, here] += 1
                progress(len(here))
    count[count == 0] = np.nan
    for k, (_, names) in enumerate(keys):
        unread = [a for a, name in enumerate(assays) if name not in names]
        for name in ("promoter", "regions"):
            total[name][k][:, unread] = np.nan
    means = {
        name: values / count.reshape(shape + (1,) * (values.ndim - 2))
        for name, values in total.items()
    }
    labels = ("model", "gene", "assay")
    middle = (np.arange(bins) + 0.5) * config.window.bin_bp - config.window.window_bp / 2
    return xr.Dataset(
        {
            "promoter": ((*labels, "bin"), means["promoter"]),
            "regions": ((*labels, "region"), means["regions"]),
            "difference": (labels[:2], means["difference"]),
            "residual": (labels[:2], means["residual"]),
        },
        coords={
            "model": [f"{cell} {'+'.join(names)}" for cell, names in keys],
            "gene": store.genes.gene_id.to_numpy()[rows],
            "assay": assays,
            "bin": middle,
        },
        attrs={"units": ensemble.target},
    )


def attention_rollout(
    ensemble: Ensemble, store: WindowStore, genes: Sequence[str] | None = None
) -> xr.DataArray:
    """How much of each promoter's last token comes, by attention, from itself and each region.

    Half of every layer's token is taken to be its own, half what it attends to (mean over heads).

    Returns:
        `[model, gene, resolution, token]`, token 0 the promoter and then the regions, best contact
        first; sums to 1 over tokens, 0 for absent regions. Mean over the runs of a model that never
        saw the gene; NaN where there is none.

    Raises:
        InputError: for models without attention among regions; as `integrated_gradients`.
    """
    (member,) = _one_shape(ensemble)
    config = member.model_config
    if not isinstance(config, ChromoformerConfig) or not config.contacts:
        raise InputError(
            Problem(
                "the run",
                f"{config.NAME} models without regions",
                "chromoformer, trained with contacts",
                "use integrated_gradients",
            )
        )
    rows, chosen = _chosen(ensemble, store, genes)
    keys = list(dict.fromkeys((run.cell, run.assays) for run in member.runs))
    shape = len(keys), len(rows), len(config.resolutions), 1 + config.contacts
    total, count = np.zeros(shape), np.zeros(shape[:2])
    graph = parts_of(config)[0]
    for k, (cell, names) in enumerate(keys):
        signal, plan = _read(ensemble, store, config, cell, names, rows)
        for r, run in enumerate(member.runs):
            if (run.cell, run.assays) != (cell, names):
                continue
            weights = jax.tree.map(lambda x, r=r: x[r], member.weights)
            for batch in _batches(chosen[r]):
                found = np.asarray(_rollout(graph, plan, weights, signal, jnp.asarray(rows[batch])))
                here, first = np.unique(batch, return_index=True)
                total[k, here, :, : found.shape[2]] += found[first]
                count[k, here] += 1
    count[count == 0] = np.nan
    return xr.DataArray(
        total / count[:, :, None, None],
        dims=("model", "gene", "resolution", "token"),
        coords={
            "model": [f"{cell} {'+'.join(names)}" for cell, names in keys],
            "gene": store.genes.gene_id.to_numpy()[rows],
            "resolution": list(config.resolutions),
        },
        name="rollout",
    )


def _chosen(
    ensemble: Ensemble, store: WindowStore, genes: Sequence[str] | None
) -> tuple[Int[np.ndarray, " G"], np.ndarray]:
    """Rows of the genes, and which of them each run never saw `[R G]`."""
    rows = gene_rows(store, genes)
    if genes is None:
        rows = rows[ensemble.wanted(store, rows, False).any(0)]
    else:
        ensemble.require_unseen(store.genes.iloc[rows])
    return rows, ensemble.wanted(store, rows, False)


def _one_shape(ensemble: Ensemble) -> tuple[Member]:
    """The only member.

    Raises:
        InputError: for models of different shapes, whose bins or regions differ.
    """
    if len(ensemble.members) != 1:
        raise InputError(
            Problem(
                "the run",
                f"models of {len(ensemble.members)} shapes",
                "models of one shape",
                "take some of them (Ensemble.only)",
            )
        )
    return (ensemble.members[0],)


def _read(
    ensemble: Ensemble,
    store: WindowStore,
    config: Any,
    cell: str,
    assays: Sequence[str],
    rows: Int[np.ndarray, " G"],
) -> tuple[Signal, BatchPlan]:
    """A cell's signal, and batches that hold any of the genes."""
    signal = load_dataset(store, config, [cell], assays, ensemble.input_config).signal(cell, assays)
    contacts = signal.contacts()
    slots = 0 if contacts is None else int(np.asarray(contacts)[rows].max())
    return signal, BatchPlan(_BATCH, (slots,) * _BATCH if slots else ())


def _batches(chosen: np.ndarray) -> list[Int[np.ndarray, " B"]]:
    """The chosen genes in batches of one size; the last is filled with its first gene."""
    which = np.flatnonzero(chosen)
    batches = [which[i : i + _BATCH] for i in range(0, len(which), _BATCH)]
    return [np.pad(b, (0, _BATCH - len(b)), constant_values=b[0]) for b in batches]


def _until_complete(
    graph: Any, plan: BatchPlan, weights: Any, signal: Signal, index: Array, tolerance: float
) -> tuple[Array, ...]:
    pieces = 1
    while True:
        own = _integrate(graph, plan, weights, signal, index, jnp.int32(pieces))
        difference, residual = np.asarray(own[2]), np.asarray(own[3])
        enough = np.abs(residual) <= tolerance * np.maximum(1, np.abs(difference))
        if enough.all() or pieces >= _MOST_PIECES:
            return own
        pieces *= 2


def _features(x: Any) -> Any:
    return (x.promoter, x.region) if isinstance(x, RegionBatch) else x


def _with(x: Any, features: Any) -> Any:
    if not isinstance(x, RegionBatch):
        return features
    return dataclasses.replace(x, promoter=features[0], region=features[1])


@functools.partial(jax.jit, static_argnums=(0, 1))
def _integrate(
    graph: Any, plan: BatchPlan, weights: Any, signal: Signal, index: Array, pieces: Array
) -> tuple[Array, ...]:
    """Shares of promoter bins `[B A W]` and regions `[B A N]`, the difference, and what is missed.

    Gauss-Legendre nodes in each of so many pieces of the straight path.
    """
    model = nnx.merge(graph, weights["params"], weights["stats"])
    mask = jnp.ones(plan.size, bool)
    x = signal.gather(index, plan)
    features = _features(x)

    def output(share: Any) -> Float[Array, " B"]:
        scaled = jax.tree.map(lambda part: share * part, features)
        return model(_with(x, scaled), mask=mask, key=None)

    def gradient(share: Any) -> Any:
        scaled = jax.tree.map(lambda part: share * part, features)
        return jax.grad(lambda f: model(_with(x, f), mask=mask, key=None).sum())(scaled)

    nodes, weight = np.polynomial.legendre.leggauss(_NODES)
    nodes, weight = jnp.asarray((nodes + 1) / 2), jnp.asarray(weight / 2)

    def add(step: Array, total: Any) -> Any:
        piece, node = step // _NODES, step % _NODES
        share = ((piece + nodes[node]) / pieces).astype(jnp.float32)
        factor = (weight[node] / pieces).astype(jnp.float32)
        return jax.tree.map(lambda a, b: a + factor * b, total, gradient(share))

    zero = jax.tree.map(jnp.zeros_like, features)
    total = lax.fori_loop(0, pieces * _NODES, add, zero)
    shares = jax.tree.map(lambda a, b: a * b, features, total)
    difference = output(1.0) - output(0.0)
    if not isinstance(x, RegionBatch):
        promoter = jnp.moveaxis(shares, 1, 2)
        regions = jnp.zeros((*promoter.shape[:2], 0))
    else:
        promoter = _on_finest(shares[0])
        layout = TokenLayout.of(x.slots)
        regions = jnp.zeros((*promoter.shape[:2], 0))
        if layout.prefix:
            summed = jnp.stack([part.sum(-1) for part in shares[1]]).sum(0)
            regions = jnp.moveaxis(layout.regions_by_gene(summed), 1, 2)
    residual = promoter.sum((1, 2)) + regions.sum((1, 2)) - difference
    return promoter, regions, difference, residual


def _on_finest(shares: Sequence[Array]) -> Float[Array, "B A L"]:
    """Shares of all resolutions in the bins of the finest, coarse bins spread evenly."""
    finest = max(part.shape[-1] for part in shares)
    total = jnp.zeros((*shares[0].shape[:2], finest))
    for part in shares:
        factor = finest // part.shape[-1]
        total = total + jnp.repeat(part, factor, axis=2) / factor
    return total


@functools.partial(jax.jit, static_argnums=(0, 1))
def _rollout(
    graph: Any, plan: BatchPlan, weights: Any, signal: Signal, index: Array
) -> Float[Array, "B V T"]:
    model = nnx.merge(graph, weights["params"], weights["stats"])
    attended = model.attention(signal.gather(index, plan)).regulation
    rows = []
    for layers in attended:  # [B J H 1+N 1+N]
        mean = layers.mean(2)
        own = jnp.eye(mean.shape[-1])[None]
        flow = jnp.broadcast_to(own, (mean.shape[0], *own.shape[1:]))
        for layer in range(mean.shape[1]):
            flow = jnp.einsum("bij,bjk->bik", 0.5 * mean[:, layer] + 0.5 * own, flow)
        rows.append(flow[:, 0])
    return jnp.stack(rows, 1)
