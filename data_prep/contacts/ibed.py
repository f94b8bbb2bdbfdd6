"""The .ibed of CHiCAGO, with its header."""

import pathlib

import pandas as pd

from data_prep.contacts.contact_format import ContactFormat, pick_columns, split_lines
from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing

_NAMES = [
    *("bait_chr", "bait_start", "bait_end"),
    *("otherEnd_chr", "otherEnd_start", "otherEnd_end", "score"),
]


def _sniff(path: pathlib.Path, lines: list[str]) -> bool:
    # The header may follow a comment.
    return ".ibed" in path.suffixes or any(_NAMES[0] in _names(line.split()) for line in lines[:2])


def _read(path: pathlib.Path) -> pd.DataFrame:
    rows = split_lines(path)
    while rows and rows[0][1][0].startswith("#") and _NAMES[0] not in _names(rows[0][1]):
        rows.pop(0)  # a comment, not a header
    header = _names(rows[0][1]) if rows else []
    missing = [name for name in _NAMES if name not in header]
    if missing:
        raise InputError(
            f"{path}, header",
            f"columns {listing(header, most=12)}, without {', '.join(missing)}",
            f"the header of CHiCAGO's .ibed: {', '.join(_NAMES)}",
            "export the interactions with CHiCAGO's format interBed",
        )
    places = [header.index(name) for name in _NAMES]
    return pick_columns(path, rows[1:], places, "as in the header")


def _names(fields: list[str]) -> list[str]:
    return [name.strip().lstrip("#") for name in fields]


# CHiCAGO copies the restriction fragments of its .rmap, and HiCUP's digester, which makes that,
# numbers bases from 1: the first fragment of a chromosome is 1-11159, the next 11160-11507. The
# score is the one that the authors of CHiCAGO advise.
FORMAT = ContactFormat("CHiCAGO's .ibed", _sniff, _read, first_base=1, min_score=5.0)
