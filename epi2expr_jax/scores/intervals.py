"""Intervals of a mean score: the jackknife over chromosomes."""

import numpy as np
import pandas as pd
import scipy
import xarray as xr
from jaxtyping import Bool, Float

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing
from epi2expr_jax.scores.table import METRICS, RUN

UNIT = ["cell", "fold", "seed", "chrom"]  # what assays are compared on
LEAST_SCORED = 3  # a correlation of two genes is always 1 or -1
LEAST_CHROMOSOMES = 3
NO_INTERVAL = f"fewer than {LEAST_CHROMOSOMES} chromosomes"
LEAST_GENES = 20  # a chromosome, for an interval of a correlation
TOO_FEW_GENES = f"fewer than {LEAST_GENES} genes a chromosome"
ONE_VALUE = "one value predicted for all genes of a chromosome, which is no score"
ALIKE, ALIKE_GENES = 5, 100  # so few chromosomes, of fewer genes, may be alike by chance
# Chromosomes of equal size that these are worth: so many, or such a share of their number.
LEAST_EFFECTIVE, EFFECTIVE_SHARE = 12, 0.75


def usable(scores: pd.DataFrame) -> pd.Series:
    """Which scores carry weight: a correlation needs three genes, that differ in expression."""
    return (scores["n"] >= LEAST_SCORED) & ~scores["constant_observed"]


def require_usable(scores: pd.DataFrame) -> None:
    """Refuse scores none of which carries weight.

    Raises:
        InputError: saying of how few genes they are.
    """
    if not usable(scores).any():
        raise too_few(int(scores["n"].max()))


def too_few(most: int) -> InputError:
    """The error of scores that all lack weight.

    Args:
        most: genes on the chromosome that has most of them.
    """
    found = f"at most {most} held-out genes on a chromosome"
    return InputError(
        "scores",
        found if most < LEAST_SCORED else f"{found}, all of the same expression",
        f"on some chromosome {LEAST_SCORED} genes or more, that differ in expression",
        "build a store of more genes, and train on it",
    )


def score_cube(scores: pd.DataFrame) -> xr.DataArray:
    """Scores `[metric cell assays fold seed chrom]`, no unit; NaN where none carries weight.

    Raises:
        InputError: if a run has two scores on a chromosome.
    """
    columns, axes = ["n", "constant", *METRICS], [*RUN, "chrom"]
    if (twice := scores.duplicated(axes)).any():
        named = listing(" ".join(map(str, row)) for row in scores.loc[twice, axes].to_numpy())
        found = f"{twice.sum()} scores of a run and chromosome that has one already ({named})"
        raise InputError("scores", found, "one a run and chromosome", "keep one of each")
    kept = scores[usable(scores)]
    places, names = zip(*(pd.factorize(kept[axis], sort=True) for axis in axes), strict=True)
    cube = np.full((len(columns), *map(len, names)), np.nan)
    cube[:, *places] = kept[columns].to_numpy(float).T
    return xr.DataArray(cube, {"metric": columns, **dict(zip(axes, names, strict=True))})


def shared_units(cube: xr.DataArray) -> tuple[xr.DataArray, int]:
    """The units that all assays of these cells have, NaN elsewhere; and how many only some have.

    Assays, folds, cells and chromosomes without any such unit are left out.
    """
    # In NumPy: a study asks this of every cell, and labels cost more than the work.
    has = cube.sel(metric="n").notnull().transpose("assays", *UNIT).to_numpy()
    assays = has.any(axis=(1, 2, 3, 4))
    has = has[assays]
    shared = np.asarray(has.all(axis=0))
    dropped = int((has.any(axis=0) & ~shared).sum())
    kept = [np.unique(places) for places in np.nonzero(shared)]
    units = xr.DataArray(shared[np.ix_(*kept)], dims=UNIT)
    chosen = dict(zip(["assays", *UNIT], [np.flatnonzero(assays), *kept], strict=True))
    return cube.isel(chosen).where(units), dropped


def chromosome_means(shared: xr.DataArray) -> xr.DataArray:
    """`[metric, chrom, assays]`: folds and seeds first, then cells, so that every cell counts the
    same on a chromosome."""
    return shared.mean(["fold", "seed"]).mean("cell").transpose("metric", "chrom", "assays")


