"""Signal of simulated tracks: peaks where elements are read, background elsewhere, gaps at ends."""

import numpy as np
import pandas as pd
import pyBigWig
import pytest

from data_prep.planted import Readings
from data_prep.planted_tracks import STEP_BP, UNMAPPED_BP, write_bigwig

SIZES, EXTENTS = {"chr1": 400_000, "chr2": 90_000}, {"chr1": 300_000}


@pytest.fixture
def signal(tmp_path):
    """Of chr1, base by base: a high and a low peak of 2 kb, at 100 and 200 kb."""
    elements = pd.DataFrame(
        [("chr1", 100_000, 102_000, "promoter"), ("chr1", 200_000, 202_000, "promoter")],
        columns=["chrom", "start", "end", "component"],
    ).assign(gene=[0, 1])
    readings = Readings(elements, np.zeros(2), np.zeros(2), np.array([5.0, 1.0]))
    path = tmp_path / "track.bw"
    write_bigwig(path, SIZES, EXTENTS, readings, np.random.default_rng(0))
    with pyBigWig.open(str(path)) as file:
        assert file.chroms() == SIZES
        assert file.intervals("chr2") is None
        return file.values("chr1", 0, SIZES["chr1"], numpy=True)


def test_data_end_before_the_chromosome_does(signal):
    listed = np.flatnonzero(~np.isnan(signal))
    assert (listed[0], listed[-1] + 1) == (UNMAPPED_BP, EXTENTS["chr1"] - UNMAPPED_BP)
    assert len(listed) == listed[-1] + 1 - listed[0]


def test_peaks_are_as_high_as_their_readings(signal):
    high, low = signal[100_000:102_000], signal[200_000:202_000]
    background = signal[20_000:90_000]
    assert background.mean() < 1 < low.max() < 10 < high.max()
    assert high[900:1100].mean() == pytest.approx(np.sinh(5), rel=0.5)
    assert high[:50].mean() < high[900:1100].mean() / 10  # a bell


def test_signal_comes_in_whole_steps(signal):
    steps = signal[UNMAPPED_BP : EXTENTS["chr1"] - UNMAPPED_BP].reshape(-1, STEP_BP)
    assert (steps == steps[:, :1]).all()
