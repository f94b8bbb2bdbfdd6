"""The marker of a slab: that it is whole, what it was made of, and which files hold it."""

import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import read_json, write_json

_REMEDY = "run again the command that built the store: it makes this track again"


def place(store: pathlib.Path, cell: str, assay: str) -> pathlib.Path:
    """Where the marker of a slab lies."""
    return store / "slabs" / cell / f"{assay}.json"


def write(
    marker: pathlib.Path,
    sources: Sequence[Mapping[str, Any]],
    sha256: str,
    fingerprints: Mapping[str, str],
) -> None:
    """Write a marker, whole or not at all.

    Args:
        sources: name, size and sha256 of every file that the values come from.
        sha256: of the values.
        fingerprints: of the slab's file in each array, by the array's name.
    """
    content = {"sources": list(sources), "sha256": sha256, "fingerprints": dict(fingerprints)}
    marker.parent.mkdir(parents=True, exist_ok=True)
    write_json(marker, {**content, "seal": _seal(marker, content)})


def read(marker: pathlib.Path, version: int) -> dict[str, Any] | None:
    """What a marker says; None if it is not there.

    Args:
        version: the store's. Of 2, markers have neither fingerprints nor a seal.

    Raises:
        InputError: if it is damaged, or the marker of another slab.
    """
    if not marker.exists():
        return None
    record = read_json(marker, "marker", _REMEDY)
    if version > 2 and record.pop("seal", None) != _seal(marker, record):
        found = "a marker that was changed, or of another track"
        raise InputError(str(marker), found, "what was written there", _REMEDY)
    sources = record.get("sources")
    sound = isinstance(sources, list) and all(
        isinstance(source, dict) and {"name", "bytes", "sha256"} <= source.keys()
        for source in sources
    )
    if not sound or not isinstance(record.get("sha256"), str):
        found = "no readable marker (without sources or sha256)"
        raise InputError(str(marker), found, "a marker", _REMEDY)
    return record


def _seal(marker: pathlib.Path, content: Mapping[str, Any]) -> str:
    name = [marker.parent.name, marker.stem]
    text = json.dumps([name, content], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
