"""The store that a run was trained on, wherever it or the run lies now."""

import contextlib
import os
import pathlib
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.trained_signal import under_name
from epi2expr_jax.store.manifest import MANIFEST
from epi2expr_jax.store.window_store import WindowStore

_PLACE = ["chrom", "tss", "strand"]


def places(store: str | os.PathLike, run_dir: str | os.PathLike) -> dict[str, str]:
    """Where a store lies, as a run card keeps it: from the root, and from the run directory."""
    path = os.path.abspath(store)
    return {"path": path, "relative": os.path.relpath(path, os.path.abspath(run_dir))}


def find_store(
    run_dir: str | os.PathLike, card: dict[str, Any], given: str | os.PathLike | None = None
) -> pathlib.Path:
    """Where the training store lies now.

    Args:
        given: where it is said to lie; by default the places of the run card are looked at. Of
            two stores there the one that the run was trained on counts, or else the first.

    Raises:
        InputError: if there is no store in any of them.
    """
    if given:
        return pathlib.Path(given)
    written = card["store"]
    found = [pathlib.Path(written["path"])]
    if "relative" in written:  # cards of older versions lack it
        found.append(pathlib.Path(os.path.normpath(run_dir / pathlib.Path(written["relative"]))))
    there = list(dict.fromkeys(path for path in found if (path / MANIFEST).exists()))
    if there:
        # Another run's store may lie where this one's did before it was moved.
        own = (path for path in there if _is_own(path, card))
        return next(own, there[0]) if there[1:] else there[0]
    looked = " nor at ".join(dict.fromkeys(map(str, found)))
    raise InputError(
        str(run_dir),
        f"no training store at {looked}",
        "the store that the run was trained on",
        "give --store=PATH (in Python: store), where it lies now",
    )


def _is_own(path: pathlib.Path, card: dict[str, Any]) -> bool:
    with contextlib.suppress(InputError):
        return WindowStore.open(path).checksum() == card.get("store_checksum")
    return False


def open_own(
    run_dir: pathlib.Path, card: dict[str, Any], given: str | os.PathLike | None = None
) -> WindowStore:
    """The training store, opened.

    Raises:
        InputError: if it is not there, or that is another store.
    """
    store = WindowStore.open(find_store(run_dir, card, given))
    if store.checksum() != card["store_checksum"]:
        raise other_store(store, card)
    return store


def new_genes(
    run_dir: pathlib.Path, card: dict[str, Any], store: WindowStore
) -> Bool[np.ndarray, " G"]:
    """Which genes of a store are not in the training store, by id nor by place; none where that is
    not found."""
    genes = store.genes
    if "path" in card.get("store", {}):
        with contextlib.suppress(InputError):
            path = find_store(run_dir, card)
            if not path.samefile(store.path):
                known = open_own(run_dir, card, path).genes
                there = pd.MultiIndex.from_frame(known[_PLACE])
                new = ~pd.MultiIndex.from_frame(genes[_PLACE]).isin(there)
                return new & ~genes["gene_id"].isin(known["gene_id"]).to_numpy()
    return np.zeros(len(genes), bool)


def other_store(store: WindowStore, card: dict[str, Any]) -> InputError:
    """The error of a store that is not the run's own."""
    name, remedy = (card.get("signal") or {}).get("assembly"), "give the right --store"
    if name and name != store.manifest.assembly:
        remedy += f"; {under_name(name)}"
    return InputError(
        str(store.path),
        "a store with other contents than the one trained on",
        f"checksum {card['store_checksum'][:12]}, as the run card says",
        f"{remedy}; or train again",
    )