def training_scores(shared: xr.DataArray, metric: str = "pearson") -> Float[np.ndarray, "F S K A"]:
    """A score by fold and seed, cells averaged."""
    scores = shared.sel(metric=metric, drop=True).mean("cell")
    return scores.transpose("fold", "seed", "chrom", "assays").values


def predicts_one_value(shared: xr.DataArray) -> Bool[np.ndarray, "A"]:
    """Which assays' predictions are constant on every unit: their score is 0 by rule alone, and
    does not vary, so an interval of it would have no width."""
    return (shared.sel(metric="constant", drop=True).mean(UNIT) == 1).values


def effective_number(genes: Float[np.ndarray, "K"]) -> float:
    """How many chromosomes of equal size would give as sure a mean, weighted by genes."""
    return float(genes.sum() ** 2 / (genes**2).sum())


def no_interval(genes: Float[np.ndarray, "K"], correlation: bool = False) -> str:
    """Why a mean over chromosomes gets no interval; empty if it gets one.

    Where most genes lie on few of many chromosomes, or chromosomes have fewer genes, 95 % intervals
    cover in 86 to 93 % (simulated: tests/epi2expr_jax/scores/test_coverage.py).

    Args:
        genes: by chromosome.
        correlation: whether it is of a correlation, which is lower the fewer genes there are.
    """
    K = len(genes)
    if K < LEAST_CHROMOSOMES:
        return NO_INTERVAL
    if (worth := effective_number(genes)) < min(LEAST_EFFECTIVE, EFFECTIVE_SHARE * K):
        return f"most genes lie on few of {K} chromosomes, worth {worth:.1f} of equal size"
    if correlation and genes.mean() < LEAST_GENES:
        return TOO_FEW_GENES
    return ""


def clip_interval(
    score: Float[np.ndarray, "*of"],
    reach: Float[np.ndarray, "*of"],
    least: float = -1.0,
    most: float = 1.0,
) -> tuple[Float[np.ndarray, "*of"], Float[np.ndarray, "*of"]]:
    """The ends of an interval of a score, cut at what the score can be.

    The true value lies within these ends, so cutting there does not change how often an interval
    covers. (Fisher's z would keep them apart from the ends, but speaks of another mean, and of few
    chromosomes whose r is near 1 it makes intervals that reach down to −1.)

    Args:
        score, reach: the mean, and half the width of its interval; NaN for none.
        least, most: what the score can be; as given, what a correlation can.
    """
    return np.clip(score - reach, least, most), np.clip(score + reach, least, most)


def jackknife(
    values: Float[np.ndarray, "K A *pair"], genes: Float[np.ndarray, "K"]
) -> tuple[Float[np.ndarray, "A *pair"], Float[np.ndarray, "A *pair"]]:
    """Mean over K chromosomes, weighted by their genes, and its standard error.

    Both are `[A *pair]`, in the unit of the values.

    The variance is the larger of two that agree for chromosomes of equal size: Busing et al.'s
    (1999), right where genes differ, and the plain delete-one jackknife, right where chromosomes
    do. Of 95 % intervals over 22 human autosomes that truly differ, the first alone covers 92.7 %,
    the larger 94.6 % (simulated). NaN where `no_interval` says why.
    """
    weight = (genes / genes.sum()).reshape((-1,) + (1,) * (values.ndim - 1))
    mean = (values * weight).sum(axis=0)
    if no_interval(genes):
        return mean, np.full_like(mean, np.nan)
    # Leaving chromosome k out moves a weighted mean by odds_k (mean - value_k).
    odds, squares = weight / (1 - weight), (values - mean) ** 2
    unequal = (odds * squares).mean(axis=0)
    plain = (odds**2 * squares).sum(axis=0) * (len(genes) - 1) / len(genes)
    return mean, np.sqrt(np.maximum(unequal, plain))


