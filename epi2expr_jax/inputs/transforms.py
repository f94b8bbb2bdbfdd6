"""What is done to binned signal: merging bins, orientation, transforms.

Pure functions of the arrays given, the same on NumPy and on JAX arrays.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType, ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Array = Any  # a NumPy or a JAX array


def _namespace(x: Array) -> ModuleType:
    return jnp if isinstance(x, jax.Array) else np


def merge_bins(x: Array, factor: int) -> Array:
    """Means of `factor` neighbouring bins: `[..., W]` to `[..., W / factor]`.

    Exact for means over equally wide bins, which is what a store holds.
    """
    if factor == 1:
        return x
    return x.reshape(*x.shape[:-1], x.shape[-1] // factor, factor).mean(-1)


def orient(x: Array, minus: Array) -> Array:
    """Reverse the bins of minus-strand genes, so that every window reads 5′ to 3′.

    Args:
        x: `[..., G, W]` in genomic order.
        minus: `[G]`, true on the minus strand.
    """
    return _namespace(x).where(minus[:, None], x[..., ::-1], x)


def _arcsinh(x: Array) -> Array:
    return _namespace(x).arcsinh(x)


def _log1p(x: Array) -> Array:
    return _namespace(x).log1p(x)


def _unchanged(x: Array) -> Array:
    return x


TRANSFORMS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {"arcsinh": _arcsinh, "log1p": _log1p, "none": _unchanged}
)
