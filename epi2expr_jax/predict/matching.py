"""New tracks made like those of training, by quantiles, and how unlike them they were.

A model knows the scale of the tracks that it was trained on. A track from elsewhere is matched to
them: each value becomes the one of the same rank in the reference, the mean of the training cells'
quantiles (quantile normalisation: Bolstad et al., Bioinformatics 2003). Ranks within a track, and
so what tells its genes apart, stay; what its overall level says of the cell is lost.

Axes: `C` cells, `Q` quantiles.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import numpy as np
from jaxtyping import Float

from epi2expr_jax.inputs.device_tracks import CellRegions, Track
from epi2expr_jax.inputs.track_cache import TrackCache, Tracks
from epi2expr_jax.models.config import ModelConfig
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.runs import Run

_RANKS = np.linspace(0, 1, 1001)
FAR = 3.0  # times as far from the reference as the training cell that is farthest from the others
_LEAST = 0.05  # of the reference's mean: closer to it no track is called unlike


def quantiles(track: Track) -> Track:
    """`[Q]` of each of a track's arrays, in the model's units."""
    return jax.tree.map(lambda x: np.quantile(x, _RANKS), track)


def match_quantiles(x: np.ndarray, reference: Float[np.ndarray, " Q"]) -> np.ndarray:
    """Values of any shape, each replaced by that of the same rank in the reference; 0 stays 0.

    0 is a bin without signal, or padding. Equal values get the mean of the reference over the ranks
    that they share. Of signed tracks, such as log2 ratios, ranks are those among the values of one
    sign: what is more, or less, than the control stays so. A sign that the reference lacks is left
    as it is.
    """
    if x.size and min(x.min(), reference.min()) >= 0:
        return np.where(x == 0, 0, _by_rank(x, reference)).astype(x.dtype)
    found = x.copy()
    for own, known in ((x < 0, reference < 0), (x > 0, reference > 0)):
        if own.any() and known.any():
            part = np.quantile(reference[known], _RANKS)
            found[own] = _by_rank(x[own], part)
    return found


def _by_rank(x: np.ndarray, reference: Float[np.ndarray, " Q"]) -> np.ndarray:
    own, first, count = np.unique(np.quantile(x, _RANKS), return_index=True, return_counts=True)
    return np.interp(x, own, np.add.reduceat(reference, first) / count)


@dataclasses.dataclass(frozen=True)
class Reference:
    """What tracks of each assay look like where models were trained.

    Attributes:
        by_cell: of each assay the `quantiles` of each training cell.
    """

    by_cell: Mapping[str, Sequence[Track]]

    @classmethod
    def of(cls, data: Tracks) -> "Reference":
        """Of a dataset of the training cells that have all of its assays."""
        return cls({a: [quantiles(data.track(c, a)) for c in data.cells] for a in data.assays})

    def mean(self, assay: str) -> Track:
        """The mean of the cells' quantiles."""
        return jax.tree.map(lambda *own: np.mean(own, axis=0), *self.by_cell[assay])

    def unlike(self, assay: str, track: Track) -> tuple[float, float]:
        """How far a track is from the reference, and from which distance on it is unlike it.

        Distances are mean absolute differences of quantiles (Wasserstein's of order 1) of the
        windows, in the model's units. The limit is `FAR` times the largest distance of a training
        cell from the mean of the others.
        """
        every = np.stack([jax.tree.leaves(own)[0] for own in self.by_cell[assay]])
        C, mean = len(every), every.mean(axis=0)
        # A cell's distance from the mean of the others follows from that to the mean of all.
        usual = np.abs(every - mean).mean(axis=1).max() * C / max(1, C - 1)
        own = np.abs(jax.tree.leaves(quantiles(track))[0] - mean).mean()
        return float(own), float(max(FAR * usual, _LEAST * np.abs(mean).mean()))


@dataclasses.dataclass(frozen=True)
class Matched:
    """Tracks of a dataset, matched to a reference.

    Attributes:
        data: where they are read from.
        reference: what they are made like.
    """

    data: Tracks
    reference: Reference

    @property
    def cells(self) -> tuple[str, ...]:
        return self.data.cells

    @property
    def assays(self) -> tuple[str, ...]:
        return self.data.assays

    def track(self, cell: str, assay: str) -> Track:
        """As `Dataset.track`."""
        return jax.tree.map(
            match_quantiles, self.data.track(cell, assay), self.reference.mean(assay)
        )

    def regions(self, cell: str) -> CellRegions | None:
        """As `Dataset.regions`."""
        return self.data.regions(cell)


@dataclasses.dataclass(frozen=True, repr=False, kw_only=True)
class MatchingEnsemble(Ensemble):
    """Models that read every store's tracks matched to a reference.

    Attributes:
        reference: what tracks are made like.
    """

    reference: Reference

    @classmethod
    def of(cls, ensemble: Ensemble, reference: Reference) -> "MatchingEnsemble":
        """The same models."""
        own = {f.name: getattr(ensemble, f.name) for f in dataclasses.fields(ensemble)}
        return cls(**own, reference=reference)

    def tracks(
        self, model_config: ModelConfig, runs: Sequence[Run], store: WindowStore
    ) -> TrackCache:
        """As `Ensemble.tracks`."""
        tracks = super().tracks(model_config, runs, store)
        return TrackCache(Matched(tracks.data, self.reference))
