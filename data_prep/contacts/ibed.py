"""The tables of CHiCAGO, with their header: .ibed, and the peak matrix of several cells."""

import pathlib

import pandas as pd

from data_prep.contacts.contact_format import (
    ContactFormat,
    as_scores,
    pick_columns,
    score_place,
    split_lines,
)
from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing

_IBED = ["bait_chr", "bait_start", "bait_end", "otherEnd_chr", "otherEnd_start", "otherEnd_end"]
_PEAK_MATRIX = ["baitChr", "baitStart", "baitEnd", "oeChr", "oeStart", "oeEnd"]
_FIRST = (_IBED[0], _PEAK_MATRIX[0])


def _sniff(path: pathlib.Path, lines: list[str]) -> bool:
    # The header may follow a comment.
    return ".ibed" in path.suffixes or any(map(_is_header, (line.split() for line in lines[:2])))


def _read(path: pathlib.Path, score_column: str = "") -> pd.DataFrame:
    rows = split_lines(path)
    while rows and rows[0][1][0].startswith("#") and not _is_header(rows[0][1]):
        rows.pop(0)  # a comment, not a header
    header = _names(rows[0][1]) if rows else []
    names = _PEAK_MATRIX if _PEAK_MATRIX[0] in header else _IBED
    missing = [name for name in names if name not in header]
    if missing:
        raise InputError(
            f"{path}, header",
            f"columns {listing(header, most=12)}, without {', '.join(missing)}",
            f"the header of CHiCAGO's .ibed: {', '.join(_IBED)}, score",
            "export the interactions with CHiCAGO's format interBed",
        )
    place = score_place(path, header, score_column)
    places = [*map(header.index, names), place]
    table = pick_columns(path, rows[1:], places, "as in the header")
    return table.assign(score=as_scores(header[place], table["score"]))


def _is_header(fields: list[str]) -> bool:
    return not set(_FIRST).isdisjoint(_names(fields))


def _names(fields: list[str]) -> list[str]:
    return [name.strip().strip('"').lstrip("#") for name in fields]


# CHiCAGO copies the restriction fragments of its .rmap, and HiCUP's digester, which makes that,
# numbers bases from 1: the first fragment of a chromosome is 1-11159, the next 11160-11507. The
# score is the one that the authors of CHiCAGO advise.
FORMAT = ContactFormat("CHiCAGO's .ibed or peak matrix", _sniff, _read, first_base=1, min_score=5.0)
