"""Mean signal of windows and intervals, against every base counted here."""

import io
import itertools
import pathlib
import pickle
import tarfile
import tempfile

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.formats import bin_means
from data_prep.formats.assembly import load_assembly
from data_prep.formats.bigwig import check_bigwig
from data_prep.formats.bin_means import (
    interval_means,
    track_means,
    track_region_means,
    window_means,
)
from data_prep.formats.track_sheet import Source
from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import WindowSpec
from tests.data_prep.tracks import write_track

# The order of the rows of the `.npy` arrays, see shared/data/README.md.
NPY_MARKS = ("H3K4me1", "H3K4me3", "H3K9me3", "H3K27me3", "H3K36me3", "H3K27ac", "H3K9ac")


def one(path, chrom, start, window):
    means, coverage = window_means(path, [chrom], np.array([start]), window)
    return means[0].tolist(), float(coverage[0])


W100 = WindowSpec(100, 25)


def test_missing_bases_count_as_zero_over_all_bases_of_the_bin(track):
    means, coverage = one(track, "chr1", 90, WindowSpec(40, 20))
    assert means == [1.0, 2.0]
    assert coverage == pytest.approx(0.75)


def test_means_are_weighted_by_bases(track):
    means, coverage = one(track, "chr1", 180, WindowSpec(100, 50))
    assert means == pytest.approx([(20 * 2 + 30 * 4) / 50, 20 * 4 / 50])
    assert coverage == pytest.approx(0.7)


@pytest.mark.parametrize(
    ("chrom", "start", "means", "coverage"),
    [
        ("chr2", -50, [0, 0, 1, 1], 1.0),  # begins before the chromosome
        ("chr2", -10, [0.6, 1, 1, 1], 1.0),
        ("chr2", 240, [1, 1, 0.4, 0], 1.0),  # ends after it
        ("chr2", 299, [0.04, 0, 0, 0], 1.0),
        ("chr2", -100, [0, 0, 0, 0], 0.0),  # wholly outside
        ("chr2", 300, [0, 0, 0, 0], 0.0),
        ("chr2", 10**7, [0, 0, 0, 0], 0.0),
        ("chr1", 950, [0, 0, 0, 0], 0.0),  # no data
        ("chr1", 500, [0, 0, 0, 0], 0.0),
    ],
)
def test_windows_over_the_ends_of_a_chromosome(track, chrom, start, means, coverage):
    found, covered = one(track, chrom, start, W100)
    np.testing.assert_allclose(found, means, rtol=1e-7)
    assert covered == coverage


def test_a_window_may_be_longer_than_its_chromosome(track):
    means, coverage = one(track, "chr2", -100, WindowSpec(500, 250))
    assert means == pytest.approx([150 / 250, 150 / 250])
    assert coverage == 1.0


def test_chromosome_names_are_reconciled(track, tmp_path):
    assert one(track, "1", 100, W100) == one(track, "chr1", 100, W100)
    bare = write_track(tmp_path / "bare.bw", {"1": 1000}, [("1", 100, 200, 2.0)])
    assert one(bare, "chr1", 100, W100) == ([2.0] * 4, 1.0)


def test_windows_come_back_in_the_order_asked_for(track):
    chroms = ["chr2", "chr1", "2", "chr1", "chr1"]
    starts = np.array([0, 900, 250, 100, 150])
    means, coverage = window_means(track, chroms, starts, W100)
    assert means.dtype == coverage.dtype == np.float32
    np.testing.assert_array_equal(means[:, 0], [1, 0, 1, 2, 2])
    np.testing.assert_array_equal(coverage, np.float32([1, 0, 1, 1, 1]))


def test_no_window_at_all(track):
    means, coverage = window_means(track, [], np.array([], int), W100)
    assert means.shape == (0, 4)
    assert coverage.shape == (0,)


@st.composite
def run_length_tracks(draw):
    """A random track as one value a base (NaN: missing), and windows on it."""
    length = draw(st.integers(50, 600))
    edges = draw(st.lists(st.integers(0, length), min_size=2, max_size=40, unique=True))
    edges.sort()
    value = st.none() | st.floats(-1e6, 1e6, width=32)
    runs = [(start, end, draw(value)) for start, end in itertools.pairwise(edges)]
    bin_bp = draw(st.sampled_from([1, 2, 5, 10]))
    window = WindowSpec(bin_bp * 2 * draw(st.integers(1, 20)), bin_bp)
    starts = draw(st.lists(st.integers(-450, length + 50), min_size=1, max_size=12))
    return length, [run for run in runs if run[2] is not None], window, np.array(starts)


