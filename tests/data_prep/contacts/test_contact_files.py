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
    path = write(bedpe([*CONTACTS, (BAIT, BAIT, "?"), (BAIT, ("chr7", 1, 2), 9)]))
    assert rows(read_contact_file(path, None, SIZES, problems)) == flat(CONTACTS)
    found = problems.found
    assert [problem.where for problem in found] == [f"{path}, line 6", f"{path}, line 5"]
    assert found[0].expected == "chromosomes of the assembly (chr1, chr2)"
    assert "give the --assembly of the contacts" in found[0].remedy


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
        "other ends on a chromosome that the assembly lacks (chr7)": "line 6",
        "baits on a chromosome that the assembly lacks (chr9)": "line 7",
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
    path = pickles(tmp_path, [(BAIT, ("chr1", "60", "x"), 2.0), (BAIT, ("chr7", 5, 9), 2.0)])
    text = "\n".join(problems(path))
    assert "chr1:1000-2000 to chr1:60-x: found 1 other ends whose positions" in text
    assert "chr1:1000-2000 to chr7:5-9: found 1 other ends on a chromosome" in text
