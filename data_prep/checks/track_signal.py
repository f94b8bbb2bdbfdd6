"""What a sample of genes says of each track: whether there is data, and in which range it lies.

All of it is suspicion, with its figures: a track may be right and look strange. The sample also
says how long a build will take, and is what `swaps` compares.
"""

import dataclasses
import time
from collections.abc import Sequence

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float

from data_prep.checks.build_inputs import BuildInputs
from data_prep.checks.swaps import EXPRESSION, LEAST_GENES, Panel, look_alikes
from data_prep.formats.bin_means import track_means
from data_prep.formats.track_sheet import Track
from epi2expr_jax.errors import Problem
from epi2expr_jax.genome import WindowSpec
from epi2expr_jax.units import UNIT_TRANSFORM, percent

PROMOTER_BP = 2000
SAMPLE_GENES = 500
_RUN = 25  # neighbouring genes that are sampled together: they are read as a build reads them

_LEAST_COVERED = 0.95  # share of the genes whose window has any data
_LEAST_LISTED = 0.8  # share of the bases of such windows that have a value
_MOST_AT_TOP = 0.005  # share of the bins with signal that are exactly the highest
_LEAST_AT_TOP = 20
# Raw signal has a long tail. In simulated p-values and in seven marks of real read depth (H1), bins
# have a skew of 1.9 to 19 and a maximum of 12 to 256; their logarithms 0.6 to 2.8 and 1.1 to 8.
_LOG_MAXIMUM = 9.0
_LOG_SKEW = 1.6
_LOG_TAIL = 2.5  # the 99.9th percentile over the 95th: 1.8 to 11 raw, 1.2 to 2.2 as logarithms


@dataclasses.dataclass(frozen=True, eq=False)
class Reading:
    """A track in the windows of a sample of genes.

    Attributes:
        promoter: mean signal of each gene in `PROMOTER_BP` around its TSS, in the track's unit;
            NaN where its window has no data.
        listed: share of each window's bases that have a value.
        lowest, highest: of the bins of windows with data; NaN if there are none.
        at_highest: how many bins hold exactly the highest value, and which share of those with
            signal that is.
        p99: 99th percentile of the bins with signal.
        tail: their 99.9th percentile over the 95th.
        skew: their skewness; NaN where all are equal.
        seconds: what reading took.
    """

    track: Track
    promoter: Float[np.ndarray, "G"]
    listed: Float[np.ndarray, "G"]
    lowest: float
    highest: float
    at_highest: tuple[int, float]
    p99: float
    tail: float
    skew: float
    seconds: float

    @property
    def name(self) -> str:
        return f"{self.track.cell} {self.track.assay}"


