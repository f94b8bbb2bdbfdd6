"""Binned tracks against the mean of every base, computed here one base at a time."""

import itertools
import os
import pathlib
import tempfile

import numpy as np
import pyBigWig
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep import bin_bigwigs as binning
from data_prep.bin_bigwigs import bin_bigwig, bin_bigwigs
from epi2expr_jax.errors import InputError

SIZES = {"chr1": 1000, "chr2": 37, "chr3": 310, "chrEmpty": 512}


def write_track(path, sizes, runs):
    """A bigWig of runs `(chrom, start, end, value)`, with all the zoom levels that it can have."""
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(sizes.items()), maxZooms=10)
        for chrom in sizes:
            own = [run[1:] for run in runs if run[0] == chrom]
            if own:
                starts, ends, values = map(list, zip(*own, strict=True))
                file.addEntries([chrom] * len(own), starts, ends=ends, values=values)
    return path


def read(path, bin_bp):
    """Each chromosome's bins, which must be listed without a gap, exactly to its end."""
    found = {}
    with pyBigWig.open(str(path)) as file:
        for chrom, size in file.chroms().items():
            runs = file.intervals(chrom)
            starts, ends, values = (list(part) for part in zip(*runs, strict=True))
            assert starts == list(range(0, size, bin_bp))
            assert ends == [*starts[1:], size]
            found[chrom] = np.array(values)
    return found


def expected(sizes, runs, bin_bp):
    means = {}
    for chrom, size in sizes.items():
        bases = np.zeros(size)
        for on, start, end, value in runs:
            if on == chrom:
                bases[start:end] = np.float32(value)
        edges = range(0, size, bin_bp)
        means[chrom] = np.array([bases[i : i + bin_bp].mean() for i in edges])
    return means


@st.composite
def tracks(draw):
    """Runs with gaps between them or none, of one base or many, on some of the chromosomes."""
    runs = []
    value = st.floats(-1e4, 1e4, width=32)
    for chrom, size in SIZES.items():
        if chrom == "chrEmpty":
            continue
        cuts = sorted(draw(st.sets(st.integers(0, size), max_size=30)))
        for begin, end in itertools.pairwise(cuts):
            if draw(st.booleans()):
                runs.append((chrom, begin, end, draw(value)))
    return runs


@settings(max_examples=60, deadline=None)
@given(tracks(), st.sampled_from([1, 7, 25, 40, 1000, 5000]))
@example([("chr1", 0, 1, 5.0), ("chr1", 999, 1000, 3.0), ("chr2", 36, 37, 1.0)], 25)
@example([("chr1", i, i + 1, float(i % 7)) for i in range(0, 1000, 2)], 25)
def test_a_bin_is_the_mean_of_its_bases(runs, bin_bp):
    runs = runs or [("chr3", 10, 11, 1.0)]
    with tempfile.TemporaryDirectory() as folder:
        source = write_track(pathlib.Path(folder) / "a.bw", SIZES, runs)
        target = pathlib.Path(folder) / "b.bw"
        bin_bigwig(source, target, bin_bp)
        found = read(target, bin_bp)
    for chrom, means in expected(SIZES, runs, bin_bp).items():
        np.testing.assert_allclose(found[chrom], means, rtol=1e-6, atol=1e-6 * 1e-2)


def test_stretches_meet_without_a_seam(tmp_path, monkeypatch):
    """A track longer than what is read at a time, with runs across every border."""
    monkeypatch.setattr(binning, "_STRETCH_BP", 1010)  # rounded up to 1,025
    random = np.random.default_rng(0)
    cuts = np.unique(random.integers(0, 20_011, 3000))
    runs = [
        ("chr1", int(a), int(b), float(random.integers(0, 99))) for a, b in itertools.pairwise(cuts)
    ]
    source = write_track(tmp_path / "a.bw", {"chr1": 20_011}, runs)
    bin_bigwig(source, tmp_path / "b.bw")
    means = expected({"chr1": 20_011}, runs, 25)["chr1"]
    np.testing.assert_allclose(read(tmp_path / "b.bw", 25)["chr1"], means, rtol=1e-6)


@pytest.fixture
def folder(tmp_path):
    for name in "ab":
        write_track(tmp_path / f"{name}.bw", SIZES, [("chr1", 3, 40, 2.0)])
    return tmp_path


def test_what_is_done_is_skipped_unless_its_source_is_newer(folder):
    sources, out = [folder / "a.bw", folder / "b.bw"], folder / "out"
    assert bin_bigwigs(sources, out) == [out / "a.25bp.bw", out / "b.25bp.bw"]
    assert bin_bigwigs(sources, out) == []
    late = (out / "b.25bp.bw").stat().st_mtime + 5
    os.utime(folder / "b.bw", (late, late))
    assert bin_bigwigs(sources, out) == [out / "b.25bp.bw"]
    assert bin_bigwigs(sources, out, bin_bp=100) == [out / "a.100bp.bw", out / "b.100bp.bw"]


def test_a_bad_track_is_named_and_the_others_are_done(folder):
    (folder / "c.bw").write_bytes((folder / "a.bw").read_bytes()[:-9])
    write_track(folder / "d.bw", SIZES, [("chr1", 3, 40, float("inf"))])
    sources, out = [folder / f"{name}.bw" for name in "cdabx"], folder / "out"
    with pytest.raises(InputError, match="truncated") as error:
        bin_bigwigs(sources, out, workers=2)
    assert "infinite" in str(error.value)
    assert "No such file" in str(error.value)
    assert {path.name for path in out.iterdir()} == {"a.25bp.bw", "b.25bp.bw"}


def test_results_never_take_the_place_of_tracks_or_of_each_other(folder):
    with pytest.raises(InputError, match="its own result"):
        bin_bigwig(folder / "a.bw", folder / "a.bw")
    (folder / "other").mkdir()
    with pytest.raises(InputError, match="several files"):
        bin_bigwigs([folder / "a.bw", folder / "other" / "a.bw"], folder / "out")
