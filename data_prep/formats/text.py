"""Text files, plain or gzipped, and the delimited tables in them, with line numbers."""

import csv
import pathlib
from collections.abc import Iterator

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import read_bytes

MOST_LINES = 20  # that the errors of a file name; a file with more bad lines has one fault


def read_delimited(path: str | pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a table with a header: line number and fields, the header first.

    Tab-separated if the header has a tab, else comma-separated; gzipped or not, as its first
    bytes say. Empty lines are ignored; so is a line that begins with `#` before the header.

    Raises:
        InputError: if the file cannot be read, or naming the lines that do not have as many fields
            as the header. One empty field too many is allowed.
    """
    lines = enumerate(read_text(path).splitlines(), start=1)
    numbered = [(number, line) for number, line in lines if line.strip()]
    while numbered and numbered[0][1].startswith("#"):
        numbered.pop(0)
    if not numbered:
        raise InputError(str(path), "no header", "a table with a header line", "give another file")
    separator = "\t" if "\t" in numbered[0][1] else ","
    # Line by line, so that a stray quotation mark cannot swallow the lines after it.
    try:
        rows = [next(csv.reader([line], delimiter=separator)) for _, line in numbered]
    except csv.Error as error:
        found = f"no table ({error})"
        raise InputError(str(path), found, "delimited text", "give another file") from None
    fields = [[field.strip() for field in row] for row in rows]
    header = fields[0]
    if len(header) > 1 and not header[-1]:
        header.pop()
    wrong = []
    for (number, _), row in zip(numbered[1:], fields[1:], strict=True):
        if len(row) == len(header) + 1 and not row[-1]:
            row.pop()
        if len(row) != len(header):
            wrong.append((number, len(row)))
    remedy = "correct the line"
    if len(wrong) == len(fields) - 1 and {count for _, count in wrong} == {len(header) + 1}:
        remedy = "name the first column in the header: every line has one field more"
    with collect(most=MOST_LINES) as problems:
        for number, count in wrong:
            expected = f"{len(header)} fields, as in the header"
            problems.add(f"{path}, line {number}", f"{count} fields", expected, remedy)
    yield numbered[0][0], header
    for (number, _), row in zip(numbered[1:], fields[1:], strict=True):
        yield number, row


def is_number(text: str) -> bool:
    """Whether a text is a whole number that a position may be; Python reads no longer ones."""
    return text.isdecimal() and len(text) <= 18


def read_text(path: str | pathlib.Path) -> str:
    """The text of a file, unpacked if it is gzipped.

    Raises:
        InputError: if it cannot be read, unpacked or decoded.
    """
    expected = "a text file, plain or gzipped"
    try:
        return read_bytes(path, expected).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        found, remedy = f"text that is not UTF-8 ({error})", "save or download the file again"
        raise InputError(str(path), found, expected, remedy) from None
