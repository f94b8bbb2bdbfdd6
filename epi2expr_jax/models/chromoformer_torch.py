"""Published Chromoformer weights (PyTorch) and ours, in both directions.

Works on NumPy arrays by name, as in a PyTorch state dict; reading the file needs PyTorch and is
left to `experiments.convert`. Three ages of names are known; what is exported has the newest.
"""

import dataclasses
import functools
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import nnx

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import listing
from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.weights import flatten

StateDict = dict[str, np.ndarray]

# How older checkpoints name what the newest calls otherwise; tried in turn.
_OLDER_NAMES = (
    (r"^embed(\d+)\.", r"embed.\1."),
    (r"^pw_int(\d+)\.", r"pairwise_interaction.\1."),
    (r"^reg(\d+)\.", r"regulation.\1."),
    (r"^embed(\d+)_a\.", r"embed.\1."),
    (r"^embed(\d+)_b\.", r"pairwise_interaction.\1."),
    (r"^transformer(\d+)\.", r"regulation.\1.transformer."),
    (r"\.lin_proj_c\.", r".lin_proj_pcre."),
)


_HEAD = "fc_head.0.weight"  # in all ages, once
_STAGES = {
    "embed": "embed",
    "pairwise": "pairwise_interaction",
    "regulation": "regulation",
}


def from_torch(
    state: Mapping[str, np.ndarray], where: str, **options: Any
) -> tuple[ChromoformerConfig, Any]:
    """Our configuration and parameters of a published state dict.

    Args:
        state: name → array, in the file's order.
        where: the file, for messages.
        options: fields of the configuration that weights do not tell: `contacts`, `window_bp`,
            `region_bp`; and `resolutions`, where the order of the names is not the network's.

    Returns:
        The configuration, as far as shapes tell it (γ of each layer tells the number of its heads),
        and the parameters as a pytree of `Chromoformer`.

    Raises:
        InputError: listing every key that is missing, surplus or of another shape.
    """
    named = _newest_names(state, where)
    config = _config_of(named, where, options)
    wanted = {name: shape for name, _, shape, _ in _entries(config)}
    if not wanted.keys() & named.keys():
        raise InputError(
            where,
            f"keys that begin with {listing(named, 3) or 'nothing'}",
            f"the weights of a Chromoformer, such as {next(iter(wanted))}",
            "give one of its checkpoints",
        )
    # Nothing reads γ outside of regulation, but its length is the number of heads.
    unread = _unread(config)
    heads = {
        f"{name}.{config.resolutions[0]}.transformer.layers.0.self_att.gamma_f"
        for name in _STAGES.values()
    } & unread.keys()
    wanted |= {name: unread.pop(name).shape for name in heads}
    used = {name: named[name] for name in named.keys() - unread.keys()}
    with collect() as problems:
        for name in sorted(wanted.keys() | used.keys()):
            array = used.get(name)
            if array is None or array.shape != wanted.get(name):
                problems.add(
                    f"{where}: {name}",
                    "no such key" if array is None else str(array.shape),
                    str(wanted.get(name, "nothing of that name")),
                    "give a checkpoint of Chromoformer, of this architecture",
                )
        for name in sorted(wanted.keys() & used.keys()):
            if not np.isfinite(used[name]).all():
                at, found = f"{where}: {name}", "values that are not finite"
                problems.add(at, found, "finite weights", "use another")
    flat: StateDict = {}
    for name, ours, _, transposed in _entries(config):
        array = used[name].astype(np.float32)
        for part, target in zip(np.split(array, len(ours)), ours, strict=True):
            flat[target] = part.T if transposed else part
    template = _template(config)
    leaves = [flat[name] for name in flatten(template)]
    return config, jax.tree.unflatten(jax.tree.structure(template), leaves)


def as_built(config: ChromoformerConfig) -> ChromoformerConfig:
    """The configuration of the same network in the sizes that it has, as `from_torch` tells."""
    sizes = {name: config.hidden(getattr(config, name))
             for name in ("embed_ff", "pairwise_ff", "regulation_ff", "head")}  # fmt: skip
    inner = config.hidden(config.regulation_width, config.regulation_heads)
    return dataclasses.replace(
        config, width=1.0, embedding=config.token_width, regulation_width=inner, **sizes
    )


