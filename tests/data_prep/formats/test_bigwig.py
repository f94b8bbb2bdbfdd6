"""bigWig files that are not what they should be, and those that are written."""

import pathlib
import struct
import subprocess
import sys

import numpy as np
import pyBigWig
import pytest

from data_prep.formats import bigwig
from data_prep.formats.assembly import load_assembly
from data_prep.formats.bigwig import check_bigwig, open_bigwig, require_whole
from data_prep.formats.bin_means import window_means
from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import WindowSpec
from tests.data_prep.problems import problems_of
from tests.data_prep.tracks import write_track


def test_a_track_the_disk_has_no_room_for_is_not_there(tmp_path):
    """pyBigWig ends the process where a write fails, or says nothing. Under limits of file size."""
    values = np.random.default_rng(0).random(20_000)
    with bigwig.create_bigwig(tmp_path / "a.bw", {"chr1": 600_000}) as file:
        file.add("chr1", 0, values=values, span=25, step=25)
    size = (tmp_path / "a.bw").stat().st_size
    program = f"""
import pathlib, resource, numpy
from data_prep.formats import bigwig
from epi2expr_jax.errors import InputError
path, values = pathlib.Path({str(tmp_path / "b.bw")!r}), numpy.random.default_rng(0).random(20_000)
for margin in (bigwig._MARGIN_BYTES, -10**5):  # as it is, and as if others wrote meanwhile
    bigwig._MARGIN_BYTES = margin
    for most in (0, 10, 300, 500, 1000, 50_000, {size - 5000}, {size - 100}, {size - 1}):
        if margin < 0 and most < {size - 5000}:
            continue
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, -1))
        try:
            with bigwig.create_bigwig(path, {{"chr1": 600_000}}) as file:
                file.add("chr1", 0, values=values, span=25, step=25)
        except InputError as error:
            print(most, "room for a bigWig" in str(error))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("True") == 9 + 3
    assert [path.name for path in tmp_path.iterdir()] == ["a.bw"]


def damage(kind: str, track) -> pathlib.Path:
    path = track.with_name(f"{kind}.bw")
    content = track.read_bytes()
    if kind == "truncated":
        path.write_bytes(content[:-100])
    elif kind == "header only":
        path.write_bytes(content[:40])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "HTML":
        path.write_bytes(b"<!DOCTYPE html><html>404</html>")
    elif kind == "gzip":
        path.write_bytes(b"\x1f\x8b" + content)
    elif kind == "text":
        path.write_bytes(b"chr1\t0\t100\t1.0\n" * 9)
    return path


@pytest.mark.parametrize(
    ("kind", "found"),
    [
        ("truncated", "a truncated bigWig"),
        ("header only", "a truncated bigWig"),
        ("empty", "an empty file"),
        ("HTML", "HTML"),
        ("gzip", "a gzip file"),
        ("text", "first bytes b'chr1"),
        ("absent", "No such file"),
    ],
)
def test_what_is_no_whole_bigwig_is_said(track, kind, found):
    path = damage(kind, track)
    (problem,) = problems_of(check_bigwig, path, {"chr1": 1000}, ["chr1"])
    assert found in problem.found
    assert str(path) in problem.where
    with pytest.raises(InputError, match=found.replace("(", ".")), open_bigwig(path):
        pass


@pytest.mark.parametrize("part", ["tree", "index", "zoom", "block", "count", "chromosomes"])
def test_a_damaged_bigwig_is_said_before_pybigwig_meets_it(track, part):
    """Of the places where one changed byte made pyBigWig end the process, or read elsewhere."""
    content = bytearray(track.read_bytes())
    tree, _, index = struct.unpack_from("<QQQ", content, 8)
    (zoom,) = struct.unpack_from("<Q", content, 64 + 16)
    place, damage = {
        "tree": (8, b"\xff" * 7),  # where the chromosomes are
        "index": (24, struct.pack("<Q", index + 4)),
        "zoom": (64 + 16, struct.pack("<Q", zoom + 2**40)),
        "block": (index + 48 + 4 + 16, b"\xff" * 8),
        "count": (index + 48 + 2, b"\xff\xff"),
        "chromosomes": (tree + 16, struct.pack("<Q", 2**40)),
    }[part]
    content[place : place + len(damage)] = damage
    track.write_bytes(content)
    with pytest.raises(InputError, match=r"a damaged bigWig: .* does not lie within its"):
        bigwig.require_whole(track)


def test_what_pybigwig_refuses_within_is_said(track):
    with (
        pytest.raises(InputError, match=r"a part of it .* cannot be read"),
        open_bigwig(track) as b,
    ):
        b.values("chr1", 0, 10**6)


def test_a_url_is_to_be_downloaded_first():
    with pytest.raises(InputError, match=r"https://x/y.bw: found a URL.*download it first"):
        window_means("https://x/y.bw", ["chr1"], np.array([0]), WindowSpec(100, 25))


def test_a_good_track_has_no_problem(track):
    check_bigwig(track, {"1": 1000, "2": 300, "3": 5}, ["1", "2"])


def test_a_bigwig_of_another_assembly_is_named(tmp_path):
    mouse, human = load_assembly("mm10"), load_assembly("hg19")
    path = write_track(tmp_path / "mouse.bw", mouse.chrom_sizes, [("chr1", 0, 9, 1.0)])
    chroms = ["chr1", "chr2", "chr20", "chr22"]
    missing, other = problems_of(check_bigwig, path, human.chrom_sizes, chroms)
    assert missing.found.startswith("no chr20, chr22; it has chr1")
    assert "another assembly: mm10" in other.found
    assert "chr1 of 195,471,971 bp, chr2" in other.found
    assert "chr1 of 249,250,621 bp" in other.expected
    assert "--assembly=mm10" in other.remedy
    check_bigwig(path, mouse.chrom_sizes, ["chr1", "chrX"])


def test_lengths_of_no_known_assembly(track):
    (problem,) = problems_of(check_bigwig, track, {"chr1": 999, "chr2": 300}, ["chr1", "chr2"])
    assert "another assembly: chr1 of 1,000 bp" in problem.found


def test_an_empty_bigwig_is_refused(tmp_path):
    path = tmp_path / "empty.bw"
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader([("chr1", 1000)])
    with pytest.raises(InputError, match="found an empty bigWig: no base has a value"):
        require_whole(path)