def sample_genes(genes: pd.DataFrame, most: int = SAMPLE_GENES) -> np.ndarray:
    """Positions of up to `most` genes: runs of neighbours, evenly over the table's order."""
    if len(genes) <= most:
        return np.arange(len(genes))
    starts = np.linspace(0, len(genes) - _RUN, most // _RUN).astype(int)
    return np.unique(starts[:, None] + np.arange(_RUN))


def read_sample(track: Track, genes: pd.DataFrame, window: WindowSpec) -> Reading:
    """Read a track in the windows of `genes`.

    Raises:
        InputError: if a file cannot be read, or holds infinite values.
    """
    begin = time.perf_counter()
    means, listed = track_means(track.sources, genes.chrom, genes.tss, window)
    seconds = time.perf_counter() - begin
    half = max(PROMOTER_BP // (2 * window.bin_bp), 1)
    centre = means[:, max(window.bins // 2 - half, 0) : window.bins // 2 + half]
    promoter = np.where(listed > 0, centre.mean(axis=1, dtype=np.float64), np.nan)
    bins = means[listed > 0].astype(np.float64).ravel()
    signal = bins[bins > 0]
    lowest, highest = (float(bins.min()), float(bins.max())) if bins.size else (np.nan, np.nan)
    p95, p99, p999 = np.percentile(signal, [95, 99, 99.9]) if signal.size else [np.nan] * 3
    top = int((signal >= highest * (1 - 1e-6)).sum())
    varied = signal.size > 2 and top < signal.size  # not of one value, as 0/1 tracks
    return Reading(
        track=track,
        promoter=promoter,
        listed=listed,
        lowest=lowest,
        highest=highest,
        at_highest=(top, top / max(signal.size, 1)),
        p99=float(p99),
        tail=float(p999 / p95),
        skew=float(scipy.stats.skew(signal)) if varied else np.nan,
        seconds=seconds,
    )


def suspicions(inputs: BuildInputs, genes: np.ndarray, readings: Sequence[Reading]) -> list:
    """Everything suspicious about tracks and expression.

    Args:
        inputs: what is to be built.
        genes: positions of the sampled genes in `inputs.genes`.
        readings: of those tracks that can be read.
    """
    found: list[Problem] = []
    for reading in readings:
        found += coverage_suspicions(reading)
        peers = [
            other
            for other in readings
            if other.track.assay == reading.track.assay
            and other is not reading
            and other.lowest < other.highest
        ]
        found += range_suspicions(reading, peers)
    labels = [(reading.track.cell, reading.track.assay) for reading in readings]
    if not labels:
        return found
    rows = np.stack([reading.promoter for reading in readings])
    if inputs.config.expression:
        labels += [(cell, EXPRESSION) for cell in inputs.sheet.cells]
        rows = np.concatenate([rows, inputs.expression[:, genes]])
    return found + look_alikes(Panel(labels, rows))


def coverage_suspicions(reading: Reading) -> list[Problem]:
    """Genes without data in the track, and bases without a value in windows that have some."""
    problems = []
    there = reading.listed > 0
    if there.mean() < _LEAST_COVERED:
        problems.append(
            Problem(
                reading.name,
                f"data in the windows of {percent(there.mean())} of {there.size} sampled genes",
                f"{_LEAST_COVERED:.0%} or more",
                "check that the file is whole and of this assembly, leave out genes without data "
                "(--min_covered), or chromosomes (--chromosomes)",
                kind="coverage",
            )
        )
    listed = reading.listed[there].mean() if there.any() else 1.0
    if listed < _LEAST_LISTED:
        problems.append(
            Problem(
                reading.name,
                f"no value (NaN, or not listed) on {percent(1 - listed)} of the "
                "bases of windows that have data",
                f"a value on {_LEAST_LISTED:.0%} of them or more",
                "they are read as 0: right where zeros were left out, wrong where signal is "
                "missing; then make the track again, or raise --min_covered",
                kind="nan_share",
            )
        )
    return problems


def range_suspicions(reading: Reading, peers: Sequence[Reading] = ()) -> list[Problem]:
    """A range that raw signal of the track's unit does not have.

    Args:
        reading: the track.
        peers: the same assay in other cells.
    """
    if (reading.listed > 0).sum() < min(LEAST_GENES, reading.listed.size):
        return []  # too little to say
    if reading.lowest == reading.highest:
        zero = reading.highest == 0
        return [
            Problem(
                reading.name,
                "0 everywhere" if zero else f"{reading.highest:g} everywhere",
                "signal that differs between genes",
                "make the track again, or leave it out of the track sheet",
                kind="all_zero" if zero else "constant",
            )
        ]
    problems = []
    if reading.lowest < 0 and UNIT_TRANSFORM[reading.track.unit] == "arcsinh":
        problems.append(
            Problem(
                reading.name,
                f"negative signal (down to {reading.lowest:g})",
                f"0 or more in unit {reading.track.unit}",
                "is it a logarithm of a ratio? Give its true unit in the sheet (none: unchanged)",
                kind="negative_values",
            )
        )
    count, share = reading.at_highest
    if count >= _LEAST_AT_TOP and share > _MOST_AT_TOP:
        problems.append(
            Problem(
                reading.name,
                f"the highest value, {reading.highest:g}, in {percent(share, 1)} of the bins "
                "with signal",
                "a highest value that is reached once or twice",
                "make the track again without a cap, or take care when it is compared with others",
                kind="clipped",
            )
        )
        return problems  # without its tail it looks like a logarithm, too
    return problems + _logarithm(reading, peers)


def _logarithm(reading: Reading, peers: Sequence[Reading]) -> list[Problem]:
    if UNIT_TRANSFORM[reading.track.unit] == "none" or not reading.highest < _LOG_MAXIMUM:
        return []
    usual, tail = (
        float(np.median([getattr(peer, name) for peer in peers])) if peers else np.nan
        for name in ("p99", "tail")
    )
    # Compared with the assay's other tracks if there are any, or by its tail alone.
    apart = reading.p99 < usual / 2 and reading.tail < min(_LOG_TAIL, 0.6 * tail)
    if not (apart or reading.skew < _LOG_SKEW):
        return []
    figures = f"highest {reading.highest:.3g}, 99th percentile {reading.p99:.3g}"
    figures += f" ({usual:.3g} in the assay's other tracks)" if peers else ""
    return [
        Problem(
            reading.name,
            f"signal as if its logarithm had been taken: {figures}, skew {reading.skew:.1f}",
            f"the long tail of unit {reading.track.unit}, which is transformed when it is read",
            "use the track before the logarithm, or say unit none in the sheet",
            kind="log_transformed",
        )
    ]
