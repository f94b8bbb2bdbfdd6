"""Several cells as one: what a model reads that is trained on a pool of cells.

A pool has every gene once for each of its cells, one cell after the other: its gene axis is
`[m x G]` for `m` cells. Chromosomes are held out in all cells alike, so a pooled model has seen a
test gene in none of them.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from epi2expr_jax.errors import collect, nearest
from epi2expr_jax.inputs.dataset import Dataset
from epi2expr_jax.inputs.device_tracks import CellRegions, RegionTrack, Track, WindowSignal
from epi2expr_jax.names import as_names, known_names

PLUS = "+"
KINDS = ("all", "pool", "leave_one_out")  # of cells and pools, for the command line


def parse_cells(text: Sequence[str], available: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Cells and pools of cells from the command line, each by its name.

    Args:
        text: `all` (each cell by itself), `pool` (all in one), `leave_one_out` (for each cell, a
            pool of all the others), names, and `A+B` for a pool.
        available: the store's cells.

    Raises:
        InputError: naming every unknown cell and the nearest known one, or if there are too few.
    """
    pools: list[tuple[str, ...]] = []
    with collect() as problems:
        for item in as_names(text):
            if item == "all":
                pools += [(cell,) for cell in available]
            elif item == "pool":
                pools.append(tuple(available))
            elif item == "leave_one_out":
                pools += [tuple(c for c in available if c != cell) for cell in available]
            elif item in available:
                pools.append((item,))
            else:
                names = item.split(PLUS)
                pools.append(tuple(cell for cell in available if cell in names))
                for name in names:
                    if name not in available:
                        problems.add(
                            "--cells",
                            f"unknown cell {name}",
                            f"{', '.join(KINDS)}, or some of {', '.join(available)} "
                            "(join a pool by +)",
                            nearest(name, [*available, *KINDS])
                            or "correct the name, or build a store that has this cell",
                        )
        if "leave_one_out" in as_names(text) and len(available) < 2:
            problems.add("--cells", "leave_one_out of one cell", "two or more", "use --cells=all")
    return {PLUS.join(pool): pool for pool in pools}


def cells_of(name: str, known: Sequence[str]) -> tuple[str, ...]:
    """The cells that a run of this name reads: a cell's own name, or those of a pool."""
    return (name,) if name in known else tuple(name.split(PLUS))


class PooledDataset(Dataset):
    """Model input and expression of pools of equally many cells.

    Attributes:
        cells, assays: the pools' names, and the assays.
        genes: the gene table once for each of a pool's cells, `[m x G]` rows.
        expression: `[pools, m x G]`, in the store's unit.
        labels: `[pools, m x G]` class of each gene where the store was given one.
    """

    def __init__(self, data: Dataset, pools: Mapping[str, tuple[str, ...]]):
        sizes = {len(cells) for cells in pools.values()}
        if len(sizes) != 1:
            raise ValueError(f"pools of {sorted(sizes)} cells: they share no gene axis")
        self._data, self._pools = data, dict(pools)
        self.cells, self.assays = tuple(pools), data.assays
        self.genes: pd.DataFrame = pd.concat([data.genes] * sizes.pop(), ignore_index=True)
        rows = [[data.cells.index(cell) for cell in cells] for cells in pools.values()]
        shape = len(pools), len(self.genes)
        self.expression: Float[np.ndarray, "P G"] = data.expression[rows].reshape(shape)
        self.labels: Bool[np.ndarray, "P G"] | None = None
        if data.labels is not None:
            self.labels = data.labels[rows].reshape(shape)

    def track(self, pool: str, assay: str) -> Track:
        """What one assay in all of a pool's cells gives the model, on the host."""
        tracks = [self._data.track(cell, assay) for cell in self._cells(pool)]
        windows = [track.values for track in tracks if isinstance(track, WindowSignal)]
        if windows:
            return WindowSignal(np.concatenate(windows))
        regions = [track for track in tracks if isinstance(track, RegionTrack)]
        return RegionTrack(
            promoter=_joined(track.promoter for track in regions),
            regions=_joined(track.regions for track in regions),
        )

    def _cells(self, pool: str) -> tuple[str, ...]:
        known_names(pool, self._pools, "dataset", "pool")
        return self._pools[pool]

    def regions(self, pool: str) -> CellRegions | None:
        """Which regions the genes touch, each in its own cell; None for models of one window."""
        every = [self._data.regions(cell) for cell in self._cells(pool)]
        cells = [regions for regions in every if regions is not None]
        if not cells:
            return None
        # Every cell has arrays as long as the store's largest cell has.
        regions_each = len(cells[0].bins[0])
        track = self._data.track(self._pools[pool][0], self.assays[0])
        assert isinstance(track, RegionTrack)
        return CellRegions(
            own=cells[0].own,
            minus=np.concatenate([cell.minus for cell in cells]),
            begin=tuple(
                np.concatenate([cell.begin[i] + k * len(part) for k, cell in enumerate(cells)])
                for i, part in enumerate(track.regions)
            ),
            bins=_joined(cell.bins for cell in cells),
            region=np.concatenate(
                [
                    np.where(cell.region >= 0, cell.region + k * regions_each, -1)
                    for k, cell in enumerate(cells)
                ]
            ).astype(np.int32),
            score=np.concatenate([cell.score for cell in cells]),
        )


def _joined(parts) -> tuple[np.ndarray, ...]:
    """Tuples of arrays, one after the other at each resolution."""
    return tuple(np.concatenate(arrays) for arrays in zip(*parts, strict=True))
