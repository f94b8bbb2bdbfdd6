"""Floor 6. Marks altered in silico: what would expression be if this mark changed here?

from epi2expr_jax import perturb
from epi2expr_jax.predict import load
ensemble = load("RUN")
edits = [perturb.scale("H3K27ac", perturb.promoter(), factor) for factor in (0, 0.5, 2)]
effects = perturb.run(ensemble, ensemble.open_store(), edits)
perturb.summarise(effects).effect.mean("gene")     # log2(RPKM + 1), by model and edit

An edit is data: what is done (`scale`, `set_to`, `shift`, `swap_with`, `remove_peak`) to which
assay at which place (`promoter`, `distal_bins`, `pcre`, `interval`, …). Several at once make one
edit if they stand in a tuple. Raw signal is altered in the store's own bins; an edit reaches the
promoter window and every region of the gene that overlaps the place. Models predict from the
altered signal; nothing says that a cell would do the same.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import xarray as xr
from jaxtyping import Array, Bool, Float, Int
from scipy import stats

from epi2expr_jax.batches import BatchPlan
from epi2expr_jax.dataset import load_dataset
from epi2expr_jax.edited import EditedSignal, EditTable, layout_of, read_raw
from epi2expr_jax.errors import InputError, Problem, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.places import (
    Place,
    Scene,
    distal_bins,
    interval,
    intervals,
    original_distal,
    original_promoter,
    pcre,
    promoter,
    span,
)
from epi2expr_jax.predict import Ensemble, Member, gene_rows, on_scale
from epi2expr_jax.resident import RegionTrack
from epi2expr_jax.store import WindowStore
from epi2expr_jax.training import parts_of, predict_genes

__all__ = [
    "Edit",
    "Place",
    "distal_bins",
    "interval",
    "intervals",
    "original_distal",
    "original_promoter",
    "pcre",
    "promoter",
    "remove_peak",
    "run",
    "scale",
    "set_to",
    "shift",
    "span",
    "summarise",
    "swap_with",
    "to_frame",
]

SPACES = ("raw", "log")
LEAST_MODELS = 3  # that an interval can rest on
_BATCH = 64
_QUERIES = 1 << 16  # on a device at a time


@dataclasses.dataclass(frozen=True)
class Edit:
    """One alteration of one assay at one place: `x' = times x + plus + mix y`.

    Attributes:
        name: for labels, such as "H3K27ac promoter x0.5".
        factor: of `scale`; NaN for other edits.
        source: what `y` is: "", or "shift", "background" or "swap".
        shift_bp: how far signal moves along the strand.
        from_assay, from_cell: where swapped signal comes from; empty: the same.
        space: `raw` signal, or the `log` features that the model reads.
    """

    assay: str
    place: Place
    name: str
    times: float = 1.0
    plus: float = 0.0
    mix: float = 0.0
    factor: float = float("nan")
    source: str = ""
    shift_bp: int = 0
    from_assay: str = ""
    from_cell: str = ""
    space: str = "raw"

    def __post_init__(self):
        bad = [v for v in (self.times, self.plus, self.mix) if not np.isfinite(v) or v < 0]
        problems = [
            Problem(self.name, f"{value:g}", "a finite number, 0 or more", "correct it")
            for value in bad
        ]
        if self.space not in SPACES:
            problems.append(
                Problem(self.name, f"space {self.space}", " or ".join(SPACES), "choose one")
            )
        if problems:
            raise InputError(problems)


def scale(assay: str, place: Place, factor: int | float, space: str = "raw") -> Edit:
    """Multiply the signal: 0 removes it, 2 doubles it.

    Raises:
        InputError: for a factor that is negative or not finite; so do the others.
    """
    name = f"{assay} {place.name} x{factor:g}"
    return Edit(assay, place, name, times=float(factor), factor=float(factor), space=space)


def set_to(assay: str, place: Place, value: int | float, space: str = "raw") -> Edit:
    """Put a level in place of the signal: in the tracks' unit, or that of the features (`log`)."""
    name = f"{assay} {place.name} = {value:g}"
    return Edit(assay, place, name, times=0.0, plus=float(value), space=space)


