"""How figures look and become part of a page; the ranking and the heat map."""

import base64
import dataclasses
import io
import pathlib
import re
from typing import Any

import matplotlib
import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontManager
from matplotlib.patches import Rectangle
from matplotlib.textpath import TextPath

from epi2expr_jax.files import whole
from epi2expr_jax.training.targets import LABEL
from epi2expr_jax.units import DEFAULT_UNIT, PROBABILITY, log2_of, unit_words
from epi2expr_jax.words.sentences import number
from experiments.figures.hover import add_hints, ends_of, score_texts
from experiments.figures.layout import (
    LETTER,
    WIDTH,
    fitted,
    legend_above,
    new_figure,
    page_width,
    side_label,
    wrap,
)

MANY_NUMBERS = 2000  # above, a heat map goes without numbers in its cells
LEAST_SIZE = 5.5  # points, of a number that can be read
_TREE = 0.6  # inches, of a dendrogram

# Okabe and Ito's colours, told apart by colour-blind readers and on grey paper.
BLUE, ORANGE, GREY = "#0072B2", "#D55E00", "#767676"
_BLACK = "#010101"  # on a coloured ground: black in any scheme
# A figure in a page follows the page's scheme; these stand for what matplotlib writes.
_SCHEME = (
    "<style>svg{color:#1a1a1a;fill:currentColor;--blue:#0072b2;--grid:#e4e4e4}"
    "@media (prefers-color-scheme:dark){svg{color:#e8e8e8;--blue:#56a8e0;--grid:#3a3d42}}"
    "@media print{svg{color:#000;--blue:#0072b2;--grid:#e4e4e4}}</style>"
)
_IN_SCHEME = {"#000000": "currentColor", "#0072b2": "var(--blue)", "#e4e4e4": "var(--grid)"}
STYLE: dict[Any, Any] = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.parse_math": False,  # a dollar in an assay's name is a dollar
    "svg.hashsalt": "epi2expr_jax",  # the same run gives the same page
}


def own_fonts_first(manager: FontManager) -> None:
    """Prefer matplotlib's own DejaVu Sans to a font of this name that the machine has.

    Otherwise the one that was found first draws, and the same run gives another page elsewhere.
    """
    own = pathlib.Path(matplotlib.get_data_path(), "fonts", "ttf")
    known = {font.fname for font in manager.ttflist}
    for path in sorted(own.glob("DejaVuSans*.ttf")):
        if str(path) not in known:
            manager.addfont(path)
    manager.ttflist.sort(key=lambda font: not font.fname.startswith(str(own)))


own_fonts_first(font_manager.fontManager)


def unit_of(target: str, unit: str = DEFAULT_UNIT) -> str:
    """What is predicted, in the words of an axis; `unit` is that of expression."""
    return PROBABILITY if target == LABEL else log2_of(unit)


def unit_of_shares(target: str, unit: str = DEFAULT_UNIT, method: str = "gradients") -> str:
    """What shares of a prediction are in, in the words of an axis: those of gradients in what the
    model gives, on its target's own scale.

    Args:
        target: what was trained on.
        unit: of expression.
        method: of experiments.attribution.
    """
    if method != "gradients" or target == "log2":
        return unit_of(target, unit)
    return "log odds of being expressed" if target == LABEL else f"{unit_words(unit)} scaled to 0–1"


def save_figure(figure: Figure, path: pathlib.Path, dpi: int = 150) -> None:
    """Write a figure as PNG and SVG, each whole or not at all.

    Args:
        path: without the suffix.
    """
    for kind, metadata in (("png", None), ("svg", {"Date": None})):
        with whole(path.with_name(f"{path.name}.{kind}")) as place:
            figure.savefig(place, dpi=dpi, metadata=metadata)


def ranking_figure(rows: pd.DataFrame, unit: str) -> Figure:
    """Pearson r of every assay with both its intervals."""
    lines = max(side_label(assay).count("\n") for assay in rows["assay"]) + 1
    figure, axes = new_figure(len(rows) * (0.11 + 0.15 * lines) + 1.1)
    draw_ranking(rows, unit, axes)
    if bool(rows["low"].notna().any()):
        legend_above(figure)
    return fitted(figure)


