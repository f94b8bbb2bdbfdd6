"""The Zarr arrays of a window store: declared by zarr-python, opened by TensorStore."""

import pathlib
import warnings
from collections.abc import Mapping

import numpy as np
import pandas as pd
import tensorstore as ts

from epi2expr_jax.store.manifest import FORMAT, Manifest
from epi2expr_jax.store.regions import Regions

# 512 genes x 400 bins x 4 B = 0.8 MB: a few reads a slab, and single genes stay cheap.
_GENES_PER_CHUNK = 512


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
    if manifest.given_labels:
        group.create_array(
            "label", shape=(len(cells), count), dtype="bool", chunks=(len(cells), count),
            dimension_names=("cell", "gene"),
        )  # fmt: skip
    for cell, of_cell in regions.items():
        group.create_group(f"regions/{cell}").create_array(
            "depth", shape=(len(assays), of_cell.bins), dtype="float32",
            chunks=(1, max(1, of_cell.bins)), fill_value=np.nan, dimension_names=("assay", "bin"),
            attributes={"units": "raw bin means", "bin_bp": manifest.region_bin_bp},
        )  # fmt: skip
    with warnings.catch_warnings():
        # Not yet in the Zarr v3 specification, but xarray and zarr-python read it.
        warnings.filterwarnings("ignore", "Consolidated metadata", ZarrUserWarning)
        zarr.consolidate_metadata(str(path))


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
    """Open the array `name` of the store at `path`, to read and write it."""
    spec = {
        "driver": "zarr3",
        "kvstore": {"driver": "file", "path": str((path / name).resolve())},
    }
    return ts.open(spec, open=True, context=CONTEXT).result()
