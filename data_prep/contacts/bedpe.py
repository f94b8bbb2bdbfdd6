"""BEDPE, with or without a header: chrom1 start1 end1 chrom2 start2 end2 name score …"""

import pathlib

import pandas as pd

from data_prep.contacts.contact_format import ContactFormat, pick_columns, split_lines

_PLACES = [0, 1, 2, 3, 4, 5, 7]


def _sniff(path: pathlib.Path, lines: list[str]) -> bool:
    if ".bedpe" in path.suffixes:
        return True
    rows = [line.split("\t" if "\t" in line else None) for line in lines if line[0] != "#"]
    return any(len(row) > max(_PLACES) and _has_positions(row) for row in rows[:2])


def _read(path: pathlib.Path) -> pd.DataFrame:
    rows = [(number, row) for number, row in split_lines(path) if row[0][:1] != "#"]
    if rows and _is_header(rows[0][1]):
        rows = rows[1:]
    return pick_columns(path, rows, _PLACES, "chrom start end, twice; name; score")


def _has_positions(row: list[str]) -> bool:
    text = pd.Series([row[place].strip() for place in (1, 2, 4, 5)])
    return bool(pd.to_numeric(text, errors="coerce").notna().all())


def _is_header(row: list[str]) -> bool:
    """A header need not be marked: it has no number where the positions should be."""
    return not any(field.strip().isdecimal() for field in row[1:6])


# The score is that of Chromoformer: its cut is on the values of 3DIV, whose contacts are BEDPE.
FORMAT = ContactFormat("BEDPE (bait first)", _sniff, _read, first_base=0, min_score=1.5)
