"""The Zarr arrays of a window store: declared by zarr-python, opened by TensorStore."""

import contextlib
import hashlib
import numbers
import os
import pathlib
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
import tensorstore as ts

from epi2expr_jax.errors import InputError
from epi2expr_jax.store.manifest import FORMAT, Manifest
from epi2expr_jax.store.regions import Regions

# 512 genes x 400 bins x 4 B = 0.8 MB: a few reads a slab, and single genes stay cheap.
_GENES_PER_CHUNK = 512
# What is wrong with a file on disk reaches us as any of these.
_UNREADABLE = (OSError, ValueError, IndexError, TypeError, RuntimeError, OverflowError)


def declare_arrays(
    path: pathlib.Path, manifest: Manifest, genes: pd.DataFrame, regions: Mapping[str, Regions]
) -> None:
    """Create the group at `path` and every array in it; of values, only the labels are written.

    Args:
        genes: the gene table, `[G]` rows.
        regions: of each cell that has contacts.
    """
    # zarr-python writes what TensorStore cannot: group metadata and string labels.
    import zarr
    from zarr.errors import ZarrUserWarning

    cells, assays = manifest.cells, manifest.assays
    of_genes = {
        "tss": genes.tss.to_numpy(np.int64),
        **{name: genes[name] for name in ("strand", "chrom")},
        "gene_name": genes.get("name", pd.Series("", genes.index)).fillna(""),
    }
    # Which arrays are coordinates, as xarray reads it (CF conventions, section 5).
    attributes = {"format": FORMAT, "coordinates": " ".join(of_genes)}
    group = zarr.create_group(store=str(path), zarr_format=3, attributes=attributes)
    count, bins = len(genes), manifest.window.bins
    middle = (np.arange(bins) + 0.5) * manifest.bin_bp - manifest.window_bp / 2
    labels = {"cell": cells, "assay": assays, "gene": genes.gene_id, "bin": middle, **of_genes}
    for name, values in labels.items():
        values = np.asarray(values)
        numbers = values.dtype.kind in "if"
        array = group.create_array(
            name,
            shape=(len(values),),
            chunks=(max(1, len(values)),),
            dtype=values.dtype if numbers else str,
            dimension_names=("gene" if name in of_genes else name,),
            attributes={"units": "bp"} if numbers else None,
        )
        array[:] = values if numbers else values.astype(object)
    chunk = min(count, _GENES_PER_CHUNK)
    shard = chunks_of_slab(count) * chunk
    codecs = _codecs()
    group.create_array(
        "signal", shape=(len(cells), len(assays), count, bins), dtype="float32",
        chunks=(1, 1, chunk, bins), shards=(1, 1, shard, bins), fill_value=np.nan,
        dimension_names=("cell", "assay", "gene", "bin"), compressors=codecs,
        attributes={"units": "raw bin means", "window_bp": manifest.window_bp,
                    "bin_bp": manifest.bin_bp},
    )  # fmt: skip
    group.create_array(
        "coverage", shape=(len(cells), len(assays), count), dtype="float32",
        chunks=(1, 1, count), fill_value=np.nan, dimension_names=("cell", "assay", "gene"),
        compressors=codecs,
    )  # fmt: skip
    if manifest.expression_unit:
        group.create_array(
            "expression", shape=(len(cells), count), dtype="float32", chunks=(len(cells), count),
            fill_value=np.nan, dimension_names=("cell", "gene"),
            attributes={"units": manifest.expression_unit}, compressors=codecs,
        )  # fmt: skip
    if manifest.given_labels:
        group.create_array(
            "label", shape=(len(cells), count), dtype="bool", chunks=(len(cells), count),
            dimension_names=("cell", "gene"), compressors=codecs,
        )  # fmt: skip
    for cell, of_cell in regions.items():
        group.create_group(f"regions/{cell}").create_array(
            "depth", shape=(len(assays), of_cell.bins), dtype="float32",
            chunks=(1, max(1, of_cell.bins)), fill_value=np.nan, dimension_names=("assay", "bin"),
            attributes={"units": "raw bin means", "bin_bp": manifest.region_bin_bp},
            compressors=codecs,
        )  # fmt: skip
    with warnings.catch_warnings():
        # Not yet in the Zarr v3 specification, but xarray and zarr-python read it.
        warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
        zarr.consolidate_metadata(str(path))


def _codecs() -> Any:
    """How each inner chunk of a shard, or a whole chunk, is stored."""
    from zarr.codecs import ZstdCodec

    # zstd checks what it has decoded, so what is read in parts is checked, too. Older stores have
    # crc32c after it, which TensorStore takes longer for (docs/decisions, 0085).
    return [ZstdCodec(level=0, checksum=True)]


