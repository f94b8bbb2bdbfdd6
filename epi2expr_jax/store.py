"""Floor 1. The window store: what `data_prep` writes and everything else reads.

A Zarr v3 group that TensorStore, zarr-python and `xarray.open_zarr` open as it is:

    signal      [cell, assay, gene, bin]  float32  raw bin means, genomic order; NaN where absent
    coverage    [cell, assay, gene]       float32  share of the window's bases that have data
    expression  [cell, gene]              float32  RPKM (or whatever the table held)
    cell, assay, gene                     string   labels
    genes.parquet                                  gene_id, name, chrom, tss, strand, …
    manifest.json                                  window, labels, units, assembly, checksums
    slabs/CELL/ASSAY.json                          marker: this (cell, assay) slab is whole

One (cell, assay) slab is one shard, one task, one writer. Its marker is written last, so a slab
is complete or absent; a store is complete when every expected slab is.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import tensorstore as ts

from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import listing
from epi2expr_jax.manifest import FORMAT, Manifest, read_manifest, write_json, write_manifest

# 512 genes x 400 bins x 4 B = 0.8 MB: a few reads a slab, and single genes stay cheap.
_GENES_PER_CHUNK = 512


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
    ) -> "WindowStore":
        """Declare all arrays, write labels, genes and expression; the slabs come later.

        Args:
            genes: `[G]` rows, in the order of the arrays.
            expression: `[C, G]` RPKM.

        Raises:
            InputError: if the disk refuses; nothing is left at `path` then.
        """
        path = pathlib.Path(path)
        genes = genes.reset_index(drop=True)
        expression = np.ascontiguousarray(expression, np.float32)
        manifest = dataclasses.replace(
            manifest, genes_sha256=_digest_table(genes), expression_sha256=_digest(expression)
        )
        partial = path.with_name(path.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)  # a leftover of a killed creation
        try:
            partial.mkdir(parents=True)
            _declare(partial, manifest, genes)
            _open_array(partial, "expression").write(expression).result()
            genes.to_parquet(partial / "genes.parquet", index=False)
            write_manifest(partial, manifest)
            partial.rename(path)
        except (OSError, ValueError) as error:
            raise _write_failed(path, error) from error
        return cls(path, manifest, genes)

    @classmethod
    def resume(cls, path: str | os.PathLike, manifest: Manifest) -> "WindowStore":
        """Open the store at `path`, complete or not, if it was asked for in the same words.

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
            InputError: if it is no store, of another format version, or half built.
        """
        path = pathlib.Path(path)
        manifest = read_manifest(path)
        store = cls(path, manifest, pd.read_parquet(path / "genes.parquet"))
        missing = store.missing_slabs()
        if missing and not incomplete:
            raise InputError(
                Problem(
                    str(path),
                    f"{len(missing)} of {len(manifest.tracks)} tracks not built yet "
                    f"({listing('-'.join(pair) for pair in missing)})",
                    "a complete store",
                    "run the same build_store command again; it does only what is missing",
                )
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
    ) -> None:
        """Write one (cell, assay) slab, then its marker.

        Args:
            means: `[G, W]` raw bin means in genomic order.
            coverage: `[G]` share of each window's bases that have data.
            sources: name, size and sha256 of every file the means come from.

        Raises:
            InputError: on values that are not finite, or if the disk refuses them.
        """
        shape = (len(self.genes), self.manifest.window.bins)
        means = np.ascontiguousarray(means, np.float32)
        coverage = np.ascontiguousarray(coverage, np.float32)
        if means.shape != shape or coverage.shape != shape[:1]:
            raise ValueError(f"slab {means.shape}, coverage {coverage.shape}: expected {shape}")
        if not np.isfinite(means).all():
            bad = self.genes.gene_id.to_numpy()[~np.isfinite(means).all(axis=1)]
            raise InputError(
                Problem(
                    f"{cell}-{assay}",
                    f"values that are not finite ({listing(bad)})",
                    "finite signal",
                    "look at the track; missing bases should be absent, not NaN or infinite",
                )
            )
        index = self.manifest.cells.index(cell), self.manifest.assays.index(assay)
        try:
            _open_array(self.path, "coverage")[index].write(coverage).result()
            _open_array(self.path, "signal")[index].write(means).result()
            marker = self._marker(cell, assay)
            marker.parent.mkdir(parents=True, exist_ok=True)
            write_json(marker, {"sources": list(sources), "sha256": _digest(means, coverage)})
        except (OSError, ValueError) as error:
            raise _write_failed(self.path, error) from error

    def _marker(self, cell: str, assay: str) -> pathlib.Path:
        return self.path / "slabs" / cell / f"{assay}.json"

    def slab_record(self, cell: str, assay: str) -> dict[str, Any] | None:
        """The marker of a slab (its sources and checksum), or None while it is not whole."""
        marker = self._marker(cell, assay)
        return json.loads(marker.read_text()) if marker.exists() else None

    def missing_slabs(self) -> list[tuple[str, str]]:
        """The (cell, assay) pairs that should be here and are not yet."""
        return [
            (cell, assay)
            for cell, assay in self.manifest.tracks
            if not self._marker(cell, assay).exists()
        ]

    # -- reading ----------------------------------------------------------------------------

    def read_signal(
        self, cells: Sequence[str], assays: Sequence[str], bins: slice = slice(None)
    ) -> np.ndarray:
        """Raw bin means `[C, A, G, W]` float32 of the named cells and assays.

        Raises:
            InputError: naming every cell or assay the store does not have.
        """
        cell_index = self._indices("cell", cells, self.manifest.cells)
        assay_index = self._indices("assay", assays, self.manifest.assays)
        view = _open_array(self.path, "signal")
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
        """Expression `[C, G]` float32, RPKM."""
        rows = self._indices("cell", cells, self.manifest.cells)
        return np.asarray(_open_array(self.path, "expression").read().result())[rows]

    def read_coverage(self) -> np.ndarray:
        """Share of each window's bases that have data: `[C, A, G]` float32."""
        return np.asarray(_open_array(self.path, "coverage").read().result())

    def _indices(self, kind: str, wanted: Sequence[str], known: list[str]) -> list[int]:
        unknown = [name for name in wanted if name not in known]
        if unknown:
            raise InputError(
                Problem(
                    str(self.path),
                    f"unknown {kind} {listing(unknown)}",
                    f"one of {', '.join(known)}",
                    f"correct the name, or build a store that has this {kind}",
                )
            )
        return [known.index(name) for name in wanted]

    # -- checking ---------------------------------------------------------------------------

    def checksum(self) -> str:
        """Sha256 over the manifest and every slab's values: equal stores hold equal numbers."""
        slabs = [
            [*pair, (self.slab_record(*pair) or {}).get("sha256")] for pair in self.manifest.tracks
        ]
        content = json.dumps([dataclasses.asdict(self.manifest), slabs], sort_keys=True)
        return hashlib.sha256(content.encode()).hexdigest()

    def verify(self) -> list[Problem]:
        """Read everything back, compare with the recorded checksums, and list what differs."""
        problems = []
        expression = self.read_expression(self.manifest.cells)
        if _digest(expression) != self.manifest.expression_sha256:
            problems.append(_changed(f"{self.path}/expression"))
        if _digest_table(self.genes) != self.manifest.genes_sha256:
            problems.append(_changed(f"{self.path}/genes.parquet"))
        coverage = self.read_coverage()
        for cell, assay in self.manifest.tracks:
            record = self.slab_record(cell, assay)
            where = f"{self.path}: {cell}-{assay}"
            if record is None:
                problems.append(Problem(where, "no slab", "a whole slab", "rerun build_store"))
                continue
            means = self.read_signal([cell], [assay])[0, 0]
            c, a = self.manifest.cells.index(cell), self.manifest.assays.index(assay)
            if _digest(means, coverage[c, a]) != record["sha256"]:
                problems.append(_changed(where))
        return problems


