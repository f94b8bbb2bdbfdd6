"""The two pickles in which Chromoformer keeps contacts.

TISSUE_frag2neighbors.pickle is a dict of fragments (`chr:start-end`, 0-based, half-open) and the
set of their neighbours; TISSUE_pair2score.pickle, in the same folder, a dict of (fragment,
neighbour) and their score.

A pickle is a program, and loading one calls whatever it says. Here it may name containers and
numbers, no more; anything else is refused before it is looked up.
"""

import collections
import pathlib
import pickle
import re
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contacts.contact_format import COLUMNS, ContactFormat, no_column
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


def load_plain(path: str | pathlib.Path) -> Any:
    """The content of a pickle of dicts, lists, sets, tuples, strings and numbers.

    NumPy's scalars are read as Python's numbers.

    Raises:
        InputError: if the file cannot be read or is damaged, or naming what else it holds.
    """
    expected = "a whole pickle of builtin containers, strings and numbers"
    try:
        with open(path, "rb") as file:
            return _PlainUnpickler(file, str(path)).load()
    except InputError:
        raise
    except OSError as error:
        found, remedy = error.strerror or str(error), "check the path"
    except Exception as error:  # whatever a stream of wrong bytes makes the unpickler raise
        found = f"a damaged pickle, or none ({type(error).__name__}: {error})"
        remedy = "download the file again, and compare its size"
    raise InputError(str(path), found, expected, remedy)


class _Dtype:
    """Stands in for `numpy.dtype`, so that no code of NumPy's works on what a stranger wrote."""

    def __init__(self, code: str, *_):
        self.code = code
        self.order = "="

    def __setstate__(self, state: tuple):
        self.order = state[1]


def _number(dtype: _Dtype, raw: bytes) -> int | float:
    """Stands in for the function by which NumPy's scalars unpickle."""
    code = f"{dtype.order}{dtype.code}"
    if not re.fullmatch(r"[<>=|][fiu][1248]", code):
        raise ValueError(f"a NumPy scalar of type {code}")
    return np.frombuffer(raw, code).item()


_ALLOWED: dict[tuple[str, str], Any] = {
    # A number or container is named where it is the default of a defaultdict.
    **{
        (module, kind.__name__): kind
        for module in ("builtins", "__builtin__")
        for kind in (dict, list, set, frozenset, tuple, str, int, float)
    },
    ("collections", "defaultdict"): collections.defaultdict,
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "scalar"): _number,
    ("numpy._core.multiarray", "scalar"): _number,
}


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file, where: str):
        super().__init__(file)
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise InputError(
                self._where,
                f"a pickle that names {module}.{name}",
                "builtin containers, strings and numbers; nothing else is looked up or called",
                "do not trust the file; if it is your own, save its content as plain data",
            )
        return _ALLOWED[module, name]


# Chromoformer keeps contacts above this score, a value of 3DIV.
FORMAT = ContactFormat(
    "Chromoformer's TISSUE_frag2neighbors.pickle", _sniff, _read, 0, 1.5, files=_files
)
