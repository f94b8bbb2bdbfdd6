"""Is there a universal mark: one that predicts best, or nearly so, in every cell?

A mark is *shown* to be universal if in every cell it predicts better than chance and no other assay
that was scored there is better by more than a margin; each of these statements must hold at the
level of the whole, which is enough for all together (intersection-union test: Berger 1982). It is
*excluded* if somewhere some assay is better by more than the margin, corrected for all the places
one could look. Otherwise it *cannot be told*: an assay that nothing beats is not yet the best.
Assays without a track in a cell are not compared there, and named.

A mark chosen by the data is shown at a level divided by the number of assays; one that somebody
named beforehand needs no correction. Differences are paired by chromosome; a comparison in which a
training failed (constant predictions) counts neither way.

Axes: `C` cells, `A` assays, `K` chromosomes, `F` folds, `S` seeds.
"""

import dataclasses
import itertools
from collections.abc import Collection, Iterable

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Bool, Float

from epi2expr_jax.errors import collect, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.scores.intervals import LEAST_CHROMOSOMES, LEAST_SCORED, estimate, score_cube
from epi2expr_jax.scores.ranking import LEAST_CELLS

MARGIN = 0.01  # of Pearson r


@dataclasses.dataclass(frozen=True)
class Leads:
    """By how much assays lead others in each cell.

    Attributes:
        cells, assays: names.
        r: Pearson r `[C A]`; `r_error` its standard error. NaN where it was not scored, or its
            training failed.
        lead: `[C A A]`, r of the first assay less that of the second, over the chromosomes, folds
            and seeds that both have; `error` its standard error.
        degrees: `[C A A]`, of freedom.
        scored: `[C A]`, whether the assay was scored in the cell at all.
        failed: `[C A]`, whether some of its predictions are constant, or its training diverged.
    """

    cells: list[str]
    assays: list[str]
    r: Float[np.ndarray, "C A"]
    r_error: Float[np.ndarray, "C A"]
    lead: Float[np.ndarray, "C A A"]
    error: Float[np.ndarray, "C A A"]
    degrees: Float[np.ndarray, "C A A"]
    scored: Bool[np.ndarray, "C A"]
    failed: Bool[np.ndarray, "C A"]


def leads(scores: pd.DataFrame, diverged: Collection[tuple[str, str]] = ()) -> Leads:
    """Compare every two assays in every cell.

    Args:
        scores: from `table.score_table`.
        diverged: (cell, assay) whose training left no score of some fold.
    """
    cells = sorted({*scores["cell"], *(cell for cell, _ in diverged)})
    assays = sorted({*scores["assays"], *(assay for _, assay in diverged)})
    cube = score_cube(scores).reindex(cell=cells, assays=assays)
    cube = cube.transpose("metric", "cell", "assays", "fold", "seed", "chrom")
    values = cube.sel(metric="pearson").values
    genes, constant = (cube.sel(metric=name).values for name in ("n", "constant"))
    scored = np.any(np.isfinite(values), axis=(2, 3, 4))
    failed = np.any(constant == 1, axis=(2, 3, 4))
    for cell, assay in diverged:
        at = cells.index(cell), assays.index(assay)
        scored[at] = failed[at] = True
    C, A = values.shape[:2]
    r, r_error = np.full((2, C, A), np.nan)
    lead, error, degrees = np.full((3, C, A, A), np.nan)
    usable = scored & ~failed
    for c in range(C):
        for a in np.flatnonzero(usable[c]):
            r[c, a], r_error[c, a], degrees[c, a, a] = _mean(values[c, a], genes[c, a])
        for a, b in itertools.combinations(np.flatnonzero(usable[c]), 2):
            mean, spread, free = _mean(values[c, a] - values[c, b], genes[c, a])
            lead[c, a, b], lead[c, b, a] = mean, -mean
            error[c, a, b] = error[c, b, a] = spread
            degrees[c, a, b] = degrees[c, b, a] = free
    return Leads(cells, assays, r, r_error, lead, error, degrees, scored, failed)


def _mean(
    values: Float[np.ndarray, "F S K"], genes: Float[np.ndarray, "F S K"]
) -> tuple[float, float, float]:
    """Mean over chromosomes, its standard error, and the degrees of freedom; NaN for too few."""
    there = np.isfinite(values)
    kept = there.any(axis=(0, 1))
    if not kept.any():
        return np.nan, np.nan, np.nan
    values, there = values[..., kept], there[..., kept]
    weights = np.where(there, genes[..., kept], 0).sum(axis=(0, 1)) / there.sum(axis=(0, 1))
    by_chromosome = np.where(there, values, 0).sum(axis=(0, 1)) / there.sum(axis=(0, 1))
    found = estimate(by_chromosome[:, None], values[..., None], weights)
    mean, error, degrees = (float(part[0]) for part in found)
    return mean, error, degrees


