"""The figures of the report."""

from typing import Any

from epi2expr_jax import moved


def __getattr__(name: str) -> Any:
    return moved.find_in_folder(__name__, moved.FIGURES, name)
