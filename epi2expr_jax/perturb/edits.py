"""Edits: what is done to one assay's signal at one place. An edit is data.

`scale`, `set_to`, `shift`, `swap_with`, `remove_peak` and `silence` make one; `perturb` predicts
how expression would change. `KINDS` holds all kinds of edits. To add one, write a function that
makes an `Edit` of its kind and give it a line there.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from epi2expr_jax.errors import InputError, collect, nearest
from epi2expr_jax.perturb.places import MOST_BP, Place

SPACES = ("raw", "log")
_MOST = float(np.finfo(np.float32).max)  # models read single precision


@dataclasses.dataclass(frozen=True)
class Edit:
    """One alteration of one assay at one place: signal `x` becomes `times x + plus + mix y`.

    Attributes:
        kind: its name in `KINDS`, which says how `y` is made.
        change: what is done there, for labels: "x0.5".
        factor: of `scale`; NaN for other edits.
        amount: a number that the kind makes `y` with, such as bp of a shift.
        from_assay, from_cell: whose signal `y` is made of; empty: those of the edited signal.
        space: `raw` signal, or the `log` features that the model reads.

    Raises:
        InputError: naming an unknown kind or space, and every number that is negative, or not
            finite in single precision.
    """

    assay: str
    place: Place
    kind: str
    change: str
    times: float = 1.0
    plus: float = 0.0
    mix: float = 0.0
    factor: float = float("nan")
    amount: float = 0.0
    from_assay: str = ""
    from_cell: str = ""
    space: str = "raw"

    @property
    def name(self) -> str:
        """For labels, such as "H3K27ac promoter x0.5"."""
        return f"{self.assay} {self.place.name} {self.change}"

    def __post_init__(self):
        with collect() as problems:
            if self.kind not in KINDS:
                remedy = nearest(self.kind, KINDS) or "choose one"
                problems.add(self.name, f"kind {self.kind}", ", ".join(KINDS), remedy)
            for value in (self.times, self.plus, self.mix):
                if not 0 <= value <= _MOST:
                    expected = f"a number from 0 to {_MOST:.2g}"
                    problems.add(self.name, f"{value:g}", expected, "correct it")
            if not abs(self.amount) <= _MOST:
                expected = f"a number from -{_MOST:.2g} to {_MOST:.2g}"
                problems.add(self.name, f"{self.amount:g}", expected, "correct it")
            if self.space not in SPACES:
                problems.add(self.name, f"space {self.space}", " or ".join(SPACES), "choose one")


def scale(assay: str, place: Place, factor: int | float, space: str = "raw") -> Edit:
    """Multiply the signal: 0 removes it, 2 doubles it.

    Raises:
        InputError: for a factor that is negative or not finite; so do the others.
    """
    factor = float(factor)
    return Edit(assay, place, "scale", f"x{factor:.10g}", times=factor, factor=factor, space=space)


def set_to(assay: str, place: Place, value: int | float, space: str = "raw") -> Edit:
    """Replace the signal by a level: in the tracks' unit, or that of the features (`log`)."""
    return Edit(assay, place, "set", f"= {value:.10g}", times=0.0, plus=float(value), space=space)


def shift(assay: str, place: Place, bp: int, space: str = "raw") -> Edit:
    """Replace the signal by that from `bp` upstream: it moves downstream, or upstream if negative.

    Beyond the window, or the region, the signal counts as 0.

    Raises:
        InputError: if it is more than any chromosome has.
    """
    if abs(bp) >= MOST_BP:
        found = f"shift({assay!r}, bp={bp:g})"
        raise InputError(found, "a shift beyond any chromosome", "some bp", "give less")
    change = f"shifted {bp:+d} bp"
    return Edit(assay, place, "shift", change, times=0.0, mix=1.0, amount=float(bp), space=space)


def swap_with(
    assay: str, place: Place, *, other: str = "", cell: str = "", space: str = "raw"
) -> Edit:
    """Replace the signal by that of another assay (`other`), of another cell, or of both."""
    if not (other or cell):
        raise InputError(
            f"swap_with({assay!r})", "nothing to swap with", "an assay or a cell", "name one"
        )
    return Edit(
        assay, place, "swap", f"from {' '.join(filter(None, (cell, other)))}", times=0.0, mix=1.0,
        from_assay=other, from_cell=cell, space=space,
    )  # fmt: skip


