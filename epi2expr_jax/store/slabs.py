"""The (cell, assay) slabs of a window store: written whole, and checked when they are read."""

import functools
import hashlib
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError, write_failed
from epi2expr_jax.genome import listing
from epi2expr_jax.store import arrays, markers
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.regions import Regions

# The slabs of version 2 whose values this process has compared with their checksums.
_SOUND: set[tuple[pathlib.Path, str, str, str]] = set()


class Slabs:
    """The slabs of the store at `path`.

    Args:
        path, manifest, genes: the store's.
        regions: gives the regions of a cell that has some.
    """

    def __init__(
        self,
        path: pathlib.Path,
        manifest: Manifest,
        genes: pd.DataFrame,
        regions: Callable[[str], Regions],
    ):
        self.path, self.manifest, self.genes = path, manifest, genes
        self._regions = regions
        self._bins = functools.cache(lambda cell: regions(cell).bins)
        self._tracks = {tuple(pair) for pair in manifest.tracks}

    def expects(self, cell: str, assay: str) -> bool:
        """Whether the store is to have this slab; what has no track is NaN."""
        return (cell, assay) in self._tracks

    def record(self, cell: str, assay: str) -> dict[str, Any] | None:
        """The marker of a slab (its sources and checksum), or None while it is not whole.

        Raises:
            InputError: if the marker is damaged.
        """
        return markers.read(markers.place(self.path, cell, assay), self.manifest.version)

    def missing(self) -> list[tuple[str, str]]:
        """The (cell, assay) pairs that should be here and are not yet."""
        return [
            (cell, assay)
            for cell, assay in self.manifest.tracks
            if not markers.place(self.path, cell, assay).exists()
        ]

    def discard(self, cell: str, assay: str) -> None:
        """Take a slab for absent from now on."""
        markers.place(self.path, cell, assay).unlink(missing_ok=True)

    def write(
        self,
        cell: str,
        assay: str,
        means: np.ndarray,
        coverage: np.ndarray,
        sources: Sequence[dict[str, Any]],
        regions: np.ndarray | None = None,
    ) -> None:
        """Write one (cell, assay) slab, then its marker.

        Args:
            means: `[G W]` raw bin means in the track's unit and genomic order.
            coverage: `[G]` share of each window's bases that have data.
            sources: name, size and sha256 of every file the means come from.
            regions: `[bin]` raw bin means of the cell's regions, in the order of their table, the
                last bin of each over the bases that remain; for a cell that has regions.

        Raises:
            InputError: on values that are not finite, or if the disk refuses them.
        """
        if (regions is not None) != (cell in self.manifest.regions_sha256):
            raise ValueError(f"{cell}: regions are given if, and only if, the cell has contacts")
        shape = (len(self.genes), self.manifest.window.bins)
        means = np.ascontiguousarray(means, np.float32)
        coverage = np.ascontiguousarray(coverage, np.float32)
        if means.shape != shape or coverage.shape != shape[:1]:
            raise ValueError(f"slab {means.shape}, coverage {coverage.shape}: expected {shape}")
        bad = list(self.genes.gene_id.to_numpy()[~np.isfinite(means).all(axis=1)])
        values = [means, coverage]
        if regions is not None:
            regions = np.ascontiguousarray(regions, np.float32)
            of_cell = self._regions(cell)
            if regions.shape != (of_cell.bins,):
                raise ValueError(f"regions {regions.shape}: expected {(of_cell.bins,)}")
            bad += of_cell.holding(~np.isfinite(regions))
            values.append(regions)
        if bad:
            raise InputError(
                f"{cell}-{assay}",
                f"values that are not finite ({listing(bad)})",
                "finite signal",
                "look at the track; missing bases should be absent, not NaN or infinite",
            )
        index = self.manifest.cells.index(cell), self.manifest.assays.index(assay)
        marker = markers.place(self.path, cell, assay)
        try:
            marker.unlink(missing_ok=True)
            arrays.open_array(self.path, "coverage")[index].write(coverage).result()
            arrays.open_array(self.path, "signal")[index].write(means).result()
            if regions is not None:
                depth = arrays.open_array(self.path, region_signal(cell))
                depth[index[1]].write(regions).result()
            prints = {name: self._fingerprint(name, cell, assay) for name in self.arrays_of(cell)}
            markers.write(marker, sources, digest(*values), prints)
        except (OSError, ValueError) as error:
            raise refused(self.path, error) from error

    def arrays_of(self, cell: str) -> list[str]:
        """The arrays that hold a slab of the cell, in the order of its checksum."""
        regions = self.manifest.regions_sha256
        return ["signal", "coverage", *([region_signal(cell)] if cell in regions else [])]

    def _fingerprint(self, name: str, cell: str, assay: str) -> str:
        """Of the file that holds a slab in an array."""
        index = self.manifest.cells.index(cell), self.manifest.assays.index(assay)
        if name == "signal":
            chunks = arrays.chunks_of_slab(len(self.genes))
            return arrays.fingerprint(self.path, name, (*index, 0, 0), chunks)
        if name == "coverage":
            return arrays.fingerprint(self.path, name, (*index, 0))
        if not self._bins(cell):
            return ""
        return arrays.fingerprint(self.path, name, (index[1], 0))

    def shape(self, name: str) -> tuple[int, ...]:
        """What the manifest and the tables say that an array's shape is."""
        cells, assays, genes = len(self.manifest.cells), len(self.manifest.assays), len(self.genes)
        match name:
            case "signal":
                return cells, assays, genes, self.manifest.window.bins
            case "coverage":
                return cells, assays, genes
            case "expression" | "label":
                return cells, genes
        return assays, self._bins(name.split("/")[1])

    def opened(self, name: str) -> Any:
        """An array, to read some of it. See `arrays.open_to_read`."""
        return arrays.open_to_read(self.path, name, self.shape(name))

    def values(self, name: str, index: Any = ...) -> np.ndarray:
        """Values of an array, as a copy that nothing else holds."""
        view = self.opened(name)[index]
        out = np.empty(view.shape, view.dtype.numpy_dtype)
        with arrays.readable(self.path / name):
            arrays.begin_read(view, out).result()
        return out

    def array(self, name: str, cell: str, assay: str) -> np.ndarray:
        """What an array holds of a slab.

        Raises:
            InputError: if it is damaged, or not what was written there.
        """
        self.require_own(name, cell, assay)
        return self._array(name, cell, assay)

    def _array(self, name: str, cell: str, assay: str) -> np.ndarray:
        index = self.manifest.cells.index(cell), self.manifest.assays.index(assay)
        return self.values(name, index[1] if name.startswith("regions/") else index)

    def require_own(self, name: str, cell: str, assay: str) -> None:
        """Refuse what is not this slab, before it is read; chunks have checksums of their own.

        Slabs of version 2 have neither, and are read whole, once a process.
        """
        record = self.record(cell, assay)
        if record is None:
            raise InputError(
                f"{self.path}: {cell}-{assay}", "no slab", "a whole slab", arrays.BUILD_AGAIN
            )
        if self.manifest.version > 2:
            if record["fingerprints"].get(name) != self._fingerprint(name, cell, assay):
                raise changed(self.path / name, f"{cell}-{assay}")
        elif (key := (self.path.resolve(), cell, assay, record["sha256"])) not in _SOUND:
            self.read(cell, assay)
            _SOUND.add(key)

    def check(self, cell: str, assay: str) -> None:
        """Read a slab whole, and refuse what is not as it was written.

        Raises:
            InputError: if it is damaged, in one of its files or its marker.
        """
        for name in self.arrays_of(cell):
            self.require_own(name, cell, assay)
        self.read(cell, assay)

    def read(self, cell: str, assay: str) -> list[np.ndarray]:
        """All of a slab: bin means `[G W]`, coverage `[G]` and, if it has any, regions `[bin]`.

        Raises:
            InputError: if its values have not the recorded checksum.
        """
        record = self.record(cell, assay)
        values = [self._array(name, cell, assay) for name in self.arrays_of(cell)]
        if record is None or digest(*values) != record["sha256"]:
            raise changed(self.path, f"{cell}-{assay}")
        return values


def digest(*values: np.ndarray) -> str:
    """Sha256 of the values of arrays as float32, whatever their compression on disk."""
    found = hashlib.sha256()
    for array in values:
        found.update(np.ascontiguousarray(array, "<f4").tobytes())
    return found.hexdigest()


def region_signal(cell: str) -> str:
    """The array of what the cell's regions hold."""
    return f"regions/{cell}/depth"


def refused(path: pathlib.Path, error: Exception) -> InputError:
    """The error of a disk that refuses a store."""
    found = f"a write that failed: {str(error).splitlines()[0][:300]}"
    return write_failed(path, found, " or choose another --store, then run the same command again")


def changed(file: pathlib.Path, track: str = "") -> InputError:
    """The error of values that are not those that were written."""
    return InputError(
        f"{file}: {track}" if track else str(file),
        "values that differ from the recorded checksum",
        "what was written there",
        arrays.BUILD_AGAIN,
    )
