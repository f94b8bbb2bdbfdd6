"""Chromoformer's arrays: a folder, or a tar archive, of `chrom:start-end.npy`.

Each holds the read depth of every base of one promoter or pCRE: `[A, bp]`, float16.
"""

import hashlib
import io
import os
import pathlib
import tarfile
import tokenize
import zlib
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping

import numpy as np
from jaxtyping import Float32, Real

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import listing


def read_arrays(
    source: pathlib.Path, widths: Mapping[str, int], assays: int
) -> Iterator[tuple[str, Real[np.ndarray, "A bp"], str]]:
    """Read the arrays of a folder or archive, in any order.

    Args:
        widths: name of each file to read, and the bp it covers.
        assays: how many marks (A) each array has.

    Yields:
        Name, array and sha256 of each file that is as it should be.

    Raises:
        InputError: after the last of them, naming all that are missing or of each kind of mistake.
    """
    seen = set[str]()
    wrong: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, content in _contents(source, _also_named(widths)):
        mistake = None
        if name in seen:
            mistake = "the same name again", "each array once in the archive"
        seen.add(name)
        bases = _parse(content)
        mistake = mistake or _mistake(bases, assays, widths[name])
        if mistake:
            wrong[mistake].append(name)
        elif bases is not None:
            yield name, bases, hashlib.sha256(content).hexdigest()
    absent = [name for name in widths if name not in seen]
    if absent:
        wrong["no such file", "an array for every promoter and pCRE of the metadata"] += absent
    with collect() as problems:
        for (found, expected), names in wrong.items():
            problems.add(
                f"{source}, {len(names)} of {len(widths)} files",
                f"{found}: {listing(names, most=20)}",
                expected,
                "give the arrays that belong to the metadata, and --assays in their order",
            )


def _also_named(names: Collection[str]) -> dict[str, str]:
    """The names that files may have, with `chr` or without, and the name that each stands for."""
    bare = {name.removeprefix("chr"): name for name in names}
    return {f"chr{other}": name for other, name in bare.items()} | bare | {n: n for n in names}


def bin_means(bases: Real[np.ndarray, "A bp"], bin_bp: int) -> Float32[np.ndarray, "A bin"]:
    """Means over bins of `bin_bp`, the last one over the bases that remain; summed in float64."""
    first = np.arange(0, bases.shape[1], bin_bp)
    sums = np.add.reduceat(bases, first, axis=1, dtype=np.float64)
    return (sums / np.diff(first, append=bases.shape[1])).astype(np.float32)


def size_on_disk(source: pathlib.Path, names: Collection[str]) -> int:
    """Size of an archive, or of these files of a folder, in bytes; 0 for what is not there."""
    return sum(state.st_size for state in _states(source, names))


def changed_at(source: pathlib.Path, names: Collection[str]) -> int:
    """When the archive, or the last of these files of a folder, was changed, in ns."""
    return max((state.st_mtime_ns for state in _states(source, names)), default=0)


def _states(source: pathlib.Path, names: Collection[str]) -> list[os.stat_result]:
    files = [source / name for name in _also_named(names)] if source.is_dir() else [source]
    return [file.stat() for file in files if file.exists()]


def _contents(source: pathlib.Path, names: Mapping[str, str]) -> Iterator[tuple[str, bytes]]:
    """What each of the files that are there stands for, and its contents."""
    try:
        if source.is_dir():
            for name in sorted(names):
                if (source / name).is_file():
                    yield names[name], (source / name).read_bytes()
            return
        # From front to back, since a packed archive cannot be entered in the middle. Nothing is
        # unpacked to disk, so no member can land elsewhere; links are not followed.
        with tarfile.open(source, "r|*") as archive:
            for member in archive:
                name = pathlib.PurePosixPath(member.name).name
                file = archive.extractfile(member) if member.isreg() and name in names else None
                if file:
                    yield names[name], file.read()
    except (OSError, EOFError, zlib.error, tarfile.TarError) as error:
        raise InputError(
            str(source),
            f"what cannot be read ({getattr(error, 'strerror', None) or error})",
            "a folder of .npy files, or a tar archive of them",
            "check --npy_dir, or copy the file again",
        ) from None


def _parse(content: bytes) -> np.ndarray | None:
    try:
        # Not np.load, which would open zip files, too; no pickles in either.
        return np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
    except (ValueError, EOFError, SyntaxError, tokenize.TokenError, MemoryError):
        return None


def _mistake(bases: np.ndarray | None, assays: int, width: int) -> tuple[str, str] | None:
    """What an array is and what it should be, if that differs."""
    if bases is None:
        return "no whole .npy array", "numbers, as np.save writes them"
    if bases.ndim != 2 or bases.dtype.kind not in "fiu":
        return f"{bases.ndim}-dimensional {bases.dtype}", "2-dimensional numbers"
    if bases.shape[0] != assays:
        return f"{bases.shape[0]} marks", f"{assays} marks, as in --assays"
    if bases.shape[1] != width:
        return "another width than the name says", "a depth for each base, end - start"
    if not np.isfinite(bases).all():
        return "values that are not finite", "a depth at every base"
    return None
