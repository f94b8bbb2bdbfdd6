"""Pickles of plain data, read without running anything that they name.

A pickle is a program, and loading one calls whatever it says. Here it may name containers and
numbers, no more; anything else is refused before it is looked up.
"""

import collections
import pathlib
import pickle
import re
from typing import Any

import numpy as np

from epi2expr_jax.errors import InputError


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
