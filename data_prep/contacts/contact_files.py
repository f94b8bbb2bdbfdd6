"""Files of promoter contacts from capture Hi-C, in any of `FORMATS`, read and checked."""

import dataclasses
import hashlib
import pathlib
from typing import IO

import numpy as np
import pandas as pd

from data_prep.contacts import bedpe, chromoformer_pickles, ibed, washu
from data_prep.contacts.contact_format import COLUMNS, MOST_RECORDS, ContactFormat
from data_prep.formats.foreign import opened_as
from epi2expr_jax.errors import InputError, Problems
from epi2expr_jax.genome import find_chromosomes, listing

# A file is of the first format that recognises it. The name is kept in the manifest.
FORMATS: dict[str, ContactFormat] = {
    "chromoformer": chromoformer_pickles.FORMAT,
    "ibed": ibed.FORMAT,
    "washu": washu.FORMAT,
    "bedpe": bedpe.FORMAT,
}
_SNIFFED_LINES, _LONGEST_LINE = 10, 1 << 16


@dataclasses.dataclass(frozen=True, eq=False)
class ContactFile:
    """The contacts of one file, checked.

    Attributes:
        path: the file; of the pickles, that of neighbours.
        format: its name in `FORMATS`.
        sha256: of its content; of the pickles, of both.
        min_score: a contact's score must lie above it.
        table: one row a contact, columns `bait_chrom`, `bait_start`, `bait_end`, `chrom`, `start`,
            `end` (0-based, half-open, chromosomes as the assembly spells them) and `score`.
        left_out: why and how many contacts are not in it.
    """

    path: str
    format: str
    sha256: str
    min_score: float
    table: pd.DataFrame
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)


def read_contact_file(
    path: pathlib.Path,
    min_score: float | None,
    chrom_sizes: dict[str, int],
    problems: Problems,
    score_column: str = "",
) -> ContactFile:
    """Read a file of contacts in any of the formats. Text may be gzipped.

    Args:
        path: the file.
        min_score: the score that a contact's must lie above; None: the format's own.
        chrom_sizes: length of each chromosome of the assembly, in bp; `1` and `chr1` match.
        problems: takes what is wrong with single contacts, those of a kind together, naming their
            lines: positions that are not numbers, empty intervals, intervals beyond their
            chromosome's end, scores that are not finite. The other contacts are returned, but
            those without one of their ends (`.`, -1) or on a chromosome that the assembly lacks.
        score_column: name or number of the column of scores; empty: as the format has it.

    Raises:
        InputError: if the file cannot be read, is of none of the formats, or has no contact.
    """
    name = _recognise(path)
    kind = FORMATS[name]
    rows = kind.read(path, score_column)
    if rows.empty:
        raise InputError(str(path), "no contact", "a file of contacts", "give another file")
    rows, left_out = _on_assembly(path, rows, chrom_sizes)
    table = _check(path, rows, chrom_sizes, kind.first_base, problems)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in kind.files(path))).hexdigest()
    threshold = kind.min_score if min_score is None else float(min_score)
    return ContactFile(str(path), name, digest, threshold, table, left_out)


def _recognise(path: pathlib.Path) -> str:
    with opened_as(path, "a file of contacts") as file:
        lines = _first_lines(file)
    for name, kind in FORMATS.items():
        if kind.sniff(path, lines):
            return name
    pair = [line.split("\t") for line in lines[:2]]
    if [len(fields) for fields in pair] == [6, 6] and pair[0][4:] == pair[1][4:]:
        raise InputError(
            str(path),
            "CHiCAGO's seqMonk, a line for each end",
            "a line a contact",
            "export the interactions with CHiCAGO's format interBed",
            kind="other_format",
        )
    raise InputError(
        str(path),
        f"no known format of contacts (first line {lines[0][:80]!r})" if lines else "an empty file",
        f"one of: {'; '.join(kind.what for kind in FORMATS.values())}",
        "convert the file, or name it as its format does",
        kind="unknown_contacts",
    )