def shift(assay: str, place: Place, bp: int, space: str = "raw") -> Edit:
    """Put there the signal from `bp` upstream: it moves downstream, or upstream if negative.

    From beyond the window, or the region, comes 0.
    """
    name = f"{assay} {place.name} shifted {bp:+d} bp"
    return Edit(
        assay, place, name, times=0.0, mix=1.0, source="shift", shift_bp=int(bp), space=space
    )


def swap_with(
    assay: str, place: Place, *, other: str = "", cell: str = "", space: str = "raw"
) -> Edit:
    """Put there the signal of another assay (`other`), of another cell, or of both."""
    if not (other or cell):
        raise InputError(
            Problem(
                f"swap_with({assay!r})", "nothing to swap with", "an assay or a cell", "name one"
            )
        )
    name = f"{assay} {place.name} from {' '.join(filter(None, (cell, other)))}"
    return Edit(
        assay, place, name, times=0.0, mix=1.0, source="swap", from_assay=other, from_cell=cell,
        space=space,
    )  # fmt: skip


def remove_peak(assay: str, place: Place, space: str = "raw") -> Edit:
    """Cut the signal down to its background: the median of the window, or of the region."""
    name = f"{assay} {place.name} without peak"
    return Edit(assay, place, name, times=0.0, mix=1.0, source="background", space=space)


def run(
    ensemble: Ensemble,
    store: WindowStore,
    edits: Sequence[Edit | tuple[Edit, ...]],
    genes: Sequence[str] | None = None,
    *,
    include_seen: bool = False,
    progress: Callable[[int], object] = lambda done: None,
) -> xr.Dataset:
    """Predicted expression before and after every edit, by the models that never saw the gene.

    Args:
        edits: each an `Edit`, or a tuple of edits made one after the other. What they mix in is
            the unedited signal.
        genes: ids; by default every gene of the store that some model never saw.
        include_seen: also by models that saw the gene in training or validation.
        progress: told how many edited genes have been predicted since it was last told.

    Returns:
        Of each run that reads the edited assays, in log2(RPKM + 1): `before [run, gene]`,
        `after [run, gene, edit]` and their difference `effect`, NaN where the run saw the gene;
        `changed`, false where the edit left the gene's input as it was (the effect is then 0);
        and `outside`, true where the edited signal lies outside what the run was trained on (the
        lowest, highest or mean value of an edited assay in a window).
        `summarise` averages over runs.

    Raises:
        InputError: for unknown assays, cells or genes; genes that every model saw; edits of both
            spaces; and naming every edit that reaches none of the genes.
    """
    steps = [edit if isinstance(edit, tuple) else (edit,) for edit in edits]
    ensemble = _readers(ensemble, store, steps)
    rows = gene_rows(store, genes)
    if genes is None:
        rows = rows[ensemble.wanted(store, rows, include_seen).any(0)]
    elif not include_seen:
        ensemble.require_unseen(store.genes.iloc[rows])
    wanted = ensemble.wanted(store, rows, include_seen)
    parts: list[dict[str, np.ndarray]] = []
    first = 0
    for member in ensemble.members:
        place = {run: first + i for i, run in enumerate(member.runs)}
        for here in _groups(member):
            own = wanted[[place[run] for run in here.runs]]
            group = _Group(ensemble, here, store, steps, rows, own)
            parts.append(
                {"run": np.array([place[run] for run in here.runs]), **group.run(progress)}
            )
        first += len(member.runs)
    order = np.argsort(np.concatenate([part.pop("run") for part in parts]))
    out = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
    labels = [" & ".join(edit.name for edit in step) for step in steps]
    nowhere = [label for e, label in enumerate(labels) if not out["reached"][..., e].any()]
    if nowhere:
        raise InputError(
            Problem(
                "edits",
                f"{len(nowhere)} that reach none of the genes ({listing(nowhere)})",
                "places in the genes' windows or regions",
                "check the places, their assembly, and the genes",
            )
        )
    runs, table = ensemble.runs, store.genes.iloc[rows]
    dims = ("run", "gene", "edit")
    return xr.Dataset(
        {
            "before": (dims[:2], out["before"]),
            "after": (dims, out["after"]),
            "effect": (dims, out["after"] - out["before"][..., None]),
            "changed": (dims, out["changed"]),
            "outside": (dims, out["outside"]),
        },
        coords={
            "run": [run.run_id for run in runs],
            "cell": ("run", [run.cell for run in runs]),
            "assays": ("run", [run.label for run in runs]),
            "fold": ("run", [run.fold for run in runs]),
            "seed": ("run", [run.seed for run in runs]),
            "gene": table.gene_id.to_numpy(),
            "chrom": ("gene", table.chrom.to_numpy()),
            "edit": labels,
            "place": ("edit", [step[0].place.name for step in steps]),
            "distance": ("edit", [step[0].place.distance for step in steps]),
            "factor": ("edit", [step[0].factor for step in steps]),
        },
        attrs={"units": "log2(RPKM + 1)", "space": steps[0][0].space},
    )