@dataclasses.dataclass(frozen=True)
class Verdict:
    """Whether there is a universal mark.

    Attributes:
        answer: `shown`, `excluded`, `cannot be told`, or `not asked` where there is nothing to
            compare.
        assays: those shown, best first; the one named beforehand; or the one that comes nearest.
        words: the same for people.
    """

    answer: str
    assays: tuple[str, ...]
    words: str


def verdict(
    scores: pd.DataFrame,
    margin: float = MARGIN,
    claim: str | None = None,
    confidence: float = 0.95,
    diverged: Collection[tuple[str, str]] = (),
) -> Verdict:
    """Whether one mark is universal in the cells that were scored.

    Args:
        scores: from `table.score_table`.
        margin: Pearson r by which a universal mark may be worse than another.
        claim: an assay named before the scores were seen.
        confidence: that no wrong statement is made.
        diverged: (cell, assay) whose training left no score of some fold: neither is such an assay
            beaten there.

    Raises:
        InputError: if the margin is negative, or the claimed assay was not scored.
    """
    found = leads(scores, diverged)
    cells, assays = found.cells, found.assays
    require_claim(margin, claim, assays)
    if not found.scored.any():
        words = (
            f"Nothing can be said of a universal mark: no chromosome has {LEAST_SCORED} held-out "
            "genes that differ in expression."
        )
        return Verdict("not asked", (), words)
    if len(cells) < 2:
        words = (
            "Whether a mark is universal (the best, or nearly, in every cell) cannot be asked of "
            "one cell."
        )
        return Verdict("not asked", (), words)
    if len(assays) < 2:
        words = f"Only {listing(assays)} was scored: a universal mark needs rivals to be compared."
        return Verdict("not asked", (), words)
    C, A = len(cells), len(assays)
    level = 1 - confidence
    own = level if claim else level / A
    with np.errstate(invalid="ignore"):
        low = found.lead - scipy.stats.t.isf(own, found.degrees) * found.error
        high = found.lead + scipy.stats.t.isf(level / (C * (A - 1)), found.degrees) * found.error
        at = np.arange(A)
        r_low = found.r - scipy.stats.t.isf(own, found.degrees[:, at, at]) * found.r_error
    others = np.not_equal.outer(at, at)
    rivals = np.asarray(found.scored[:, None, :] & found.scored[:, :, None] & others)  # [C A A]
    ahead = np.where(rivals, low > -margin, True).all(axis=2)  # [C A]; NaN is not ahead
    shown = np.all(found.scored & rivals.any(axis=2) & ahead & (r_low > 0), axis=0)
    excluded = np.any(high < -margin, axis=(0, 2))
    candidates = [assays.index(claim)] if claim else list(range(A))
    limits = f"{confidence:.0%} limits" + ("" if claim else f", corrected for {A} candidates")
    order = sorted(candidates, key=lambda a: -np.nanmean(np.append(found.r[:, a], -1)))
    if any(shown[a] for a in candidates):
        names = tuple(assays[a] for a in order if shown[a])
        return Verdict("shown", names, _shown(found, names, margin, limits, level))
    if all(excluded[a] for a in candidates):
        return Verdict(
            "excluded", (claim,) if claim else (), _excluded(found, high, margin, claim, level)
        )
    left = [a for a in order if not excluded[a]]
    worst = np.nanmin(np.where(np.isfinite(low), low, np.inf), axis=(0, 2))
    nearest_one = max(left, key=lambda a: (found.scored[:, a].sum(), worst[a]))
    why = _doubts(found, low, r_low, rivals, nearest_one, margin)
    words = (
        f"Whether {claim or 'one mark'} is universal in these {C} cells cannot be told"
        f" (margin {margin:g})"
    )
    named = "" if claim else f"{assays[nearest_one]} comes nearest, but "
    return Verdict("cannot be told", (assays[nearest_one],), f"{words}: {named}{why}.")


def require_claim(margin: float, claim: str | None, assays: Iterable[str]) -> None:
    """Refuse what cannot be asked of these assays.

    Raises:
        InputError: if the margin is negative or too large, or the claimed assay was not scored.
    """
    with collect() as problems:
        if not 0 <= margin < 1:
            problems.add("margin", f"{margin}", "a Pearson r from 0 up to 1", "give 0.01, say")
        if claim is not None and claim not in (known := list(assays)):
            remedy = nearest(claim, known) or "name one of them"
            problems.add("claim", f"no scores of {claim}", listing(known), remedy)


