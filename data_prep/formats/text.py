"""Text files, plain or gzipped, and the delimited tables in them, with line numbers."""

import csv
import gzip
import pathlib
import zlib
from collections.abc import Iterator

from epi2expr_jax.errors import InputError, Problem

_MOST_LINES = 20  # of one kind of mistake; a table with more has one cause


def read_delimited(path: str | pathlib.Path) -> Iterator[tuple[int, list[str]]]:
    """The lines of a table with a header: line number and fields, the header first.

    Tab-separated if the header has a tab, else comma-separated; gzipped or not, as its first
    bytes say. Empty lines are passed over; a line that begins with `#` before the header too.

    Raises:
        InputError: if the file cannot be read, or naming every line (up to a number) whose
            fields are not as many as the header's. An empty field too many is no mistake.
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
        problem = Problem(str(path), f"no table ({error})", "delimited text", "give another file")
        raise InputError.of(problem) from None
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
    if wrong:
        expected = f"{len(header)} fields, as in the header"
        remedy = "correct the line"
        if len(wrong) == len(fields) - 1 and {count for _, count in wrong} == {len(header) + 1}:
            remedy = "name the first column in the header: every line has one field more"
        problems = [
            Problem(f"{path}, line {number}", f"{count} fields", expected, remedy)
            for number, count in wrong[:_MOST_LINES]
        ]
        if len(wrong) > _MOST_LINES:
            more = f"{len(wrong) - _MOST_LINES} more such lines"
            problems.append(Problem(str(path), more, expected, remedy))
        raise InputError.of(problems)
    yield numbered[0][0], header
    for (number, _), row in zip(numbered[1:], fields[1:], strict=True):
        yield number, row


def read_text(path: str | pathlib.Path) -> str:
    """The text of a file, unpacked if it is gzipped.

    Raises:
        InputError: if it cannot be read, unpacked or decoded.
    """
    try:
        content = pathlib.Path(path).read_bytes()
        if content[:2] == b"\x1f\x8b":
            content = gzip.decompress(content)
        return content.decode("utf-8-sig")
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            str(path),
            f"an unreadable file ({reason})",
            "a text file, plain or gzipped",
            "check the path, or download the file again",
        ) from None