def summarise(effects: xr.Dataset, level: float = 0.95) -> xr.Dataset:
    """Means over the runs of a model: those of one cell and assay set, over folds and seeds.

    Returns:
        `before`, `after` and `effect` by `model` ("E003 H3K27ac"), the interval `low` to `high`
        of the mean effect over models (Student's t), NaN where fewer than `LEAST_MODELS` models
        predict the gene, and `models [model, gene]`, how many do; `changed` and `outside` if in
        any of them. It tells how far trainings differ, not how far the model is from the cell.
    """
    names = pd.MultiIndex.from_arrays([effects.cell.to_numpy(), effects.assays.to_numpy()])
    parts: list[xr.Dataset] = []
    for cell, assays in dict.fromkeys(names):
        own = effects.isel(run=np.flatnonzero(names == (cell, assays)))
        count = own.before.notnull().sum("run")
        known = count > 0
        mean = own[["before", "after", "effect"]].sum("run") / count.where(known)
        spread = ((own.effect - mean.effect) ** 2).sum("run") / (count - 1).where(count > 1)
        enough = count.where(count >= LEAST_MODELS)
        quantile = enough.copy(data=stats.t.isf((1 - level) / 2, enough - 1))
        reach = np.sqrt(spread / enough) * quantile
        mean["low"], mean["high"] = mean.effect - reach, mean.effect + reach
        mean["models"] = count
        mean["changed"], mean["outside"] = own.changed.any("run"), own.outside.any("run")
        parts.append(mean.assign_coords(model=f"{cell} {assays}", cell=cell, assays=assays))
    return xr.concat(parts, "model")


def to_frame(summary: xr.Dataset) -> pd.DataFrame:
    """`summarise`'s result as a table, a row for each model, gene and edit that was predicted."""
    table = summary.to_dataframe().reset_index().drop(columns="model", errors="ignore")
    return table[table.after.notna()].reset_index(drop=True)


def _readers(ensemble: Ensemble, store: WindowStore, steps: Sequence[tuple[Edit, ...]]) -> Ensemble:
    """The runs that read every edited assay; all problems of the edits at once."""
    every = [edit for step in steps for edit in step]
    named = list(dict.fromkeys(edit.assay for edit in every))
    problems = []
    if not every:
        problems.append(Problem("edits", "none", "at least one", "give one"))
    if len({edit.space for edit in every}) > 1:
        problems.append(
            Problem("edits", "raw and log space", "one space at a time", "run them apart")
        )
    read = list(dict.fromkeys(assay for run in ensemble.runs for assay in run.assays))
    unknown = [assay for assay in named if assay not in read]
    if unknown:
        problems.append(
            Problem(
                "edits",
                f"{listing(unknown)}, which no model was trained on",
                f"some of {', '.join(read)}",
                nearest(unknown, read) or "edit an assay that a model reads",
            )
        )
    kept = ensemble.select(lambda run: all(assay in run.assays for assay in named))
    pooled = sorted({run.cell for run in kept.runs} - set(store.manifest.cells))
    if pooled:
        problems.append(
            Problem(
                "edits",
                f"models of pools of cells ({listing(pooled)}), which have no signal of their own",
                "models of single cells",
                "take some (Ensemble.select), or train with --cells=all",
            )
        )
    if not unknown and not kept.runs:
        problems.append(
            Problem(
                "edits",
                f"{listing(named)}, which no model reads together",
                "edits of assays that one model reads",
                "train a model of them (--assays=A+B), or edit them apart",
            )
        )
    manifest = store.manifest
    for edit in every:
        for kind, name, there in (
            ("assay", edit.from_assay, manifest.assays),
            ("cell", edit.from_cell, manifest.cells),
        ):
            if name and name not in there:
                problems.append(
                    Problem(
                        edit.name,
                        f"no {kind} {name} in the store",
                        listing(there),
                        nearest([name], there) or "name another",
                    )
                )
    if problems:
        raise InputError(problems)
    return kept


