import pytest

from data_prep.contacts.washu import FORMAT
from tests.data_prep.problems import problems_of

ROW = ["chr1", "1000", "2000", "chr1", "50000", "55000", "3.5"]


@pytest.mark.parametrize(
    "line",
    [
        "chr1,1000,2000\tchr1,50000,55000\t3.5",
        "chr1:1000-2000\tchr1:50000-55000\t3.5",
        "chr1\t1000\t2000\tchr1:50000-55000,3.5",
        "chr1\t1000\t2000\tchr1:50000-55000,3.5\t1\t.",
    ],
)
def test_pairs_and_longrange_are_read(write, line):
    path = write(f"{line}\n", "x.txt")
    assert FORMAT.sniff(path, [line])
    assert FORMAT.read(path).values.tolist() == [[*ROW, "line 1"]]
    (problem,) = problems_of(FORMAT.read, write(f"{line}\nchr1\t5\n", "x.txt"))
    assert problem.where == f"{path}, line 2"


def test_other_tables_are_not_taken_for_it(write):
    for line in ("\t".join(ROW), "chr1,5,9", "chr1\t5\t9\tname"):
        assert not FORMAT.sniff(write(line), [line])