def estimate(
    values: Float[np.ndarray, "K *of"],
    trained: Float[np.ndarray, "F S K *of"],
    genes: Float[np.ndarray, "K"],
    correlation: bool = False,
) -> tuple[Float[np.ndarray, "*of"], Float[np.ndarray, "*of"], Float[np.ndarray, "*of"]]:
    """Mean over K chromosomes, its standard error with the noise of training, and its degrees of
    freedom.

    The latter are Satterthwaite's (1946), or those of the noise of training where that is larger,
    at most K - 1: with few folds it is known less well than the differences between chromosomes,
    and K - 1 for all covers 90.6 to 92.7 % (simulated).

    Args:
        values: by chromosome.
        trained: the same by fold and seed; NaN where a fold does not test the chromosome.
        correlation: whether values are correlations, not differences of them.
    """
    mean, error = jackknife(values, genes)
    if correlation:
        error = np.maximum(error, least_error(mean, genes))
    noise, of_noise = _training_variance(trained, genes)
    with np.errstate(invalid="ignore", divide="ignore"):
        parts = error**4 / (len(genes) - 1) + noise**2 / of_noise
        joint = np.where(noise > error**2, of_noise, (error**2 + noise) ** 2 / parts)
    joint = np.minimum(len(genes) - 1, joint)
    return mean, np.hypot(error, np.sqrt(noise)), np.where(noise > 0, joint, len(genes) - 1)


def least_error(
    r: Float[np.ndarray, "*of"], genes: Float[np.ndarray, "K"]
) -> Float[np.ndarray, "*of"]:
    """Standard error, for Student's t, of a mean correlation over chromosomes alike by chance.

    Of few chromosomes, mostly where r is high, the jackknife's 95 % intervals cover in 92.2 to 93.8
    % (simulated: tests/epi2expr_jax/scores/test_coverage.py). So they are at least as wide as those
    of half as many independent genes (neighbours are alike). 0 for more than `ALIKE` chromosomes,
    or of `ALIKE_GENES` or more on average: those need it not.

    Args:
        r: means over chromosomes, weighted by genes.
    """
    if not LEAST_CHROMOSOMES <= len(genes) <= ALIKE or genes.mean() >= ALIKE_GENES:
        return np.zeros_like(r)
    share = genes / genes.sum()
    error = (1 - r**2) * np.sqrt((share**2 / np.maximum(1, genes / 2 - 1)).sum())
    return error * scipy.stats.norm.isf(0.025) / scipy.stats.t.isf(0.025, len(genes) - 1)


def _training_variance(
    values: Float[np.ndarray, "F S K *of"], genes: Float[np.ndarray, "K"]
) -> tuple[Float[np.ndarray, "*of"], int]:
    """What the variance of a mean over chromosomes lacks of the noise of training.

    Chromosomes that one fold tests share its models, and so their noise, which differences between
    chromosomes do not show in full. Several seeds show it: it is the variance between them within a
    fold. What the jackknife sees of it already (all, where each fold tests one chromosome) is not
    counted twice.

    Args:
        values: scores, or differences of scores, by fold, seed and chromosome; NaN where a fold
            does not test the chromosome.
        genes: by chromosome.

    Returns:
        `[*of]`, in the unit of the values, squared, and its degrees of freedom; 0 for a single
        seed: nobody knows it then.
    """
    F, S, K = values.shape[:3]
    there = np.asarray(np.isfinite(values)).reshape(F, S, K, -1).all(axis=(1, 3))  # [F K]
    if S < 2 or not there.any():
        return np.zeros(values.shape[3:]), 0
    weight = there * (genes / genes.sum()) / np.maximum(1, there.sum(axis=0))  # [F K]
    of_fold = weight.sum(axis=1)
    used = of_fold > 0
    kept = np.where(there.reshape(F, 1, K, *[1] * (values.ndim - 3)), values, 0)
    means = np.einsum("fk,fsk...->fs...", weight[used], kept[used])
    means /= of_fold[used].reshape(-1, 1, *[1] * (values.ndim - 3))
    noise = means.var(axis=1, ddof=1).mean(axis=0)
    alone = there.sum(axis=0).max() == 1  # else all folds test the same, and share no difference
    seen = (weight**2).sum() if alone else 0.0
    return noise * max(0.0, (of_fold**2).sum() - seen) / S, int(used.sum()) * (S - 1)


def weighted_mean(values: np.ndarray, genes: np.ndarray) -> np.ndarray:
    """Mean over K chromosomes of `values [K …]`, weighted by `genes [K …]`.

    Where a value does not exist it is left out: an AUC needs both labels.
    """
    weight = np.where(np.isnan(values), 0, genes[:, None])
    total = weight.sum(axis=0)
    return np.where(total > 0, np.nansum(values * weight, axis=0) / np.maximum(total, 1), np.nan)
