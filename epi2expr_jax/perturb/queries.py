"""The runs that read the same tracks, under edits: which queries need predicting, and how.

Axes as in `edited_signal`; `R` runs.
"""

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import RegionTrack
from epi2expr_jax.perturb.edits import Edit
from epi2expr_jax.perturb.outputs import BATCH, extent, predict, predict_rereading, survey
from epi2expr_jax.perturb.read_edits import EditReader
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.predict.inference import on_scale
from epi2expr_jax.store.window_store import WindowStore

_QUERIES = 1 << 16  # on a device at a time


@dataclasses.dataclass(frozen=True)
class _Survey:
    """What edits do to some genes' signal.

    Attributes:
        reached: `[G E]` whether the gene has the place.
        altered: `[G E 1+N]` whether signal changes in the window (0), and in each region.
        seen: `[G E A 3]` the `extent` of the window.
    """

    reached: Bool[np.ndarray, "G E"]
    altered: Bool[np.ndarray, "G E _N"]
    seen: Float[np.ndarray, "G E A 3"]

    @property
    def changed(self) -> Bool[np.ndarray, "G E"]:
        """What is to be predicted: all that changes, and what it is compared with."""
        none = np.arange(self.altered.shape[1]) == self.altered.shape[1] - 1
        return np.any(self.altered, -1) | none

    @property
    def in_regions_alone(self) -> Bool[np.ndarray, "G E"]:
        return np.any(self.altered[..., 1:], -1) & ~self.altered[..., 0]


@dataclasses.dataclass(frozen=True)
class _Plans:
    """Batches for queries that are read as a whole, and for those that alter only regions, at most
    so many of a gene."""

    whole: BatchPlan
    regions_alone: BatchPlan | None = None
    most_altered: int = 0


