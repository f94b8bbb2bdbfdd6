"""Text files, plain or gzipped, and the delimited tables in them, with line numbers."""

import collections
import csv
import pathlib
import re
from collections.abc import Iterator, Sequence

from data_prep.formats.foreign import OLD_MAC, opened_as
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import lines_of

MOST_LINES = 20  # that the errors of a file name; a file with more bad lines has one fault
NO_RECORDS = ("#", "track ", "track\t", "browser ", "browser\t")  # how such lines of a BED begin


def read_delimited(path: str | pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a table with a header: line number and fields, the header first; `read_rows`.

    Raises:
        InputError: if the file cannot be read, or naming the lines that do not have as many fields
            as the header.
    """
    numbered = read_rows(path)
    if not numbered:
        raise InputError(str(path), "no header", "a table with a header line", "give another file")
    header = numbered[0][1]
    counts = collections.Counter(len(row) for _, row in numbered[1:])
    remedy = "correct the line"
    if set(counts) == {len(header) + 1}:
        remedy = "name the first column in the header: every line has one field more"
    with collect(most=MOST_LINES) as problems:
        for number, row in numbered[1:]:
            if len(row) != len(header):
                expected = f"{len(header)} fields, as in the header"
                problems.add(f"{path}, line {number}", f"{len(row)} fields", expected, remedy)
    yield from numbered


def read_rows(
    path: str | pathlib.Path, what: str = "a text file, plain or gzipped"
) -> list[tuple[int, list[str]]]:
    """The lines of a table: line number and fields without blanks around them, the header first.

    Fields end at tabs if the header has a tab; else at semicolons if it has more of them than of
    commas, as spreadsheets of many countries write; else at commas; without any at blanks. Lines
    without a field are left out, and those that begin with `#`; but the last of these before the
    header is the header if it has as many fields as the line after it. Empty fields beyond the last
    that the header names are left out.

    Args:
        what: the kind of table expected, for the error.

    Raises:
        InputError: if the file cannot be read.
    """
    numbered = numbered_lines(path, what)
    comment = None
    while numbered and numbered[0][1].startswith("#"):
        comment = numbered.pop(0)
    if not numbered:
        return []
    first = numbered[0][1]
    separator = separator_of(first) or (" " if " " in first.strip() else ",")
    if comment and comment[1].count(separator) == first.count(separator) > 0:
        numbered.insert(0, (comment[0], comment[1].lstrip("# ")))
    # Line by line, so that a stray quotation mark cannot swallow the lines after it.
    try:
        rows = [
            (number, [field.strip() for field in split_fields(line, separator)])
            for number, line in numbered
            if not line.startswith("#")
        ]
    except csv.Error as error:
        found = f"no table ({error})"
        raise InputError(str(path), found, "delimited text", "give another file") from None
    rows = [(number, row) for number, row in rows if any(row)]
    named = len(rows[0][1]) if rows else 0
    while named > 1 and not rows[0][1][named - 1]:
        named -= 1
    for _, row in rows:
        while len(row) > named and not row[-1]:
            row.pop()
    return rows


def numbered_lines(
    path: str | pathlib.Path, what: str = "a text file, plain or gzipped"
) -> list[tuple[int, str]]:
    """The lines of a text that are not empty, and their numbers; without Excel's `sep=;`.

    Raises:
        InputError: as `read_text`.
    """
    lines = enumerate(lines_of(read_text(path, what)), start=1)
    return [
        (number, line)
        for number, line in lines
        if line.strip() and not (number == 1 and re.fullmatch(r"\"?sep=.?\"?", line.strip()))
    ]


def split_fields(line: str, separator: str) -> list[str]:
    """Fields, which may be in quotation marks; of blanks several count as one."""
    blanks = separator == " "
    text = line.strip() if blanks else line
    return next(csv.reader([text], delimiter=separator, skipinitialspace=blanks))


def separator_of(line: str) -> str:
    """What ends the fields of a line: a tab, else a semicolon or comma; empty without any."""
    if "\t" in line:
        return "\t"
    return ";" if line.count(";") > line.count(",") else "," if "," in line else ""


def is_number(text: str) -> bool:
    """Whether a text is a whole number that a position may be; Python reads no longer ones."""
    return text.isdecimal() and len(text) <= 18


def position(text: str) -> int | None:
    """A whole number that a position may be, also as other programs write it (`100.0`); or None."""
    whole, point, rest = text.partition(".")
    return int(whole) if is_number(whole) and (not point or rest.strip("0") == "") else None


def is_header(fields: Sequence[str]) -> bool:
    """Whether fields that should be positions are words, as in a header that is not marked."""
    return bool(fields) and all(field.strip()[:1].isalpha() for field in fields)


def read_text(path: str | pathlib.Path, what: str = "a text file, plain or gzipped") -> str:
    """The text of a file, unpacked if it is gzipped.

    Args:
        what: the kind of file expected, for the error.

    Raises:
        InputError: if it cannot be read, unpacked or decoded, or is recognised as another kind.
    """
    with opened_as(path, what, OLD_MAC) as file:
        content = file.read()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        remedy = (
            "save it as UTF-8 (of Latin letters: iconv -f LATIN1 -t UTF-8), or download it again"
        )
        found = f"text that is not UTF-8 ({error})"
        raise InputError(str(path), found, what, remedy) from None
