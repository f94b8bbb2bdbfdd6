import gzip
import hashlib

import pytest

from data_prep.contacts.contact_files import FORMATS, read_contact_file
from epi2expr_jax.errors import Problems, collect
from tests.data_prep.contact_texts import BAIT, CONTACTS, SECOND, SIZES, bedpe, ibed, pickles
from tests.data_prep.problems import problems_of


def read(path, min_score=None):
    with collect() as problems:
        return read_contact_file(path, min_score, SIZES, problems)


def rows(found) -> list[tuple]:
    return list(found.table.itertuples(index=False, name=None))


def flat(contacts) -> list[tuple]:
    return [(*bait, *other, score) for bait, other, score in contacts]


def problems(path) -> list[str]:
    return list(map(str, problems_of(read, path)))


def test_all_formats_say_the_same(write, tmp_path):
    plain = bedpe(CONTACTS)
    texts = [
        plain,
        bedpe(CONTACTS, mark="#"),
        plain.partition("\n")[2],
        "# made by hand\n" + plain.replace("\tx\t", "\ta b\t"),
        plain.replace("chr1", "1"),
        plain.replace("50000", "5e+04"),
        plain.replace("\t", "  "),
    ]
    for text in texts:
        assert rows(read(write(text))) == flat(CONTACTS)
    (tmp_path / "packed").write_bytes(gzip.compress(plain.encode()))
    assert rows(read(tmp_path / "packed")) == flat(CONTACTS)
    # CHiCAGO counts from 1 and includes the end
    assert rows(read(write(ibed(CONTACTS), "any name"))) == flat(CONTACTS)
    assert rows(read(pickles(tmp_path, CONTACTS))) == flat(CONTACTS)


def test_a_file_is_known_after_whatever_many_comments(write):
    comments = "# made by hand\n" * 5000
    for text, kind in ((bedpe(CONTACTS).partition("\n")[2], "bedpe"), (ibed(CONTACTS), "ibed")):
        assert read(write(comments + text, "x")).format == kind


def test_a_file_is_known_by_its_format_content_and_least_score(write, tmp_path):
    text = write(bedpe(CONTACTS))
    neighbours = pickles(tmp_path, CONTACTS)
    scores = tmp_path / "H1_pair2score.pickle"
    for path, kind, least, content in (
        (text, "bedpe", 1.5, text.read_bytes()),
        (write(ibed(CONTACTS), "x"), "ibed", 5.0, ibed(CONTACTS).encode()),
        (neighbours, "chromoformer", 1.5, neighbours.read_bytes() + scores.read_bytes()),
    ):
        found = read(path)
        assert (found.path, found.format) == (str(path), kind)
        assert found.min_score == least == FORMATS[kind].min_score
        assert found.sha256 == hashlib.sha256(content).hexdigest()
        assert read(path, 0).min_score == 0


def test_sound_contacts_are_returned_whatever_is_wrong_with_others(write):
    problems = Problems()
    others = [(BAIT, BAIT, "?"), (BAIT, ("chr7", 1, 2), 9), ((".", -1, -1), BAIT, 9)]
    path = write(bedpe([*CONTACTS, *others]))
    file = read_contact_file(path, None, SIZES, problems)
    assert rows(file) == flat(CONTACTS)
    assert file.left_out == {
        "contacts without one of their ends": 1,
        "contacts on a chromosome that the assembly lacks": 1,
    }
    assert [problem.where for problem in problems.found] == [f"{path}, line 5"]


def test_a_column_of_scores_is_refused_where_there_is_none(write, tmp_path):
    pairs = write("chr1,1000,2000\tchr1,50000,55000\t3.5\n")
    for path in (pairs, pickles(tmp_path, CONTACTS)):
        (problem,) = problems_of(read_contact_file, path, None, SIZES, Problems(), "reads")
        assert problem.found.startswith("--score_column=reads for ")


def test_contacts_of_another_assembly_are_refused(write):
    (problem,) = problems_of(read, write(bedpe([(BAIT, ("chr7", 1, 2), 9)])))
    assert problem.found == "no contact on a chromosome of the assembly, but on chr7"
    assert problem.expected == "chromosomes of the assembly (chr1, chr2)"
    assert "give the --assembly of the contacts" in problem.remedy


FITHICHIP = """chr1\ts1\te1\tchr2\ts2\te2\tcc\tCoverage1\tisPeak1\tQ-Value_Bias
chr1\t1000\t2000\tchr1\t50000\t55000\t17\t914\t1\t0.9
chr1\t1000\t2000\tchr1\t60000\t61500\t99\t3\t1\t1e-30
"""


def test_the_score_is_in_the_column_that_is_named(write):
    path = write(FITHICHIP, "x.bedpe")
    (problem,) = problems_of(read, path)
    assert problem.kind == "unknown_score"
    assert "cc, Coverage1, isPeak1" in problem.found
    assert "--score_column=NAME" in problem.remedy

    def scores(name, text=FITHICHIP):
        file = read_contact_file(write(text), 0, SIZES, Problems(), name)
        return [round(score, 3) for score in file.table.score]

    assert scores("CC") == scores("7") == [17, 99]
    # A low q value is a good one: -log10 of it is the score.
    assert scores("Q-Value_Bias") == [0.046, 30]
    assert scores("", FITHICHIP.replace("cc", "score").replace("Coverage1", "x")) == [17, 99]
    assert scores("8", FITHICHIP.partition("\n")[2]) == [914, 3]


