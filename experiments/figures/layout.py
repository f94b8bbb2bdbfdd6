"""Where words go in a figure: within it, none over another, on the page of a desk or a phone."""

import contextlib
import contextvars
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.text import Text

WIDTH = 9.2  # inches, of the text column
NARROW = 3.9  # likewise, of a phone
_PANEL = 1.9  # inches, the least width of a panel
_LINE = 1.25  # of the size of a font, from line to line
LETTER = 0.087  # inches, of a mean letter of a mark's name in 9 points
_FEWEST = 8  # letters of a broken line: a mark is not cut in two
_page_width: contextvars.ContextVar[float] = contextvars.ContextVar("width", default=WIDTH)


def page_width() -> float:
    """Of the text column that figures are drawn for, in inches."""
    return _page_width.get()


@contextlib.contextmanager
def narrow() -> Iterator[None]:
    """Figures drawn within fit the page of a phone."""
    token = _page_width.set(NARROW)
    try:
        yield
    finally:
        _page_width.reset(token)


def wrap(label: str, width: int = 30) -> str:
    """A label on as many lines as it needs, broken after a plus or at a blank where possible."""
    return _Wrapper(width).fill(label.replace(" %", "\N{NO-BREAK SPACE}%"))


class _Wrapper(textwrap.TextWrapper):
    wordsep_re = re.compile(r"([ \n]+|[^ \n+]*\+)")


def side_label(label: str) -> str:
    """A label to the left of a panel: half the page, or less, is for the panel."""
    return wrap(label, 30 if page_width() == WIDTH else 18)


def columns_of(panels: int, most: int) -> int:
    """In how many columns to put so many panels."""
    return min(most, panels, int(page_width() / _PANEL))


def new_figure(height: float) -> tuple[Figure, Axes]:
    figure = Figure((page_width(), height), layout="constrained")
    return figure, figure.subplots()


def drop_panels(panels: np.ndarray, used: int, columns: int) -> None:
    """Remove the panels that are left over; those above them get the ticks' labels."""
    for panel in panels[used:]:
        panel.remove()
    for panel in panels[max(0, used - columns) : used]:
        panel.tick_params(labelbottom=True)


def legend_above(figure: Figure, handles: Sequence[Any] = ()) -> None:
    """The legend of a figure over its panels: in a row, or in as many as the page needs.

    Args:
        handles: what it names; else all that the first panel has a label for.
    """
    handles = handles or figure.axes[0].get_legend_handles_labels()[0]
    widths = [0.5 + LETTER * len(str(handle.get_label())) for handle in handles]
    one_row = sum(widths) <= page_width()
    columns = len(widths) if one_row else max(1, int(page_width() / max(widths)))
    if not one_row:
        figure.set_figheight(figure.get_figheight() + 0.2 * -(-len(widths) // columns))
    figure.legend(handles=handles, loc="outside upper left", ncols=columns, frameon=False)


def log_ticks(axis: Axis) -> None:
    """Few ticks on a logarithmic axis, of any range, that do not hide one another."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(
        ticker.LogLocator(subs=(1, 2, 5)) if high > 6 * low else ticker.MaxNLocator(4)
    )
    axis.set_major_formatter("{x:g}")
    axis.set_minor_locator(ticker.NullLocator())


def apart(
    boxes: Sequence[tuple[float, float, float]],
    height: float,
    taken: Sequence[tuple[float, float, float]] = (),
    taken_height: float = 0,
) -> list[float]:
    """Where to put labels of this height so that none hides another: each is moved up, if at all.

    Args:
        boxes: the middle, the bottom and the width of each label.
        taken: the same of what stays where it is and is not to be hidden, such as points.
        taken_height: of each of these.

    Returns:
        The bottom of each label.
    """
    bottoms = [bottom for _, bottom, _ in boxes]
    there = [(*box, taken_height) for box in taken]
    for i in sorted(range(len(boxes)), key=bottoms.__getitem__):
        x, _, width = boxes[i]
        for middle, bottom, other, high in sorted(there, key=lambda box: box[1]):
            close = abs(x - middle) < (width + other) / 2
            if close and bottom - height < bottoms[i] < bottom + high:
                bottoms[i] = bottom + high
        there.append((x, bottoms[i], width, height))
    return bottoms


def fitted(figure: Figure) -> Figure:
    """The figure, its titles, labels of axes and legends broken where they have no room.

    It grows with their lines, so that panels stay as high as they were.
    """
    legends = {axes: axes.get_legend() for axes in figure.axes}
    for legend in filter(None, legends.values()):
        legend.set_in_layout(False)  # else panels shrink as their legends grow
    figure.draw_without_rendering()  # where things are is known after that
    page, dots = figure.bbox.size, figure.dpi / 72
    sides = [text.get_window_extent().x1 for text in figure.texts if text.get_rotation() == 90]
    left = np.array([max(sides, default=0.0), 0.0])
    panels = [axes for axes in figure.axes if axes.axison]
    middles = np.array([axes.bbox.get_points().mean(axis=0) for axes in panels])
    grown: dict[float, float] = {}  # points, by the height at which a row of panels ends
    for axes, middle in zip(panels, middles, strict=True):
        # As far as the ends of the page, and as half the way to the next panel on either side.
        room = 2 * np.minimum(middle - left, page - middle)
        away = np.abs(middles - middle)
        for side in (0, 1):
            in_line = away[:, 1 - side] < axes.bbox.size[1 - side] / 2
            next_ones = away[in_line & (away[:, side] > 1), side]
            room[side] = min([room[side], *(next_ones - 8 * dots)])
        row = round(middle[1])
        lines = _break(axes.title, room[0]) + _break(axes.xaxis.label, room[0])
        _break(axes.yaxis.label, room[1])
        if legend := legends[axes]:
            texts = legend.get_texts()
            for text in texts:
                _break(text, 0.9 * axes.bbox.width - 36 * dots)
            high = sum(_LINE * _points(text) * (text.get_text().count("\n") + 1) for text in texts)
            lines += max(0.0, 1.2 * high - axes.bbox.height / dots)
        grown[row] = max(grown.get(row, 0.0), lines)
    more = sum(grown.values())
    for text in figure.texts:
        upright = text.get_rotation() == 90
        lines = _break(text, page[int(upright)] - 8 * dots)
        more += 0 if upright else lines
    for legend in figure.legends:
        more += sum(_break(text, page[0] - 48 * dots) for text in legend.get_texts())
    if more:
        figure.set_figheight(figure.get_figheight() + more / 72)
    return figure


def _break(text: Text, room: float) -> float:
    """Break a text into lines no longer than the room (pixels); how many points higher it is."""
    before = text.get_text()
    if not text.get_visible() or not before.strip() or _length(text) <= room:
        return 0.0
    longest = max(map(len, before.split("\n")))
    width = max(_FEWEST, int(longest * room / _length(text)))
    while True:
        text.set_text("\n".join(wrap(line, width) for line in before.split("\n")))
        if width == _FEWEST or _length(text) <= room:
            break
        width -= 1
    more = text.get_text().count("\n") - before.count("\n")
    return more * _LINE * _points(text)


def _points(text: Text) -> float:
    return cast("float", text.get_fontsize())


def _length(text: Text) -> float:
    """Of the longest line, in pixels."""
    box = text.get_window_extent()
    return box.height if text.get_rotation() == 90 else box.width
