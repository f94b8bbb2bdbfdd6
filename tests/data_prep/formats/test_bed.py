import gzip

import numpy as np
import pandas as pd
import pytest

from data_prep.formats.bed import bed_record, read_bed, touched_bins, touched_genes
from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import WindowSpec

SIZES = {"chr1": 1000, "chr2": 300}


@pytest.fixture
def write(tmp_path):
    def write_file(text):
        path = tmp_path / "black.bed"
        path.write_text(text)
        return path

    return write_file


def intervals(path, sizes=SIZES) -> list[tuple]:
    return list(read_bed(path, sizes).itertuples(index=False, name=None))


def problems(path) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_bed(path, SIZES)
    return [str(problem) for problem in caught.value.problems]


TEXT = """track name=blacklist
browser position chr1:1-100
# by hand
chr2\t0\t300\tHigh Signal\t0\t+

1 20 30
chr1\t5\t6\tshort
chrUn_1\t5\t6
"""


def test_intervals_are_sorted_and_spelled_as_the_assembly_spells_them(write):
    path = write(TEXT)
    table = read_bed(path, SIZES)
    assert list(table.columns) == ["chrom", "start", "end", "name"]
    expected = [("chr1", 5, 6, "short"), ("chr1", 20, 30, ""), ("chr2", 0, 300, "High Signal")]
    assert intervals(path) == expected
    bare = [(chrom.removeprefix("chr"), *rest) for chrom, *rest in expected]
    assert intervals(path, {"1": 1000, "2": 300}) == bare
    path.write_bytes(gzip.compress(TEXT.encode()))
    assert intervals(path) == expected


def test_malformed_lines_are_named(write):
    lines = ["chr1 5 9", "chr1 5", "chr1 9 9", "chr1 a 9", "chr1 -1 9", "chr1 5 9.5", "chr1 5 9²"]
    found = problems(write("\n".join(lines)))
    assert [problem.partition(": ")[0].rpartition(" ")[2] for problem in found] == list("234567")
    assert "black.bed, line 2: found 'chr1 5'; expected chrom, start < end; give a BED" in found[0]
    many = problems(write("chr1\n" * 50))
    assert len(many) == 21
    assert "line 21: found 'chr1', and 29 more problems" in many[20]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("chr1 5 9\nchr2 299 301\n", "chr2:299-301, off the chromosome's end"),
        ("chr9 5 9\n", "no interval"),
        ("# nothing\n", "no interval"),
    ],
)
def test_a_file_of_another_assembly_is_refused(write, text, found):
    (problem,) = problems(write(text))
    assert f"black.bed: found {found}; expected intervals on the given assembly; check" in problem


def test_a_position_that_is_too_long_to_be_read_is_none(write):
    (problem,) = problems(write(f"chr1\t0\t{'9' * 5000}\n"))
    assert ", line 1: found" in problem
    assert problem.endswith("give a BED of chrom<tab>start<tab>end (.gz)")


def test_a_file_that_cannot_be_read_is_named(tmp_path):
    path = tmp_path / "absent.bed.gz"
    assert f"{path}: found nothing that can be read (No such file" in problems(path)[0]
    packed = gzip.compress(TEXT.encode())
    for damaged in (packed[:-9], packed[:12] + b"\xff" * 30 + packed[42:]):
        path.write_bytes(damaged)
        assert f"{path}: found a damaged gzip file" in problems(path)[0]


def test_a_manifest_knows_the_file_by_name_and_content(write):
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    assert bed_record(write("abc")) == {"name": "black.bed", "sha256": sha256}


def test_touched_bins_at_the_edges():
    regions = pd.DataFrame({"chrom": ["chr1", "chr1"], "start": [0, 30], "end": [10, 31]})
    bins = touched_bins(["1", "1"], np.array([-10, 10]), np.array([20, 35]), 10, regions)
    assert bins.tolist() == [False, True, False, False, False, True]


def test_genes_and_bins_that_a_blacklist_touches_are_counted():
    genes = pd.DataFrame({"chrom": ["1", "1", "2"], "tss": [20, 100, 20]})
    bed = pd.DataFrame({"chrom": ["chr1", "chr2"], "start": [9, 40], "end": [21, 50]})
    assert touched_genes(genes, WindowSpec(40, 10), bed) == {"genes": 1, "bins": 3}


def test_intervals_without_hidden_ones_are_not_touched():
    bed = pd.DataFrame({"chrom": ["chr2"], "start": [0], "end": [300]})
    bins = touched_bins(
        ["chr1", "chr2", "chr3"], np.array([0, 290, 0]), np.array([20, 305, 9]), 10, bed
    )
    assert bins.tolist() == [False, False, True, False, False]


def test_names_between_tabs_may_hold_blanks(write):
    text = "chr1\t1\t2\tmy peak\t5\nchr1 3 4 b c\nchr1\t5\t6\n"
    assert read_bed(write(text), {"chr1": 9})["name"].tolist() == ["my peak", "b", ""]
