"""Tracks and expression columns that look like another's: suspicions from correlations.

Two questions are asked of ranks of signal over a sample of genes:

- Does a track look like another assay? It should correlate with its own assay in other cells, and
  with other assays no better than its assay's tracks elsewhere do.
- Does a series (the tracks of an assay, or the expression columns) look like another cell's? What
  sets a cell apart from the others in one series should be what sets it apart in those series that
  go along with it, such as active marks with expression.

Answers are suspicions, with their figures: cells of one tissue, or tracks of little signal, can
look alike. The strongest is named first and left out, then the question is asked again, so that one
swap is not reported of everything that it was compared with.
"""

import dataclasses
from collections.abc import Collection, Sequence

import numpy as np
import scipy
from jaxtyping import Float

from epi2expr_jax.errors import Problem

EXPRESSION = "expression"  # the name of that series, among the assays

LEAST_GENES = 50  # with data in both of two tracks, below which nothing is said
_GOES_ALONG = 0.25  # correlation from which one series can speak for another
# Margins in standard errors of a correlation, and no less than what is worth a look. Of 800 panels
# without a fault (60 to 500 genes, 2 to 8 cells) 6 raised a suspicion at 3, one at 4, none at 4.5.
_STANDARD_ERRORS = 5.0
_LEAST_MARGIN = 0.2


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """Signal of a sample of genes, of all tracks and expression columns.

    Attributes:
        labels: cell and assay (or `EXPRESSION`) of each row; no pair twice.
        values: `[N, G]`, in any unit that rises with the signal; NaN where there is no data.
    """

    labels: list[tuple[str, str]]
    values: Float[np.ndarray, "N G"]

    @property
    def cells(self) -> list[str]:
        return list(dict.fromkeys(cell for cell, _ in self.labels))

    @property
    def series(self) -> list[str]:
        return list(dict.fromkeys(series for _, series in self.labels))

    def without(self, gone: Collection[tuple[str, str]]) -> "Panel":
        """The panel without these rows."""
        kept = [i for i, label in enumerate(self.labels) if label not in gone]
        return Panel([self.labels[i] for i in kept], self.values[kept])


def look_alikes(panel: Panel) -> list[Problem]:
    """Tracks that look like another assay, then series that look like another cell."""
    expression = [label for label in panel.labels if label[1] == EXPRESSION]
    problems, suspects = assay_suspicions(panel.without(expression))
    return problems + cell_suspicions(panel.without(suspects))


def assay_suspicions(panel: Panel) -> tuple[list[Problem], list[tuple[str, str]]]:
    """Tracks that look like another assay, alone or swapped with that of their cell.

    Returns:
        The suspicions, and the labels of the tracks that they name.
    """
    if not panel.labels:
        return [], []
    margin = _margin(panel)
    table = _by_cell(panel, _correlations(_standard_ranks(panel.values)))
    cells, series = panel.cells, panel.series
    problems: list[Problem] = []
    suspects: list[tuple[str, str]] = []
    while True:
        # [C, A, A]: of a cell's track with an assay's tracks in other cells; the same of the tracks
        # of its assay in other cells, with any of them.
        own = np.stack([_mean(table[c], keep=_others(c, len(cells))) for c in range(len(cells))])
        usual = np.stack([_usual(table, c) for c in range(len(cells))])
        itself = np.diagonal(own, axis1=1, axis2=2)[..., None]
        excess = np.minimum(own - itself, own - usual)
        excess[np.isnan(excess)] = -np.inf
        c, a, b = np.unravel_index(np.argmax(excess), excess.shape)
        if not excess[c, a, b] > margin:
            return problems, suspects
        # The assay it stands out with may be the one all others go along with: it is most like that
        # whose tracks elsewhere correlate with all assays as it does.
        apart = _mean(((own[c][:, None] - usual[c][None]) ** 2).transpose(2, 0, 1))
        apart[np.isnan(apart)] = np.inf
        itself = np.diagonal(apart)
        # A partner of a swap fits in this one's place, and this one in the partner's.
        fits = (apart[a] < itself[a] / 2) & (apart[:, a] < itself / 2)
        swapped = bool(fits.any())
        elsewhere = np.where(np.arange(len(series)) == a, np.inf, apart[a])
        like = int(np.argmax(np.where(fits, itself, -1)) if swapped else np.argmin(elsewhere))
        figures = (
            f"correlation {own[c, a, b]:.2f} with {series[b]} in other cells, where {series[a]} "
            f"has {usual[c, a, b]:.2f}, and {own[c, a, a]:.2f} with {series[a]}; over all assays "
            f"most like {series[like]}"
        )
        problems.append(
            Problem(
                f"{cells[c]} {series[a]}" + (f" and {series[like]}" if swapped else ""),
                (f"tracks as if swapped: the first has {figures}" if swapped else figures),
                f"promoter signal nearest to {series[a]} in other cells",
                "look where the file came from, and correct the track sheet"
                + (" (or that of the other cell)" if len(cells) == 2 else ""),
                kind="swapped_assays" if swapped else "other_assay",
            )
        )
        for gone in (a, like) if swapped else (a,):
            table[c, :, gone] = table[:, c, :, gone] = np.nan
            suspects.append((cells[c], series[gone]))