def remove_peak(assay: str, place: Place, space: str = "raw") -> Edit:
    """Reduce the signal to its background: the median of the window, or of the region."""
    return Edit(assay, place, "remove_peak", "without peak", times=0.0, mix=1.0, space=space)


def silence(assay: str, place: Place, space: str = "raw") -> Edit:
    """Reduce the signal to the lower quartile of the window, or of the region, where it is higher.

    What CRISPRi does to an element, for each active mark. A peak may be half of what is read: then
    the median, to which `remove_peak` reduces, is not background.
    """
    return Edit(assay, place, "silence", "silenced", times=0.0, mix=1.0, space=space)


Rows = Float[np.ndarray, "rows bins"]
BinBp = Int[np.ndarray, " rows"]


def _shifted(raw: Rows, edit: Edit, bin_bp: BinBp) -> Rows:
    """Bins in part are taken from two."""
    index = np.arange(raw.shape[1]) - (edit.amount / bin_bp)[:, None]
    low = np.floor(index).astype(int)
    part = (index - low).astype(np.float32)

    def at(index: np.ndarray) -> np.ndarray:
        values = np.take_along_axis(raw, np.clip(index, 0, raw.shape[1] - 1), 1)
        return np.where((index >= 0) & (index < raw.shape[1]), values, 0)

    return (1 - part) * at(low) + part * at(low + 1)


def _background(raw: Rows, edit: Edit, bin_bp: BinBp) -> Rows:
    return np.minimum(raw, np.median(raw, axis=1, keepdims=True))


def _quartile(raw: Rows, edit: Edit, bin_bp: BinBp) -> Rows:
    return np.minimum(raw, np.quantile(raw, 0.25, axis=1, keepdims=True).astype(raw.dtype))


def _no_value(text: str) -> dict[str, Any]:
    if text:
        raise ValueError(text)
    return {}


def _one_number(name: str, number: Callable[[float], Any] = float) -> Callable[[str], dict]:
    return lambda text: {name: number(float(text))}


def _assay_at_cell(text: str) -> dict[str, str]:
    assay, _, cell = text.partition("@")
    if not (assay or cell):
        raise ValueError(text)
    return {"other": assay, "cell": cell}


@dataclasses.dataclass(frozen=True)
class Kind:
    """How edits of one kind are made, written, and what they mix in.

    Attributes:
        make: called with assay, place, `space=` and what `read` gives.
        help: how it is written, such as `shift:BP` or the name alone, and what it does.
        read: what is written after the colon, as arguments of `make`; a `ValueError` if it is
            something else.
        mixed: makes the formula's `y` out of raw signal `[rows bins]`, the edit, and the width of
            a bin in bp, negative for rows on the minus strand; None if the kind needs no `y`.
    """

    make: Callable[..., Edit]
    help: str
    read: Callable[[str], dict[str, Any]] = _no_value
    mixed: Callable[[Rows, Edit, BinBp], Rows] | None = None


KINDS: dict[str, Kind] = {
    "scale": Kind(scale, "scale:FACTOR (multiplied by a number)", _one_number("factor")),
    "remove_peak": Kind(remove_peak, "remove_peak (down to the background)", mixed=_background),
    "silence": Kind(silence, "silence (down to the lower quartile)", mixed=_quartile),
    "set": Kind(set_to, "set:LEVEL (to a number)", _one_number("value")),
    "shift": Kind(shift, "shift:BP (downstream by a number of bp)", _one_number("bp", round),
                  _shifted),
    "swap": Kind(swap_with, "swap:ASSAY, swap:@CELL or swap:ASSAY@CELL (the signal of those)",
                 _assay_at_cell, lambda raw, edit, bin_bp: raw),
}  # fmt: skip


def forms() -> str:
    """How every kind of edit is written, and what it does, for help and errors."""
    return ", ".join(kind.help for kind in KINDS.values())


def parse(text: str, assay: str, place: Place, space: str = "raw") -> Edit:
    """The edit that a text such as "shift:500" names.

    Raises:
        InputError: for text of no kind, or a value that the kind cannot take.
    """
    name, _, value = text.partition(":")
    kind = KINDS.get(name)
    if kind is None:
        raise InputError("edits", text, forms(), nearest(name, KINDS) or "choose some")
    try:
        values = kind.read(value)
    except (ValueError, OverflowError):  # not a number, or an infinite one
        raise InputError("edits", text, kind.help, "write it so") from None
    return kind.make(assay, place, space=space, **values)
