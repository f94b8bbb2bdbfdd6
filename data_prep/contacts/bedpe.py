"""BEDPE, with or without a header: chrom1 start1 end1 chrom2 start2 end2 name score …

The tables of FitHiChIP begin like it and have a header, which then says where the score is.
"""

import pathlib

import pandas as pd

from data_prep.contacts.contact_format import (
    ContactFormat,
    as_scores,
    pick_columns,
    score_place,
    split_lines,
)
from data_prep.formats.text import is_header

_POSITIONS = (1, 2, 4, 5)
_SCORE = 7


def _sniff(path: pathlib.Path, lines: list[str]) -> bool:
    if ".bedpe" in path.suffixes:
        return True
    rows = [line.split("\t" if "\t" in line else None) for line in lines if line[0] != "#"]
    return any(len(row) > _SCORE and _has_positions(row) for row in rows[:2])


def _read(path: pathlib.Path, score_column: str = "") -> pd.DataFrame:
    header: list[str] = []
    lines, rows = split_lines(path), []
    for number, fields in lines:
        words = is_header([fields[place] for place in _POSITIONS if place < len(fields)])
        if fields[0][:1] != "#" and (rows or not words):
            rows.append((number, fields))
        elif not rows and words and len(fields) > max(_POSITIONS):
            header = fields  # it need not be marked: it has words where the positions should be
    if rows and len(header) != len(rows[0][1]):
        header = []  # a comment
    place = score_place(path, header, score_column, otherwise=_SCORE)
    table = pick_columns(path, rows, [*range(6), place], "chrom start end, twice; name; score")
    return table.assign(score=as_scores(header[place], table["score"])) if header else table


def _has_positions(row: list[str]) -> bool:
    text = pd.Series([row[place].strip() for place in _POSITIONS])
    return bool(pd.to_numeric(text, errors="coerce").notna().all())


# The score is that of Chromoformer: its cut is on the values of 3DIV, whose contacts are BEDPE.
FORMAT = ContactFormat(
    "BEDPE (bait first) or FitHiChIP's table", _sniff, _read, first_base=0, min_score=1.5
)
