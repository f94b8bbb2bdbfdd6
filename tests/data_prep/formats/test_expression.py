import gzip

import numpy as np
import pytest

from data_prep.formats.expression import read_expression
from epi2expr_jax.errors import collect
from tests.data_prep.problems import problems_of

# As Roadmap writes it: a tab at the end of every row, none at the end of the header.
TRAP = "gene_id\tE001\tE002\nENSG01\t1.5\t2\t\nENSG02\t0\t3\t\n"


@pytest.fixture
def write(tmp_path):
    def write_table(text: str):
        path = tmp_path / "expression.txt"
        path.write_text(text)
        return path

    return write_table


def read(path, cells=None):
    with collect() as problems:
        return read_expression(path, cells, problems)


def problems(path, cells=None) -> list[str]:
    return list(map(str, problems_of(read, path, cells)))


def test_the_roadmap_matrix_is_not_shifted(shared_data):
    path = shared_data / "expression" / "57epigenomes.RPKM.pc.gz"
    table = read(path)
    assert table.shape == (19_795, 57)
    assert table.index.name == "gene_id"
    assert table.loc["ENSG00000116213", "E003"] == 4.554
    assert table["E128"].notna().all()
    with gzip.open(path, "rt") as lines:
        cells = next(lines).split()[1:]
        first = next(lines).split()
    assert list(table.columns) == cells
    assert table.index[0] == first[0]
    np.testing.assert_array_equal(table.iloc[0], np.array(first[1:], float))
    one = read(path, ["E128"])
    np.testing.assert_array_equal(one["E128"], table["E128"])


def test_a_tab_at_the_end_of_every_row_shifts_nothing(write):
    table = read(write(TRAP))
    assert list(table.columns) == ["E001", "E002"]
    np.testing.assert_array_equal(table, [[1.5, 2], [0, 3]])
    assert (table.dtypes == np.float64).all()


@pytest.mark.parametrize(
    "text",
    [
        TRAP.replace("E002\n", "E002\t\n"),
        TRAP.replace("\t\n", "\n"),
        TRAP.replace("\t\n", "\n").replace("\t", ","),
        '"gene","E001","E002"\n"ENSG01",1.5,2\n"ENSG02",0,3\n',
        "# RPKM\n" + TRAP + "\n\n",
        TRAP.replace("\n", "\r\n"),
        TRAP.replace("gene_id", ""),
    ],
)
def test_other_spellings_of_the_same_table(write, text):
    np.testing.assert_array_equal(read(write(text)), [[1.5, 2], [0, 3]])


def test_an_empty_last_value_is_missing(write):
    table = read(write("g\tE1\tE2\nENSG01\t1\t\nENSG02\t1\t2\n"))
    np.testing.assert_array_equal(table, [[1, np.nan], [1, 2]])


def test_versions_are_stripped_and_duplicates_refused(write):
    assert list(read(write("g,E1\nENSG01.4,1\nAT1G01010.1,2\n")).index) == [
        "ENSG01",
        "AT1G01010.1",
    ]
    (problem,) = problems(write("g,E1\nENSG01.4,1\nENSG01.5,1\nENSG02,2\nENSG02,2\nENSG03,1\n"))
    assert "2 gene ids listed twice (ENSG01, ENSG02)" in problem


def test_values_are_checked_with_gene_and_line(write):
    found = problems(write("g,E1,E2,E3\nA,1,x,-1\nB,2,inf,0\nC,3,4,NA\n"))
    assert len(found) == 2
    assert "column E2: found 2 values that are not finite numbers (A 'x' in line 2, B" in found[0]
    assert "column E3: found 1 negative values (A '-1' in line 2)" in found[1]


def test_only_the_cells_asked_for_are_checked(write):
    path = write("g,description,E1,E2,E3\nA,kinase,1,NA,NA\nB,ligase,2,,3\n")
    table = read(path, ["E3", "E1"])
    assert list(table.columns) == ["E3", "E1"]
    assert table["E3"].isna().tolist() == [True, False]
    assert "no value for any gene" in problems(path, ["E1", "E2"])[0]


def test_absent_cells_are_listed_with_what_there_is(write):
    (problem,) = problems(write(TRAP), ["E001", "E003", "E128"])
    assert "no column E003, E128" in problem
    assert "E001, E002" in problem


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no header"),
        ("g,E1\n", "no gene"),
        ("g\nA\n", "no cell"),
        ("g,E1,E1\nA,1,2\n", "named twice"),
        ("g,E1,,E2\nA,1,2,3\n", "without a name"),
        ("g,E1\n,2\n", "no gene id"),
    ],
)
def test_other_malformed_tables(write, text, found):
    assert found in " ".join(problems(write(text)))