def to_torch(
    config: ChromoformerConfig, params: Any, *, mean: float = 0.0, deviation: float = 1.0
) -> StateDict:
    """A state dict that the published PyTorch package loads strictly.

    What it declares and never reads is as at its start, or zeros.

    Args:
        mean, deviation: of the target our model was trained on, which is standardised; the
            exported last layer predicts the target's own scale.

    Raises:
        InputError: for a model without regions, which the package does not know.
    """
    if not config.contacts:
        raise InputError(
            "--run", "a model of promoters alone", "one with regions", "convert another"
        )
    flat = {name: np.asarray(leaf) for name, leaf in flatten(params).items()}
    state = _unread(config)
    for name, ours, _, transposed in _entries(config):
        parts = [flat[source].T if transposed else flat[source] for source in ours]
        state[name] = np.ascontiguousarray(np.concatenate(parts))
    weight, bias = state["fc_head.2.weight"], state["fc_head.2.bias"]
    state["fc_head.2.weight"] = (weight * deviation).astype(weight.dtype)
    state["fc_head.2.bias"] = (bias * deviation + mean).astype(bias.dtype)
    return state


def _newest_names(state: Mapping[str, Any], where: str) -> StateDict:
    """The arrays by the newest names, without what wrappers (such as DataParallel) put before them.

    Raises:
        InputError: for what is not an array of numbers, and for two keys of one meaning.
    """
    bare = {str(name).replace("_orig_mod.", ""): array for name, array in state.items()}
    before = [name.removesuffix(_HEAD) for name in bare if name.endswith(f".{_HEAD}")]
    wrapper = before[0] if len(before) == 1 else ""
    pairs = []
    for old, array in bare.items():
        name = old.removeprefix(wrapper)
        for pattern, newest in _OLDER_NAMES:
            name = re.sub(pattern, newest, name)
        pairs.append((name, np.asarray(array)))
    counts = Counter(name for name, _ in pairs)
    with collect() as problems:
        for name, array in pairs:
            at = f"{where}: {name}"
            if counts[name] > 1:
                problems.add(at, f"{counts[name]} keys that mean it", "one", "remove the others")
            if array.dtype.kind not in "fiu":
                problems.add(at, f"values of type {array.dtype}", "numbers", "give weights")
    return dict(pairs)


@functools.lru_cache(maxsize=8)
def _template(config: ChromoformerConfig) -> Any:
    model = nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0)))
    return nnx.split(model, nnx.Param)[1]


def _entries(
    config: ChromoformerConfig,
) -> Iterator[tuple[str, tuple[str, ...], tuple[int, ...], bool]]:
    """Each published array: name, which of ours are stacked in it, shape, whether transposed."""
    shapes = {name: leaf.shape for name, leaf in flatten(_template(config)).items()}

    def entry(name: str, *ours: str) -> tuple[str, tuple[str, ...], tuple[int, ...], bool]:
        sources = tuple(f"{source}/value" for source in ours)
        first = shapes[sources[0]]
        transposed = len(first) == 2
        shape = first[::-1] if transposed else first
        return name, sources, (len(ours) * shape[0], *shape[1:]), transposed

    def dense(name: str, ours: str) -> Iterator:
        yield entry(f"{name}.weight", f"{ours}/kernel")
        yield entry(f"{name}.bias", f"{ours}/bias")

    def norm(name: str, ours: str) -> Iterator:
        yield entry(f"{name}.weight", f"{ours}/scale")
        yield entry(f"{name}.bias", f"{ours}/bias")

    def layer(name: str, ours: str, inputs: dict[str, tuple[str, ...]]) -> Iterator:
        own, attention = f"{name}.self_att", f"{ours}/attention"
        for key, parts in inputs.items():
            yield entry(f"{own}.{key}.weight", *(f"{attention}/{part}/kernel" for part in parts))
        yield from dense(f"{own}.ff", f"{attention}/output")
        yield from norm(f"{own}.ln", f"{attention}/norm")
        yield from dense(f"{name}.ff.l1", f"{ours}/dense/inner")
        yield from dense(f"{name}.ff.l2", f"{ours}/dense/outer")
        yield from norm(f"{name}.ff.ln", f"{ours}/dense/norm")

    for number, resolution in enumerate(config.resolutions):
        ours = f"resolutions/{number}"
        name = f"embed.{resolution}"
        yield entry(f"{name}.lin_proj.weight", f"{ours}/embed_input/kernel")
        for i in range(config.embed_layers):
            inputs = {"att": ("query", "key", "value")}
            yield from layer(f"{name}.transformer.layers.{i}", f"{ours}/embed/{i}", inputs)
        if config.contacts:
            name = f"pairwise_interaction.{resolution}"
            yield entry(f"{name}.lin_proj_p.weight", f"{ours}/pairwise_promoter/kernel")
            yield entry(f"{name}.lin_proj_pcre.weight", f"{ours}/pairwise_input/kernel")
            for i in range(config.pairwise_layers):
                inputs = {"p_att": ("query",), "c_att": ("key", "value")}
                yield from layer(f"{name}.transformer.layers.{i}", f"{ours}/pairwise/{i}", inputs)
        name = f"regulation.{resolution}"
        for i in range(config.regulation_layers):
            start = f"{name}.transformer.layers.{i}"
            inputs = {"att": ("inputs",)}
            yield from layer(start, f"{ours}/regulation/{i}", inputs)
            gamma = f"{ours}/regulation/{i}/attention/contact"
            yield entry(f"{start}.self_att.gamma_f", gamma)
    yield from dense("fc_head.0", "head")
    yield from dense("fc_head.2", "output")


