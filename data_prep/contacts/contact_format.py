"""What a format of promoter contacts is, and how those that are tables of text are read."""

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pandas as pd

from data_prep.formats.text import NO_RECORDS, read_text
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import lines_of
from epi2expr_jax.genome import listing

_BROWSER = NO_RECORDS[1:]
# Names of columns of p or q values, also within others (`P_val`, `padj`, `Q-Value_Bias`), unless
# their logarithm was taken already (`-log10(Q-value)`).
_P_VALUE = re.compile(
    r"(p|q|adj)[^a-z]*val|fdr|(?<![a-z])(p|q|p[^a-z]*adj(ust(ed)?)?)(?![a-z])", re.I
)
_LOGARITHM = re.compile("log", re.I)
_LEAST_P = 1e-300
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
            `record`, which tells the user where in the file a row is ("line 3"). Its second
            argument is the column of the score that the user names, or empty; a format whose scores
            are not in a column refuses one (`no_column`).
        first_base: the number of a chromosome's first base: 0 where intervals are half-open, 1
            where they include their end.
        min_score: a contact is kept if its score is above this, unless the user gives another.
        files: the files that a path stands for, where there are several.
    """

    what: str
    sniff: Callable[[pathlib.Path, list[str]], bool]
    read: Callable[[pathlib.Path, str], pd.DataFrame]
    first_base: int
    min_score: float
    files: Callable[[pathlib.Path], list[pathlib.Path]] = lambda path: [path]


def split_lines(path: pathlib.Path) -> list[tuple[int, list[str]]]:
    """Number and fields of every line that is not empty, split at tabs if it has any.

    Raises:
        InputError: if the file cannot be read.
    """
    lines = enumerate(lines_of(read_text(path)), start=1)
    numbered = [
        (number, line) for number, line in lines if line.strip() and not line.startswith(_BROWSER)
    ]
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


def score_place(path: pathlib.Path, header: Sequence[str], asked: str, otherwise: int = -1) -> int:
    """Which field holds the score.

    Args:
        path: the file, for messages.
        header: names of the columns; empty if it has none.
        asked: the name of the column, whatever its case, or its number from 1; or empty: the one
            that is named score, or the only one that is named like it.
        otherwise: where it is without a header.

    Raises:
        InputError: if there is no such column, or the header names none that is a score.
    """
    names = [name.strip().lower() for name in header]
    if asked.lower() in names:
        return names.index(asked.lower())
    if asked.isdecimal() and int(asked) > 0:
        return int(asked) - 1
    if not asked and "score" in names:
        return names.index("score")
    if not asked and not names and otherwise >= 0:
        return otherwise
    raise InputError(
        f"{path}, header",
        f"columns {listing(header, most=40)}, without {asked or 'score'}",
        "a column of scores",
        "name it: --score_column=NAME (or its number, from 1); of p and q values -log10 is taken",
        kind="unknown_score",
    )


def no_column(path: pathlib.Path, asked: str, what: str) -> None:
    """Refuse a column of scores that the user names for a format without such columns."""
    if asked:
        expected = "a table with a header"
        raise InputError(str(path), f"--score_column={asked} for {what}", expected, "leave it out")


def as_scores(name: str, texts: pd.Series) -> pd.Series:
    """Scores as text, of which higher are better: of a column of p or q values -log10 of them,
    unless its name says that it is a logarithm."""
    if _LOGARITHM.search(name) or not _P_VALUE.search(name):
        return texts
    values = pd.to_numeric(texts, errors="coerce").astype(np.float64)
    scores = -np.log10(values.clip(lower=_LEAST_P).where(values.between(0, 1)))
    return pd.Series([str(score) for score in scores], texts.index, dtype=object)
