"""To go on with the store that a command has begun, whatever happened to it since.

A store of format version 2 is brought up first: its slabs are copied, those whose checksums hold,
into a new store next to it, which takes its place when it is whole. Killed, that goes on where it
was.
"""

import os
import pathlib
import shutil
from collections.abc import Callable, Iterable

import pandas as pd

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import GENE_COLUMNS, listing
from epi2expr_jax.store.manifest import FORMAT_VERSION, Manifest
from epi2expr_jax.store.window_store import WindowStore

Watch = Callable[[list], Iterable]


def resume(
    path: str | os.PathLike,
    manifest: Manifest,
    genes: pd.DataFrame | None = None,
    *,
    check: bool = True,
    watch: Watch = iter,
) -> WindowStore | None:
    """Open the store at `path`, complete or not, if the request for it was the same.

    Args:
        manifest: the request.
        genes: what is known of genes today, by `gene_id`: what a store of version 2 lacks.
        check: read every slab, and take those that are damaged for absent.
        watch: may wrap the list of tracks, to show progress.

    Returns:
        The store; None if nothing is there.

    Raises:
        InputError: if another store is there, naming all that differs, or a damaged one; nothing
            is touched then.
    """
    path = pathlib.Path(path)
    new, old = _aside(path)
    if not path.exists() and old.exists() and new.exists():
        new.rename(path)
    if not path.exists():
        return None
    there = WindowStore.open(path, incomplete=True)
    there.manifest.require_same_request(manifest, str(path))
    if there.manifest.version < FORMAT_VERSION:
        there = _upgraded(there, genes, watch)
    elif check:
        _discard_damaged(there, watch)
    if old.exists():
        shutil.rmtree(old)
    return there


def _aside(path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Where the new store grows, and where the old one lies while they change places."""
    return path.with_name(f"{path.name}.upgrade"), path.with_name(f"{path.name}.before_upgrade")


def _discard_damaged(store: WindowStore, watch: Watch) -> None:
    missing = store.missing_slabs()
    there = [(cell, assay) for cell, assay in store.manifest.tracks if (cell, assay) not in missing]
    for cell, assay in watch(there):
        try:
            store.slabs.check(cell, assay)
        except InputError as error:
            print(f"{error.problems[0].where}: {error.problems[0].found}; it is made again")
            store.slabs.discard(cell, assay)


def _upgraded(before: WindowStore, genes: pd.DataFrame | None, watch: Watch) -> WindowStore:
    """The store as one of the version of today, in its place."""
    path, manifest = before.path, before.manifest
    new, old = _aside(path)
    if new.exists():
        after = WindowStore.open(new, incomplete=True)
    else:
        cells = manifest.cells
        regions = {cell: before.regions(cell) for cell in manifest.regions_sha256}
        after = WindowStore.declare(
            new,
            manifest,
            _with_details(before.genes, genes),
            before.read_expression(cells),
            regions,
            before.read_labels(cells),
        )
    damaged = []
    for cell, assay in watch(manifest.tracks):
        if after.slab_record(cell, assay) is not None:
            continue
        try:
            record = before.slab_record(cell, assay)
            values = before.slabs.read(cell, assay) if record else None
        except InputError:
            damaged.append(f"{cell}-{assay}")
            continue
        if record and values:
            means, coverage, *depth = values
            after.write_slab(cell, assay, means, coverage, record["sources"], *depth)
    path.rename(old)
    new.rename(path)
    print(f"{path}: format version {manifest.version}, now {FORMAT_VERSION}")
    if damaged:
        print(f"damaged, made again: {listing(damaged)}")
    return WindowStore.open(path, incomplete=True)


def _with_details(stored: pd.DataFrame, known: pd.DataFrame | None) -> pd.DataFrame:
    """The genes as they are stored, with the further columns of what is known of them."""
    if known is None:
        return stored
    details = known.set_index("gene_id").drop(columns=[*GENE_COLUMNS[1:]])
    return stored.join(details, on="gene_id")
