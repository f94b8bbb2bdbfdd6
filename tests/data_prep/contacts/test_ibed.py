from data_prep.contacts.ibed import FORMAT
from tests.data_prep.contact_texts import CONTACTS, bedpe, ibed
from tests.data_prep.problems import problems_of


def test_it_is_known_by_its_suffix_or_its_header(tmp_path):
    assert FORMAT.sniff(tmp_path / "x.ibed.gz", [])
    assert FORMAT.sniff(tmp_path / "x.txt", ibed(CONTACTS).splitlines())
    assert FORMAT.sniff(tmp_path / "x.txt", ["#" + ibed(CONTACTS).partition("\n")[0]])
    assert not FORMAT.sniff(tmp_path / "x.txt", bedpe(CONTACTS).splitlines())
    assert not FORMAT.sniff(tmp_path / "x.txt", [])


def test_comments_before_the_header_are_skipped(tmp_path, write):
    plain = ibed(CONTACTS)
    text = f"# made by hand\n# of some cells\n{plain}"
    rows, expected = FORMAT.read(write(text, "x.ibed")), FORMAT.read(write(plain, "y.ibed"))
    assert rows.drop(columns="record").equals(expected.drop(columns="record"))
    assert rows.record[0] == "line 4"
    assert FORMAT.sniff(tmp_path / "x.txt", text.splitlines()[1:])


def test_columns_are_found_by_the_header(write):
    lines = [line.split("\t") for line in ibed(CONTACTS).splitlines()]
    turned = "\n".join("\t".join(reversed(line)) for line in lines)
    rows = FORMAT.read(write(turned, "x.ibed"))
    assert rows.equals(FORMAT.read(write(ibed(CONTACTS), "x.ibed")))
    assert rows.iloc[0].tolist() == ["chr1", "1001", "2000", "chr1", "50001", "55000", "3.5",
                                     "line 2"]  # fmt: skip


def test_what_the_header_lacks_is_named(write):
    (problem,) = problems_of(FORMAT.read, write(ibed(CONTACTS).replace("score", "pvalue")))
    assert problem.where.endswith(", header")
    assert problem.found.endswith("without score")
    (problem,) = problems_of(FORMAT.read, write(bedpe(CONTACTS)))
    assert "without bait_chr" in problem.found