def draw_ranking(rows: pd.DataFrame, unit: str, axes: Axes) -> None:
    """As `ranking_figure`, into axes of yours; call `axes.legend()` for the legend."""
    y = np.arange(len(rows))
    axes.axvline(0, color=GREY, linewidth=0.8)
    joint, alone = "95 % interval, all assays together", "95 % interval, this assay alone"
    ends = rows["simultaneous_low"], rows["simultaneous_high"]
    axes.hlines(y, *ends, GREY, lw=1.4, label=joint)
    axes.hlines(y, rows["low"], rows["high"], BLUE, lw=4.5, alpha=0.55, label=alone)
    dot = {"markeredgecolor": "white", "markersize": 7, "label": "r"}
    axes.plot(rows["pearson"], y, "o", color=BLUE, **dot)
    drawn = ends_of(rows, "pearson", "simultaneous_low", "simultaneous_high")
    add_hints(axes, drawn, y, score_texts(rows["assay"], rows, "pearson", "r"))
    for position, r in zip(y, rows["pearson"], strict=True):
        axes.annotate(number(r), (1.01, position), xycoords=("axes fraction", "data"), va="center")
    bounds = rows[["simultaneous_low", "simultaneous_high", "pearson"]].to_numpy()
    low, high = np.nanmin(bounds, initial=0), np.nanmax(bounds, initial=0)
    axes.set_xlim(max(low - 0.03, -1.03), min(high + 0.03, 1.03))
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_yticks(y, [side_label(assay) for assay in rows["assay"]])
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axes.set_axisbelow(True)
    both = f"{unit} and label" if unit == PROBABILITY else f"predicted and observed {unit}"
    axes.set_xlabel(f"Pearson r, {both}, held-out genes")


def heat_map(
    grid: pd.DataFrame, *, framed: bool = True, trees: bool = True, hole: str = "no score"
) -> Figure:
    """Pearson r as a table of colours; holes are hatched.

    Args:
        grid: assays in rows and cells in columns, say.
        framed: frame the highest of each column.
        trees: put like rows and like columns side by side, and draw how like they are (average
            linkage of Euclidean distances; Sokal & Michener 1958).
        hole: what is told of a cell without a number.
    """
    best = grid.eq(grid.max()) & framed
    if grid.shape[1] > max(30, grid.shape[0]):
        grid, best = grid.T, best.T  # pages are tall
    row_tree, column_tree = (_Tree.of(part) if trees else None for part in (grid, grid.T))
    if row_tree:
        grid, best = (part.take(row_tree.leaves) for part in (grid, best))
    if column_tree:
        grid, best = (part.take(column_tree.leaves, axis=1) for part in (grid, best))
    rows, columns = [side_label(name) for name in grid.index], [wrap(name) for name in grid.columns]
    lines, deep = (max(name.count("\n") for name in names) + 1 for names in (rows, columns))
    long, wide_name = (
        LETTER * max(len(line) for name in names for line in name.split("\n"))
        for names in (rows, columns)
    )
    margin = 0.3 + long
    least = max(0.42 if page_width() == WIDTH else 0.3, 0.05 + 0.14 * deep)
    cell_width = max(least, min((page_width() - margin - _TREE) / len(columns), 1.0))
    level = wide_name + 0.1 <= cell_width  # otherwise the names of columns stand upright
    top = 0.3 + (0.15 * deep if level else wide_name)
    width, height = cell_width * len(columns), len(rows) * (0.13 + 0.14 * lines)
    beside, under = (_TREE if tree else 0.05 for tree in (row_tree, column_tree))
    figure = Figure((margin + width + beside, top + height + under), layout="constrained")
    ((axes, right), (below, spare)) = figure.subplots(
        2, 2, width_ratios=(width, beside), height_ratios=(height, under)
    )
    spare.remove()
    _draw_tree(right, row_tree, "rows")
    _draw_tree(below, column_tree, "columns")
    values = grid.to_numpy(float)
    low, high = np.nanmin(values, initial=0), np.nanmax(values, initial=0)
    image = axes.imshow(values, cmap="Blues", vmin=low, vmax=max(high, low + 1e-3), aspect="auto")
    for (row, column), r in np.ndenumerate(values):
        corner = (column - 0.5, row - 0.5)
        if np.isnan(r):
            hatched = {"facecolor": "#f3f3f3", "edgecolor": GREY, "hatch": "////", "linewidth": 0}
            axes.add_patch(Rectangle(corner, 1, 1, **hatched))
        name = f"{grid.index[row]}, {grid.columns[column]}"
        inside = (column - 0.5, column + 0.5), (row - 0.5, row + 0.5)
        add_hints(axes, *inside, [f"{name}: {hole if np.isnan(r) else f'r {number(r)}'}"])
        if best.iat[row, column]:
            inner = (column - 0.45, row - 0.42)
            axes.add_patch(Rectangle(inner, 0.9, 0.84, fill=False, edgecolor=ORANGE, lw=2))
    axes.set_yticks(range(len(rows)), rows)
    axes.set_xticks(range(len(columns)), columns, rotation=0 if level else 90)
    axes.tick_params(length=0, top=False, labeltop=True, bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)
    right.set_ylim(axes.get_ylim())
    below.set_xlim(axes.get_xlim())
    room = cell_size(axes, values)
    if not write_numbers(axes, values, room):
        figure.colorbar(image, ax=axes, label="Pearson r", fraction=0.05, pad=0.02, aspect=30)
        room = cell_size(axes, values)
    widest = max(wide_of(line, 9) for name in columns for line in name.split("\n"))
    if level and widest + 4 > room[0]:  # there is less of it than thought
        axes.tick_params(axis="x", labelrotation=90)
    return figure