def cell_suspicions(panel: Panel) -> list[Problem]:
    """Tracks, and expression columns, that look like those of another cell."""
    cells, series = panel.cells, panel.series
    if len(cells) < 2:
        return []
    margin = _margin(panel)
    values = panel.values.copy()
    problems = []
    while True:
        likeness = _likeness(Panel(panel.labels, values))
        itself = np.diagonal(likeness, axis1=1, axis2=2)[..., None]
        excess = np.where(np.isnan(likeness - itself), -np.inf, likeness - itself)
        s, c, d = np.unravel_index(np.argmax(excess), excess.shape)
        if not excess[s, c, d] > margin:
            return problems
        swapped = excess[s, d, c] > margin / 2
        problems.append(_cell_problem(series[s], cells[c], cells[d], likeness[s], cells, swapped))
        for gone in (cells[c], cells[d]) if swapped else (cells[c],):
            values[panel.labels.index((gone, series[s]))] = np.nan


def _cell_problem(
    series: str, cell: str, other: str, likeness: np.ndarray, cells: list[str], swapped: bool
) -> Problem:
    c, d = cells.index(cell), cells.index(other)
    figures = (
        f"what sets it apart correlates {likeness[c, d]:.2f} with what sets {other} apart in the "
        f"other tracks, and {likeness[c, c]:.2f} with {cell}"
    )
    if series == EXPRESSION:
        what, kind = "expression column", ("swapped_expression" if swapped else "other_expression")
        remedy = "check the column's name in the expression table, and the cell's tracks"
    else:
        what, kind = series, ("swapped_cells" if swapped else "other_cell")
        remedy = "look where the file came from, and correct the track sheet"
    return Problem(
        f"{what} of {cell}" + (f" and {other}" if swapped else ""),
        (f"as if swapped: of {cell}, {figures}" if swapped else figures),
        f"a track like {cell}'s other tracks and expression",
        remedy,
        kind=kind,
    )


def _likeness(panel: Panel) -> Float[np.ndarray, "S C C"]:
    """How a cell's row of a series correlates with each cell's rows of the other series, once what
    all cells have in common is taken away; those that go along with it, by how well they do."""
    cells, series = panel.cells, panel.series
    ranks = _standard_ranks(panel.values)
    raw = _by_cell(panel, _correlations(ranks))
    within = _mean(np.stack([raw[c, c] for c in range(len(cells))]))
    np.fill_diagonal(within, 0)  # a series does not speak for itself
    weights = np.where(within >= _GOES_ALONG, within, 0)

    apart = ranks.copy()
    for name in series:
        rows = [i for i, (_, own) in enumerate(panel.labels) if own == name]
        apart[rows] -= _mean(ranks[rows])
    apart -= _mean(apart.T)[:, None]
    spread = np.sqrt(_mean((apart**2).T))[:, None]
    apart = np.divide(apart, spread, out=np.full_like(apart, np.nan), where=spread > 1e-6)
    table = _by_cell(panel, _correlations(apart))  # [C, C, S, S]
    known = ~np.isnan(table)
    weight = np.einsum("st,cdst->scd", weights, known)
    total = np.einsum("st,cdst->scd", weights, np.where(known, table, 0))
    return np.divide(total, weight, out=np.full_like(total, np.nan), where=weight > 0)


def _margin(panel: Panel) -> float:
    genes = panel.values.shape[1]
    return max(_LEAST_MARGIN, _STANDARD_ERRORS / np.sqrt(max(genes, 1)))


def _standard_ranks(values: Float[np.ndarray, "N G"]) -> Float[np.ndarray, "N G"]:
    """Ranks of each row with mean 0 and variance 1; a row without any difference is NaN."""
    ranks = scipy.stats.rankdata(values, axis=1, nan_policy="omit")
    ranks = ranks - _mean(ranks.T)[:, None]
    spread = np.sqrt(_mean((ranks**2).T))[:, None]
    return np.divide(ranks, spread, out=np.full(ranks.shape, np.nan), where=spread > 0)


def _correlations(rows: Float[np.ndarray, "N G"]) -> Float[np.ndarray, "N N"]:
    """Of standardised rows, over the genes that both have; NaN below `LEAST_GENES`."""
    known = (~np.isnan(rows)).astype(float)
    filled = np.nan_to_num(rows)
    shared = known @ known.T
    enough = shared >= LEAST_GENES
    return np.divide(filled @ filled.T, shared, out=np.full(shared.shape, np.nan), where=enough)


def _by_cell(panel: Panel, matrix: Float[np.ndarray, "N N"]) -> Float[np.ndarray, "C C S S"]:
    """A matrix over rows as one over cells and series; NaN where there is no such row."""
    cells, series = panel.cells, panel.series
    row = np.full((len(cells), len(series)), -1)
    for i, (cell, name) in enumerate(panel.labels):
        row[cells.index(cell), series.index(name)] = i
    padded = np.pad(matrix, (0, 1), constant_values=np.nan)
    return padded[row[:, None, :, None], row[None, :, None, :]]


def _usual(table: Float[np.ndarray, "C C A A"], cell: int) -> Float[np.ndarray, "A A"]:
    """Mean correlation of two assays over all pairs of tracks of other cells."""
    keep = _others(cell, len(table))
    rest = table[np.ix_(keep, keep)]
    for other in range(len(rest)):
        np.fill_diagonal(rest[other, other], np.nan)  # a track with itself
    return _mean(rest.reshape(-1, *rest.shape[2:]))


def _others(cell: int, cells: int) -> Sequence[int]:
    return [other for other in range(cells) if other != cell]


def _mean(values: np.ndarray, keep: Sequence[int] | None = None) -> np.ndarray:
    """Mean over the first axis, of what is known; NaN where nothing is."""
    if keep is not None:
        values = values[list(keep)]
    known = (~np.isnan(values)).sum(axis=0)
    total = np.nansum(values, axis=0)
    return np.divide(total, known, out=np.full(total.shape, np.nan), where=known > 0)
