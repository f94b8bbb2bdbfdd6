"""The signal of a simulated Roadmap: peaks where elements are read, on a background, as bigWigs."""

import pathlib

import numpy as np
from jaxtyping import Float

from data_prep.formats.bigwig import create_bigwig
from data_prep.planted import Readings

STEP_BP = 50  # resolution of the simulated signal
UNMAPPED_BP = 10_000  # chromosome ends without any data, as around real telomeres


def write_bigwig(
    path: pathlib.Path,
    sizes: dict[str, int],
    extents: dict[str, int],
    readings: Readings,
    rng: np.random.Generator,
) -> None:
    """Write peaks and background as runs of equal -log10 p, the way MACS2 tracks come.

    Args:
        path: the file to write.
        sizes: length of each chromosome, in bp.
        extents: where the data of each chromosome end, in bp.
        readings: the elements that are peaks, and their heights.
        rng: of the background, and of the texture of peaks.
    """
    with create_bigwig(path, sizes, max_zooms=4) as bigwig:
        for chrom, size in extents.items():
            on_chrom = (readings.elements.chrom == chrom).to_numpy()
            peaks = readings.elements[on_chrom]
            signal = _background((size - 2 * UNMAPPED_BP) // STEP_BP, rng)
            for start, end, component, height in zip(
                peaks.start, peaks.end, peaks.component, readings.height[on_chrom], strict=True
            ):
                first, last = (start - UNMAPPED_BP) // STEP_BP, -((UNMAPPED_BP - end) // STEP_BP)
                position = UNMAPPED_BP + STEP_BP * (np.arange(first, last) + 0.5)
                broad = component == "body"
                outline = _peak(position - (start + end) / 2, (end - start) / 2, broad)
                texture = _texture(last - first, 4 if broad else 1, rng)
                signal[first:last] += np.sinh(height) * outline * texture
            signal = signal.round(2)
            starts = np.flatnonzero(np.diff(signal, prepend=-1.0))
            ends = np.append(starts[1:], len(signal))
            bigwig.add(
                [chrom] * len(starts),
                UNMAPPED_BP + STEP_BP * starts,
                ends=UNMAPPED_BP + STEP_BP * ends,
                values=signal[starts],
            )


def _background(steps: int, rng: np.random.Generator) -> Float[np.ndarray, "S"]:
    """-log10 p away from peaks: runs of some 600 bp, mostly near 0, slowly waxing and waning."""
    lengths = rng.geometric(1 / 12, steps // 6 + 20)
    region = 1 + 0.4 * np.sin(np.cumsum(rng.normal(0, 0.02, len(lengths))))
    values = rng.gamma(0.7, 0.4, len(lengths)) * region
    runs = np.repeat(values, lengths)
    return runs[:steps]


def _texture(steps: int, run: int, rng: np.random.Generator) -> Float[np.ndarray, "S"]:
    """Roughness of a peak: factors around 1, constant over `run` steps."""
    return np.repeat(rng.lognormal(0, 0.25, -(-steps // run)), run)[:steps]


def _peak(offset: np.ndarray, half: float, broad: bool) -> Float[np.ndarray, "S"]:
    """Outline of a peak at `offset` bp from its middle: a bell, or a plateau with 300 bp slopes."""
    slope = 300.0 if broad else half
    depth = np.clip((half - np.abs(offset)) / slope, 0, 1)
    return np.sin(0.5 * np.pi * depth) ** 2
