"""What a format of promoter contacts is, and how those that are tables of text are read."""

import dataclasses
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from data_prep.formats.text import read_text
from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing

COLUMNS = ["bait_chrom", "bait_start", "bait_end", "chrom", "start", "end", "score"]
MOST_RECORDS = 20  # that a message names


@dataclasses.dataclass(frozen=True)
class ContactFormat:
    """A format of promoter contacts; `contact_files.FORMATS` lists those that are read.

    Attributes:
        what: the format in words, for help texts and messages.
        sniff: says whether a file is of this format, from its path and its first lines that are
            not empty.
        read: gives a row a contact, the bait first: `COLUMNS` as the file has them, unchecked, and
            `record`, which tells the user where in the file a row is ("line 3").
        first_base: the number of a chromosome's first base: 0 where intervals are half-open, 1
            where they include their end.
        min_score: a contact is kept if its score is above this, unless the user gives another.
        files: the files that a path stands for, where there are several.
    """

    what: str
    sniff: Callable[[pathlib.Path, list[str]], bool]
    read: Callable[[pathlib.Path], pd.DataFrame]
    first_base: int
    min_score: float
    files: Callable[[pathlib.Path], list[pathlib.Path]] = lambda path: [path]


def split_lines(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Number and fields of every line that is not empty, split at tabs if it has any.

    Raises:
        InputError: if the file cannot be read.
    """
    lines = enumerate(read_text(path).splitlines(), start=1)
    numbered = [(number, line) for number, line in lines if line.strip()]
    # The last line is not a comment; names of fragments may hold blanks.
    separator = "\t" if numbered and "\t" in numbered[-1][1] else None
    return [(number, line.split(separator)) for number, line in numbered]


def pick_columns(
    path: pathlib.Path, rows: list[tuple[int, list[str]]], places: Sequence[int], expected: str
) -> pd.DataFrame:
    """Rows as `ContactFormat.read` returns them.

    Args:
        path: the file, for messages.
        rows: number and fields of each line.
        places: which field holds each of `COLUMNS`.
        expected: says which fields a line should have.

    Raises:
        InputError: if lines have too few fields.
    """
    short = [f"line {number}" for number, fields in rows if len(fields) <= max(places)]
    if short:
        raise InputError(
            f"{path}, {listing(short, MOST_RECORDS)}",
            f"{len(short)} lines of too few fields",
            f"at least {max(places) + 1}: {expected}",
            "correct the lines",
        )
    columns: dict[str, Any] = {
        name: [fields[place].strip() for _, fields in rows]
        for name, place in zip(COLUMNS, places, strict=True)
    }
    columns["record"] = [f"line {number}" for number, _ in rows]
    return pd.DataFrame(columns, dtype=object)
