"""Which epigenetic mark best predicts gene expression, where, and how sure are we?"""

import importlib
from typing import Any


def __getattr__(name: str) -> Any:
    if name == "attribution":  # as of old: from epi2expr_jax import attribution
        return importlib.import_module("epi2expr_jax.interpret.attribution")
    raise AttributeError(name)