# One context for the whole process, never destroyed. When every open had its own, TensorStore
# 0.1.86 sometimes freed a context's thread pool twice under load, and the process died
# (docs/decisions, 0047).
CONTEXT = ts.Context(
    {
        # The defaults grow with the cores of the host, not with those lent to this process.
        "file_io_concurrency": {"limit": 8},
        "data_copy_concurrency": {"limit": 2},
        "cache_pool": {"total_bytes_limit": 0},
    }
)


def open_array(path: pathlib.Path, name: str) -> ts.TensorStore:
    """Open the array `name` of the store at `path`, to read and write it.

    To read what was never written, or is gone, is an error. It is opened again each time: if it
    were kept, a store that is removed or unmounted meanwhile might be read from.
    """
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str((path / name).resolve())},
        "fill_missing_data_reads": False,
        "store_data_equal_to_fill_value": True,  # as labels may be
    }
    return ts.open(spec, open=True, context=CONTEXT).result()


def open_to_read(path: pathlib.Path, name: str, shape: tuple[int, ...]) -> ts.TensorStore:
    """Open the array `name`, which is of this shape.

    Raises:
        InputError: if the array is damaged or gone.
    """
    with readable(path / name):
        array = open_array(path, name)
        if array.shape != shape:
            raise ValueError(f"an array of {array.shape}, not {shape}")
        return array


def bins_of(bins: Any, count: int, where: str) -> slice:
    """A slice of `count` bins by its places from the first one, as Python counts them.

    Raises:
        InputError: if it is no slice of whole numbers, leaves bins out or turns them round.
    """
    ends = (bins.start, bins.stop, bins.step) if isinstance(bins, slice) else (bins,)
    if not isinstance(bins, slice) or not all(
        end is None or isinstance(end, numbers.Integral) for end in ends
    ):
        found, expected = repr(bins), "a slice of whole numbers, as slice(-7, None)"
        raise InputError(f"{where}: bins", found, expected, "slice(None) takes all of them")
    if bins.step not in (None, 1):
        found, expected = f"a step of {bins.step}", "neighbouring bins in their order"
        raise InputError(f"{where}: bins", found, expected, "take a step of the array that is read")
    low, high, _ = bins.indices(count)
    return slice(low, max(low, high))


def begin_read(part: ts.TensorStore, out: np.ndarray) -> Any:
    """Begin to read part of an array into `out`, without a copy in between."""
    return ts.array(out, context=CONTEXT, copy=False).write(part)


@contextlib.contextmanager
def readable(file: pathlib.Path) -> Iterator[None]:
    """For reading an array.

    Raises:
        InputError: if what is on disk is damaged or gone.
    """
    try:
        yield
    except _UNREADABLE as error:
        raise unreadable(file, error) from None


def unreadable(file: pathlib.Path, error: Exception) -> InputError:
    """The error of an array that cannot be read."""
    reason = str(error).partition("\n")[0].replace("Error opening ", "")[:200]
    return InputError(
        str(file), f"no readable values ({reason})", "what was written there", BUILD_AGAIN
    )


BUILD_AGAIN = (
    "run again the command that built the store: it makes damaged tracks again; "
    "if it refuses, delete the store first"
)


def chunks_of_slab(genes: int) -> int:
    """How many chunks the signal of a track is stored in."""
    return -(-genes // min(genes, _GENES_PER_CHUNK))


def fingerprint(path: pathlib.Path, name: str, index: tuple[int, ...], chunks: int = 0) -> str:
    """What tells the file of a slab from any other, without reading it whole.

    It is the checksum of the checksums that the file holds, of all its chunks.

    Args:
        name: the array, whose chunks (or shards) are whole in their last axes.
        index: of the slab: the array's first axes, and 0 for each of the others.
        chunks: how many a shard has; 0: it is a chunk, not a shard.

    Raises:
        InputError: if the file cannot be read.
    """
    file = os.path.join(path, name, "c", *map(str, index))
    sums = 4  # bytes of a checksum, which is what chunks and the index of a shard end in
    try:
        handle = os.open(file, os.O_RDONLY)
        try:
            size = os.fstat(handle).st_size
            tail = os.pread(handle, 16 * chunks + sums, max(0, size - 16 * chunks - sums))
            parts = [str(size).encode(), tail]
            places = np.frombuffer(tail[: 16 * chunks], "<u8").reshape(-1, 2)
            for end in places.sum(axis=1).tolist():
                parts.append(os.pread(handle, sums, end - sums) if sums <= end <= size else b"")
        finally:
            os.close(handle)
    except _UNREADABLE as error:
        raise unreadable(pathlib.Path(file), error) from None
    return hashlib.sha256(b"".join(parts)).hexdigest()[:16]