def _groups(member: Member) -> list[Member]:
    """The runs that read the same tracks, together."""
    keys = dict.fromkeys((run.cell, run.assays) for run in member.runs)
    return [
        member.only([i for i, run in enumerate(member.runs) if (run.cell, run.assays) == key])
        for key in keys
    ]


class _Group:
    """The runs of one cell and assay set, and the edits of some genes."""

    def __init__(
        self,
        ensemble: Ensemble,
        member: Member,
        store: WindowStore,
        steps: Sequence[tuple[Edit, ...]],
        rows: Int[np.ndarray, " G"],
        wanted: Bool[np.ndarray, "R G"],
    ):
        self.member, self.store, self.steps = member, store, steps
        self.rows, self.wanted = rows, wanted
        self.config = member.model_config
        self.cell, self.assays = member.runs[0].cell, member.runs[0].assays
        self.dataset = load_dataset(
            store, self.config, [self.cell], self.assays, ensemble.input_config
        )
        self.sources = list(dict.fromkeys(self._source(e) for step in steps for e in step))
        self.layout = layout_of(
            self.dataset, store, self.config, self.assays, steps[0][0].space == "log"
        )
        self.present = np.ones(len(self.assays), bool) if ensemble.masked else None
        masks = [ensemble.folds[run.fold].masks(store.genes.chrom) for run in member.runs]
        self.trained_on = np.stack([mask["train"] for mask in masks])

    def _source(self, edit: Edit) -> tuple[str, str, str, int]:
        """What `y` is: its kind, cell, assay, and shift in bp. "" is nothing."""
        if not edit.source:
            return "", self.cell, edit.assay, 0
        cell, assay = edit.from_cell or self.cell, edit.from_assay or edit.assay
        return edit.source, cell, assay, edit.shift_bp

    def run(self, progress: Callable[[int], object]) -> dict[str, np.ndarray]:
        """`before [R G]`; `after`, `changed`, `outside` and `reached`, each `[R G E]`."""
        edits, genes = len(self.steps) + 1, len(self.rows)  # the last edit is none at all
        size = min(genes, max(1, _QUERIES // edits))
        # Blocks of one size share a program: the last goes back over genes of the one before.
        blocks = [np.minimum(i, genes - size) + np.arange(size) for i in range(0, genes, size)]
        surveys = [self._survey(block) for block in blocks]
        plan = self._plan([changed for changed, _, _ in surveys], blocks)
        graph, weights = parts_of(self.config)[0], self.member.weights
        low, high = self._trained_ranges()
        shape = (len(self.member.runs), genes, edits - 1)
        out = {name: np.zeros(shape, bool) for name in ("changed", "outside", "reached")}
        out |= {name: np.full(shape, np.nan, np.float32) for name in ("before", "after")}
        for block, (changed, seen, reached) in zip(blocks, surveys, strict=True):
            own = self.wanted[:, block, None]
            wanted = own & changed
            predicted = _predict(
                graph,
                plan,
                weights["params"],
                weights["stats"],
                wanted.reshape(len(wanted), -1),
                self._signal(self.rows[block]),
                self.present,
            )
            values = np.asarray(predicted).reshape(wanted.shape)
            values = np.stack(
                [on_scale(s, v, "log2") for s, v in zip(self.member.scales, values, strict=True)]
            )
            before = np.where(own, values[..., -1:], np.nan)
            out["before"][:, block] = before
            out["after"][:, block] = np.where(wanted, values, before)[..., :-1]
            strange = (seen < low[:, None, None]) | (seen > high[:, None, None])
            strange = (strange.any(-1) & self._touched()).any(-1)
            out["changed"][:, block] = wanted[..., :-1]
            out["outside"][:, block] = (wanted & strange)[..., :-1]
            out["reached"][:, block] = (own & reached)[..., :-1]
            progress(int(wanted[..., :-1].sum()))
        return {**out, "before": out["before"][..., 0]}

    def _survey(self, block: Int[np.ndarray, " G"]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Of each gene and edit `[G E]`: is the input changed; the lowest, highest and mean value
        of each assay `[G E A 3]`; does the gene have the place."""
        effects, seen = _survey(self._signal(self.rows[block]), int(self._contacts().max()))
        shape = len(block), len(self.steps) + 1
        reached, changed = np.moveaxis(np.array(effects).reshape(*shape, 2), -1, 0)
        changed[:, -1] = True  # what everything is compared with
        return changed, np.asarray(seen).reshape(*shape, -1, 3), reached

    def _contacts(self) -> Int[np.ndarray, " G"]:
        """How many regions each gene touches."""
        most = getattr(self.config, "contacts", 0)
        if not most:
            return np.zeros(len(self.rows), int)
        region, _ = self.store.regions(self.cell).by_gene(len(self.store.genes), most)
        return (region >= 0).sum(1)[self.rows]

    def _plan(
        self, changed: Sequence[Bool[np.ndarray, "G E"]], blocks: Sequence[Int[np.ndarray, " G"]]
    ) -> BatchPlan:
        """The batches that serve every run's queries in every block."""
        most = getattr(self.config, "contacts", 0)
        counts = self._contacts()
        parts = [
            np.broadcast_to(counts[block][:, None], queries.shape)[queries & own[block][:, None]]
            for queries, block in zip(changed, blocks, strict=True)
            for own in self.wanted
        ]
        return BatchPlan.of(_BATCH, most, parts, balanced=True)

    def _signal(self, rows: Int[np.ndarray, " G"]) -> EditedSignal:
        """The signal of some genes, and the edits on it."""
        pairs = [(self.cell, assay) for assay in self.assays]
        others = [(cell, assay) for _, cell, assay, _ in self.sources]
        tracks = list(dict.fromkeys(pairs + others))
        raw = read_raw(self.dataset, self.store, self.config, self.cell, tracks, rows)
        forward = np.where(self.store.genes.strand.iloc[rows] == "-", -1, 1)
        window, depth = [], []
        for (kind, cell, assay, bp), onto in zip(self.sources, self._onto(), strict=True):
            at = tracks.index((cell, assay))
            # In the units of the assay it stands in for, if depths are normalised.
            scale = raw.level[tracks.index((self.cell, onto))] / raw.level[at]
            window_bin, region_bin = self.layout.bin_bp
            window.append(scale * _made(kind, raw.window[at], forward * bp / window_bin))
            depth.append(scale * _made(kind, raw.depth[at], np.array([bp / region_bin])))
        own = slice(len(pairs))
        raw = dataclasses.replace(
            raw, window=raw.window[own], level=raw.level[own], depth=raw.depth[own]
        )
        return EditedSignal(raw, np.stack(window), np.stack(depth), self._table(rows), self.layout)

    def _onto(self) -> list[str]:
        """For each source an assay that it is put in place of."""
        onto = {self._source(e): e.assay for step in self.steps for e in step}
        return [onto[source] for source in self.sources]

    def _table(self, rows: Int[np.ndarray, " G"]) -> EditTable:
        """All edits as numbers, and none at all."""
        scene = Scene(
            self.store,
            self.store.genes.iloc[rows],
            self.cell,
            self.config.window.window_bp,
            self.layout.resolutions if self.layout.log else (0,),
        )
        edits, longest = len(self.steps) + 1, max(map(len, self.steps))
        resolutions = len(scene.resolutions)
        numbers = {name: np.zeros((edits, longest), np.float32) for name in ("plus", "mix")}
        times = np.ones((edits, longest), np.float32)
        assay, source = (np.zeros((edits, longest), np.int32) for _ in range(2))
        in_regions = np.zeros((edits, longest), bool)
        places = {edit.place: None for step in self.steps for edit in step}
        found = {place: place.intervals(scene) for place in places}
        most = max(part.shape[2] for part in found.values())
        intervals = np.zeros((len(rows), edits, longest, resolutions, most, 2), np.int32)
        for e, step in enumerate(self.steps):
            for k, edit in enumerate(step):
                times[e, k], assay[e, k] = edit.times, self.assays.index(edit.assay)
                numbers["plus"][e, k], numbers["mix"][e, k] = edit.plus, edit.mix
                source[e, k] = self.sources.index(self._source(edit))
                in_regions[e, k] = edit.place.in_regions
                part = found[edit.place]
                intervals[:, e, k, :, : part.shape[2]] = part
        return EditTable(assay, times, **numbers, source=source, in_regions=in_regions,
                         intervals=intervals)  # fmt: skip

    def _touched(self) -> Bool[np.ndarray, "E A"]:
        """Which assays each edit alters."""
        touched = [[a in [edit.assay for edit in s] for a in self.assays] for s in self.steps]
        return np.array([*touched, [False] * len(self.assays)])

    def _trained_ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest of what `_seen` says of any gene that a run trained on: `[R A 3]`."""
        finest = int(np.argmin(self.layout.resolutions))
        seen = []
        for assay in self.assays:
            track = self.dataset.track(self.cell, assay)
            values = track.promoter[finest] if isinstance(track, RegionTrack) else track.values
            seen.append(np.asarray(_seen(jnp.asarray(values))))
        every = np.stack(seen, 1)  # [G A 3]
        # A store without any of them (published weights, other genes) says nothing of the range.
        none = np.full(every.shape[1:], np.inf)
        low = np.stack([every[own].min(0) if own.any() else -none for own in self.trained_on])
        high = np.stack([every[own].max(0) if own.any() else none for own in self.trained_on])
        slack = 1e-5 * (1 + np.maximum(abs(low), abs(high)))
        return low - slack, high + slack  # two programs differ in rounding


def _made(kind: str, raw: np.ndarray, bins: np.ndarray) -> np.ndarray:
    """What an edit mixes in, from raw signal `[rows bins]`.

    Args:
        bins: how far each row is shifted; bins in part are taken from two.
    """
    if kind == "shift":
        index = np.arange(raw.shape[1]) - np.broadcast_to(bins, len(raw))[:, None]
        low = np.floor(index).astype(int)
        part = (index - low).astype(np.float32)

        def at(index: np.ndarray) -> np.ndarray:
            values = np.take_along_axis(raw, np.clip(index, 0, raw.shape[1] - 1), 1)
            return np.where((index >= 0) & (index < raw.shape[1]), values, 0)

        return (1 - part) * at(low) + part * at(low + 1)
    if kind == "background":
        return np.minimum(raw, np.median(raw, axis=1, keepdims=True))
    return raw if kind == "swap" else np.zeros_like(raw)


def _seen(values: Float[Array, "*rows L"]) -> Float[Array, "*rows 3"]:
    return jnp.stack([values.min(-1), values.max(-1), values.mean(-1)], -1)


@functools.partial(jax.jit, static_argnums=1)
def _survey(signal: EditedSignal, slots: int) -> tuple[Bool[Array, "Q 2"], Float[Array, "Q A 3"]]:
    """Whether each query's gene has the place, and whether its signal changes; what its window is
    like."""
    plan = BatchPlan(_BATCH, (slots,) * _BATCH if slots else ())

    def of_batch(queries: Int[Array, " B"]) -> tuple[Array, Array]:
        effects, window = signal.effects(queries, plan)
        return effects, _seen(window)

    queries = jnp.arange(signal.queries)
    # Past the end the last is looked at again.
    queries = jnp.pad(queries, (0, -len(queries) % _BATCH), mode="edge").reshape(-1, _BATCH)
    parts = jax.lax.map(of_batch, queries)
    effects, seen = (part.reshape(-1, *part.shape[2:])[: signal.queries] for part in parts)
    return effects, seen


# Compiled once for a model, plan and size of block.
@functools.partial(jax.jit, static_argnums=(0, 1))
def _predict(
    graph: Any,
    plan: BatchPlan,
    params: Any,
    stats: Any,
    wanted: Bool[Array, "R Q"],
    signal: EditedSignal,
    present: Bool[Array, " A"] | None,
) -> Float[Array, "R Q"]:
    def one(own):
        params, stats, wanted = own
        shown = None
        if present is not None:
            shown = jnp.broadcast_to(present, (wanted.size, present.size))
        return predict_genes(graph, params, stats, signal, wanted, plan, shown)

    return jax.lax.map(one, (params, stats, wanted))
