"""What the WashU browser reads: its text of pairs, and its longrange tracks.

chr1,1000,2000 <tab> chr1,50000,55000 <tab> 3.5
chr1 <tab> 1000 <tab> 2000 <tab> chr1:50000-55000,3.5
"""

import pathlib
import re

import pandas as pd

from data_prep.contacts.contact_format import COLUMNS, ContactFormat, no_column, split_lines
from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing

_PLACE = r"([^\s,:]+)[,:](\d+)[,-](\d+)"
_PAIRS = re.compile(rf"{_PLACE}\t{_PLACE}\t(\S+)")
_LONGRANGE = re.compile(rf"(\S+)\t(\d+)\t(\d+)\t{_PLACE},([^\s,]+)(\t.*)?")


def _sniff(path: pathlib.Path, lines: list[str]) -> bool:
    return any(_split(line) for line in lines[:2])


def _split(line: str) -> tuple[str, ...] | None:
    found = _PAIRS.fullmatch(line) or _LONGRANGE.fullmatch(line)
    return found.groups()[: len(COLUMNS)] if found else None


def _read(path: pathlib.Path, score_column: str = "") -> pd.DataFrame:
    no_column(path, score_column, "WashU's pairs")
    rows, wrong = [], []
    for number, fields in split_lines(path):
        record = f"line {number}"
        if not fields[0].startswith("#"):
            row = _split("\t".join(fields))
            rows.append((*(row or [""] * len(COLUMNS)), record))
            wrong += [] if row else [record]
    if wrong:
        raise InputError(
            f"{path}, {listing(wrong)}",
            f"{len(wrong)} lines that are not pairs of intervals",
            "chrom,start,end of both ends and a score; or chrom start end chrom:start-end,score",
            "correct the lines",
        )
    return pd.DataFrame(rows, columns=[*COLUMNS, "record"], dtype=object)


FORMAT = ContactFormat("WashU's text or longrange", _sniff, _read, first_base=0, min_score=0.0)
