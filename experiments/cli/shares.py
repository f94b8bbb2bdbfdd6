"""Which part of a training is this process's."""

import dataclasses
from collections.abc import Sequence

from epi2expr_jax.training.runs import Run


@dataclasses.dataclass(frozen=True)
class Share:
    """Which of how many processes this one is; each trains its part of the runs."""

    index: int = 0
    count: int = 1

    def of(self, runs: Sequence[Run]) -> list[Run]:
        """This process's part: neighbours, which read the same tracks."""
        begin, end = (i * len(runs) // self.count for i in (self.index, self.index + 1))
        return list(runs[begin:end])

    @property
    def name(self) -> str:
        return f"{self.index}-of-{self.count}"
