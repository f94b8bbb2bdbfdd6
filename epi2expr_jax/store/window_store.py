"""The window store: what `data_prep` writes and everything else reads.

A Zarr v3 group that TensorStore, zarr-python and `xarray.open_zarr` open as it is:

    signal      [cell, assay, gene, bin]  float32  raw bin means, genomic order; NaN where absent
    coverage    [cell, assay, gene]       float32  share of the window's bases that have data
    expression  [cell, gene]              float32  RPKM (or whatever the table held)
    label       [cell, gene]              bool     expressed or silent, if the inputs say so
    cell, assay, gene                     string   labels
    genes.parquet                                  gene_id, name, chrom, tss, strand, …
    manifest.json                                  window, labels, units, assembly, checksums
    regions/CELL/                                  if its genes have contacts:
        depth   [assay, bin]              float32  raw bin means of all regions, end to end
        regions.parquet                            chrom, start, end, first, bins
        contacts.parquet                           gene, rank, region, score
    slabs/CELL/ASSAY.json                          marker: this (cell, assay) slab is whole

One (cell, assay) slab is one shard (and another of its regions), one task, one writer. Its marker
is written last, so a slab is complete or absent; a store is complete when every expected slab is.
"""

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.files import read_json, whole_folder, write_json
from epi2expr_jax.genome import listing
from epi2expr_jax.store.arrays import declare_arrays, open_array
from epi2expr_jax.store.manifest import Manifest, read_manifest, write_manifest
from epi2expr_jax.store.regions import Regions


