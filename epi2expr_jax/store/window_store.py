"""The window store: what `data_prep` writes and everything else reads.

A Zarr v3 group that TensorStore, zarr-python and `xarray.open_zarr` open as it is:

    signal      [cell, assay, gene, bin]  float32  raw bin means, genomic order; NaN where absent
    coverage    [cell, assay, gene]       float32  share of the window's bases that have data
    expression  [cell, gene]              float32  in the manifest's unit; none in some stores
    label       [cell, gene]              bool     expressed or silent, if the inputs say so
    cell, assay, gene                     string   labels
    tss, strand, chrom, gene_name, bin             coordinates of genes and bins, for xarray
    genes.parquet                                  gene_id, name, chrom, tss, strand, …
    manifest.json                                  window, labels, units, assembly, checksums
    regions/CELL/                                  if its genes have contacts:
        depth   [assay, bin]              float32  raw bin means of all regions, end to end
        regions.parquet                            chrom, start, end, first, bins
        contacts.parquet                           gene, rank, region, score
    slabs/CELL/ASSAY.json                          marker: this (cell, assay) slab is whole

One (cell, assay) slab is one shard (and another of its regions), one task, one writer. Its marker
is written last, so a slab is complete or absent; a store is complete when every expected slab is.

Damage is found when it is read: every chunk ends in its checksum, and the marker knows which files
are of its slab; the manifest knows the checksums of all that is written before the slabs, and its
own.
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

from epi2expr_jax.errors import InputError, Problem, Problems, collect
from epi2expr_jax.files import read_parquet, sha256, whole_folder, write_parquet
from epi2expr_jax.genome import GENE_DETAILS, listing
from epi2expr_jax.names import known_names
from epi2expr_jax.store import arrays
from epi2expr_jax.store.facts import Facts, counted
from epi2expr_jax.store.manifest import FORMAT_VERSION, Manifest, read_manifest, write_manifest
from epi2expr_jax.store.regions import Regions
from epi2expr_jax.store.slabs import Slabs, changed, digest, refused, region_signal
from epi2expr_jax.units import DEFAULT_UNIT

_GENES = "genes.parquet"


class WindowStore(Facts):
    """An open store: `create` one to build it, `open` one to read it."""

    def __init__(self, path: pathlib.Path, manifest: Manifest, genes: pd.DataFrame):
        self.path = path
        self.manifest = manifest
        self.genes = genes
        self.slabs = Slabs(path, manifest, genes, self.regions)

    def facts(self) -> tuple[str, dict[str, Any]]:
        """As `Facts.facts`."""
        known = self.manifest
        return f"window store {self.path}", {
            "genes": f"{len(self.genes):,} on {len(known.chromosomes)} chromosomes",
            "assembly": known.assembly,
            "cells": counted(known.cells),
            "assays": counted(known.assays),
            "tracks": len(known.tracks),
            "window": f"{known.window_bp:,} bp around the TSS in bins of {known.bin_bp} bp",
            "expression": known.expression_unit or "none",
            "contacts": counted(known.regions_sha256) if known.regions_sha256 else "none",
            "blacklist": known.blacklist.get("name", "none"),
        }

    # -- creating ---------------------------------------------------------------------------

    @classmethod
    def create(
        cls,
        path: str | os.PathLike,
        manifest: Manifest,
        genes: pd.DataFrame,
        expression: np.ndarray | None,
        contacts: Mapping[str, pd.DataFrame] | None = None,
        labels: np.ndarray | None = None,
    ) -> "WindowStore":
        """Declare all arrays, write labels, genes and expression; the slabs come later.

        Args:
            genes: `[G]` rows, in the order of the arrays.
            expression: `[C G]` in the manifest's unit; None in a store to predict from, or of
                labels alone, whose manifest has no unit.
            contacts: cell to its contacts table (see `Regions.from_contacts`).
            labels: `[C G]` bool, true for an expressed gene, if the inputs say so.

        Raises:
            InputError: if the disk refuses; nothing is left at `path` then.
        """
        regions = {
            cell: Regions.from_contacts(table, genes, manifest.region_bin_bp)
            for cell, table in (contacts or {}).items()
        }
        return cls.declare(path, manifest, genes, expression, regions, labels)

    @classmethod
    def declare(
        cls,
        path: str | os.PathLike,
        manifest: Manifest,
        genes: pd.DataFrame,
        expression: np.ndarray | None,
        regions: Mapping[str, Regions],
        labels: np.ndarray | None = None,
    ) -> "WindowStore":
        """As `create`, of regions that are laid out already."""
        path = pathlib.Path(path)
        genes = genes.reset_index(drop=True)
        values = None if expression is None else np.ascontiguousarray(expression, np.float32)
        manifest = dataclasses.replace(
            manifest,
            genes_sha256=_digest_genes(genes),
            expression_sha256="" if values is None else digest(values),
            regions_sha256={cell: of_cell.sha256() for cell, of_cell in regions.items()},
            given_labels=labels is not None,
            labels_sha256="" if labels is None else digest(labels),
            version=FORMAT_VERSION,
        )
        tables = {_GENES: genes}
        for cell, of_cell in regions.items():
            tables[f"regions/{cell}/regions.parquet"] = of_cell.table
            tables[f"regions/{cell}/contacts.parquet"] = of_cell.contacts
        try:
            with whole_folder(path) as place:
                arrays.declare_arrays(place, manifest, genes, regions)
                if values is not None:
                    arrays.open_array(place, "expression").write(values).result()
                if labels is not None:
                    arrays.open_array(place, "label").write(labels).result()
                for name, table in tables.items():
                    write_parquet(place / name, table)
                files = sorted(path for path in place.rglob("*") if path.is_file())
                sums = {str(path.relative_to(place)): sha256(path) for path in files}
                manifest = dataclasses.replace(manifest, tables_sha256=sums)
                write_manifest(place, manifest)
        except (OSError, ValueError) as error:
            raise refused(path, error) from error
        return cls(path, manifest, genes)

    # -- opening ----------------------------------------------------------------------------

    @classmethod
    def open(cls, path: str | os.PathLike, *, incomplete: bool = False) -> "WindowStore":
        """Open the store at `path`.

        Args:
            incomplete: allow a store whose build has not finished.

        Raises:
            InputError: if it is not a store, of another format version, damaged, or half built.
        """
        path = pathlib.Path(path)
        manifest = read_manifest(path)
        _check_files(path, manifest)
        genes = _read_table(path, manifest, _GENES)
        if manifest.version < FORMAT_VERSION and _digest_genes(genes) != manifest.genes_sha256:
            raise changed(path / _GENES)
        store = cls(path, manifest, genes)
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
        """Write one (cell, assay) slab. See `Slabs.write`."""
        self.slabs.write(cell, assay, means, coverage, sources, regions)

    def slab_record(self, cell: str, assay: str) -> dict[str, Any] | None:
        """The marker of a slab. See `Slabs.record`."""
        return self.slabs.record(cell, assay)

    def missing_slabs(self) -> list[tuple[str, str]]:
        """The (cell, assay) pairs that should be here and are not yet."""
        return self.slabs.missing()

    # -- reading ----------------------------------------------------------------------------

    def read_signal(
        self,
        cells: str | Sequence[str],
        assays: str | Sequence[str],
        bins: slice = slice(None),
    ) -> np.ndarray:
        """Raw bin means `[C A G W]`, float32 in the tracks' unit, of the named cells and assays.

        Raises:
            InputError: naming every cell or assay the store lacks; as `arrays.bins_of`.
        """
        cells, cell_index = self._indices("cell", cells, self.manifest.cells)
        assays, assay_index = self._indices("assay", assays, self.manifest.assays)
        bins = arrays.bins_of(bins, self.manifest.window.bins, str(self.path))
        shape = len(cells), len(assays), len(self.genes), bins.stop - bins.start
        out, signal, reads = np.empty(shape, np.float32), self.slabs.opened("signal"), []
        with collect() as problems:
            for i, c in enumerate(cell_index):
                for j, a in enumerate(assay_index):
                    if not self.slabs.expects(cells[i], assays[j]):
                        out[i, j] = np.nan
                        continue
                    reads.append((i, j, arrays.begin_read(signal[c, a, :, bins], out[i, j])))
                    with problems.part():  # while it is read
                        self.slabs.require_own("signal", cells[i], assays[j])
        for i, j, read in reads:
            with arrays.readable(self.path / f"signal of {cells[i]}-{assays[j]}"):
                read.result()
        return out

    def read_expression(self, cells: str | Sequence[str]) -> np.ndarray:
        """Expression `[C G]`, float32 in the manifest's unit.

        Of a store of labels alone it is 1 for an expressed gene and 0 for a silent one.

        Raises:
            InputError: if it is damaged, if the store has none, or naming every unknown cell.
        """
        _, rows = self._indices("cell", cells, self.manifest.cells)
        if not self.manifest.expression_unit:
            labels = self.read_labels(cells)
            if labels is None:
                raise InputError(
                    str(self.path),
                    "no expression: the store was built to predict from",
                    "a store with the expression of its genes",
                    "build one with --expression",
                )
            return labels.astype(np.float32)
        return self._read_whole("expression", self.manifest.expression_sha256)[rows]

    def read_labels(self, cells: str | Sequence[str]) -> np.ndarray | None:
        """Which genes the inputs called expressed: `[C G]` bool; None if they did not say."""
        _, rows = self._indices("cell", cells, self.manifest.cells)
        if not self.manifest.given_labels:
            return None
        return self._read_whole("label", self.manifest.labels_sha256)[rows]

    def _read_whole(self, name: str, recorded: str) -> np.ndarray:
        values = self.slabs.values(name)
        if digest(values) != recorded:
            raise changed(self.path / name)
        return values

    def regions(self, cell: str) -> Regions:
        """The regions that genes touch in this cell.

        Raises:
            InputError: if the store has none of it.
        """
        self._require_regions(cell)
        names = (f"regions/{cell}/{name}.parquet" for name in ("regions", "contacts"))
        found = Regions(*(_read_table(self.path, self.manifest, name) for name in names))
        recorded = self.manifest.regions_sha256[cell]
        if self.manifest.version < FORMAT_VERSION and found.sha256() != recorded:
            raise changed(self.path / "regions" / cell)
        return found

    def with_shuffled_regions(self) -> "WindowStore":
        """This store, with `Regions.shuffled` for its regions."""
        return _Shuffled(self.path, self.manifest, self.genes)

    def read_region_signal(self, cell: str, assays: str | Sequence[str]) -> np.ndarray:
        """Raw bin means of the cell's regions, end to end: `[A bin]`, float32, in the tracks' unit.

        Raises:
            InputError: if the store has no regions of the cell, or naming every unknown assay.
        """
        self._require_regions(cell)
        assays, _ = self._indices("assay", assays, self.manifest.assays)
        name = region_signal(cell)
        out = np.full((len(assays), self.slabs.shape(name)[1]), np.nan, np.float32)
        with collect() as problems:
            for row, assay in enumerate(assays):
                if self.slabs.expects(cell, assay):
                    with problems.part():
                        out[row] = self.slabs.array(name, cell, assay)
        return out

    def _require_regions(self, cell: str) -> None:
        self._indices("cell", [cell], self.manifest.cells)
        if cell not in self.manifest.regions_sha256:
            raise InputError(
                f"{self.path}: {cell}",
                "no regions: the store was built without contacts of this cell",
                "the regions that its genes touch, which this model reads",
                "build the store with --interactions",
            )

    def _indices(
        self, kind: str, wanted: str | Sequence[str], known: list[str]
    ) -> tuple[list[str], list[int]]:
        remedy = f"correct the name, or build a store that has this {kind}"
        names = known_names(wanted, known, str(self.path), kind, remedy)
        return names, [known.index(name) for name in names]

    # -- checking ---------------------------------------------------------------------------

    def checksum(self) -> str:
        """Sha256 over the manifest and every slab's values: equal stores hold equal numbers."""
        tracks = self.manifest.tracks
        slabs = [[*pair, (self.slab_record(*pair) or {}).get("sha256")] for pair in tracks]
        manifest = dataclasses.asdict(self.manifest)
        del manifest["version"], manifest["tables_sha256"], manifest["blacklisted"]  # no values
        if not manifest["blacklist"]:  # stores from before it keep their checksum
            del manifest["blacklist"]
        if manifest["expression_unit"] == DEFAULT_UNIT:
            del manifest["expression_unit"]  # likewise
        content = json.dumps([manifest, slabs], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def verify(self, watch: Callable[[list], Iterable] = iter) -> list[Problem]:
        """Read everything back, compare with the recorded checksums, and list what differs.

        Args:
            watch: may wrap the list of tracks, to show progress.
        """
        manifest, cells = self.manifest, self.manifest.cells
        checks: list[Callable[[], object]] = [
            lambda: manifest.expression_unit and self.read_expression(cells),
            lambda: self.read_labels(cells),
            self._check_genes,
        ]
        checks += [functools.partial(self._check_regions, cell) for cell in manifest.regions_sha256]
        problems = Problems()
        for check in checks:
            with problems.part():
                check()
        for cell, assay in watch(manifest.tracks):
            with problems.part():
                self.slabs.check(cell, assay)
        return problems.found

    def _check_regions(self, cell: str) -> None:
        if WindowStore.regions(self, cell).sha256() != self.manifest.regions_sha256[cell]:
            raise changed(self.path / "regions" / cell)

    def _check_genes(self) -> None:
        genes = _read_table(self.path, self.manifest, _GENES)
        if _digest_genes(genes) != self.manifest.genes_sha256:
            raise changed(self.path / _GENES)


class _Shuffled(WindowStore):
    def regions(self, cell: str) -> Regions:
        return super().regions(cell).shuffled(self.genes)


def _check_files(path: pathlib.Path, manifest: Manifest) -> None:
    """Refuse changed labels and descriptions of arrays, which other readers of Zarr go by."""
    with collect(most=5) as problems:
        for name, written in manifest.tables_sha256.items():
            if name.endswith(".parquet"):
                continue  # checked as it is read
            with problems.part():
                with arrays.readable(path / name):
                    now = sha256(path / name)
                if now != written:
                    raise changed(path / name)


def _read_table(path: pathlib.Path, manifest: Manifest, name: str) -> pd.DataFrame:
    """A Parquet table of a store, which is refused if it is not what was written there."""
    table = read_parquet(path / name, "table of the store", arrays.BUILD_AGAIN)
    if manifest.version > 2 and sha256(path / name) != manifest.tables_sha256.get(name):
        raise changed(path / name)
    return table


def _digest_genes(genes: pd.DataFrame) -> str:
    # Without what version 2 does not know and no number depends on.
    known = genes.drop(columns=[*GENE_DETAILS], errors="ignore")
    return hashlib.sha256(known.to_csv(index=False).encode()).hexdigest()


open_store = WindowStore.open
