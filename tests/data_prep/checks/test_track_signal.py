import dataclasses

import numpy as np
import pandas as pd
import pyBigWig
import pytest

from data_prep.checks.build_inputs import gather_inputs
from data_prep.checks.track_signal import (
    coverage_suspicions,
    range_suspicions,
    read_sample,
    sample_genes,
    suspicions,
)
from epi2expr_jax.errors import InputError, Problems
from tests.data_prep.tracks import write_track


@pytest.fixture
def inputs(study):
    problems = Problems()
    found = gather_inputs(study.config(), problems)
    assert not problems
    return found


def read(inputs, position=0):
    return read_sample(inputs.sheet.tracks[position], inputs.genes, inputs.window)


@pytest.fixture
def raw(inputs):
    """`raw(**changes)`: a reading of signal with a long tail, in which nothing is suspicious."""
    sound = dataclasses.replace(
        read(inputs), lowest=0.0, highest=50.0, at_highest=(1, 1e-4), p99=20.0, tail=4.0, skew=5.0
    )
    return lambda **changes: dataclasses.replace(sound, **changes)


def found_in(reading, *peers):
    return [problem.kind for problem in range_suspicions(reading, peers)]


def test_a_small_table_is_its_own_sample():
    assert sample_genes(pd.DataFrame(index=range(500))).tolist() == list(range(500))
    assert sample_genes(pd.DataFrame(index=range(0))).tolist() == []


def test_a_sample_is_runs_of_neighbours_over_the_whole_table():
    chosen = sample_genes(pd.DataFrame(index=range(18_915)))
    assert len(chosen) == 500
    assert (chosen[0], chosen[-1]) == (0, 18_914)
    gaps = np.diff(chosen)
    assert (gaps[gaps > 1] > 900).all()  # 20 runs of 25, about 970 apart
    assert (gaps > 1).sum() == 19
    few = sample_genes(pd.DataFrame(index=range(60)), most=50)
    assert few.tolist() == [*range(25), *range(35, 60)]


def test_a_reading_holds_what_the_track_says(inputs):
    reading = read(inputs, 1)  # of level 2
    assert reading.name == "E1 N"
    # 2,000 bp around A: 200 of 18 and 1,800 of 2; around B, C and D no peak
    np.testing.assert_allclose(reading.promoter, [3.6, 2.0, 2.0, 4.0])
    np.testing.assert_array_equal(reading.listed, 1.0)
    assert (reading.lowest, reading.highest) == (2.0, 18.0)
    assert reading.at_highest == (2, 2 / 160)  # of 4 windows of 40 bins
    assert reading.p99 == pytest.approx(18.0, abs=10)
    assert reading.skew > 3
    assert reading.seconds > 0


def test_windows_without_data_are_nan_and_count_nowhere(inputs, study):
    runs = [("chr1", 5000, 6000, 3.0), ("chr1", 6000, 8000, 1.0), ("chr2", 0, 1000, 0.0)]
    sizes = {"chr1": 10_000, "chr2": 5_000, "chr3": 4_000}
    write_track(study.folder / "E1-M.bw", sizes, runs)
    reading = read(inputs)
    # A's window 1000-5000 has none, B's 4000-8000 three quarters, C's 0-4000 a quarter of zeros
    np.testing.assert_array_equal(reading.listed, np.float32([0, 0.75, 0.25, 0]))
    np.testing.assert_array_equal(reading.promoter, [np.nan, 2.0, 0.0, np.nan])
    assert (reading.lowest, reading.highest, reading.at_highest) == (0.0, 3.0, (10, 1 / 3))
    (study.folder / "E1-M.bw").unlink()
    with pytest.raises(InputError, match=r"E1-M\.bw: found No such file"):
        read(inputs)


def test_signal_of_one_value_has_no_skew(inputs, study):
    """Tracks of 0 and 1, or 0.1, are not taken for logarithms."""
    for value in (1.0, 0.1):
        runs = [("chr1", 0, 4000, 0.0), ("chr1", 4000, 5000, value), ("chr2", 0, 5000, 0.0)]
        sizes = {"chr1": 10_000, "chr2": 5_000, "chr3": 4_000}
        write_track(study.folder / "E1-M.bw", sizes, runs)
        reading = read(inputs)
        assert (reading.lowest, reading.highest) == (0.0, np.float32(value))
        assert np.isnan(reading.skew)
        assert "log_transformed" not in found_in(reading)


def test_infinite_values_are_refused(inputs, study):
    with pyBigWig.open(str(study.folder / "E1-M.bw"), "w") as out:
        out.addHeader([("chr1", 10_000), ("chr2", 5_000), ("chr3", 4_000)])
        out.addEntries(["chr1"], [5990], ends=[6010], values=[float("inf")])
    with pytest.raises(InputError, match=r"E1-M\.bw: found infinite .*\(chr1:4000-8000\)"):
        read(inputs)