def _declare(path: pathlib.Path, manifest: Manifest, genes: pd.DataFrame) -> None:
    # zarr-python writes what TensorStore cannot: group metadata and string labels.
    import zarr
    from zarr.errors import ZarrUserWarning

    cells, assays = manifest.cells, manifest.assays
    group = zarr.create_group(store=str(path), zarr_format=3, attributes={"format": FORMAT})
    for name, labels in (("cell", cells), ("assay", assays), ("gene", list(genes.gene_id))):
        array = group.create_array(
            name,
            shape=(len(labels),),
            chunks=(max(1, len(labels)),),
            dtype=str,
            dimension_names=(name,),
        )
        array[:] = np.asarray(labels, dtype=object)
    count, bins = len(genes), manifest.window.bins
    chunk = min(count, _GENES_PER_CHUNK)
    shard = -(-count // chunk) * chunk
    group.create_array(
        "signal", shape=(len(cells), len(assays), count, bins), dtype="float32",
        chunks=(1, 1, chunk, bins), shards=(1, 1, shard, bins), fill_value=np.nan,
        dimension_names=("cell", "assay", "gene", "bin"),
        attributes={"units": "raw bin means", "window_bp": manifest.window_bp,
                    "bin_bp": manifest.bin_bp},
    )  # fmt: skip
    group.create_array(
        "coverage", shape=(len(cells), len(assays), count), dtype="float32",
        chunks=(1, 1, count), fill_value=np.nan, dimension_names=("cell", "assay", "gene"),
    )  # fmt: skip
    group.create_array(
        "expression", shape=(len(cells), count), dtype="float32", chunks=(len(cells), count),
        fill_value=np.nan, dimension_names=("cell", "gene"), attributes={"units": "RPKM"},
    )  # fmt: skip
    with warnings.catch_warnings():
        # Not yet in the Zarr v3 specification, but xarray and zarr-python read it.
        warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
        zarr.consolidate_metadata(str(path))


def _open_array(path: pathlib.Path, name: str) -> ts.TensorStore:
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str((path / name).resolve())},
        "context": {
            # The defaults grow with the cores of the host, not with those lent to this process.
            "file_io_concurrency": {"limit": 8},
            "data_copy_concurrency": {"limit": 2},
            "cache_pool": {"total_bytes_limit": 0},
        },
    }
    return ts.open(spec, open=True).result()


def _write_failed(path: pathlib.Path, error: Exception) -> InputError:
    return InputError(
        Problem(
            str(path),
            f"a write that failed: {str(error).splitlines()[0][:300]}",
            "room and permission to write",
            "free space or choose another --store, then run the same command again",
        )
    )


def _digest(*arrays: np.ndarray) -> str:
    """Sha256 of the values of float32 arrays, whatever their compression on disk."""
    digest = hashlib.sha256()
    for array in arrays:
        digest.update(np.ascontiguousarray(array, "<f4").tobytes())
    return digest.hexdigest()


def _digest_table(table: pd.DataFrame) -> str:
    return hashlib.sha256(table.to_csv(index=False).encode()).hexdigest()


def _changed(where: str) -> Problem:
    return Problem(
        where,
        "values that differ from the recorded checksum",
        "what build_store wrote",
        "delete the slab's marker under slabs/ and run build_store again",
    )