@settings(max_examples=150, deadline=None)
@given(run_length_tracks(), st.sampled_from([0, 30, 20_000]), st.sampled_from([1, 100, 10**6]))
def test_means_equal_a_naive_count_base_by_base(drawn, join_bp, longest_bp):
    length, runs, window, starts = drawn
    if not runs:  # pyBigWig writes no empty file
        runs = [(0, 1, 0.0)]
    bases = np.full(length, np.nan)
    for start, end, value in runs:
        bases[start:end] = np.float32(value)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bin_means, "_JOIN_BP", join_bp)
        patch.setattr(bin_means, "_LONGEST_SPAN_BP", longest_bp)
        path = write_track(
            pathlib.Path(folder) / "t.bw", {"chr1": length}, [("chr1", *run) for run in runs]
        )
        means, coverage = window_means(path, ["1"] * len(starts), starts, window)
    for gene, start in enumerate(starts):
        inside = [x for x in range(start, start + window.window_bp) if 0 <= x < length]
        covered = sum(not np.isnan(bases[x]) for x in inside)
        assert coverage[gene] == pytest.approx(covered / len(inside) if inside else 0, abs=1e-7)
        for position in range(window.bins):
            first = start + position * window.bin_bp
            there = [x for x in range(first, first + window.bin_bp) if 0 <= x < length]
            mean = sum(float(np.nan_to_num(bases[x])) for x in there) / window.bin_bp
            # exact but for the last place of float32, and the float64 order of summation
            assert means[gene, position] == pytest.approx(mean, rel=1e-7, abs=1e-9)


@st.composite
def intervals_on_a_track(draw):
    """The signal of such a track, and intervals on it: nested, overlapping, over its end."""
    length, runs, _, starts = draw(run_length_tracks())
    widths = draw(st.lists(st.integers(1, 700), min_size=len(starts), max_size=len(starts)))
    return length, runs or [(0, 1, 0.0)], starts, starts + np.array(widths)


@settings(max_examples=100, deadline=None)
@given(intervals_on_a_track(), st.sampled_from([1, 7, 100]), st.sampled_from([0, 30, 20_000]))
def test_intervals_equal_a_naive_count_base_by_base(drawn, bin_bp, join_bp):
    length, runs, starts, ends = drawn
    bases = np.zeros(length)
    for start, end, value in runs:
        bases[start:end] = np.float32(value)
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(bin_means, "_JOIN_BP", join_bp)
        path = write_track(
            pathlib.Path(folder) / "t.bw", {"chr1": length}, [("chr1", *run) for run in runs]
        )
        means = interval_means(path, ["1"] * len(starts), starts, ends, bin_bp)
    expected = [
        sum(bases[x] for x in range(max(first, 0), min(first + bin_bp, end, length)))
        / min(bin_bp, end - first)
        for start, end in zip(starts, ends, strict=True)
        for first in range(start, end, bin_bp)
    ]
    assert means.dtype == np.float32
    np.testing.assert_allclose(means, expected, rtol=1e-6, atol=1e-9)


def test_the_last_bin_of_an_interval_is_over_its_remaining_bases(track):
    means = interval_means(track, ["chr1", "1"], np.array([190, 95]), np.array([260, 125]), 20)
    assert means.tolist() == [3, 4, 4, 0, 1.5, 2]
    none = interval_means(track, [], np.array([], int), np.array([], int), 20)
    assert none.shape == (0,)


def test_regions_of_replicates_and_of_infinite_signal(track, tmp_path):
    runs = [("1", 100, 125, 5.0), ("1", 500, 501, float("inf"))]
    other = write_track(tmp_path / "other.bw", {"1": 1000}, runs)
    sources = [Source(str(track), replicate="1"), Source(str(other), replicate="2")]
    regions = pd.DataFrame({"chrom": ["chr1"], "start": [100], "end": [150]})
    np.testing.assert_array_equal(track_region_means(sources, regions, 25), np.float32([3.5, 1]))
    with pytest.raises(InputError, match=r"infinite signal .* \(chr1:490-515\)"):
        interval_means(other, ["chr1", "chr1"], np.array([490, 100]), np.array([515, 105]), 10)
    with pytest.raises(InputError, match=r"no chr7; .*with a gene or region"):
        interval_means(track, ["chr7"], np.array([0]), np.array([5]), 10)


def test_near_windows_are_read_together_and_far_ones_apart():
    starts = np.array([500_000, 10_000, -50, 31_000, 5_000, 999_990, 2_000_000])
    spans = list(bin_means._spans(np.arange(7), starts, starts + 100, length=1_000_000))
    assert spans == [
        ([2, 4, 1], 0, 10_100),
        ([3], 31_000, 31_100),
        ([0], 500_000, 500_100),
        ([5], 999_990, 1_000_000),
    ]
    dense = np.arange(0, 10_000_000, 1000)
    reads = list(bin_means._spans(np.arange(len(dense)), dense, dense + 100, length=10_000_000))
    assert len(reads) == 10
    assert max(end - begin for _, begin, end in reads) <= 1_000_000


