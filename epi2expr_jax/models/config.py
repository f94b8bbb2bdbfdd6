"""What the configuration of a model says, and what those of one window a gene have in common."""

import dataclasses
import math
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import jax
from flax import nnx

from epi2expr_jax.errors import Problems, collect
from epi2expr_jax.genome import WindowSpec


@typing.runtime_checkable
class Reads(typing.Protocol):
    """What a model reads of a gene.

    Attributes:
        window: the window around the TSS, in the finest bins that the model reads.
        resolutions: the bins it reads, in bp.
        positions: positions that the window is padded to at each resolution, `L`: the model reads a
            `RegionBatch`. Empty: it reads `[B W A]`, one window a gene.
        contacts: regions a gene, `N`; 0 for models that read the window alone.
        region_bp: width that regions are padded to, in bp; wider ones are refused.
    """

    @property
    def window(self) -> WindowSpec: ...
    @property
    def resolutions(self) -> Sequence[int]: ...
    @property
    def positions(self) -> Sequence[int]: ...
    @property
    def contacts(self) -> int: ...
    @property
    def region_bp(self) -> int: ...


@typing.runtime_checkable
class ModelConfig(Reads, typing.Protocol):
    """What the configuration of every model offers: nothing else asks which model it is.

    It is a frozen dataclass, since compiled programs are kept by it. What its `build` makes is
    called as `model(x, mask=mask, key=key) -> [B]`: predictions of a batch `x` of genes, of which
    those outside `mask [B]` are fillers; `key` is for dropout, and None outside training. The
    model's variables are `nnx.Param` and `nnx.BatchStat`.

    Attributes:
        NAME: what the command line and the run card call the model.
        TRAINING: published training by schedule (`plateau` or `decay`), the default first: fields
            of `training.one_run.TrainConfig`.
        assays: number of input channels, `A`.
        token_width: width of the token that the model makes of a region before regions meet, `D`; 0
            if it makes none. One that does offers `tokens`, `reread` and `attention`, as
            `Chromoformer` does.
    """

    __dataclass_fields__: ClassVar[dict[str, Any]]
    NAME: ClassVar[str]
    TRAINING: ClassVar[Mapping[str, Mapping[str, Any]]]

    @property
    def assays(self) -> int: ...
    @property
    def token_width(self) -> int: ...

    def build(self, *, rngs: nnx.Rngs) -> Any:
        """The model, with fresh weights drawn from the stream `params`."""
        ...


class Form(NamedTuple):
    """Another way to compute a model, for accelerators: the same function, arrays put together.

    A configuration may offer one as its method `accelerated() -> Form | None`.

    Attributes:
        graph: of the module in that form, as `nnx.split` gives it.
        pack, unpack: from the model's weights to those of this form, and back.
    """

    graph: Any
    pack: Callable[[Any], Any]
    unpack: Callable[[Any], Any]


class StepCost(NamedTuple):
    """What a training step costs on a GPU, as `experiments.benchmark --what=compiled` counts it.

    A configuration may have one as `STEP_COST`: that of the published model, in bfloat16. From it
    follow how many models train side by side, and about how long a training takes on CPU.

    Attributes:
        batch: genes a step, of each model.
        kernels: launched a step, however many models are side by side.
        gene_bytes: read and written a gene.
        temporaries: bytes, of each model, that are there between kernels.
        gene_flops: in matrix products, forward and backward, a gene.
    """

    batch: int
    kernels: int
    gene_bytes: float
    temporaries: float
    gene_flops: float


def of_weights(change: Callable[[Any], Any], tree: Any) -> Any:
    """A pytree with `change` made to each copy of a model's weights in it."""

    def weights(x: Any) -> bool:
        return isinstance(x, nnx.State)

    return jax.tree.map(lambda x: change(x) if weights(x) else x, tree, is_leaf=weights)


_PROTOCOLS = {**vars(Reads), **vars(ModelConfig), **ModelConfig.__annotations__}
MEMBERS = frozenset(name for name in _PROTOCOLS if name[0] != "_")


@dataclasses.dataclass(frozen=True)
class WindowModelConfig:
    """A model of one window around the TSS; subclasses give `NAME`, `TRAINING` and `build`.

    Attributes:
        window_bp: width of the window, in bp.
        bin_bp: width of a bin, in bp.
        assays: number of input channels, `A`.
        width: multiplies every hidden width (rounded, at least 1).
        dropout: multiplies every published dropout rate; 0 turns dropout off.

    Raises:
        InputError: naming every value out of range, a window that its bin does not divide, and one
            of too few bins for the model's pooling.
    """

    window_bp: int
    bin_bp: int
    assays: int = 1
    width: float = 1.0
    dropout: float = 1.0

    NAME: ClassVar[str]
    TRAINING: ClassVar[Mapping[str, Mapping[str, Any]]]
    STORE_BP: ClassVar[int] = 0  # unless told otherwise it reads a store's window, up to this
    MIN_BINS: ClassVar[int] = 1  # the product of the pool sizes
    MAX_RATE: ClassVar[float] = 0.0  # the largest published dropout rate

    # Without annotations, so that they are not fields.
    positions = ()
    contacts = region_bp = token_width = 0

    def __post_init__(self):
        limit = 1 / self.MAX_RATE if self.MAX_RATE else math.inf
        with collect() as problems:
            check_size(problems, self)
            if not 0 <= self.dropout < limit:
                problems.add(
                    self.NAME,
                    f"dropout={self.dropout}",
                    f"from 0 to less than {limit:.3g}, so that every rate is below 1",
                    "1 keeps the published rates",
                )
            with problems.part():
                if self.window.bins < self.MIN_BINS:
                    bin_bp = self.window_bp // self.MIN_BINS
                    problems.add(
                        self.NAME,
                        f"a window of {self.window_bp} bp in bins of {self.bin_bp} bp, "
                        f"{self.window.bins} bins",
                        f"at least {self.MIN_BINS} bins, or pooling leaves nothing",
                        f"take {f'bins of at most {bin_bp} bp, or ' if bin_bp else ''}a window of "
                        f"at least {self.MIN_BINS * self.bin_bp} bp",
                    )

    @property
    def window(self) -> WindowSpec:
        """The window the model reads."""
        return WindowSpec(self.window_bp, self.bin_bp)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """The bins the model reads, in bp: one width."""
        return (self.bin_bp,)

    def hidden(self, published: int) -> int:
        """A hidden width here, given the published one."""
        return max(1, round(published * self.width))


def check_size(problems: Problems, config: Any) -> None:
    """What all models ask of `assays` and `width`."""
    if config.assays < 1:
        problems.add(config.NAME, f"assays={config.assays}", "at least 1", "name an assay to read")
    if not 0 < config.width < math.inf:
        problems.add(
            config.NAME, f"width={config.width}", "a number more than 0", "1 is the published width"
        )