def _unread(config: ChromoformerConfig) -> StateDict:
    """What every published file holds and nothing reads, as the package starts it."""
    unread = {}
    width = config.token_width
    for b in config.resolutions:
        own = f"embed.{b}.transformer.layers"
        for i in range(config.embed_layers):
            unread[f"{own}.{i}.self_att.gamma_f"] = np.ones(config.embed_heads, np.float32)
            unread[f"{own}.{i}.self_att.w_bias.weight"] = np.zeros((config.embed_heads, 2))
        own = f"pairwise_interaction.{b}"
        unread |= {f"{own}.ln.weight": np.ones(width), f"{own}.ln.bias": np.zeros(width)}
        for i in range(config.pairwise_layers):
            gamma = np.ones(config.pairwise_heads)
            unread[f"{own}.transformer.layers.{i}.self_att.gamma_f"] = gamma
        own = f"regulation.{b}.transformer.layers"
        for i in range(config.regulation_layers):
            unread[f"{own}.{i}.self_att.w_bias.weight"] = np.zeros((config.regulation_heads, 2))
    return {name: array.astype(np.float32) for name, array in unread.items()}


def _config_of(
    named: Mapping[str, np.ndarray], where: str, options: Mapping[str, Any]
) -> ChromoformerConfig:
    """The configuration that the arrays imply; published sizes for what they do not show.

    Raises:
        InputError: if the order of the resolutions is not told.
    """
    published = ChromoformerConfig()
    found = [re.match(r"embed\.(\d+)\.", name) for name in named]
    resolutions = tuple(dict.fromkeys(int(match[1]) for match in found if match))
    told = any(name.startswith("fc_head") for name in ([*named][:1] + [*named][-1:]))
    if len(resolutions) > 1 and "resolutions" not in options and not told:
        # The head reads the resolutions side by side, in an order that only that of the names
        # tells: PyTorch ends with the head, published scripts that rename begin with it, and
        # sorted names have it in the middle.
        raise InputError(
            where,
            "names that are in another order than the network's",
            "a file as PyTorch saves it, its head last",
            f"give --resolutions, in the network's order (here are {listing(resolutions)})",
        )

    def size(name: str, axis: int, otherwise: int) -> int:
        shape = named[name].shape if name in named else ()
        return shape[axis] if axis < len(shape) else otherwise

    sizes: dict[str, Any] = {"resolutions": resolutions or published.resolutions}
    first = sizes["resolutions"][0]
    for stage, name in _STAGES.items():
        pattern = re.compile(rf"{name}\.{first}\.transformer\.layers\.(\d+)\.")
        layers = {match[1] for match in map(pattern.match, named) if match}
        start = f"{name}.{first}.transformer.layers.0"
        for field, told in (
            ("layers", len(layers) or None),
            ("heads", size(f"{start}.self_att.gamma_f", 0, 0) or None),
            ("ff", size(f"{start}.ff.l1.weight", 0, 0) or None),
        ):
            sizes[f"{stage}_{field}"] = told or getattr(published, f"{stage}_{field}")
    attention = f"{_STAGES['regulation']}.{first}.transformer.layers.0.self_att"
    return ChromoformerConfig(
        assays=size(f"embed.{first}.lin_proj.weight", 1, 1),
        task="classification" if size("fc_head.2.weight", 0, 1) == 2 else "regression",
        embedding=size(f"embed.{first}.lin_proj.weight", 0, published.embedding),
        regulation_width=size(f"{attention}.ff.weight", 1, published.regulation_width),
        head=size("fc_head.0.weight", 0, published.head),
        **{**sizes, **options},
    )
