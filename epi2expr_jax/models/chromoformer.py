"""Chromoformer (Lee, Yang & Kim, Nat Commun 2022): a promoter and the regions it touches.

Three resolutions, each with an embedding of the promoter, a pairwise attention from the promoter
to each region, and a regulation attention among promoter and regions. 5,342,543 published
parameters for seven assays; the few of them that nothing reads do not exist here.

Only what the prediction needs is computed, and it is the same function: see `models/attention.py`.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from epi2expr_jax.errors import collect
from epi2expr_jax.genome import WindowSpec
from epi2expr_jax.models.attention import SIZES, Linear, Resolution, each, positional_code
from epi2expr_jax.models.config import Form, StepCost, check_size
from epi2expr_jax.models.layers import full
from epi2expr_jax.models.region_batch import RegionBatch, TokenLayout

_ADAMW = {"batch_size": 64, "adam_epsilon": 1e-8, "weight_decay": 0.01}


@dataclasses.dataclass(frozen=True)
class ChromoformerConfig:
    """Configuration of `Chromoformer`; the defaults are the published ones.

    Attributes:
        window_bp: width of the promoter window, in bp, centred in `region_bp`.
        region_bp: width that every region is padded to, in bp; wider ones are refused.
        resolutions: bins that promoter and regions are read in, in bp.
        contacts: regions a gene, `N`, best first; 0 for the promoter alone.
        assays: number of input channels, `F`.
        task: `regression` or `classification` (two outputs).
        width: multiplies every width below (rounded to a multiple of the heads).
        embedding: width of a token, `D`.
        embed_*, pairwise_*, regulation_*: layers, heads, hidden width of the dense layers of each
            stage; the regulation's attention has a width of its own.
        head: width of the last hidden layer.

    Raises:
        InputError: naming every value out of range.
    """

    window_bp: int = 40_000
    region_bp: int = 40_000
    resolutions: Sequence[int] = (2000, 500, 100)
    contacts: int = 8
    assays: int = 1
    task: str = "regression"
    width: float = 1.0
    embedding: int = 128
    embed_layers: int = 1
    embed_heads: int = 2
    embed_ff: int = 128
    pairwise_layers: int = 2
    pairwise_heads: int = 2
    pairwise_ff: int = 256
    regulation_layers: int = 6
    regulation_heads: int = 8
    regulation_width: int = 256
    regulation_ff: int = 256
    head: int = 128

    NAME: ClassVar[str] = "chromoformer"
    TRAINING: ClassVar[Mapping] = {
        "decay": {**_ADAMW, "epochs": 10, "learning_rate": 3e-5, "decay": 0.87},
        # As the ChromExpress study trained it.
        "plateau": {**_ADAMW, "epochs": 100, "learning_rate": 1e-3},
    }
    STEP_COST: ClassVar[StepCost] = StepCost(64, 692, 14.2e6, 648e6, 196e6)

    def __post_init__(self):
        object.__setattr__(self, "resolutions", tuple(self.resolutions))
        finest = min(self.resolutions, default=0)
        stages = ("embed", "pairwise", "regulation")
        sizes = [f"{stage}_{size}" for stage in stages for size in SIZES]
        sizes += ["embedding", "regulation_width", "head"]
        with collect() as problems:
            check_size(problems, self)
            for name in sizes:
                if getattr(self, name) < 1:
                    problems.add(
                        self.NAME, f"{name}={getattr(self, name)}", "at least 1", "give more"
                    )
            if self.contacts < 0:
                problems.add(self.NAME, f"contacts={self.contacts}", "0 or more", "8 is published")
            if self.task not in ("regression", "classification"):
                problems.add(self.NAME, self.task, "regression or classification", "choose one")
            if finest < 1 or any(b % finest or self.region_bp % b for b in self.resolutions):
                problems.add(
                    self.NAME,
                    f"resolutions {list(self.resolutions)}, regions padded to {self.region_bp} bp",
                    "multiples of the finest, which all divide the padded width",
                    "2000,500,100 are the published ones",
                )
            elif not 0 < self.window_bp <= self.region_bp or self.window_bp % (2 * finest):
                problems.add(
                    self.NAME,
                    f"a promoter window of {self.window_bp} bp",
                    f"an even number of bins of {finest} bp, at most {self.region_bp} bp",
                    "40000 is published",
                )

    @property
    def window(self) -> WindowSpec:
        """The promoter window, in bins of the finest resolution."""
        return WindowSpec(self.window_bp, min(self.resolutions))

    @property
    def positions(self) -> tuple[int, ...]:
        """Positions of a padded region at each resolution, `L`."""
        return tuple(self.region_bp // b for b in self.resolutions)

    @property
    def token_width(self) -> int:
        """Width of a token here, `D`: even, and a multiple of the heads that share it."""
        heads = np.lcm.reduce([2, self.embed_heads, self.pairwise_heads])
        return self.hidden(self.embedding, int(heads))

    def hidden(self, published: int, heads: int = 1) -> int:
        """A width here, given the published one: a multiple of `heads`."""
        return max(1, round(published * self.width / heads)) * heads

    def build(self, *, rngs: nnx.Rngs) -> "Chromoformer":
        """A model with fresh weights, drawn from the stream `params`."""
        return Chromoformer(self, rngs=rngs)

    def accelerated(self) -> Form | None:
        """The resolutions side by side, where there are several and they are alike."""
        if self.embed_layers > 1 or len(self.positions) < 2:
            return None
        model = nnx.eval_shape(lambda: SideBySide(self.build(rngs=nnx.Rngs(0))))
        return Form(nnx.split(model)[0], SideBySide.pack, SideBySide.unpack)


class Weights(NamedTuple):
    """Where Chromoformer looks: attention weights, one entry a resolution in each tuple.

    Attributes:
        embedding: `[B H L]`, from the promoter's centre to its positions (last layer).
        pairwise: `[B N J H L]`, from the promoter to the positions of each region, `J` layers; 0
            for absent regions.
        regulation: `[B J H 1+N 1+N]`, among promoter (0) and regions. Rows and columns of absent
            regions are 0.
    """

    embedding: tuple[Array, ...]
    pairwise: tuple[Array, ...]
    regulation: tuple[Array, ...]


class Chromoformer(nnx.Module):
    """Three resolutions side by side, then two dense layers over their promoters' tokens."""

    def __init__(self, config: ChromoformerConfig, *, rngs: nnx.Rngs):
        self.classifies = config.task == "classification"
        self.resolutions = nnx.List(
            Resolution(config, positions, rngs) for positions in config.positions
        )
        head = config.hidden(config.head)
        width = config.token_width * len(config.positions)
        self.head = Linear(width, head, rngs=rngs)
        self.output = Linear(head, 2 if self.classifies else 1, rngs=rngs)

    def __call__(
        self, x: RegionBatch, *, mask: Bool[Array, "B"], key: PRNGKeyArray | None
    ) -> Float[Array, "B"]:
        """Predicted expression of each gene in the target's own scale; or log odds of the label.

        Args:
            x: a batch; genes outside `mask` may hold anything finite.
            mask, key: as for every model; here no gene sees another and nothing drops out.
        """
        return predicted(self.outputs(x), self.classifies)

    def outputs(self, x: RegionBatch) -> Float[Array, "B O"]:
        """The published network's own outputs: one, or two logits."""
        return self._decide(self._encode(x)[0], x, every_token=False)[0]

    def tokens(self, x: RegionBatch) -> Float[Array, "B V M D"]:
        """What each resolution makes of a promoter (0) and its regions before they meet; 0 beyond
        the plan's slots."""
        layout = TokenLayout.of(x.slots)
        genes = len(x.n_contacts)
        return jnp.stack(
            [
                jnp.concatenate([part[:genes, None], layout.regions_by_gene(part[genes:])], axis=1)
                for part in self._encode(x)[0]
            ],
            axis=1,
        )

    def reread(
        self,
        x: RegionBatch,
        known: Float[Array, "B V M D"],
        slot: Int[Array, "B K"],
        altered: Bool[Array, "B K"],
    ) -> Float[Array, "B"]:
        """Predictions where only some regions differ from what `known` tokens were made of.

        Args:
            known: from `tokens`, of the same promoters.
            slot, altered: up to `K` regions of each gene to read again, and whether to; no slot
                twice.
        """
        layout, few = TokenLayout.of(x.slots), TokenLayout.of((slot.shape[1],) * len(slot))
        at = slot[few.gene, few.slot]
        there = altered[few.gene, few.slot]
        tokens = []
        for i, resolution in enumerate(self.resolutions):
            promoter, regions = known[:, i, 0], known[:, i, 1:]
            values, valid = (
                layout.regions_by_gene(part[i])[few.gene, at] for part in (x.region, x.region_valid)
            )
            valid &= few.spread(x.promoter_valid[i][:, resolution.positions // 2])[:, None]
            read, _ = resolution.read_regions(promoter, values, valid, few)
            read = jnp.where(there[:, None], read, regions[few.gene, at])
            regions = regions.at[few.gene, at].set(read)
            tokens.append(jnp.concatenate([promoter, regions[layout.gene, layout.slot]]))
        return predicted(self._decide(tokens, x, every_token=False)[0], self.classifies)

    def attention(self, x: RegionBatch) -> Weights:
        """The attention weights behind a prediction."""
        tokens, looked = self._encode(x)
        regulation = self._decide(tokens, x, every_token=True)[1]
        layout = TokenLayout.of(x.slots)
        embedding, pairwise = zip(*looked, strict=True)
        # Attention over nothing is uniform; of an absent region it is not to be shown.
        there = [valid.any(-1)[:, None, None, None] for valid in x.region_valid]
        return Weights(
            embedding,
            tuple(
                layout.regions_by_gene(jnp.where(there[i], jnp.stack(part, 1), 0))
                for i, part in enumerate(pairwise)
                if part
            ),
            tuple(layout.pairs_by_gene(jnp.stack(part, 1), x.n_contacts) for part in regulation),
        )

    def _encode(
        self, x: RegionBatch
    ) -> tuple[list[Float[Array, "_T D"]], list[tuple[Array, tuple]]]:
        """Of each resolution the tokens, promoters first, then the pairs; and where it looked."""
        layout = TokenLayout.of(x.slots)
        tokens, weights = [], []
        for i, resolution in enumerate(self.resolutions):
            promoter, looked = resolution.embed_promoter(x.promoter[i], x.promoter_valid[i])
            own, read_weights = promoter, ()
            if layout.prefix:
                centre = x.promoter_valid[i][:, resolution.positions // 2]
                valid = x.region_valid[i] & layout.spread(centre)[:, None]
                regions, read_weights = resolution.read_regions(
                    promoter, x.region[i], valid, layout
                )
                own = jnp.concatenate([promoter, regions])
            tokens.append(own)
            weights.append((looked, read_weights))
        return tokens, weights

    def _decide(
        self, tokens: Sequence[Float[Array, "_T D"]], x: RegionBatch, every_token: bool
    ) -> tuple[Float[Array, "B O"], list[tuple]]:
        """Outputs from the tokens of each resolution, and its attention among them."""
        layout = TokenLayout.of(x.slots)
        block = places(layout, x)
        read, weights = [], []
        for resolution, own in zip(self.resolutions, tokens, strict=True):
            regulated, regulation = resolution.regulate(
                own[layout.rows], *block, layout, every_token
            )
            read.append(own[: len(x.n_contacts)] + regulated)
            weights.append(regulation)
        hidden = nnx.relu(self.head(jnp.concatenate(read, axis=1)))
        return self.output(full(hidden)), weights


def places(layout: TokenLayout, x: RegionBatch) -> tuple[Float[Array, "S T"], Bool[Array, "S T"]]:
    """Of each row of the blocks: its region's contact score, and whether it is there."""
    owner, token = np.maximum(layout.owner, 0), layout.token
    present = jnp.asarray(token) <= x.n_contacts[owner]
    score = jnp.pad(x.score, ((0, 0), (1, 0)))
    return jnp.where(present, score[owner, token], 0), present


def predicted(outputs: Float[Array, "B O"], classifies: bool) -> Float[Array, "B"]:
    """The expression, or the log odds of two logits."""
    return outputs[:, 1] - outputs[:, 0] if classifies else outputs[:, 0]


class SideBySide(nnx.Module):
    """A `Chromoformer` whose resolutions are one stack: the same function in a third of the
    products, each three times as large, as suits an accelerator.

    On CPU it is slower. All weights of a resolution have a first axis `V` here.
    """

    def __init__(self, model: Chromoformer):
        parts = [nnx.split(resolution) for resolution in model.resolutions]
        stacked = jax.tree.map(lambda *x: jnp.stack(x), *(state for _, state in parts))
        self.resolutions = nnx.merge(parts[0][0], stacked)
        self.classifies, self.head, self.output = model.classifies, model.head, model.output
        self.positions = tuple(resolution.positions for resolution in model.resolutions)

    @staticmethod
    def pack(params: Any) -> Any:
        """The weights of a `Chromoformer`, in this form."""
        flat = dict(nnx.to_flat_state(params))
        together: dict[tuple, list] = {}
        for path in sorted(path for path in flat if path[0] == "resolutions"):
            together.setdefault((path[0], *path[2:]), []).append(flat.pop(path))
        stacked = {path: jax.tree.map(lambda *x: jnp.stack(x), *x) for path, x in together.items()}
        return nnx.from_flat_state(flat | stacked)

    @staticmethod
    def unpack(params: Any) -> Any:
        """The weights of a `Chromoformer`, from those in this form."""
        flat = {}
        for path, x in nnx.to_flat_state(params):
            if path[0] != "resolutions":
                flat[path] = x
                continue
            for i in range(len(jax.tree.leaves(x)[0])):
                flat[path[0], i, *path[1:]] = jax.tree.map(lambda part, i=i: part[i], x)
        return nnx.from_flat_state(flat)

    def __call__(
        self, x: RegionBatch, *, mask: Bool[Array, "B"], key: PRNGKeyArray | None
    ) -> Float[Array, "B"]:
        """As that of `Chromoformer`."""
        layout, genes = TokenLayout.of(x.slots), len(x.n_contacts)
        width = self.head.kernel.shape[0] // len(self.positions)
        dtype, rows = x.promoter[0].dtype, lambda rows: rows
        codes = [jnp.asarray(positional_code(n, width), dtype) for n in self.positions]
        own, last = self.resolutions, self.resolutions.embed[-1]
        centres = [n // 2 for n in self.positions]
        centre = jnp.stack([part[:, :, at] for part, at in zip(x.promoter, centres, strict=True)])
        there = [part[:, at] for part, at in zip(x.promoter_valid, centres, strict=True)]
        code = jnp.stack([part[at] for part, at in zip(codes, centres, strict=True)])
        seen = [valid & t[:, None] for valid, t in zip(x.promoter_valid, there, strict=True)]
        query = each(lambda p, x, code: p(x) + code[None], own.embed_input, centre, code)
        tokens = self._read(last, query, x.promoter, seen, own.embed_input, codes, rows)
        if layout.prefix:
            spread = layout.spread
            valid = [v & spread(t)[:, None] for v, t in zip(x.region_valid, there, strict=True)]
            stream = each(lambda p, x: p(x), own.pairwise_promoter, tokens)
            for layer in own.pairwise:
                stream = self._read(
                    layer, stream, x.region, valid, own.pairwise_input, codes, spread
                )
                spread = rows
            tokens = jnp.concatenate([tokens, stream], axis=1)
        block = places(layout, x)

        def regulate(resolution: Resolution, tokens: Array) -> Array:
            read = resolution.regulate(tokens[layout.rows], *block, layout, every_token=False)[0]
            return tokens[:genes] + read

        read = jnp.moveaxis(each(regulate, own, tokens), 0, 1).reshape(genes, -1)
        return predicted(self.output(full(nnx.relu(self.head(read)))), self.classifies)

    def _read(
        self,
        layer: Any,
        query: Float[Array, "V B D"],
        x: Sequence[Float[Array, "R F _L"]],
        valid: Sequence[Bool[Array, "R _L"]],
        project: Linear,
        codes: Sequence[Float[Array, "_L D"]],
        spread: Callable[[Array], Array],
    ) -> Float[Array, "V R D"]:
        """What the queries of each resolution have become after reading; `L` differs by it."""
        queries = each(lambda a, p, q: a.queries(q, p.kernel[...]), layer.attention, project, query)
        means_of = layer.attention.weighted_means
        means = [
            means_of(*(part[i] for part in queries), x[i], valid[i], codes[i], spread)[0]
            for i in range(len(codes))
        ]
        together = [jnp.stack(part) for part in zip(*means, strict=True)]

        def finish(layer: Any, project: Linear, query: Array, *means: Array) -> Array:
            read = layer.attention.output_of(*means, project.kernel[...])
            stream = layer.attention.norm(spread(query) + read).astype(query.dtype)
            return layer.dense(stream)

        return each(finish, layer, project, query, *together)
