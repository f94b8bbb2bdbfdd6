"""The layers of the convolutional models, fast over many runs and inside a scan.

A convolution is written as patches times kernel. A `lax` convolution becomes a grouped one under
`vmap`, and inside `scan` or `map` it loses its fast CPU form; a matrix product does neither. So
that products are the largest part of a step:

- the gradient by the input is again patches times kernel (of the output's gradient and the flipped
  kernel), never a scatter;
- on CPU, patches are made and used up a few genes at a time, while they are in cache;
- max-pooling comes before ReLU (both only compare) and, where the normalisation is known, within
  the same few genes: the unpooled output of the first and largest layer never exists as a whole.

All exact. Axes: `B` batch, `W` bins (`V` pooled), `C` channels in, `F` filters, `K` kernel width.
"""

import functools
import math
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Bool, Float, Int8, PRNGKeyArray

from epi2expr_jax.models.weights import constant, glorot_uniform

NORM_EPSILON, NORM_MOMENTUM = 1e-3, 0.99  # Keras's defaults

# Bytes of patches made at a time, by platform: what the last cache level holds. A platform that is
# not listed makes all of them at once, since an accelerator wants few large products.
PATCH_BYTES = {"cpu": 9_000_000}


def full(x: Float[Array, "..."]) -> Float[Array, "..."]:
    """`x` in float32 at least, for sums and statistics; layers hand on the type they are given."""
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def left_padding(width: int) -> int:
    """Zeros before the first bin in "same" padding; an even kernel has one more behind."""
    return (width - 1) // 2


def patches(x: Float[Array, "B W C"], width: int, left: int) -> Float[Array, "BW KC"]:
    """The `K = width` bins that each bin's output sees, zeros beyond the ends of the window."""
    batch, bins, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (left, width - 1 - left), (0, 0)))
    shifted = [padded[:, tap : tap + bins] for tap in range(width)]
    # On CPU, stack is written in one pass; concatenating along the channels takes two.
    return jnp.stack(shifted, axis=2).reshape(batch * bins, width * channels)


def conv(x: Float[Array, "B W C"], kernel: Float[Array, "K C F"]) -> Float[Array, "B W F"]:
    """Convolution, "same" padding, no bias: `y[b, w] = sum_k x[b, w + k - left] kernel[k]`."""
    return _conv(x, *_reachable(x.shape[1], kernel))


def conv_max_pool(
    x: Float[Array, "B W C"], kernel: Float[Array, "K C F"], size: int
) -> Float[Array, "B V F"]:
    """`max_pool(conv(x, kernel), size)`; on CPU the unpooled output never exists as a whole."""
    kernel, left = _reachable(x.shape[1], kernel)
    if size == 1:
        return _conv(x, kernel, left)
    return _conv_max_pool(x, kernel, left, size)


def max_pool(x: Float[Array, "B W F"], size: int) -> Float[Array, "B V F"]:
    """The largest of every `size` bins; what is left over at the end is dropped.

    The gradient goes to the first of equal maxima, as in Keras. A NaN among them makes NaN.
    """
    return x if size == 1 else cast(Array, _max_pool(x, size))