def _shown(found: Leads, names: tuple[str, ...], margin: float, limits: str, level: float) -> str:
    C = len(found.cells)
    what = "is a universal mark" if len(names) == 1 else "are each a universal mark"
    words = (
        f"{listing(names, 20)} {what} of these {C} cells: in each, it predicts better than chance, "
        f"and no other assay scored there is better by {margin:g} or more ({limits})."
    )
    if not found.scored.all():
        absent = listing(_named(found, ~found.scored), 8)
        words = f"{words} Not scored there, and so not compared: {absent}."
    if C < LEAST_CELLS:
        return f"{words} This says nothing of other cells: that takes at least {LEAST_CELLS}."
    if not all(np.isfinite(_others(found, name)).all() for name in names):
        why = "not every assay was scored in every cell"
        return f"{words} What holds in a new cell cannot be told: {why}."
    new = [name for name in names if _of_a_new_cell(found, name, margin, level)]
    if new:
        return (
            f"{words} In one more cell like these, {listing(new, 20)} is expected to be within "
            f"{margin:g} of every other assay, too ({1 - level:.0%} prediction limits)."
        )
    why = f"the leads vary too much between these {C} cells"
    return f"{words} What holds in a new cell cannot be told: {why}."


def _named(found: Leads, which: Bool[np.ndarray, "C A"]) -> list[str]:
    """Assays, each with its cell."""
    return [f"{found.assays[a]} in {found.cells[c]}" for c, a in np.argwhere(which)]


def _others(found: Leads, name: str) -> Float[np.ndarray, "C other"]:
    """The leads of an assay over all others."""
    a = found.assays.index(name)
    return np.delete(found.lead[:, a], a, axis=1)


def _of_a_new_cell(found: Leads, name: str, margin: float, level: float) -> bool:
    """Whether the lead in one more cell, drawn like these, would be above minus the margin."""
    lead, A = _others(found, name), len(found.assays)
    C = len(lead)
    reach = scipy.stats.t.isf(level / (A * (A - 1)), C - 1) * np.sqrt(1 + 1 / C)
    return bool((lead.mean(axis=0) - reach * lead.std(axis=0, ddof=1) > -margin).all())


def _excluded(
    found: Leads, high: Float[np.ndarray, "C A A"], margin: float, claim: str | None, level: float
) -> str:
    C, A = found.r.shape
    limits = f"{1 - level:.0%} limits, corrected for {C * (A - 1)} comparisons"
    if claim:
        c, b = np.unravel_index(np.nanargmin(high[:, found.assays.index(claim)]), high.shape[:2])
        return (
            f"{claim} is not a universal mark: in {found.cells[c]}, {found.assays[b]} is better by "
            f"more than {margin:g} ({limits})."
        )
    return (
        f"No universal mark among these {len(found.assays)} assays: each is worse than another by "
        f"more than {margin:g} in at least one of the {C} cells ({limits})."
    )


def _doubts(
    found: Leads,
    low: Float[np.ndarray, "C A A"],
    r_low: Float[np.ndarray, "C A"],
    rivals: Bool[np.ndarray, "C A A"],
    a: int,
    margin: float,
) -> str:
    """Why an assay that is not excluded is not shown either."""
    reasons = []
    absent = [cell for c, cell in enumerate(found.cells) if not found.scored[c, a]]
    if absent:
        reasons.append(f"it was not scored in {listing(absent)}")
    failed = _named(found, found.failed & (rivals[:, a] | (np.arange(len(low[0])) == a)))
    if failed:
        why = "constant predictions, or a loss that was not finite"
        reasons.append(f"the training of {listing(failed)} failed ({why})")
    with np.errstate(invalid="ignore"):
        unsure = rivals[:, a] & np.isfinite(low[:, a]) & (low[:, a] <= -margin)
        chance = np.flatnonzero(np.isfinite(r_low[:, a]) & (r_low[:, a] <= 0))
    if unsure.any():
        named = listing(_named(found, unsure))
        reasons.append(f"these may be better than it by more than the margin: {named}")
    if len(chance):
        cells = listing([found.cells[c] for c in chance])
        reasons.append(f"in {cells} it is not shown to predict better than chance")
    alone = np.flatnonzero(found.scored[:, a] & ~rivals[:, a].any(axis=1))
    if len(alone):
        cells = listing([found.cells[c] for c in alone])
        reasons.append(f"no other assay was scored in {cells}")
    usable = found.scored & ~found.failed
    apart = rivals[:, a] & usable[:, [a]] & usable & ~np.isfinite(low[:, a])
    if apart.any():
        few = (
            f"fewer than {LEAST_CHROMOSOMES} chromosomes of a fold, or too uneven ones, were tested"
        )
        reasons.append(f"{few} with both it and {listing(_named(found, apart), 8)}")
    return "; ".join(reasons)
