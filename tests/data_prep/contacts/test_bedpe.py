import pytest

from data_prep.contacts.bedpe import FORMAT
from tests.data_prep.contact_texts import CONTACTS, bedpe
from tests.data_prep.problems import problems_of


@pytest.mark.parametrize(
    ("name", "lines", "known"),
    [
        ("x.bedpe", [], True),
        ("x.bedpe.gz", ["?"], True),
        ("x.txt", bedpe(CONTACTS).splitlines(), True),
        ("x", ["# by hand", *bedpe(CONTACTS).splitlines()[1:]], True),
        ("x", ["chr1 5 9 chr1 20 30 name 1.5"], True),
        ("x", ["chr1 5 9 chr1 20 30 1.5"], False),  # no name
        ("x.bed", ["chr1\t5\t9\tname\t1.5\t+\t5\t9\t0"], False),
        ("x.gtf", ['chr1\tx\tgene\t5\t9\t.\t+\t.\tgene_id "A";'], False),
        ("x.csv", ["a,b,c", "1,2,3"], False),
        ("x", [], False),
    ],
)
def test_it_is_known_by_its_suffix_or_its_positions(tmp_path, name, lines, known):
    assert FORMAT.sniff(tmp_path / name, lines) == known


def test_a_header_is_known_by_its_mark_or_by_its_words(write):
    plain = bedpe(CONTACTS)
    for text in (plain, bedpe(CONTACTS, mark="#"), plain.partition("\n")[2]):
        rows = FORMAT.read(write(text))
        assert rows.score.tolist() == ["3.5", "7.25", "6.0"]
    assert rows.record.tolist() == ["line 1", "line 2", "line 3"]
    assert rows.iloc[0].tolist()[:6] == ["chr1", "1000", "2000", "chr1", "50000", "55000"]


def test_lines_of_too_few_fields_are_named(write):
    (problem,) = problems_of(FORMAT.read, write("chr1\t5\t9\tchr1\t20\t30\t2.5\n"))
    assert problem.found == "1 lines of too few fields"
    assert problem.expected == "at least 8: chrom start end, twice; name; score"