class EditedRuns:
    """The runs of one cell and assay set, and the edits of some genes."""

    def __init__(
        self,
        ensemble: Ensemble,
        member: Member,
        store: WindowStore,
        steps: Sequence[tuple[Edit, ...]],
        rows: Int[np.ndarray, " G"],
        wanted: Bool[np.ndarray, "R G"],
        reread: bool,
    ):
        self.member, self.store, self.rows, self.wanted = member, store, rows, wanted
        self.config, self.reread = (
            member.model_config,
            reread and member.model_config.token_width > 0,
        )
        cell, assays = member.runs[0].cell, member.runs[0].assays
        self.dataset = ensemble.dataset(store, self.config, [cell], assays)
        self.reader = EditReader(store, self.dataset, self.config, cell, assays, steps, rows)
        self.present = np.ones(len(assays), bool) if ensemble.masked else None
        masks = [ensemble.folds[run.fold].masks(store.genes) for run in member.runs]
        self.trained_on = np.stack([mask["train"] for mask in masks])

    def predict(self, progress: Callable[[int], object]) -> dict[str, np.ndarray]:
        """`before [R G]`; `after`, `changed`, `outside` and `reached`, each `[R G E]`."""
        edits, genes = len(self.reader.steps) + 1, len(self.rows)  # the last edit is none at all
        size = min(genes, max(1, _QUERIES // edits))
        # Blocks of one size share a program: the last goes back over genes of the one before.
        blocks = [np.minimum(i, genes - size) + np.arange(size) for i in range(0, genes, size)]
        surveys = [self._survey(block) for block in blocks]
        plans = self._plans(surveys, blocks)
        low, high = self._trained_ranges()
        shape = (len(self.member.runs), genes, edits - 1)
        out = {name: np.zeros(shape, bool) for name in ("changed", "outside", "reached")}
        out |= {name: np.full(shape, np.nan, np.float32) for name in ("before", "after")}
        for block, found in zip(blocks, surveys, strict=True):
            own = self.wanted[:, block, None]
            wanted = own & found.changed
            values = self._outputs(block, found, wanted, plans)
            values = np.stack(
                [on_scale(s, v, "log2") for s, v in zip(self.member.scales, values, strict=True)]
            )
            before = np.where(own, values[..., -1:], np.nan)
            out["before"][:, block] = before
            out["after"][:, block] = np.where(wanted, values, before)[..., :-1]
            strange = (found.seen < low[:, None, None]) | (found.seen > high[:, None, None])
            strange = (strange.any(-1) & self.reader.touched()).any(-1)
            out["changed"][:, block] = wanted[..., :-1]
            out["outside"][:, block] = (wanted & strange)[..., :-1]
            out["reached"][:, block] = (own & found.reached)[..., :-1]
            progress(int(wanted[..., :-1].sum()))
        return {**out, "before": out["before"][..., 0]}

    def _survey(self, block: Int[np.ndarray, " G"]) -> "_Survey":
        signal = self.reader.read(self.rows[block])
        effects, seen = survey(signal, int(self._contacts().max()))
        shape = len(block), len(self.reader.steps) + 1
        reached, altered = np.moveaxis(np.array(effects).reshape(*shape, -1, 2), -1, 0)
        return _Survey(np.any(reached, -1), altered, np.asarray(seen).reshape(*shape, -1, 3))

    def _outputs(
        self,
        block: Int[np.ndarray, " G"],
        found: "_Survey",
        wanted: Bool[np.ndarray, "R G E"],
        plans: "_Plans",
    ) -> Float[np.ndarray, "R G E"]:
        """The networks' outputs for wanted queries; edits of regions alone apart."""
        args = self.member.weights, self.reader.read(self.rows[block]), self.present
        weights, signal, present = jax.device_put(args)

        def flat(queries: Bool[np.ndarray, "R G E"]) -> Bool[np.ndarray, "R Q"]:
            return queries.reshape(len(queries), -1)

        apart = wanted & found.in_regions_alone if plans.regions_alone else np.zeros_like(wanted)
        outputs = predict(self.config, plans.whole, weights, flat(wanted & ~apart), signal, present)
        if plans.regions_alone:
            altered = found.altered[..., 1:].reshape(-1, found.altered.shape[-1] - 1)
            outputs += predict_rereading(
                self.config, plans.regions_alone, plans.most_altered, weights, flat(apart), signal,
                present, altered,
            )  # fmt: skip
        return np.asarray(outputs).reshape(wanted.shape)

    def _contacts(self) -> Int[np.ndarray, " G"]:
        """How many regions each gene touches."""
        most = self.config.contacts
        if not most:
            return np.zeros(len(self.rows), int)
        region, _ = self.store.regions(self.reader.cell).by_gene(len(self.store.genes), most)
        return (region >= 0).sum(1)[self.rows]

    def _plans(
        self, surveys: Sequence["_Survey"], blocks: Sequence[Int[np.ndarray, " G"]]
    ) -> "_Plans":
        """The batches that serve every run's queries in every block."""
        contacts, most = self._contacts(), self.config.contacts
        alone = [found.in_regions_alone for found in surveys]
        rest = [found.changed & ~own for found, own in zip(surveys, alone, strict=True)]

        def plan(queries: Sequence[Bool[np.ndarray, "G E"]]) -> BatchPlan:
            parts = [
                np.broadcast_to(contacts[block][:, None], here.shape)[here & own[block][:, None]]
                for here, block in zip(queries, blocks, strict=True)
                for own in self.wanted
            ]
            return BatchPlan.of(BATCH, most, parts, balanced=True)

        if not (self.reread and any(queries.any() for queries in alone)):
            return _Plans(plan([found.changed for found in surveys]))
        altered = max(
            found.altered[own].sum(-1).max(initial=0)
            for found, own in zip(surveys, alone, strict=True)
        )
        return _Plans(plan(rest), plan(alone), int(altered))

    def _trained_ranges(self) -> tuple[np.ndarray, np.ndarray]:
        """Lowest and highest of what `_seen` says of any gene that a run trained on: `[R A 3]`."""
        finest = int(np.argmin(self.reader.layout.resolutions))
        seen = []
        for assay in self.reader.assays:
            track = self.dataset.track(self.reader.cell, assay)
            values = track.promoter[finest] if isinstance(track, RegionTrack) else track.values
            seen.append(np.asarray(extent(jnp.asarray(values))))
        every = np.stack(seen, 1)  # [G A 3]
        # A store without any of them (published weights, other genes) says nothing of the range.
        none = np.full(every.shape[1:], np.inf)
        low = np.stack([every[own].min(0) if own.any() else -none for own in self.trained_on])
        high = np.stack([every[own].max(0) if own.any() else none for own in self.trained_on])
        slack = 1e-5 * (1 + np.maximum(abs(low), abs(high)))
        return low - slack, high + slack  # two programs differ in rounding
