"""Edits: what is done to one assay's signal at one place. An edit is data.

`scale`, `set_to`, `shift`, `swap_with` and `remove_peak` make one; `epi2expr_jax.perturb` predicts
what expression would do.
"""

import dataclasses

import numpy as np

from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.perturb.places import Place

SPACES = ("raw", "log")


@dataclasses.dataclass(frozen=True)
class Edit:
    """One alteration of one assay at one place: `x' = times x + plus + mix y`.

    Attributes:
        change: what is done there, for labels: "x0.5".
        factor: of `scale`; NaN for other edits.
        source: what `y` is: "", or "shift", "background" or "swap".
        shift_bp: how far signal moves along the strand.
        from_assay, from_cell: where swapped signal comes from; empty: the same.
        space: `raw` signal, or the `log` features that the model reads.
    """

    assay: str
    place: Place
    change: str
    times: float = 1.0
    plus: float = 0.0
    mix: float = 0.0
    factor: float = float("nan")
    source: str = ""
    shift_bp: int = 0
    from_assay: str = ""
    from_cell: str = ""
    space: str = "raw"

    @property
    def name(self) -> str:
        """For labels, such as "H3K27ac promoter x0.5"."""
        return f"{self.assay} {self.place.name} {self.change}"

    def __post_init__(self):
        bad = [v for v in (self.times, self.plus, self.mix) if not np.isfinite(v) or v < 0]
        problems = [
            Problem(self.name, f"{value:g}", "a finite number, 0 or more", "correct it")
            for value in bad
        ]
        if self.space not in SPACES:
            problems.append(
                Problem(self.name, f"space {self.space}", " or ".join(SPACES), "choose one")
            )
        if problems:
            raise InputError.of(problems)


def scale(assay: str, place: Place, factor: int | float, space: str = "raw") -> Edit:
    """Multiply the signal: 0 removes it, 2 doubles it.

    Raises:
        InputError: for a factor that is negative or not finite; so do the others.
    """
    return Edit(
        assay, place, f"x{factor:g}", times=float(factor), factor=float(factor), space=space
    )


def set_to(assay: str, place: Place, value: int | float, space: str = "raw") -> Edit:
    """Put a level in place of the signal: in the tracks' unit, or that of the features (`log`)."""
    return Edit(assay, place, f"= {value:g}", times=0.0, plus=float(value), space=space)


def shift(assay: str, place: Place, bp: int, space: str = "raw") -> Edit:
    """Put there the signal from `bp` upstream: it moves downstream, or upstream if negative.

    From beyond the window, or the region, comes 0.
    """
    return Edit(
        assay,
        place,
        f"shifted {bp:+d} bp",
        times=0.0,
        mix=1.0,
        source="shift",
        shift_bp=int(bp),
        space=space,
    )


def swap_with(
    assay: str, place: Place, *, other: str = "", cell: str = "", space: str = "raw"
) -> Edit:
    """Put there the signal of another assay (`other`), of another cell, or of both."""
    if not (other or cell):
        raise InputError(
            f"swap_with({assay!r})", "nothing to swap with", "an assay or a cell", "name one"
        )
    return Edit(
        assay, place, f"from {' '.join(filter(None, (cell, other)))}", times=0.0, mix=1.0,
        source="swap", from_assay=other, from_cell=cell, space=space,
    )  # fmt: skip


def remove_peak(assay: str, place: Place, space: str = "raw") -> Edit:
    """Cut the signal down to its background: the median of the window, or of the region."""
    return Edit(assay, place, "without peak", times=0.0, mix=1.0, source="background", space=space)