class WindowStore:
    """An open store: `create` or `resume` one to build it, `open` one to read it."""

    def __init__(self, path: pathlib.Path, manifest: Manifest, genes: pd.DataFrame):
        self.path = path
        self.manifest = manifest
        self.genes = genes

    # -- creating ---------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        manifest: Manifest,
        genes: pd.DataFrame,
        expression: np.ndarray,
        contacts: Mapping[str, pd.DataFrame] | None = None,
        labels: np.ndarray | None = None,
    ) -> "WindowStore":
        """Declare all arrays, write labels, genes and expression; the slabs come later.

        Args:
            genes: `[G]` rows, in the order of the arrays.
            expression: `[C G]` in RPKM.
            contacts: cell to its contacts table (see `Regions.from_contacts`).
            labels: `[C G]` bool, true for an expressed gene, if the inputs say so.

        Raises:
            InputError: if the disk refuses; nothing is left at `path` then.
        """
        path = pathlib.Path(path)
        genes = genes.reset_index(drop=True)
        expression = np.ascontiguousarray(expression, np.float32)
        regions = {
            cell: Regions.from_contacts(table, genes, manifest.region_bin_bp)
            for cell, table in (contacts or {}).items()
        }
        manifest = dataclasses.replace(
            manifest,
            genes_sha256=_digest_table(genes),
            expression_sha256=_digest(expression),
            regions_sha256={cell: of_cell.sha256() for cell, of_cell in regions.items()},
            given_labels=labels is not None,
            labels_sha256="" if labels is None else _digest(labels),
        )
        try:
            with whole_folder(path) as place:
                declare_arrays(place, manifest, genes, regions)
                open_array(place, "expression").write(expression).result()
                if labels is not None:
                    open_array(place, "label").write(labels).result()
                for cell, of_cell in regions.items():
                    of_cell.write(place / "regions" / cell)
                genes.to_parquet(place / "genes.parquet", index=False)
                write_manifest(place, manifest)
        except (OSError, ValueError) as error:
            raise _write_failed(path, error) from error
        return cls(path, manifest, genes)

    @classmethod
    def resume(cls, path: str | os.PathLike, manifest: Manifest) -> "WindowStore":
        """Open the store at `path`, complete or not, if the request for it was the same.

        Raises:
            InputError: if another store is there, naming all that differs; nothing is touched.
        """
        there = cls.open(path, incomplete=True)
        there.manifest.require_same_request(manifest, str(path))
        return there

    # -- opening ----------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike, *, incomplete: bool = False) -> "WindowStore":
        """Open the store at `path`.

        Args:
            incomplete: allow a store whose build has not finished.

        Raises:
            InputError: if it is not a store, of another format version, or half built.
        """
        path = pathlib.Path(path)
        manifest = read_manifest(path)
        store = cls(path, manifest, pd.read_parquet(path / "genes.parquet"))
        missing = store.missing_slabs()
        if missing and not incomplete:
            raise InputError(
                str(path),
                f"{len(missing)} of {len(manifest.tracks)} tracks not built yet "
                f"({listing('-'.join(pair) for pair in missing)})",
                "a complete store",
                "run the same build_store command again; it does only what is missing",
            )
        return store

    # -- writing ----------------------------------------------------------------------------

    def write_slab(
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
            of_cell = self.regions(cell)
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
        try:
            self._array("coverage")[index].write(coverage).result()
            self._array("signal")[index].write(means).result()
            if regions is not None:
                self._array(_region_signal(cell))[index[1]].write(regions).result()
            marker = self._marker(cell, assay)
            marker.parent.mkdir(parents=True, exist_ok=True)
            write_json(marker, {"sources": list(sources), "sha256": _digest(*values)})
        except (OSError, ValueError) as error:
            raise _write_failed(self.path, error) from error

    def _marker(self, cell: str, assay: str) -> pathlib.Path:
        return self.path / "slabs" / cell / f"{assay}.json"

    def slab_record(self, cell: str, assay: str) -> dict[str, Any] | None:
        """The marker of a slab (its sources and checksum), or None while it is not whole.

        Raises:
            InputError: if the marker is damaged.
        """
        marker = self._marker(cell, assay)
        if not marker.exists():
            return None
        return read_json(marker, "marker", "delete it, then run build_store again")

    def missing_slabs(self) -> list[tuple[str, str]]:
        """The (cell, assay) pairs that should be here and are not yet."""
        return [
            (cell, assay)
            for cell, assay in self.manifest.tracks
            if not self._marker(cell, assay).exists()
        ]

    # -- reading ----------------------------------------------------------------------------

    def _array(self, name: str) -> Any:
        """The TensorStore array `name`, opened again.

        If it were kept, a store that is removed or unmounted meanwhile would read as NaN, without
        an error.
        """
        return open_array(self.path, name)

    def _read(self, name: str, index: Any = ...) -> np.ndarray:
        """Values of an array, as a copy that nothing else holds."""
        return np.array(self._array(name)[index].read().result())

    def read_signal(
        self, cells: Sequence[str], assays: Sequence[str], bins: slice = slice(None)
    ) -> np.ndarray:
        """Raw bin means `[C A G W]`, float32 in the tracks' unit, of the named cells and assays.

        Raises:
            InputError: naming every cell or assay the store does not have.
        """
        cell_index = self._indices("cell", cells, self.manifest.cells)
        assay_index = self._indices("assay", assays, self.manifest.assays)
        view = self._array("signal")
        out = np.empty((len(cells), len(assays), *view[0, 0, :, bins].shape), np.float32)
        reads = [
            (i, j, view[c, a, :, bins].read())
            for i, c in enumerate(cell_index)
            for j, a in enumerate(assay_index)
        ]
        for i, j, read in reads:
            out[i, j] = read.result()
        return out

    def read_expression(self, cells: Sequence[str]) -> np.ndarray:
        """Expression `[C G]`, float32 in RPKM."""
        rows = self._indices("cell", cells, self.manifest.cells)
        return self._read("expression")[rows]

    def read_labels(self, cells: Sequence[str]) -> np.ndarray | None:
        """Which genes the inputs called expressed: `[C G]` bool; None if they did not say."""
        rows = self._indices("cell", cells, self.manifest.cells)
        if not self.manifest.given_labels:
            return None
        return self._read("label")[rows]

    def regions(self, cell: str) -> Regions:
        """The regions that genes touch in this cell.

        Raises:
            InputError: if the store has none of it.
        """
        self._require_regions(cell)
        return Regions.read(self.path / "regions" / cell)

    def read_region_signal(self, cell: str, assays: Sequence[str]) -> np.ndarray:
        """Raw bin means of the cell's regions, end to end: `[A bin]`, float32, in the tracks' unit.

        Raises:
            InputError: if the store has no regions of the cell, or naming every unknown assay.
        """
        self._require_regions(cell)
        rows = self._indices("assay", assays, self.manifest.assays)
        return self._read(_region_signal(cell), rows)

    def _require_regions(self, cell: str) -> None:
        self._indices("cell", [cell], self.manifest.cells)
        if cell not in self.manifest.regions_sha256:
            raise InputError(
                f"{self.path}: {cell}",
                "no regions: the store was built without contacts of this cell",
                "the regions that its genes touch, which this model reads",
                "build the store with --interactions",
            )

    def _indices(self, kind: str, wanted: Sequence[str], known: list[str]) -> list[int]:
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise InputError(
                str(self.path),
                f"unknown {kind} {listing(unknown)}",
                f"one of {', '.join(known)}",
                f"correct the name, or build a store that has this {kind}",
            )
        return [known.index(name) for name in wanted]

    # -- checking ---------------------------------------------------------------------------

    def checksum(self) -> str:
        """Sha256 over the manifest and every slab's values: equal stores hold equal numbers."""
        slabs = [
            [*pair, (self.slab_record(*pair) or {}).get("sha256")] for pair in self.manifest.tracks
        ]
        manifest = dataclasses.asdict(self.manifest)
        if not manifest["blacklist"]:
            del manifest["blacklist"]  # stores from before it keep their checksum
        content = json.dumps([manifest, slabs], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def verify(self, watch: Callable[[list], Iterable] = iter) -> list[Problem]:
        """Read everything back, compare with the recorded checksums, and list what differs.

        Args:
            watch: may wrap the list of tracks, to show progress.
        """
        manifest, path = self.manifest, self.path
        parts: list[tuple[str, Callable[[], str], str]] = [
            ("expression", lambda: _digest(self._read("expression")), manifest.expression_sha256),
            ("genes.parquet", lambda: _digest_table(self.genes), manifest.genes_sha256),
        ]
        if manifest.given_labels:
            parts.append(("label", lambda: _digest(self._read("label")), manifest.labels_sha256))
        for cell, expected in manifest.regions_sha256.items():
            parts.append((f"regions/{cell}", lambda c=cell: self.regions(c).sha256(), expected))
        problems = []
        for name, digest, expected in parts:
            problems += _compared(f"{path}/{name}", digest, expected)
        for cell, assay in watch(manifest.tracks):
            where = f"{path}: {cell}-{assay}"
            try:
                record = self.slab_record(cell, assay)
            except InputError as error:
                problems += error.problems
                continue
            if record is None:
                problems.append(Problem(where, "no slab", "a whole slab", "rerun build_store"))
                continue
            digest = functools.partial(self._slab_digest, cell, assay)
            problems += _compared(where, digest, record.get("sha256", ""))
        return problems

    def _slab_digest(self, cell: str, assay: str) -> str:
        index = self.manifest.cells.index(cell), self.manifest.assays.index(assay)
        values = [self._read(name, index) for name in ("signal", "coverage")]
        if cell in self.manifest.regions_sha256:
            values.append(self.read_region_signal(cell, [assay])[0])
        return _digest(*values)


def _write_failed(path: pathlib.Path, error: Exception) -> InputError:
    return InputError(
        str(path),
        f"a write that failed: {str(error).splitlines()[0][:300]}",
        "room and permission to write",
        "free space or choose another --store, then run the same command again",
    )


def _digest(*arrays: np.ndarray) -> str:
    """Sha256 of the values of arrays as float32, whatever their compression on disk."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


def _digest_table(table: pd.DataFrame) -> str:
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def _region_signal(cell: str) -> str:
    return f"regions/{cell}/depth"


def _compared(where: str, digest: Callable[[], str], expected: str) -> list[Problem]:
    """The problem of values whose checksum is another than was recorded, if it is."""
    try:
        if digest() == expected:
            return []
        found = "values that differ from the recorded checksum"
    except (OSError, ValueError) as error:  # of damaged files
        found = f"no readable values ({str(error)[:200]})"
    remedy = (
        "for a track delete its marker under slabs/, for anything else the whole store; then run "
        "build_store again"
    )
    return [Problem(where, found, "what build_store wrote", remedy)]
