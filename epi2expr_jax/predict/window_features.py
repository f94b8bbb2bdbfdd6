"""Features that simple models read of the windows of one track.

Each is a function of windows `[G W]`, 5′ to 3′, and of where their bins lie, and gives `[G F]`.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
from jaxtyping import Float

from epi2expr_jax.genome import WindowSpec

DECAY_BP = 5_000

Windows = Float[np.ndarray, "G W"]
Features = Float[np.ndarray, "G F"]


@dataclasses.dataclass(frozen=True)
class Places:
    """Where the bins of windows lie.

    Attributes:
        edges: `[W + 1]` edges of the bins in bp from the TSS, downstream positive.
        body: `[G]` bp of each gene downstream of its TSS; 0 where its end is not known.
    """

    edges: Float[np.ndarray, " edges"]
    body: Float[np.ndarray, " G"]

    @classmethod
    def of(cls, window: WindowSpec, genes: pd.DataFrame) -> "Places":
        """Of windows that read 5′ to 3′.

        Args:
            genes: the gene table, with columns `start` and `end` (0-based, half-open) where known.
        """
        body = np.zeros(len(genes))
        if {"start", "end"} <= set(genes):
            tss = genes["tss"].to_numpy()
            start, end = (genes[name].to_numpy(float, na_value=np.nan) for name in ("start", "end"))
            body = np.where(genes["strand"] == "-", tss + 1 - start, end - tss)
            body = np.maximum(np.nan_to_num(body), 0)
        edges = np.arange(window.bins + 1.0) * window.bin_bp - window.window_bp / 2
        return cls(edges, body)

    @property
    def centres(self) -> Float[np.ndarray, " W"]:
        """The middle of each bin, in bp from the TSS."""
        return (self.edges[1:] + self.edges[:-1]) / 2


Maker = Callable[[Windows, Places], Features]


def mean_within(width_bp: int) -> Maker:
    """The mean signal of the middle `width_bp` of the window."""

    def mean(windows: Windows, places: Places) -> Features:
        share = np.diff(np.clip(places.edges, -width_bp / 2, width_bp / 2))
        return (windows.astype(np.float64) @ share / share.sum())[:, None]

    return mean


def stretches(count: int) -> Maker:
    """Means of so many stretches of the window, as equal as the bins allow."""

    def means(windows: Windows, places: Places) -> Features:
        bins = windows.shape[1]
        first = np.unique(np.linspace(0, bins, min(count, bins), endpoint=False).astype(int))
        width = np.diff(np.r_[first, bins])
        return np.add.reduceat(windows.astype(np.float64), first, axis=1) / width

    return means


def strongest_bin(windows: Windows, places: Places) -> Features:
    """The strongest bin and its place in bp from the TSS, 0 in a window without a strongest; as
    ShallowChrome reads peaks (Frasca et al., 2021)."""
    strongest = windows.max(axis=1)
    place = np.where(strongest > windows.min(axis=1), places.centres[windows.argmax(axis=1)], 0)
    return np.stack([strongest, place], axis=1).astype(np.float64)


def gene_score(windows: Windows, places: Places) -> Features:
    """Mean signal weighted by distance from the gene, exp(−d / 5 kb); its body, where it lies in
    the window, has distance 0. As the gene scores of ArchR (Granja et al., Nat Genet 2021), without
    their correction for gene size."""
    beyond = places.centres - places.body[:, None]
    weights = np.exp(-np.maximum(np.maximum(beyond, -places.centres), 0) / DECAY_BP)
    return ((windows * weights).sum(axis=1) / weights.sum(axis=1))[:, None]
