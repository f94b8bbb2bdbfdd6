"""What trained models say of genes they never saw."""

from typing import Any

from epi2expr_jax import moved
from epi2expr_jax.predict.ensemble import Ensemble, Member, gene_rows
from epi2expr_jax.predict.loading import load

__all__ = ["Ensemble", "Member", "gene_rows", "load"]


def __getattr__(name: str) -> Any:
    return moved.find_in_folder(__name__, moved.PREDICT, name)
