"""How weights start: uniform within a bound, or constant; all of a model in one draw.

A variable of our own layers keeps how it starts, so that the weights of a whole model can be drawn
as one vector and cut on the host. A program that draws the 231 arrays of Chromoformer one by one
compiles for 15 s. Those of plain NNX layers are drawn one by one.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Key

from epi2expr_jax.errors import InputError, collect, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.models.config import ModelConfig


def uniform(bound: float, *shape: int, rngs: nnx.Rngs) -> nnx.Param:
    """A weight that starts anywhere within ± `bound`."""
    value = jax.random.uniform(rngs.params(), shape, minval=-bound, maxval=bound)
    return nnx.Param(value, bound=bound)


def glorot_uniform(*shape: int, rngs: nnx.Rngs) -> nnx.Param:
    """As Keras starts a kernel `[*taps, channels, filters]` (Glorot & Bengio 2010)."""
    *taps, channels, filters = shape
    return uniform(math.sqrt(6 / (math.prod(taps) * (channels + filters))), *shape, rngs=rngs)


def constant(value: float, *shape: int, kind: type = nnx.Param) -> Any:
    """A variable that starts as `value` everywhere."""
    return kind(jnp.full(shape, value), start=value)


def draw(variables: Any, key: Key[Array, "*R"], made: Callable[[], Any] | None = None) -> Any:
    """Fresh values for all variables of a model, distributed as the model's own making draws them.

    Values are on the host: the largest part, the uniform draw, is one program on the device.

    Args:
        key: one, or several for as many models side by side: then every value has their axis first.
        variables: an `nnx.State` as `nnx.split` gives it, of shapes alone (`nnx.eval_shape`) or of
            arrays.
        made: gives the same values, made from `key` by the layers' own initialisers. Called
            only if some of them (those of plain NNX layers) do not keep how they start.
    """
    kept, structure = jax.tree.flatten(variables, is_leaf=lambda x: isinstance(x, nnx.Variable))
    sizes = [math.prod(v.shape) if "bound" in v.get_metadata() else 0 for v in kept]
    unit = np.asarray(_unit(key, sum(sizes)))
    own = kept
    if made is not None and any(not {"bound", "start"} & v.get_metadata().keys() for v in kept):
        own = jax.tree.leaves(made(), is_leaf=lambda x: isinstance(x, nnx.Variable))
    drawn, begin = [], 0
    for variable, size, value in zip(kept, sizes, own, strict=True):
        metadata = variable.get_metadata()
        if size:
            value = metadata["bound"] * unit[..., begin : begin + size]
            value = value.reshape(*key.shape, *variable.shape)
        elif "start" in metadata:
            value = np.full((*key.shape, *variable.shape), metadata["start"])
        else:
            value = np.asarray(value.get_value())
        drawn.append(variable.replace(value.astype(variable.dtype)))
        begin += size
    return jax.tree.unflatten(structure, drawn)


@functools.partial(jax.jit, static_argnums=1)
def _unit(key: Key[Array, "*R"], size: int) -> Array:
    """For each key so many numbers within ± 1, the same whatever the other keys are."""
    draw = functools.partial(jax.random.uniform, shape=(size,), minval=-1, maxval=1)
    return jax.vmap(draw)(key) if key.ndim else draw(key)


def flatten(tree: Any) -> dict[str, Any]:
    """A pytree as a flat dict of arrays, keyed by each leaf's path in it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def named_by(variables: Any, prefixes: Sequence[str]) -> Any:
    """Which variables of a model have a name that begins so, as the same pytree of booleans.

    Names are those of `flatten`, parts joined by / or by a dot; a prefix ends where a part ends.

    Raises:
        InputError: naming every prefix that none has, or if all are named.
    """
    names, found = list(flatten(variables)), set()
    with collect() as problems:
        for prefix in prefixes:
            path = prefix.replace(".", "/").strip("/")
            own = [name for name in names if f"{name}/".startswith(f"{path}/") and path]
            known = sorted({name.rpartition("/value")[0] for name in names})
            if not own:
                remedy = nearest(path, known) or "name a part of the model"
                found_words = f"{prefix}, which is the name of no weight"
                problems.add("--freeze", found_words, f"such as {listing(known, 12)}", remedy)
            found |= set(own)
        if found and len(found) == len(names):
            problems.add("--freeze", "all weights", "some to train", "freeze fewer")
    return jax.tree.unflatten(jax.tree.structure(variables), [name in found for name in names])


@functools.cache
def parts_of(model_config: ModelConfig) -> tuple[Any, Any, Any]:
    """A model taken apart: its graph, and shapes of its weights and of its moving averages.

    Kept, since tracing a large model's making takes a second.

    Raises:
        InputError: if the model has variables of other kinds.
    """
    model = nnx.eval_shape(lambda: model_config.build(rngs=nnx.Rngs(0)))
    graph, params, stats, others = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    if others:
        raise InputError(
            f"the model {model_config.NAME}",
            f"other variables ({listing(flatten(others))})",
            "nnx.Param and nnx.BatchStat alone",
            "make dropout layers without rngs, and call them with rngs=key",
        )
    return graph, params, stats


def drawn_as_one(model_config: ModelConfig) -> bool:
    """Whether all variables of a model keep how they start: none is made by a plain NNX layer."""
    _, *parts = parts_of(model_config)
    leaves = jax.tree.leaves(parts, is_leaf=lambda x: isinstance(x, nnx.Variable))
    return all({"bound", "start"} & x.get_metadata().keys() for x in leaves)


def fresh_weights(model_config: ModelConfig, key: Any) -> tuple[Any, Any]:
    """A model's weights before training and its moving averages, drawn from a key; on the host.

    Of several keys, with their axis first.
    """
    return tuple(
        draw(part, key, lambda i=i: _made(model_config, key)[i])
        for i, part in enumerate(parts_of(model_config)[1:])
    )


@functools.partial(jax.jit, static_argnums=0)
def _made(model_config: ModelConfig, key: Any) -> tuple[Any, Any]:
    """The weights and moving averages as the model's layers make them."""
    if key.ndim:
        return jax.vmap(functools.partial(_made, model_config))(key)
    model = model_config.build(rngs=nnx.Rngs(key))
    _, params, stats = nnx.split(model, nnx.Param, nnx.BatchStat)
    return params, stats