def test_positions_may_be_written_as_numbers_with_a_point(write):
    text = bedpe(CONTACTS).replace("000\t", "000.0\t")
    assert rows(read(write(text))) == rows(read(write(text.partition("\n")[2]))) == flat(CONTACTS)


def test_a_peak_matrix_counts_from_1_and_has_a_column_a_cell(write):
    names = ["baitChr", "baitStart", "baitEnd", "baitID", "oeChr", "oeStart", "oeEnd", "Mon", "nB"]
    lines = ["\t".join(names), "1\t1001\t2000\t7\t1\t50001\t55000\t3.5\t9"]
    path = write("\n".join(lines), "matrix.txt")
    assert problems_of(read, path)[0].kind == "unknown_score"
    file = read_contact_file(path, None, SIZES, Problems(), "Mon")
    assert (file.format, rows(file)) == ("ibed", flat(CONTACTS[:1]))


def test_seqmonk_and_foreign_files_are_named(write):
    text = "chr1\t5\t9\tA\t7\t2.5\nchr1\t50\t90\tB\t7\t2.5\n"
    assert "seqMonk" in problems(write(text, "x.txt"))[0]
    assert "a .hic contact map" in problems(write("HIC\0", "x.hic"))[0]


def test_bad_lines_are_named_by_kind_and_all_at_once(write):
    good = (SECOND, ("chr1", 70_000, 75_000), 6.0)
    contacts = [
        good,
        (BAIT, ("chr1", "x", 5), 2.0),
        (BAIT, ("chr1", 1.5, 5), 2.0),
        (BAIT, ("chr1", 700, 600), 2.0),
        (BAIT, ("chr7", 5, 60), 2.0),
        (("chr9", 5, 60), BAIT, 2.0),
        (BAIT, ("chr2", 199_000, 200_001), 2.0),
        (BAIT, ("chr1", 5, 60), "nan"),
        (BAIT, ("chr1", 5, 60), "."),
        (BAIT, ("chr1", 5, 60), "inf"),
        (("chr1", -1, 60), ("chr1", 5, 60), 2.0),
    ]
    found = problems(write(bedpe(contacts)))
    kinds = {
        "other ends whose positions are not whole numbers (x 5, 1.5 5)": "line 3, line 4",
        "other ends that end before they start (700 600)": "line 5",
        "other ends beyond the end of their chromosome (chr2 199000 200001)": "line 8",
        "scores that are not finite numbers (nan, ., inf)": "line 9, line 10, line 11",
        "baits whose positions are not whole numbers (-1 60)": "line 12",
    }
    assert len(found) == len(kinds)
    for kind, lines in kinds.items():
        (problem,) = [text for text in found if kind in text]
        assert f"contacts.bedpe, {lines}: found" in problem
    many = problems(write(bedpe([good] + [(BAIT, BAIT, "?")] * 50)))
    assert "line 22 and 30 more: found 50 scores" in many[0]
    # the last base of a chromosome is on it, and in an .ibed there is no base 0
    last = (BAIT, ("chr1", 999_000, 1_000_000), 2.0)
    assert rows(read(write(bedpe([last])))) == flat([last])
    zero = ibed([(BAIT, ("chr1", -1, 60), 9.0)])
    assert "line 2: found 1 other ends whose positions" in problems(write(zero, "x.ibed"))[0]


@pytest.mark.parametrize(
    ("text", "name", "found"),
    [
        ("", "x.bedpe", "no contact"),
        (bedpe([]), "x.bedpe", "no contact"),
        (ibed([]), "x.ibed", "no contact"),
        ("chr1\t5\t9\tchr1\t20\t30\t2.5\n", "x.bedpe", "line 1: found 1 lines of too few fields"),
        (ibed(CONTACTS).replace("score", "pvalue"), "x.ibed", "without score"),
        (bedpe(CONTACTS), "x.ibed", "without bait_chr"),
    ],
)
def test_files_without_contacts_are_refused(write, text, name, found):
    (problem,) = problems(write(text, name))
    assert found in problem
    assert name in problem


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("chr1,5,9\n", "no known format of contacts (first line 'chr1,5,9')"),
        ("\n", "an empty file"),
        ("chr1\t5\t9\tA\t0\t+\n", "no known format of contacts"),
    ],
)
def test_a_file_of_no_known_format_is_refused_and_the_known_ones_named(write, text, found):
    path = write(text, "contacts.txt")
    (problem,) = problems_of(read, path)
    assert problem.where == str(path)
    assert problem.found.startswith(found)
    assert problem.kind == "unknown_contacts"
    for kind in FORMATS.values():
        assert kind.what in problem.expected


def test_pairs_of_pickles_are_named_by_their_fragments(tmp_path):
    path = pickles(tmp_path, [(BAIT, ("chr1", "60", "x"), 2.0), (BAIT, ("chr1", 5, 9), 2.0)])
    (text,) = problems(path)
    assert "chr1:1000-2000 to chr1:60-x: found 1 other ends whose positions" in text
