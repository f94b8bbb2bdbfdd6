import gzip

import pytest

from data_prep.formats.text import is_number, read_delimited, read_rows, read_text
from epi2expr_jax.errors import InputError

TABLE = "gene\tE1\tE2\nA\t1.5\t2\nB\t0\t3\n"
LINES = [(1, ["gene", "E1", "E2"]), (2, ["A", "1.5", "2"]), (3, ["B", "0", "3"])]


@pytest.fixture
def write(tmp_path):
    def write_file(content: str | bytes):
        path = tmp_path / "table.txt"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write_file


def problems(path) -> list[str]:
    with pytest.raises(InputError) as caught:
        list(read_delimited(path))
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    "content",
    [
        TABLE,
        TABLE.replace("\t", ","),
        TABLE.replace("\t", " , "),
        TABLE.replace("\n", "\r\n"),
        "\ufeff" + TABLE,
        TABLE.replace("A\t", '"A"\t').replace("gene", '"gene"'),
        TABLE.replace("2\n", "2\t\n"),
        TABLE.replace("\t", ",").replace("\n", ",,\n"),
        TABLE.replace("\t", ";"),
        "#" + TABLE,
        gzip.compress(TABLE.encode(), mtime=0),
    ],
)
def test_spellings_of_one_table(write, content):
    assert list(read_delimited(write(content))) == LINES


def test_lines_are_counted_as_an_editor_counts_them(write):
    text = "# made by hand\n\ngene,E1\n\nA,1\n  \n# no\nB,2\n"
    assert list(read_delimited(write(text))) == [
        (3, ["gene", "E1"]),
        (5, ["A", "1"]),
        (8, ["B", "2"]),
    ]


def test_a_comment_of_as_many_fields_is_the_header(write):
    assert read_rows(write("#a\tb c\n# gene\tE1\nA\t1\n")) == [(2, ["gene", "E1"]), (3, ["A", "1"])]
    assert read_rows(write("# made, by hand\ngene\tE1\n")) == [(2, ["gene", "E1"])]
    assert read_rows(write("# by hand\ngenes\nA\n")) == [(2, ["genes"]), (3, ["A"])]


def test_gzip_is_recognised_by_content(write):
    assert read_text(write(gzip.compress(TABLE.encode()))) == read_text(write(TABLE)) == TABLE


def cut_and_damaged() -> list[bytes]:
    packed = gzip.compress(TABLE.encode() * 100)
    return [packed[:-20], packed[:10] + b"\xff" * 20, b"gene\xff"]


FOUND = ["a damaged gzip file", "a damaged gzip file", "text that is not UTF-8"]


@pytest.mark.parametrize(
    ("content", "found"),
    list(zip(cut_and_damaged(), FOUND, strict=True)),
    ids=["cut", "damaged", "no text"],
)
def test_what_cannot_be_unpacked_or_decoded_is_refused(write, content, found):
    path = write(content)
    with pytest.raises(InputError, match=f"{path}: found {found}"):
        read_text(path)


def test_a_missing_file_is_named(tmp_path):
    (problem,) = problems(tmp_path / "absent.gz")
    assert f"{tmp_path / 'absent.gz'}: found nothing that can be read (No such file" in problem
    assert "expected a text file, plain or gzipped; check the path" in problem


def test_a_row_with_another_number_of_fields_is_named(write):
    found = problems(write(TABLE + "C\t1\nD\t1\t2\t3\nE\t1\t\t2\t\n"))
    assert [problem.split(":")[0].rpartition(" ")[2] for problem in found] == ["4", "5", "6"]
    assert "line 4: found 2 fields; expected 3 fields, as in the header; correct" in found[0]
    many = problems(write(TABLE + "C\n" * 50))
    assert len(many) == 21
    assert "found 1 fields, and 29 more problems" in many[-1]


def test_an_empty_last_field_is_a_field(write):
    assert list(read_delimited(write("g\tE1\tE2\nA\t1\t\n")))[1] == (2, ["A", "1", ""])


def test_a_header_without_the_first_column_is_refused(write):
    # R's write.table leaves out the name of the row names.
    (problem,) = problems(write("E1\tE2\nENSG01\t1\t2\n"))
    assert "name the first column" in problem


def test_a_stray_quotation_mark_spoils_its_line_alone(write):
    (problem,) = problems(write('g,E1\n"A,1\nB,2\n'))
    assert "line 2: found 1 fields" in problem


@pytest.mark.parametrize("text", ["", "\n\n", "# only this\n"])
def test_a_file_without_a_header_is_refused(write, text):
    assert "found no header; expected a table with a header line" in problems(write(text))[0]


def test_numbers_are_whole_and_of_a_length_that_python_reads():
    assert all(map(is_number, ["0", "007", "9" * 18]))
    assert not any(map(is_number, ["", "-1", "1.0", "1e3", "²", "9" * 5000]))
