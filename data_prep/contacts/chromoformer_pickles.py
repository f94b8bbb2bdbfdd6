"""The two pickles in which Chromoformer keeps contacts.

TISSUE_frag2neighbors.pickle is a dict of fragments (`chr:start-end`, 0-based, half-open) and the
set of their neighbours; TISSUE_pair2score.pickle, in the same folder, a dict of (fragment,
neighbour) and their score.
"""

import pathlib

import pandas as pd

from data_prep.contacts.contact_format import COLUMNS, ContactFormat, no_column
from data_prep.contacts.plain_pickle import load_plain
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import listing


def _sniff(path: pathlib.Path, lines: list[str]) -> bool:
    return path.suffix in (".pickle", ".pkl")


def _files(path: pathlib.Path) -> list[pathlib.Path]:
    """The pickle of neighbours and that of scores."""
    if "frag2neighbors" not in path.name:
        raise InputError(
            str(path),
            "another name",
            "TISSUE_frag2neighbors.pickle, with TISSUE_pair2score.pickle in the same folder",
            "give the file of neighbours, under its name",
        )
    return [path, path.with_name(path.name.replace("frag2neighbors", "pair2score"))]


def _read(path: pathlib.Path, score_column: str = "") -> pd.DataFrame:
    no_column(path, score_column, "Chromoformer's pickles")
    neighbours, scores = map(_load_dict, _files(path))
    pairs, strange = [], []
    for fragment, others in neighbours.items():
        ends: list = list(others) if isinstance(others, set | frozenset | list | tuple) else [None]
        if all(isinstance(end, str) for end in [fragment, *ends]):
            pairs += [(fragment, other) for other in sorted(ends)]  # a set has no order
        else:
            strange.append(fragment)
    unscored = [pair for pair in pairs if not isinstance(scores.get(pair), int | float)]
    with collect() as problems:
        for where, wrong, found, expected in zip(
            map(str, _files(path)),
            (strange, unscored),
            ("entries of another kind", "pairs without a score"),
            ("fragments and sets of fragments, as text", "a number for every pair"),
            strict=True,
        ):
            if wrong:
                found = f"{len(wrong)} {found} ({listing(wrong)})"
                problems.add(where, found, expected, "check the file")
    text = pd.DataFrame(pairs, columns=["bait", "other"], dtype=object)
    split = [
        text[end].str.extract(r"^(.+):([^:-]*)-([^:-]*)$").fillna("").set_axis(names, axis=1)
        for end, names in (("bait", COLUMNS[:3]), ("other", COLUMNS[3:6]))
    ]
    rows = pd.concat(split, axis=1)
    rows["score"] = [scores[pair] for pair in pairs]
    rows["record"] = [f"{bait} to {other}" for bait, other in pairs]
    return rows


def _load_dict(path: pathlib.Path) -> dict:
    content = load_plain(path)
    if not isinstance(content, dict):
        raise InputError(str(path), f"a {type(content).__name__}", "a dict", "check the file")
    return content


# Chromoformer keeps contacts above this score, a value of 3DIV.
FORMAT = ContactFormat(
    "Chromoformer's TISSUE_frag2neighbors.pickle", _sniff, _read, 0, 1.5, files=_files
)