def _first_lines(file: IO[bytes]) -> list[str]:
    """The first lines that are not empty; of comments before them the last, which may name columns.

    Comments may be long.
    """
    comment, lines = [], []
    while len(lines) < _SNIFFED_LINES and (raw := file.readline(_LONGEST_LINE)):
        line = raw.decode("utf-8-sig", errors="replace").strip("\r\n")
        if line.startswith("#") and not lines:
            comment = [line]
        elif line.strip():
            lines.append(line)
    return comment + lines


def _on_assembly(
    path: pathlib.Path, rows: pd.DataFrame, chrom_sizes: dict[str, int]
) -> tuple[pd.DataFrame, dict[str, int]]:
    """The contacts both of whose ends are given and on the assembly; and how many are not.

    Raises:
        InputError: if all are elsewhere.
    """
    chroms = [rows[name] for name in ("bait_chrom", "chrom")]
    one_ended = (chroms[0] == ".") | (chroms[1] == ".")
    known = find_chromosomes({*chroms[0], *chroms[1]}, chrom_sizes)
    elsewhere = ~one_ended & ~(chroms[0].isin(list(known)) & chroms[1].isin(list(known)))
    kept = rows[~one_ended & ~elsewhere]
    if kept.empty:
        names = {*chroms[0], *chroms[1]} - set(known)
        raise InputError(
            f"{path}, {listing(rows['record'], MOST_RECORDS)}",
            f"no contact on a chromosome of the assembly, but on {listing(sorted(names))}",
            f"chromosomes of the assembly ({listing(chrom_sizes)})",
            "give the --assembly of the contacts, or write its names",
        )
    left_out = {
        "contacts without one of their ends": int(one_ended.sum()),
        "contacts on a chromosome that the assembly lacks": int(elsewhere.sum()),
    }
    return kept, {why: count for why, count in left_out.items() if count}


def _check(
    path: pathlib.Path,
    rows: pd.DataFrame,
    chrom_sizes: dict[str, int],
    first_base: int,
    problems: Problems,
) -> pd.DataFrame:
    """Numbers for text, 0-based and half-open, chromosomes as the assembly spells them."""
    sound = pd.Series(True, index=rows.index)

    def refuse(
        wrong: pd.Series, what: str, columns: list[str], expected: str, remedy: str, kind: str = ""
    ) -> None:
        sound[wrong] = False
        if wrong.any():
            some = rows[wrong]
            examples = some[columns].head(3).astype(str).agg(" ".join, axis=1)
            problems.add(
                f"{path}, {listing(some['record'], MOST_RECORDS)}",
                f"{len(some)} {what} ({listing(examples)})",
                expected,
                remedy,
                kind,
            )

    table = pd.DataFrame(index=rows.index)
    for side, columns in (("baits", COLUMNS[:3]), ("other ends", COLUMNS[3:6])):
        chrom, start, end = columns
        spelling = find_chromosomes(rows[chrom].unique(), chrom_sizes)
        table[chrom] = rows[chrom].map(spelling)
        length = table[chrom].map(chrom_sizes)
        low, high = (pd.to_numeric(rows[name], errors="coerce") for name in (start, end))
        whole = (low % 1 == 0) & (high % 1 == 0) & (low >= first_base)
        low -= first_base
        refuse(
            ~whole,
            f"{side} whose positions are not whole numbers",
            [start, end],
            f"a start and an end, counted from {first_base}",
            "correct the lines",
        )
        refuse(
            whole & (low >= high),
            f"{side} that end before they start",
            [start, end],
            "a start below its end",
            "correct the lines",
        )
        refuse(
            whole & (high > length),
            f"{side} beyond the end of their chromosome",
            columns,
            "intervals on the assembly",
            "give the --assembly of the contacts, or correct the lines",
            kind="contacts_off_chromosome",
        )
        table[start], table[end] = low, high
    score = pd.to_numeric(rows["score"], errors="coerce").astype(np.float64)
    refuse(
        ~score.abs().lt(np.inf),
        "scores that are not finite numbers",
        ["score"],
        "a number for every contact",
        "correct the lines, or leave them out",
    )
    table["score"] = score
    positions = dict.fromkeys([*COLUMNS[1:3], *COLUMNS[4:6]], np.int64)
    return table.loc[sound, COLUMNS].astype(positions)
