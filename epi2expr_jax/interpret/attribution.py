"""Which bins of which mark a prediction rests on, by models that never saw the gene.

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
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, Shaped

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import Signal
from epi2expr_jax.interpret.gradients import integrate
from epi2expr_jax.models.weights import parts_of
from epi2expr_jax.perturb.effects import overlap_of
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.store.window_store import WindowStore

_BATCH = 32


def integrated_gradients(
    ensemble: Ensemble,
    store: WindowStore,
    genes: str | Sequence[str] | None = None,
    *,
    tolerance: float = 1e-3,
    progress: Callable[[int], object] = lambda done: None,
) -> xr.Dataset:
    """What every bin of every assay adds to the prediction, compared with no signal at all.

    The path from nothing to the signal is cut finer until the shares add up to the difference of
    the two predictions.

    Args:
        genes: ids or symbols; by default every gene that some model never saw.
        tolerance: how far the sum may be off, in units of the target, or of the difference if that
            is larger.
        progress: told how many genes have been done since it was last told.

    Returns:
        Means over the runs of each `model` (cell and assay set) that never saw the gene, in the
        target's units: `promoter [model, gene, assay, bin]` in the model's finest bins along the
        strand (coarser resolutions spread evenly; `bin` is the middle, bp from the TSS), `regions
        [model, gene, assay, region]` for models that read regions, `difference [model, gene]`
        between the two predictions, and `residual`, by how much the shares miss it; and how models
        differ (`_of_runs`).
        NaN for assays a model does not read, and genes none of its runs may predict.

    Raises:
        InputError: for unknown genes, or genes that every model saw; for models of several windows
            at once, or masked-mark models.
    """
    if ensemble.masked:
        raise InputError(
            "the run",
            "masked-mark models, whose masks are not signal",
            "models that always read all of their assays",
            "use perturb, or experiments.combinations",
        )
    rows, chosen = ensemble.chosen(store, genes)
    (member,) = _one_shape(ensemble)
    config = member.model_config
    keys, assays = list(member.by_tracks()), _assays(member)
    bins, most = config.window.bins, config.contacts
    shape = len(keys), len(rows)
    total = {
        "promoter": np.zeros((*shape, len(assays), bins)),
        "regions": np.zeros((*shape, len(assays), most)),
        "difference": np.zeros(shape),
        "residual": np.zeros(shape),
    }
    count = np.zeros(shape)
    of_run = np.zeros((len(member.runs), len(assays), bins))
    graph = parts_of(config)[0]
    for work in _work(ensemble, member, store, rows, chosen):
        unit = member.scales[work.run].deviation
        own = integrate(graph, work.plan, work.weights, work.signal, work.index, tolerance / unit)
        promoter, regions, difference, residual = (unit * work.unpadded(part) for part in own)
        where = work.key, work.genes[:, None], [assays.index(name) for name in work.assays]
        total["promoter"][where] += promoter
        of_run[work.run, where[-1]] += promoter.sum(axis=0)
        total["regions"][(*where, slice(regions.shape[2]))] += regions
        total["difference"][work.key, work.genes] += difference
        total["residual"][work.key, work.genes] += residual
        count[work.key, work.genes] += 1
        progress(len(work.genes))
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
    dims = {"promoter": (*labels, "bin"), "regions": (*labels, "region")}
    of_run /= np.maximum(1, chosen.sum(axis=1))[:, None, None]
    return xr.Dataset(
        {name: (dims.get(name, labels[:2]), values) for name, values in means.items()}
        | _of_runs(ensemble, store, of_run, chosen),
        coords={
            "model": _models(member),
            "gene": store.genes.gene_id.to_numpy()[rows],
            "assay": assays,
            "bin": middle,
        },
        attrs={"units": ensemble.target, "train_share": _share(ensemble)},
    )


def occlusion(
    ensemble: Ensemble,
    store: WindowStore,
    genes: str | Sequence[str] | None = None,
    *,
    bp: int = 0,
    progress: Callable[[int], object] = lambda done: None,
) -> xr.Dataset:
    """What the prediction loses if one stretch of one assay is emptied, and nothing else.

    Args:
        genes: as for `integrated_gradients`.
        bp: width of a stretch; 0: the model's finest bins.
        progress: told how many edited genes have been predicted since it was last told.

    Returns:
        `promoter [model, gene, assay, bin]`, and `regions [model, gene, assay, region]`: each
        region emptied whole, 0 where the gene has none. In log2(RPKM + 1), before less after; laid
        out and averaged as `integrated_gradients` does.

    Raises:
        InputError: as `integrated_gradients`; for a width that does not divide the window.
    """
    (member,) = _one_shape(ensemble)
    window, most = member.model_config.window, member.model_config.contacts
    bp = bp or window.bin_bp
    if bp < 1 or window.window_bp % (2 * bp):
        raise InputError(
            "occlusion",
            f"stretches of {bp} bp",
            f"a width that divides half the window, {window.window_bp // 2} bp",
            f"{window.bin_bp} is the model's own bin",
        )
    half = window.window_bp // 2
    edges = np.arange(-half, half, bp)
    stretches = [perturb.span(int(edge), int(edge) + bp) for edge in edges]
    assays, models = _assays(member), _models(member)
    rows, chosen = ensemble.chosen(store, genes)
    lost = np.full((len(models), len(rows), len(assays), len(edges) + most), np.nan)
    of_run = np.zeros((len(member.runs), len(assays), len(edges)))
    number_of = {run.run_id: number for number, run in enumerate(member.runs)}
    ids = store.genes.gene_id.to_numpy()[rows].tolist()
    for a, assay in enumerate(assays):
        # Bound early: the next turn's assay is another.
        readers = ensemble.select(lambda run, assay=assay: assay in run.assays)
        have = 0
        if most:
            cells = {run.cell for run in readers.runs}
            number = [store.regions(c).by_gene(len(store.genes), most)[0][rows] for c in cells]
            have = int((np.stack(number) >= 0).sum(-1).max())
        places = [*stretches, *(perturb.pcre(rank) for rank in range(have))]
        edits = [perturb.scale(assay, place, 0) for place in places]
        runs = perturb.run(readers, store, edits, ids, progress=progress)
        at = [number_of[name] for name in runs.run.to_numpy()]
        mean = runs.effect[..., : len(edges)].mean("gene").fillna(0)
        of_run[at, a] = -mean.to_numpy()
        found = perturb.summarise(runs)
        for name, effect in zip(found.model.to_numpy(), found.effect.to_numpy(), strict=True):
            at = models.index(name)
            lost[at, :, a, : len(places)] = -effect
            lost[at, :, a, len(places) :] = np.where(np.isnan(effect[:, :1]), np.nan, 0)
    labels = ("model", "gene", "assay")
    return xr.Dataset(
        {
            "promoter": ((*labels, "bin"), lost[..., : len(edges)]),
            "regions": ((*labels, "region"), lost[..., len(edges) :]),
            **_of_runs(ensemble, store, of_run, chosen),
        },
        coords={"model": models, "gene": ids, "assay": assays, "bin": edges + bp / 2},
        attrs={"units": ensemble.units, "train_share": _share(ensemble)},
    )


def attention_rollout(
    ensemble: Ensemble, store: WindowStore, genes: str | Sequence[str] | None = None
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
    if not (config.contacts and config.token_width):
        raise InputError(
            "the run",
            f"{config.NAME} models without regions, or without attention among them",
            "chromoformer, trained with contacts",
            "use integrated_gradients",
        )
    rows, chosen = ensemble.chosen(store, genes)
    shape = len(_models(member)), len(rows), len(config.resolutions), 1 + config.contacts
    total, count = np.zeros(shape), np.zeros(shape[:2])
    graph = parts_of(config)[0]
    for work in _work(ensemble, member, store, rows, chosen):
        found = work.unpadded(_rollout(graph, work.plan, work.weights, work.signal, work.index))
        total[work.key, work.genes, :, : found.shape[2]] += found
        count[work.key, work.genes] += 1
    count[count == 0] = np.nan
    return xr.DataArray(
        total / count[:, :, None, None],
        dims=("model", "gene", "resolution", "token"),
        coords={
            "model": _models(member),
            "gene": store.genes.gene_id.to_numpy()[rows],
            "resolution": list(config.resolutions),
        },
        name="rollout",
    )


def _share(ensemble: Ensemble) -> float:
    return ensemble.card.get("request", {}).get("train_share", 1.0)


def _of_runs(
    ensemble: Ensemble,
    store: WindowStore,
    of_run: Float[np.ndarray, "R A W"],
    predicted: Bool[np.ndarray, "R G"],
) -> dict[str, xr.DataArray]:
    """What tells how much models differ: `of_run [run assay bin]`, each run's mean over the genes
    it explains; `explained [run gene]`; and `overlap` of the folds (see `splits.overlap`)."""
    runs = ensemble.runs
    axes = {
        "run": [run.run_id for run in runs],
        "fold": ("run", [run.fold for run in runs]),
        "of_model": ("run", [f"{run.cell} {run.label}" for run in runs]),
    }
    return {
        "of_run": xr.DataArray(of_run, axes, ("run", "assay", "bin")),
        "explained": xr.DataArray(predicted, axes, ("run", "gene")),
        "overlap": overlap_of(ensemble, store),
    }


def _one_shape(ensemble: Ensemble) -> tuple[Member]:
    """The only member.

    Raises:
        InputError: for models of different shapes, whose bins or regions differ.
    """
    if len(ensemble.members) != 1:
        raise InputError(
            "the run",
            f"models of {len(ensemble.members)} shapes",
            "models of one shape",
            "choose with --assays, such as --assays=each (in Python: Ensemble.only)",
        )
    return (ensemble.members[0],)


def _models(member: Member) -> list[str]:
    """Names of the cells and assay sets, in the order of `by_tracks`."""
    return [f"{cell} {'+'.join(names)}" for cell, names in member.by_tracks()]


def _assays(member: Member) -> list[str]:
    """Every assay that some run reads, once."""
    return list(dict.fromkeys(name for run in member.runs for name in run.assays))


@dataclasses.dataclass(frozen=True)
class _Batch:
    """Some genes that one run never saw, and what it needs to predict them.

    Attributes:
        run: its number.
        key: the number of its cell and assay set.
        genes: which of the genes asked for.
        index: `[B]` their rows in the store; filled up with the first.
    """

    run: int
    key: int
    assays: tuple[str, ...]
    weights: dict[str, Any]
    signal: Signal
    plan: BatchPlan
    genes: Int[np.ndarray, " g"]
    index: Int[Array, " B"]

    def unpadded(self, values: Shaped[Array, "B *rest"]) -> Shaped[np.ndarray, "g *rest"]:
        return np.asarray(values)[: len(self.genes)]


def _work(
    ensemble: Ensemble,
    member: Member,
    store: WindowStore,
    rows: Int[np.ndarray, " G"],
    chosen: Bool[np.ndarray, "R G"],
) -> Iterator[_Batch]:
    """Every run's chosen genes, in batches of one shape for runs that read the same tracks."""
    for key, ((cell, assays), runs) in enumerate(member.by_tracks().items()):
        dataset = ensemble.dataset(store, member.model_config, [cell], assays)
        signal = dataset.signal(cell, assays)
        n_contacts = signal.n_contacts()
        slots = 0 if n_contacts is None else int(np.asarray(n_contacts)[rows].max())
        plan = BatchPlan(_BATCH, (slots,) * _BATCH if slots else ())
        for run in runs:
            weights = jax.tree.map(lambda x, run=run: x[run], member.weights)
            which = np.flatnonzero(chosen[run])
            for genes in np.split(which, range(_BATCH, len(which), _BATCH)):
                if len(genes):
                    filled = np.resize(genes, _BATCH)
                    filled[len(genes) :] = genes[0]
                    index = jnp.asarray(rows[filled])
                    yield _Batch(run, key, assays, weights, signal, plan, genes, index)


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
