"""What the configurations of models that read one window a gene have in common."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar

from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import WindowSpec


@dataclasses.dataclass(frozen=True)
class WindowModelConfig:
    """A model of one window around the TSS; subclasses give the defaults and `build`.

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
    MIN_BINS: ClassVar[int]  # the product of the pool sizes
    MAX_RATE: ClassVar[float]  # the largest published dropout rate
    # Published training by schedule, the default first: fields of `training.one_run.TrainConfig`.
    TRAINING: ClassVar[Mapping[str, Mapping[str, float]]]

    def __post_init__(self):
        problems = []
        if self.assays < 1:
            problems.append(
                Problem(self.NAME, f"assays={self.assays}", "at least 1", "name an assay to read")
            )
        if not self.width > 0:
            problems.append(
                Problem(self.NAME, f"width={self.width}", "more than 0", "1 is the published width")
            )
        if not 0 <= self.dropout * self.MAX_RATE < 1:
            problems.append(
                Problem(
                    self.NAME,
                    f"dropout={self.dropout}",
                    f"from 0 to less than {1 / self.MAX_RATE:.3g}, so that every rate is below 1",
                    "1 keeps the published rates",
                )
            )
        if self.window.bins < self.MIN_BINS:
            problems.append(
                Problem(
                    self.NAME,
                    f"a window of {self.window_bp} bp in bins of {self.bin_bp} bp, "
                    f"{self.window.bins} bins",
                    f"at least {self.MIN_BINS} bins, or pooling leaves nothing",
                    f"take bins of at most {self.window_bp // self.MIN_BINS} bp, or a window of "
                    f"at least {self.MIN_BINS * self.bin_bp} bp",
                )
            )
        if problems:
            raise InputError.of(problems)

    @property
    def window(self) -> WindowSpec:
        """The window the model reads."""
        return WindowSpec(self.window_bp, self.bin_bp)

    def hidden(self, published: int) -> int:
        """A hidden width here, given the published one."""
        return max(1, round(published * self.width))