def _first_maximum(
    x: Float[Array, "B W F"], size: int
) -> tuple[Float[Array, "B V F"], Int8[Array, "B V F"]]:
    """Maximum of every `size` bins, and which of them it is."""
    batch, bins, filters = x.shape
    grouped = x[:, : bins // size * size].reshape(batch, bins // size, size, filters)
    best = grouped[:, :, 0]
    where = jnp.zeros(best.shape, jnp.int8)
    for offset in range(1, size):
        candidate = grouped[:, :, offset]
        where = jnp.where(candidate > best, jnp.int8(offset), where)
        best = jnp.maximum(best, candidate)  # unlike a comparison, lets no NaN disappear
    return best, where


def _unpool(
    gradient: Float[Array, "B V F"], where: Int8[Array, "B V F"], size: int, bins: int
) -> Float[Array, "B W F"]:
    """Each pooled gradient at the bin it came from, zeros elsewhere."""
    batch, pooled, filters = gradient.shape
    offsets = jnp.arange(size, dtype=jnp.int8)[None, None, :, None]
    spread = jnp.where(where[:, :, None] == offsets, gradient[:, :, None], 0)
    spread = spread.reshape(batch, pooled * size, filters)
    return jnp.pad(spread, ((0, 0), (0, bins - pooled * size), (0, 0)))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_pool(x, size):
    return _first_maximum(x, size)[0]


def _max_pool_forward(x, size):
    best, where = _first_maximum(x, size)
    return best, (where, x.shape[1])


def _max_pool_backward(size, saved, gradient):
    where, bins = saved
    return (_unpool(gradient, where, size, bins),)


_max_pool.defvjp(_max_pool_forward, _max_pool_backward)


def _reachable(bins: int, kernel):
    """The kernel without taps that see nothing but padding, and its left padding.

    A kernel of 7 over a single bin is a kernel of 1. The other taps' gradient is zero.
    """
    width = kernel.shape[0]
    left = left_padding(width)
    start = max(0, left - bins + 1)
    return kernel[start : min(width, left + bins)], left - start


def _genes_at_a_time(batch: int, bytes_a_gene: int, limit: int) -> int:
    """The most genes that divide a batch equally and whose patches stay within `limit` bytes."""
    most = min(batch, max(1, limit // bytes_a_gene))
    return next(genes for genes in range(most, 0, -1) if batch % genes == 0)


def _by_platform(form: Callable[..., Any], *arrays: Array, bytes_a_gene: int) -> Any:
    """`form(pieces, *arrays)`, with the batch cut into as many pieces as suits the platform.

    JAX chooses when it lowers the program, by the devices that will run it. The default backend of
    this process may be another.
    """
    batch = arrays[0].shape[0]
    pieces = {
        platform: batch // _genes_at_a_time(batch, bytes_a_gene, limit)
        for platform, limit in PATCH_BYTES.items()
    }
    if set(pieces.values()) <= {1}:
        return form(1, *arrays)
    forms = {platform: functools.partial(form, count) for platform, count in pieces.items()}
    return jax.lax.platform_dependent(*arrays, default=functools.partial(form, 1), **forms)


def _cut(pieces: int, *arrays: Array) -> tuple[Array, ...]:
    """Arrays cut along the batch axis into equal pieces."""
    return tuple(x.reshape(pieces, x.shape[0] // pieces, *x.shape[1:]) for x in arrays)


def _correlate(x, kernel, left):
    """Patches times kernel: `[B, W, F]` of `x [B, W, C]` and `kernel [K, C, F]`, in x's type."""
    width, channels, filters = kernel.shape
    batch, bins, _ = x.shape
    matrix = kernel.reshape(width * channels, filters).astype(x.dtype)

    def piece(x):
        return (patches(x, width, left) @ matrix).reshape(-1, bins, filters)

    def form(pieces, x):
        if pieces == 1:
            return piece(x)
        return jax.lax.map(piece, *_cut(pieces, x)).reshape(batch, bins, filters)

    return _by_platform(form, x, bytes_a_gene=bins * matrix.shape[0] * x.dtype.itemsize)


def _input_gradient(gradient, kernel, left):
    flipped = jnp.flip(kernel, 0).transpose(0, 2, 1)
    return _correlate(gradient, flipped, kernel.shape[0] - 1 - left)


def _kernel_gradient(arrays, output_gradient, kernel, left, bytes_a_gene):
    """Sum over pieces of patches times the output's gradient.

    `arrays[0]` is the layer's input; `output_gradient(*arrays[1:])` is the gradient of its output.
    """
    width, channels, filters = kernel.shape

    def product(x, *rest):
        gradient = output_gradient(*rest).reshape(-1, filters)
        # Filters first: on CPU this product is the faster of the two orders.
        return jnp.matmul(gradient.T, patches(x, width, left), preferred_element_type=kernel.dtype)

    def form(pieces, *arrays):
        if pieces == 1:
            return product(*arrays)
        total = jnp.zeros((filters, width * channels), kernel.dtype)
        pieced = _cut(pieces, *arrays)
        return jax.lax.scan(lambda sum, own: (sum + product(*own), None), total, pieced)[0]

    total = _by_platform(form, *arrays, bytes_a_gene=bytes_a_gene)
    return total.T.reshape(kernel.shape)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv(x, kernel, left):
    return _correlate(x, kernel, left)


def _conv_forward(x, kernel, left):
    return _correlate(x, kernel, left), (x, kernel)


def _conv_backward(left, saved, gradient):
    x, kernel = saved
    bytes_a_gene = x.shape[1] * math.prod(kernel.shape[:2]) * x.dtype.itemsize
    of_kernel = _kernel_gradient((x, gradient), lambda piece: piece, kernel, left, bytes_a_gene)
    return _input_gradient(gradient, kernel, left), of_kernel


_conv.defvjp(_conv_forward, _conv_backward)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv_max_pool(x, kernel, left, size):
    return _conv_max_pool_forward(x, kernel, left, size)[0]


def _unpooled_bytes_a_gene(x, kernel):
    """Of a gene's patches or its unpooled output, whichever is larger."""
    width, channels, filters = kernel.shape
    return x.shape[1] * max(width * channels, filters) * x.dtype.itemsize


def _conv_max_pool_forward(x, kernel, left, size):
    width, channels, filters = kernel.shape
    batch, bins, _ = x.shape
    matrix = kernel.reshape(width * channels, filters).astype(x.dtype)

    def piece(x):
        return _first_maximum((patches(x, width, left) @ matrix).reshape(-1, bins, filters), size)

    def form(pieces, x):
        if pieces == 1:
            return piece(x)
        shape = (batch, bins // size, filters)
        return tuple(part.reshape(shape) for part in jax.lax.map(piece, *_cut(pieces, x)))

    best, where = _by_platform(form, x, bytes_a_gene=_unpooled_bytes_a_gene(x, kernel))
    return best, (x, kernel, where)


def _conv_max_pool_backward(left, size, saved, gradient):
    x, kernel, where = saved
    unpool = functools.partial(_unpool, size=size, bins=x.shape[1])
    size_a_gene, own = _unpooled_bytes_a_gene(x, kernel), (x, gradient, where)
    of_kernel = _kernel_gradient(own, unpool, kernel, left, size_a_gene)
    return _input_gradient(unpool(gradient, where), kernel, left), of_kernel


_conv_max_pool.defvjp(_conv_max_pool_forward, _conv_max_pool_backward)


def moments(
    y: Float[Array, "B W F"], mask: Bool[Array, "B"]
) -> tuple[Float[Array, "F"], Float[Array, "F"]]:
    """Mean and biased variance of each filter over the bins of the genes in `mask`."""
    y = full(y)
    weight = _bin_weights(mask, y)
    mean = jnp.sum(y * weight, axis=(0, 1))
    # Centred first: the difference of two large float32 sums would cancel.
    return mean, jnp.sum((y - mean[None, None]) ** 2 * weight, axis=(0, 1))


def conv_moments(
    x: Float[Array, "B W C"], kernel: Float[Array, "K C F"], mask: Bool[Array, "B"]
) -> tuple[Float[Array, "F"], Float[Array, "F"]]:
    """`moments(conv(x, kernel), mask)` from the mean and covariance of the patches alone.

    Cheap where a patch (`K * C` numbers) is much smaller than the number of filters.
    """
    kernel, left = _reachable(x.shape[1], kernel)
    matrix = kernel.reshape(-1, kernel.shape[2])
    x = full(x)
    weight = jnp.broadcast_to(_bin_weights(mask, x), (*x.shape[:2], 1)).reshape(-1, 1)
    rows = patches(x, kernel.shape[0], left)
    centre = jnp.sum(rows * weight, axis=0)
    centred = rows - centre[None]
    covariance = (centred * weight).T @ centred
    return centre @ matrix, jnp.sum(matrix * (covariance @ matrix), axis=0)


def _bin_weights(mask, y) -> Float[Array, "B 1 1"]:
    """Weight of each bin in a mean over the genes in `mask`; all zero where there are none."""
    count = jnp.maximum(jnp.sum(mask), 1) * y.shape[1]
    return (mask.astype(y.dtype) / count.astype(y.dtype))[:, None, None]


def dropout(
    x: Float[Array, "..."], *, rate: float, key: PRNGKeyArray | None
) -> Float[Array, "..."]:
    """Zero a share `rate` of `x` and scale up the rest; no key, or a rate of 0, leaves `x`."""
    if key is None or rate == 0:
        return x
    return jnp.where(jax.random.bernoulli(key, 1 - rate, x.shape), x / (1 - rate), 0)


def layer_key(key: PRNGKeyArray | None, layer: int) -> PRNGKeyArray | None:
    """A key of its own for each layer."""
    return None if key is None else jax.random.fold_in(key, layer)


class BatchNorm(nnx.Module):
    """Scale and shift of each filter, and the moving averages used in inference."""

    def __init__(self, filters: int):
        self.scale, self.bias = constant(1.0, filters), constant(0.0, filters)
        self.mean = constant(0.0, filters, kind=nnx.BatchStat)
        self.var = constant(1.0, filters, kind=nnx.BatchStat)

    def affine(
        self, mean: Float[Array, "F"], var: Float[Array, "F"]
    ) -> tuple[Float[Array, "F"], Float[Array, "F"]]:
        """Slope and offset that normalise outputs of this mean and variance."""
        slope = self.scale[...] / jnp.sqrt(var + NORM_EPSILON)
        return slope, self.bias[...] - mean * slope

    def track(self, mean: Float[Array, "F"], var: Float[Array, "F"]) -> None:
        """Move the averages a step towards a batch's mean and (biased, as in Keras) variance."""
        for average, value in ((self.mean, mean), (self.var, var)):
            average[...] = NORM_MOMENTUM * average[...] + (1 - NORM_MOMENTUM) * value


class Dense(nnx.Module):
    """A dense layer; Glorot-uniform weights, zero bias, like Keras."""

    def __init__(self, channels: int, filters: int, *, rngs: nnx.Rngs):
        self.kernel = glorot_uniform(channels, filters, rngs=rngs)
        self.bias = constant(0.0, filters)

    def __call__(self, x: Float[Array, "B C"]) -> Float[Array, "B F"]:
        return x @ self.kernel[...] + self.bias[...][None]


class ConvBlock(nnx.Module):
    """Convolution, batch norm (if wanted), ReLU, max-pool, dropout.

    Over a single bin with a kernel of 1 this is a dense block.

    Attributes:
        kernel: weights `[K C F]`, Glorot-uniform at first.
        bias: `[F]`, zero at first. Under batch norm it moves nothing but the moving mean.
        norm: the batch norm, or None.
        pool: bins a pooled bin; 1 for none.
        rate: share dropped in training.
        folded: take batch moments from the patches' covariance and fold the normalisation into the
            kernel, so that convolution and pooling run as one. Same result; faster where
            `K * C` is small against `F`.
    """

    def __init__(
        self,
        channels: int,
        filters: int,
        width: int,
        *,
        pool: int = 1,
        rate: float = 0.0,
        norm: bool = True,
        folded: bool = False,
        rngs: nnx.Rngs,
    ):
        self.kernel = glorot_uniform(width, channels, filters, rngs=rngs)
        self.bias = constant(0.0, filters)
        self.norm = BatchNorm(filters) if norm else None
        self.pool, self.rate, self.folded = pool, rate, folded

    def __call__(
        self, x: Float[Array, "B W C"], *, mask: Bool[Array, "B"], key: PRNGKeyArray | None
    ) -> Float[Array, "B V F"]:
        """Training mode (batch statistics of the genes in `mask`, dropout) where a key is given."""
        kernel, bias, norm = self.kernel[...], self.bias[...], self.norm
        if norm is None:
            y = full(conv_max_pool(x, kernel, self.pool)) + bias[None, None]
        elif key is None or self.folded:
            mean, var = norm.mean[...] - bias, norm.var[...]
            if key is not None:
                mean, var = conv_moments(x, kernel, mask)
                norm.track(mean + bias, var)
            slope, offset = norm.affine(mean, var)
            y = full(conv_max_pool(x, kernel * slope[None, None], self.pool)) + offset[None, None]
        else:
            # Pooling before the normalisation: where that turns a filter upside down, so do we.
            sign = jnp.where(norm.scale[...] < 0, -1, 1).astype(kernel.dtype)
            y = conv(x, kernel * sign[None, None])
            mean, var = moments(y, mask)
            norm.track(mean * sign + bias, var)
            slope, offset = norm.affine(mean * sign, var)
            y = full(max_pool(y, self.pool)) * (slope * sign)[None, None] + offset[None, None]
        return dropout(nnx.relu(y), rate=self.rate, key=key).astype(x.dtype)