def test_missing_windows_and_missing_bases_are_told_apart(raw):
    assert coverage_suspicions(raw()) == []
    half = np.repeat([0.0, 1.0], 50)
    (windows,) = coverage_suspicions(raw(listed=half))
    assert (windows.kind, windows.where) == ("coverage", "E1 M")
    assert windows.found == "data in the windows of 50% of 100 sampled genes"
    assert "95% or more" in windows.expected
    assert "--min_covered" in windows.remedy
    (bases,) = coverage_suspicions(raw(listed=np.full(100, 0.75)))
    assert bases.kind == "nan_share"
    assert "on 25% of the bases of windows that have data" in bases.found
    assert coverage_suspicions(raw(listed=np.full(100, 0.81))) == []
    (nothing,) = coverage_suspicions(raw(listed=np.zeros(100)))
    assert nothing.kind == "coverage"


def test_signal_without_range_is_constant_or_zero(raw):
    (problem,) = range_suspicions(raw(lowest=0.0, highest=0.0))
    assert (problem.kind, problem.found) == ("all_zero", "0 everywhere")
    (problem,) = range_suspicions(raw(lowest=2.5, highest=2.5))
    assert (problem.kind, problem.found) == ("constant", "2.5 everywhere")
    assert problem.where == "E1 M"
    # Of a few genes in many nothing is said.
    few = np.where(np.arange(500) < 49, 1.0, 0.0)
    assert found_in(raw(lowest=2.5, highest=2.5, listed=few)) == []


def test_negative_signal_is_suspicious_where_it_cannot_be(raw):
    (problem,) = range_suspicions(raw(lowest=-0.5))
    assert (problem.kind, problem.found) == ("negative_values", "negative signal (down to -0.5)")
    assert problem.expected == "0 or more in unit pvalue"
    free = dataclasses.replace(raw().track, unit="none")
    assert found_in(raw(lowest=-0.5, track=free)) == []


def test_a_cap_is_seen_by_how_often_it_is_reached(raw):
    assert found_in(raw(at_highest=(40, 0.004))) == []
    assert found_in(raw(at_highest=(19, 0.02))) == []
    (problem,) = range_suspicions(raw(at_highest=(20, 0.02), highest=8.0, skew=1.0))
    assert problem.kind == "clipped"  # and not a logarithm, too
    assert problem.found == "the highest value, 8, in 2.0% of the bins with signal"


def test_a_logarithm_is_seen_by_its_short_tail_alone_or_beside_peers(raw):
    logarithm = raw(highest=4.0, p99=3.0, tail=1.5, skew=1.0)
    (problem,) = range_suspicions(logarithm)
    assert problem.kind == "log_transformed"
    assert "highest 4, 99th percentile 3, skew 1.0" in problem.found
    assert "say unit none in the sheet" in problem.remedy
    free = dataclasses.replace(raw().track, unit="none")
    assert found_in(dataclasses.replace(logarithm, track=free)) == []
    # Skewed as raw signal is, but far below the same assay in other cells.
    skewed = dataclasses.replace(logarithm, skew=2.0)
    assert found_in(skewed) == []
    (problem,) = range_suspicions(skewed, [raw(), raw(p99=30.0)])
    assert "(25 in the assay's other tracks)" in problem.found
    assert found_in(skewed, skewed) == []


def test_each_track_is_judged_and_only_beside_its_own_assay(inputs):
    everyone = np.arange(4)
    readings = [read(inputs, i) for i in range(3)]
    assert suspicions(inputs, everyone, readings) == []
    assert suspicions(inputs, everyone, []) == []
    first, other, same = readings
    zero = dataclasses.replace(other, lowest=0.0, highest=0.0)
    skewed = dataclasses.replace(first, highest=4.0, p99=3.0, tail=1.5, skew=2.0)
    usual = {"highest": 50.0, "p99": 20.0, "tail": 4.0, "skew": 5.0}
    raw = dataclasses.replace(same, **usual)
    found = suspicions(inputs, everyone, [skewed, zero, raw])
    assert [(problem.where, problem.kind) for problem in found] == [
        ("E1 M", "log_transformed"),
        ("E1 N", "all_zero"),
    ]
    # Neither another assay nor a constant track of the same one is a peer.
    constant = dataclasses.replace(raw, lowest=50.0)
    found = suspicions(inputs, everyone, [skewed, dataclasses.replace(other, **usual), constant])
    assert [(problem.where, problem.kind) for problem in found] == [("E2 M", "constant")]
