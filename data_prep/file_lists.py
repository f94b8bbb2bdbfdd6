"""Programs that make one file of each: which files are given, what each becomes, what is done."""

import glob
import pathlib
from collections.abc import Callable, Iterable, Sequence

from epi2expr_jax.errors import InputError, Problem, collect
from epi2expr_jax.genome import listing


def given_files(flag: str, texts: Iterable[str]) -> list[pathlib.Path]:
    """The files that a flag's names and patterns mean, each once.

    Raises:
        InputError: naming every text that means none.
    """
    problems: list[Problem] = []
    files: list[pathlib.Path] = []
    for text in texts:
        with collect(problems):
            found = sorted(glob.glob(text))
            if not found:
                raise InputError(Problem(flag, text, "files that are there", "check the pattern"))
            files += map(pathlib.Path, found)
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(files))


def results_of(
    flag: str,
    sources: Sequence[pathlib.Path],
    name_of: Callable[[pathlib.Path], str],
    out: pathlib.Path,
) -> dict[pathlib.Path, pathlib.Path]:
    """What each file becomes, in a folder that is there from then on.

    Raises:
        InputError: if two of them would be one file.
    """
    results = {source: out / name_of(source) for source in sources}
    names = [result.name for result in results.values()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise InputError(
            Problem(
                flag,
                f"several files that would become {listing(twice)}",
                "a name of its own for each",
                "give each its own --out, or rename them",
            )
        )
    out.mkdir(parents=True, exist_ok=True)
    return results


def is_done(source: pathlib.Path, result: pathlib.Path) -> bool:
    """Whether the result is there and no older than what it is made of."""
    there = source.exists() and result.exists()
    return there and source.stat().st_mtime <= result.stat().st_mtime
