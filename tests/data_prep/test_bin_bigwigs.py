"""Binned tracks against the mean of every base, computed here one base at a time."""

import itertools
import pathlib
import subprocess
import sys
import tempfile

import numpy as np
import pyBigWig
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from data_prep import bin_bigwigs as binning
from data_prep.bin_bigwigs import bin_bigwig
from data_prep.formats.track_sheet import read_sheet
from epi2expr_jax.errors import InputError
from tests.data_prep.bad_server import serving

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


def test_a_track_is_never_its_own_result(tmp_path):
    track = write_track(tmp_path / "a.bw", SIZES, [("chr1", 3, 40, 2.0)])
    with pytest.raises(InputError, match="its own result"):
        bin_bigwig(track, track)


def test_from_a_sheet_of_bad_urls_to_a_sheet_of_binned_tracks(tmp_path, program):
    """As a user runs it: the sheet's files are fetched, one fails, and a rerun does that one."""
    source = write_track(tmp_path / "a.bw", SIZES, [("chr1", 3, 40, 2.0)]).read_bytes()
    sheet, out = tmp_path / "sheet.csv", tmp_path / "out"
    with serving() as server:
        server.files = {"x.bw": source, "y.bw": source}
        sheet.write_text(
            f"cell,assay,url,unit,group\nE003,DNase,{server.url}/good/x.bw,depth,open\n"
            f"E003,H3K4me3,{server.url}/404/y.bw,depth,\n"
        )
        command = ["data_prep.bin_bigwigs", f"--tracks={sheet}", f"--out={out}", "--bin_bp=100"]
        failed = program(*command)
        assert failed.returncode == 2
        assert "HTTP 404" in failed.stderr
        assert "1 problem" in failed.stderr
        assert (out / "E003-DNase.100bp.bw").exists()
        assert not (out / "tracks.100bp.csv").exists(), "a sheet lists what is there"
        sheet.write_text(sheet.read_text().replace("/404/", "/good/"))  # ports hold 404 too
        (out / "downloads" / "x.bw").unlink()  # its result is there
        process = [sys.executable, "-m", *command]
        done = subprocess.run(process, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "1 track binned, 1 done before" in done.stdout
        assert [path for path, _ in server.asked].count("/good/x.bw") == 1
    first, second = read_sheet(out / "tracks.100bp.csv").tracks
    assert (first.cell, first.assay, first.unit, first.group) == ("E003", "DNase", "depth", "open")
    assert second.sources[0].location == str(out / "E003-H3K4me3.100bp.bw")
    assert ",E003-DNase.100bp.bw," in (out / "tracks.100bp.csv").read_text(), (
        "relative to the sheet"
    )
