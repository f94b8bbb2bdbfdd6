"""Which epigenetic mark best predicts gene expression, where, and how sure are we?"""

import importlib
from typing import Any

from epi2expr_jax import moved

moved.install()


def __getattr__(name: str) -> Any:
    if name == "attribution":  # from epi2expr_jax import attribution
        return importlib.import_module("epi2expr_jax.interpret.attribution")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
