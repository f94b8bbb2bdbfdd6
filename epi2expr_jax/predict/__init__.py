"""What trained models say of genes they never saw.

`epi2expr_jax.predict(RUN, genes)` is `predict.gene_table.predict`: the folder can be called, since
importing it makes it the attribute of that name.
"""

import os
import sys
import types
from typing import Any

import pandas as pd

from epi2expr_jax import moved
from epi2expr_jax.predict.ensemble import Ensemble, Member, gene_rows
from epi2expr_jax.predict.gene_table import predict
from epi2expr_jax.predict.loading import load

__all__ = ["Ensemble", "Member", "gene_rows", "load", "predict"]


class _Callable(types.ModuleType):
    def __call__(self, run_dir: str | os.PathLike, *given: Any, **how: Any) -> pd.DataFrame:
        return predict(run_dir, *given, **how)

    __call__.__doc__ = predict.__doc__


sys.modules[__name__].__class__ = _Callable


def __getattr__(name: str) -> Any:
    return moved.find_in_folder(__name__, moved.PREDICT, name)
