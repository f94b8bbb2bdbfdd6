"""What figures of a page tell a reader who points at them: the values at their places.

Figures are images, whose inner titles no browser shows; so the script of the page
(experiments/report.js) looks the places up in a list.
"""

import json
import weakref
from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from epi2expr_jax.words.sentences import number

_PARTS = 1000  # of a figure's width or height
_HINTS: "weakref.WeakKeyDictionary[Axes, list[tuple[np.ndarray, str]]]"
_HINTS = weakref.WeakKeyDictionary()


def add_hints(axes: Axes, x: Any, y: Any, texts: Iterable[str]) -> None:
    """Say what stands at places of axes.

    Args:
        x, y: in the axes' data, one a text; a pair (from, to) of these for what is wide or high.
        texts: what each place tells.
    """
    texts = list(texts)
    pairs = [values if isinstance(values, tuple) else (values, values) for values in (x, y)]
    ends = np.array(
        [[np.broadcast_to(np.asarray(end, float), len(texts)) for end in pair] for pair in pairs]
    )  # [axis, end, place]
    _HINTS.setdefault(axes, []).extend(zip(ends.transpose(2, 1, 0), texts, strict=True))


def ends_of(table: Any, value: str, low: str = "low", high: str = "high") -> tuple[Any, Any]:
    """The ends of the intervals in a table; of a row that has none its value twice."""
    return table[low].fillna(table[value]), table[high].fillna(table[value])


def score_texts(
    names: Iterable[Any], table: Any, value: str, what: str, digits: int = 3
) -> list[str]:
    """A name and a value with its 95 % interval, a text a row.

    Args:
        table: has the column `value`, and low and high, which may be no numbers.
        what: the value is called, such as r.
    """
    texts = []
    for name, *row in zip(names, table[value], table["low"], table["high"], strict=True):
        mean, low, high = (number(one, digits) for one in row)
        interval = f" ({low} to {high})" if row[1] == row[1] else ""
        texts.append(f"{name}: {what} {mean}{interval}")
    return texts


def hints_json(figure: Figure) -> str:
    """What a figure tells, as JSON: lists of left, top, right, bottom, in thousandths, and a text.

    Places outside of their axes, or that are no number, are left out.
    """
    figure.draw_without_rendering()  # where things are is known after that
    found = []
    for axes in figure.axes:
        frame = axes.bbox.get_points()  # [corner, axis]
        for ends, text in _HINTS.get(axes, ()):
            box = np.sort(axes.transData.transform(ends), axis=0)
            if not (np.isfinite(box).all() and (box[0] <= frame[1] + 1).all()):
                continue
            if (box[1] >= frame[0] - 1).all():
                (left, low), (right, high) = box.clip(*frame) / figure.bbox.size
                place = [left, 1 - high, right, 1 - low]
                found.append([*(round(_PARTS * part) for part in place), text])
    return json.dumps(found, ensure_ascii=False, separators=(",", ":"))