def test_replicates_have_equal_weight(track, tmp_path):
    other = write_track(tmp_path / "other.bw", {"1": 1000}, [("1", 100, 125, 5.0)])
    sources = [Source(str(track), replicate="1"), Source(str(other), replicate="2")]
    genes = pd.DataFrame({"chrom": ["chr1"], "tss": [150]})
    means, coverage = track_means(sources, genes.chrom, genes.tss, W100)
    np.testing.assert_array_equal(means, np.float32([[3.5, 1, 1, 1]]))
    np.testing.assert_array_equal(coverage, np.float32([(1 + 0.25) / 2]))
    assert means.dtype == coverage.dtype == np.float32
    alone, _ = track_means(sources[:1], genes.chrom, genes.tss, W100)
    np.testing.assert_array_equal(alone, [[2, 2, 2, 2]])


def test_infinite_signal_is_named(tmp_path):
    runs = [("chr1", 100, 110, float("inf")), ("chr1", 110, 120, 1.0)]
    path = write_track(tmp_path / "t.bw", {"chr1": 1000}, runs)
    with pytest.raises(InputError, match=r"infinite signal in 1 windows \(chr1:50-150\)"):
        window_means(path, ["chr1", "chr1"], np.array([50, 500]), W100)


def test_a_chromosome_the_track_lacks_is_no_zero(track):
    with pytest.raises(InputError, match=r"no chr3, chrX; .*the file has chr1, chr2") as caught:
        window_means(track, ["chr3", "chr1", "chrX"], np.array([0, 0, 0]), W100)
    assert pickle.loads(pickle.dumps(caught.value)).problems == caught.value.problems


def test_damage_inside_a_file_is_found_when_it_is_read(tmp_path):
    rng = np.random.RandomState(0)
    runs = [("chr1", 10 * i, 10 * i + 10, float(v)) for i, v in enumerate(rng.rand(5000))]
    path = write_track(tmp_path / "t.bw", {"chr1": 50_000}, runs)
    content = bytearray(path.read_bytes())
    content[1000:20_000] = bytes(19_000)
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged"):
        window_means(path, ["chr1"] * 10, np.arange(10) * 5000, W100)


def test_real_tracks_equal_the_published_arrays(shared_data):
    demo = shared_data / "chromoformer_demo"
    table = pd.read_csv(demo / "demo_meta.csv").sample(6, random_state=0)
    window = WindowSpec(40_000, 100)
    tss = np.where(table.strand == "+", table.start, table.end - 1)
    names = [
        f"demo_data/{c}:{t - 20_000}-{t + 20_000}.npy"
        for c, t in zip(table.chrom, tss, strict=True)
    ]
    expected = np.zeros((len(NPY_MARKS), len(table), window.bins))
    with tarfile.open(demo / "demo_npy.tar.gz") as archive:
        for gene, name in enumerate(names):
            member = archive.extractfile(name)
            assert member is not None
            bases = np.load(io.BytesIO(member.read()), allow_pickle=False)
            assert bases.shape == (7, 40_000)
            expected[:, gene] = bases.astype(np.float64).reshape(7, window.bins, 100).mean(-1)
    for mark, wanted in zip(NPY_MARKS, expected, strict=True):
        source = Source(str(shared_data / "E003_bigwig" / f"E003-{mark}.bigWig"))
        check_bigwig(source.location, load_assembly("hg19").chrom_sizes, ["chr1"])
        means, coverage = track_means([source], table.chrom, tss, window)
        np.testing.assert_allclose(means, wanted, rtol=1e-7, err_msg=mark)
        assert (coverage == 1).all()


def test_real_regions_equal_the_published_arrays(shared_data):
    """Distant ends of contacts, whose widths are no multiples of the bin."""
    demo = shared_data / "chromoformer_demo"
    names = pd.read_csv(demo / "demo_meta.csv").neighbors.dropna().str.split(";").explode()
    names = names.sample(10, random_state=0).tolist()
    places = pd.Series(names).str.extract(r"(?P<chrom>.+):(?P<start>\d+)-(?P<end>\d+)")
    places = places.astype({"start": int, "end": int})
    expected = []
    with tarfile.open(demo / "demo_npy.tar.gz") as archive:
        for name in names:
            member = archive.extractfile(f"demo_data/{name}.npy")
            assert member is not None
            bases = np.load(io.BytesIO(member.read()), allow_pickle=False).astype(np.float64)
            bins = [bases[:, i : i + 100].mean(-1) for i in range(0, bases.shape[1], 100)]
            expected.append(np.stack(bins, axis=1))
    for mark, wanted in zip(NPY_MARKS, np.concatenate(expected, axis=1), strict=True):
        source = Source(str(shared_data / "E003_bigwig" / f"E003-{mark}.bigWig"))
        means = track_region_means([source], places, 100)
        np.testing.assert_allclose(means, wanted, rtol=1e-6, err_msg=mark)
