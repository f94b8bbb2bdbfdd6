"""From stored bins to model input: the one way, whoever reads.

Stored bins are divided by their track's level, merged into the model's bins, transformed, centred
among the positions they are padded to, and turned so that windows read 5′ to 3′. `Dataset` does
this to NumPy arrays on the host and `perturb.edited_signal` to JAX arrays on the device, by the
same functions; they keep float32.

Axes: `G` genes, `W` stored bins, `V` the model's bins, `L` positions.
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


def merge_bins(x: Array, factor: int, share: Array = None) -> Array:
    """Means of `factor` neighbouring bins: `[..., W]` to `[..., V]`, `V = W / factor` rounded up.

    Exact for means over bases, which is what a store holds.

    Args:
        share: `[..., W]` which share of a bin's width each bin has; all of it by default. A wider
            bin is the mean of the bases it has, and 0 if it has none.
    """
    if factor == 1:
        return x
    xp, room = _namespace(x), -x.shape[-1] % factor
    if share is None and not room:
        return _grouped(x, factor).mean(-1)
    if share is None:  # of windows, a last bin that is not full
        share = xp.ones((1,) * (x.ndim - 1) + x.shape[-1:], x.dtype)
    total, weight = (
        _grouped(xp.pad(part, ((0, 0),) * (part.ndim - 1) + ((0, room),)), factor).sum(-1)
        for part in (x * share, share)
    )
    return total / xp.where(weight > 0, weight, 1)


def _grouped(x: Array, factor: int) -> Array:
    return x.reshape(*x.shape[:-1], x.shape[-1] // factor, factor)


def as_read(x: Array, level: Array, factor: int, transform: str, share: Array = None) -> Array:
    """Stored bins as a model reads their signal: divided, merged, transformed; `[..., V]`.

    Args:
        x: `[..., W]` stored means.
        level: what they are divided by.
        factor, share: as for `merge_bins`.
        transform: one of `TRANSFORMS`.
    """
    return TRANSFORMS[transform](merge_bins(x / level, factor, share))


def window_at(x: Array, positions: int, minus: Array) -> Array:
    """Windows `[..., G, V]` in the middle of as many positions, those of minus-strand genes turned.

    Bins are counted from a window's left end whatever the strand.

    Returns:
        `[..., G, L]`, 0 in the padding.
    """
    left = centre_padding(x.shape[-1], positions)
    padding = ((0, 0),) * (x.ndim - 1) + ((left, positions - x.shape[-1] - left),)
    return orient(_namespace(x).pad(x, padding), minus)


def orient(x: Array, minus: Array) -> Array:
    """Reverse the bins of minus-strand genes, so that every window reads 5′ to 3′.

    Args:
        x: `[..., G, W]` in genomic order.
        minus: `[G]`, true on the minus strand.
    """
    turned = minus.reshape((1,) * (x.ndim - 2) + (-1, 1))
    return _namespace(x).where(turned, x[..., ::-1], x)


def centre_padding(bins: Any, positions: int) -> Any:
    """Empty positions to the left of centred bins (Chromoformer: the larger half).

    Args:
        bins: how many bins one region or window has, or several of them.
    """
    return -((bins - positions) // 2)


def own_positions(bins: Array, positions: int) -> Array:
    """Which of the positions hold bins, and not padding: `[..., L]`.

    Args:
        bins: `[...]` how many bins each region or window has.
    """
    place = np.arange(positions).reshape((1,) * bins.ndim + (-1,))
    place = place - centre_padding(bins, positions)[..., None]
    return (place >= 0) & (place < bins[..., None])


def _arcsinh(x: Array) -> Array:
    return _namespace(x).arcsinh(x)


def _log1p(x: Array) -> Array:
    return _namespace(x).log1p(x)


def _unchanged(x: Array) -> Array:
    return x


TRANSFORMS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {"arcsinh": _arcsinh, "log1p": _log1p, "none": _unchanged}
)
