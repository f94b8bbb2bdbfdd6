import hashlib

import numpy as np
import pytest

from data_prep.contacts.chromoformer_meta import NAME, read_metadata
from epi2expr_jax.errors import InputError
from tests.data_prep.contact_texts import META_HEADER, write_meta

SIZES = {"chr1": 200_000, "chr2": 1000}
ROWS = [
    ["b", "0.5", "E2", 0, "chr1", 60_000, 60_001, "+", "chr2:500-750;chr1:200-300", "2.5;1.5"],
    ["ENSG01.7", "1.5", "E2", 1, "chr1", 50_000, 50_001, "-", "chr1:200-300", "4"],
    ["c", "2.5", "E2", 0, "chr2", 999, 1000, "-", "", ""],
    ["ENSG01.7", "3.5", "E1", 0, "chr1", 50_000, 50_001, "-", "", ""],
    ["b", "4.5", "E1", 1, "chr1", 60_000, 60_001, "+", "chr1:1-2", "-1"],
]


@pytest.fixture
def write(tmp_path):
    def write_rows(rows):
        write_meta(tmp_path / "meta.csv", rows)
        return tmp_path / "meta.csv"

    return write_rows


def problems(path) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_metadata(path, SIZES)
    return [str(problem) for problem in caught.value.problems]


def contacts(meta, cell) -> list[tuple]:
    return list(meta.contacts[cell].itertuples(index=False, name=None))


def test_genes_that_all_cells_have_in_genome_order(write):
    path = write(ROWS)
    meta = read_metadata(path, SIZES)
    assert meta.cells == ["E2", "E1"]
    assert meta.genes.values.tolist() == [
        ["ENSG01", "ENSG01", "chr1", 50_000, "-"],
        ["b", "b", "chr1", 60_000, "+"],
    ]
    assert meta.expression.dtype == np.float32
    np.testing.assert_array_equal(meta.expression, [[1.5, 0.5], [3.5, 4.5]])
    np.testing.assert_array_equal(meta.labels, [[True, False], [False, True]])
    assert meta.left_out == {"not in every cell": 1}
    assert meta.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_contacts_keep_the_order_of_the_file(write):
    meta = read_metadata(write(ROWS), SIZES)
    assert list(meta.contacts["E2"].columns) == ["gene_id", "chrom", "start", "end", "score"]
    first, second = ("b", "chr2", 500, 750, 2.5), ("b", "chr1", 200, 300, 1.5)
    other = ("ENSG01", "chr1", 200, 300, 4.0)
    assert contacts(meta, "E2") == [first, second, other]
    assert contacts(meta, "E1") == [("b", "chr1", 1, 2, -1.0)]
    assert contacts(read_metadata(write(ROWS), SIZES, 1), "E2") == [first, other]


def test_contacts_listed_twice_or_too_wide_are_left_out_and_counted(write):
    twice = [
        "a",
        1,
        "E1",
        1,
        "chr1",
        50,
        51,
        "+",
        "chr1:5-9;chr1:6-99;chr1:5-9;chr2:6-8",
        "4;3;2;1",
    ]
    meta = read_metadata(write([twice]), SIZES, max_contacts=2, max_pcre_bp=50)
    assert contacts(meta, "E1") == [("a", "chr1", 5, 9, 4.0), ("a", "chr2", 6, 8, 1.0)]
    assert meta.left_out == {
        "not in every cell": 0, "contacts listed twice": 1, "contacts wider than 50 bp": 1,
    }  # fmt: skip


def test_chromosomes_may_lack_chr(write):
    bare = [["1" if v == "chr1" else v.replace("chr", "") if isinstance(v, str) else v for v in row]
            for row in ROWS]  # fmt: skip
    meta, same = read_metadata(write(bare), SIZES), read_metadata(write(ROWS), SIZES)
    assert meta.genes.equals(same.genes)
    assert contacts(meta, "E2") == contacts(same, "E2")


@pytest.mark.parametrize(
    ("lacking", "expression", "labels", "cells"),
    [
        (["neighbors", "scores"], True, True, []),
        (["expression"], False, True, ["E1"]),
        (["label", "neighbors", "scores"], True, False, []),
    ],
)
def test_what_a_file_need_not_have(tmp_path, lacking, expression, labels, cells):
    row = dict(zip(META_HEADER, ["a", 1.5, "E1", 1, "chr1", 50, 51, "+", "", ""], strict=True))
    kept = [name for name in META_HEADER if name not in lacking]
    path = tmp_path / "meta.csv"
    path.write_text(f"{','.join(kept)}\n{','.join(str(row[name]) for name in kept)}\n")
    meta = read_metadata(path, SIZES)
    assert [*meta.contacts] == cells
    assert (meta.expression is not None, meta.labels is not None) == (expression, labels)
    assert not expression or meta.expression.tolist() == [[1.5]]
    assert not labels or meta.labels.tolist() == [[True]]


def test_all_bad_lines_are_named_at_once(write):
    good = ["g", 1, "E1", 1, "chr1", 50, 51, "+", "chr1:5-9;chr2:6-8", "2;1"]
    mistakes = [
        ("expression", "nan", "expression 'nan'"),
        ("expression", "-1", "expression '-1'"),
        ("eid", "../E1", "eid '../E1'"),
        ("eid", "all", "eid 'all'"),
        ("label", "yes", "label 'yes'"),
        ("chrom", "chr9", "chrom 'chr9'"),
        ("end", 77, "50-77"),
        ("start", "9" * 5000, f"{'9' * 5000}-51"),
        ("strand", ".", "strand '.'"),
        ("neighbors", "chr1:5-9", "1 neighbors, 2 scores"),
        ("neighbors", "chr1:5-9;chr2", "neighbors 'chr2'"),
        ("neighbors", "chr1:9-9;chr2:6-1001", "neighbors chr1:9-9, chr2:6-1001"),
        ("scores", "2;nan", "scores '2;nan'"),
        ("scores", "1;2", "scores '1;2' that rise"),
    ]
    rows = []
    for i, (column, value, _) in enumerate(mistakes):
        row = [f"g{i}", *good[1:]]
        row[META_HEADER.index(column)] = value
        rows.append(row)
    rows += [good, good, [*good[:2], "E2", *good[3:5], 60, 61, *good[7:]]]
    found = problems(write(rows))
    for line, (_, _, mistake) in enumerate(mistakes, start=2):
        assert any(f"line {line}:" in text and mistake in text for text in found), mistake
    assert "1 genes listed twice in a cell (g)" in found[-2]
    assert "1 genes with two TSSs (g)" in found[-1]
    assert len(found) == len(mistakes) + 2
    assert ", and 79 more problems" in problems(write(rows[:1] * 100))[20]


def test_files_without_a_gene_to_keep_are_refused(write, tmp_path):
    path = write([])
    assert f"{path}: found no whole line; expected one for each gene" in problems(path)[0]
    assert "no gene that all of E2, E1 have" in problems(write(ROWS[2:4]))[0]
    path.write_text("gene_id,eid\na,E1\n")
    (problem,) = problems(path)
    assert (
        f"{path}, header: found no column chrom, start, end, strand, expression or label;"
        in problem
    )
    assert "give the metadata CSV of Chromoformer" in problem


@pytest.mark.parametrize("name", ["E003", "a", "H2A.Z", "all-1", "1_x"])
def test_names_of_cells_and_assays(name):
    assert NAME.fullmatch(name)


@pytest.mark.parametrize("name", ["", "all", "Each", "../E1", "a/b", ".a", "a b", "a+b"])
def test_names_that_would_mislead_are_none(name):
    assert not NAME.fullmatch(name)
