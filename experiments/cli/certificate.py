"""What `experiments.verify` found in a run directory, and whether the same is still there."""

import contextlib
import dataclasses
import functools
import pathlib

from tqdm import tqdm

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import read_sealed
from epi2expr_jax.predict.training_store import find_store
from epi2expr_jax.store.manifest import LEAST_VERSION
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import tables
from epi2expr_jax.training import checkpoint

CERTIFICATE = "verify.json"
DAMAGED = "damaged"


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a run directory claims, and whether it holds.

    Attributes:
        holds: None where it was not looked at, and `found` says why.
    """

    name: str
    holds: bool | None
    found: str

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "not checked"}[self.holds]
        return f"{word:<12} {self.name:<12} {self.found}"


@dataclasses.dataclass(frozen=True)
class Certificate:
    """The claims of a verify.json.

    Attributes:
        changed: files that are not as they were when they were checked, or are new or gone, and
            "the store" if it is another. With any, the claims prove nothing.
        without_store: whether the store is not where it was, and so was not compared.
    """

    claims: tuple[Claim, ...]
    changed: tuple[str, ...]
    without_store: bool = False


def store_now(path: pathlib.Path, whole: bool = False) -> str:
    """What tells the contents of a store from any others; `DAMAGED` where it cannot be read.

    Args:
        whole: read all that it holds, showing how far that is; else no slab is read.
    """
    show = functools.partial(tqdm, desc="reading the store", unit="track", disable=None)
    try:
        store = WindowStore.open(path)
        if whole and store.verify(show):
            return DAMAGED
        if store.manifest.version > LEAST_VERSION:
            for cell, assay in store.manifest.tracks:
                for name in store.slabs.arrays_of(cell):
                    store.slabs.require_own(name, cell, assay)
        return store.checksum()
    except InputError:
        return DAMAGED


def read_certificate(run_dir: pathlib.Path) -> Certificate | None:
    """What was found when the run was last verified; None if it was not, or not to the end.

    Raises:
        InputError: if verify.json is damaged.
    """
    path, remedy = run_dir / CERTIFICATE, f"python -m experiments.verify --run={run_dir}"
    if not path.exists():
        return None
    content = read_sealed(path, "certificate", remedy)
    try:
        claims = tuple(Claim(**claim) for claim in content["claims"])
        then = dict(content.get("files", {}))  # version 0.1 named none
        then["the store"] = content.get("store", {}).get("sha256")
    except (KeyError, TypeError, ValueError, AttributeError):
        raise InputError(str(path), "another kind of JSON", "a certificate", remedy) from None
    card, store = checkpoint.read_finished(run_dir), None
    with contextlib.suppress(InputError):
        store = find_store(run_dir, {**card, **content})
    now = tables.checksums(run_dir, card)
    now["the store"] = store_now(store) if store else then["the store"]
    changed = [name for name in now.keys() | then.keys() if now.get(name) != then.get(name)]
    return Certificate(claims, tuple(sorted(changed)), store is None)