def wide_of(text: str, size: float) -> float:
    """How wide a line of text of that size is, in points."""
    return TextPath((0, 0), text, size=size).get_extents().width


def cell_size(axes: Axes, values: Float[np.ndarray, "R C"]) -> Float[np.ndarray, "2"]:
    """How wide and high the cells of an image of values are, in points, as its figure is now."""
    figure = axes.get_figure(root=True)
    assert figure is not None
    figure.draw_without_rendering()
    size = np.asarray(axes.get_window_extent().size) * 72 / figure.dpi
    return size / np.array(values.shape[::-1])


def write_numbers(
    axes: Axes, values: Float[np.ndarray, "R C"], room: Float[np.ndarray, "2"]
) -> bool:
    """Write the values of an image into its cells, as large as all fit without touching, at most 8
    points; none, and false, where that would be too small to read: the pointer tells them.

    Args:
        values: of the image, NaN where nothing is written.
        room: from `cell_size`, once all is there that takes room.
    """
    (image,) = axes.images
    there = [(place, number(r, 2)) for place, r in np.ndenumerate(values) if np.isfinite(r)]
    if not there or values.size > MANY_NUMBERS:
        return not there
    figure = axes.get_figure(root=True)
    assert figure is not None
    widest = max(wide_of(text, 10) for text in {text for _, text in there}) / 10
    size = min(8.0, room[0] / (widest + 0.5), room[1] / 1.2)
    if size * min(1, page_width() / figure.get_figwidth()) < LEAST_SIZE:  # as the page shows it
        return False
    for (row, column), text in there:
        colour = image.cmap(image.norm(values[row, column]))
        light = np.square(colour[:3]) @ (0.2126, 0.7152, 0.0722)
        ink = {"color": _BLACK if light > 0.2 else "white", "fontsize": size}
        axes.text(column, row, text, ha="center", va="center", **ink)
    return True


@dataclasses.dataclass(frozen=True)
class _Tree:
    """How like the rows of a table are: their order, and the lines that join them.

    Attributes:
        lines: pairs of places along the leaves and of distances.
    """

    leaves: list[int]
    lines: list[tuple[np.ndarray, np.ndarray]]

    @classmethod
    def of(cls, grid: pd.DataFrame) -> "_Tree | None":
        """None for fewer than three rows, which have no useful tree."""
        if len(grid) < 3:
            return None
        filled = grid.T.fillna(grid.mean(axis=1)).T.fillna(0).to_numpy(float)
        tree = scipy.cluster.hierarchy.dendrogram(
            scipy.cluster.hierarchy.linkage(filled, "average", optimal_ordering=True), no_plot=True
        )
        leaves, last = tree["leaves"], len(grid) - 1
        # SciPy puts leaves at 5, 15, 25, ...
        along = [(np.array(places) - 5) / 10 for places in tree["icoord"]]
        if filled[leaves[0]].mean() < filled[leaves[-1]].mean():  # the highest first
            leaves, along = leaves[::-1], [last - places for places in along]
        return cls(leaves, list(zip(along, map(np.array, tree["dcoord"]), strict=True)))


def _draw_tree(axes: Axes, tree: _Tree | None, of: str) -> None:
    """A tree next to the table, its leaves at the table's rows or columns."""
    axes.axis("off")
    for along, distance in tree.lines if tree else ():
        points = (distance, along) if of == "rows" else (along, distance)
        axes.plot(*points, color=GREY, lw=1)
    if of == "columns":
        axes.invert_yaxis()


def data_uri(figure: Figure) -> str:
    """A figure as an address that needs no file and no network; light or dark as the page is."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)
    source = re.sub("|".join(_IN_SCHEME), lambda found: _IN_SCHEME[found[0]], buffer.getvalue())
    source = source.replace("<defs>", f"{_SCHEME}<defs>", 1)
    return "data:image/svg+xml;base64," + base64.b64encode(source.encode()).decode()
