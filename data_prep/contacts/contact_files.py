"""Files of promoter contacts from capture Hi-C, in three formats, each contact with its bait first.

BEDPE     chrom1 start1 end1 chrom2 start2 end2 name score …, with or without a header;
          0-based, half-open
.ibed     of CHiCAGO, with its header; 1-based, closed
pickles   of Chromoformer: TISSUE_frag2neighbors.pickle, a dict of fragments (`chr:start-end`,
          0-based, half-open) and the set of their neighbours, and beside it
          TISSUE_pair2score.pickle, a dict of (fragment, neighbour) and their score
"""

import dataclasses
import hashlib
import pathlib
from typing import Any

import numpy as np
import pandas as pd

from data_prep.contacts.plain_pickle import load_plain
from data_prep.formats.text import read_text
from epi2expr_jax.errors import InputError, Problem, report
from epi2expr_jax.genome import listing, match_chromosomes

# A contact's score must lie above this. The scores are of different kinds: Chromoformer's cut is
# on 3DIV's values, which its BEDPE files hold too; CHiCAGO's is the one its authors advise.
DEFAULT_MIN_SCORE = {"bedpe": 1.5, "chromoformer": 1.5, "ibed": 5.0}
# CHiCAGO copies the restriction fragments of its .rmap, and HiCUP's digester, which makes that,
# numbers bases from 1: the first fragment of a chromosome is 1-11159, the next 11160-11507.
_FIRST_BASE = {"bedpe": 0, "chromoformer": 0, "ibed": 1}

_COLUMNS = ["bait_chrom", "bait_start", "bait_end", "chrom", "start", "end", "score"]
_BEDPE = [0, 1, 2, 3, 4, 5, 7]
_IBED = [
    *("bait_chr", "bait_start", "bait_end"),
    *("otherEnd_chr", "otherEnd_start", "otherEnd_end", "score"),
]
_MOST_RECORDS = 20  # that a message names


@dataclasses.dataclass(frozen=True, eq=False)
class ContactFile:
    """The contacts of one file, checked.

    Attributes:
        path: the file; of the pickles, that of neighbours.
        format: `bedpe`, `ibed` or `chromoformer`.
        sha256: of its content; of the pickles, of both.
        min_score: a contact's score must lie above it.
        table: one row a contact, columns `bait_chrom`, `bait_start`, `bait_end`, `chrom`, `start`,
            `end` (0-based, half-open, chromosomes as the assembly spells them) and `score`.
    """

    path: str
    format: str
    sha256: str
    min_score: float
    table: pd.DataFrame


def read_contact_file(
    path: pathlib.Path,
    min_score: float | None,
    chrom_sizes: dict[str, int],
    problems: list[Problem] | None = None,
) -> ContactFile:
    """Read a file of contacts in any of the formats.

    Args:
        path: pickles by their suffix (.pickle, .pkl) and the name of the neighbours' one; an .ibed
            by its header or suffix; any other is a BEDPE. Text may be gzipped.
        min_score: the score that a contact's must lie above; None: the format's own.
        chrom_sizes: length of each chromosome of the assembly, in bp; `1` and `chr1` match.
        problems: where given, problems of single contacts are added to it instead of being
            raised, and the others are returned.

    Raises:
        InputError: with every problem, those of a kind together, naming their lines: positions
            that are no numbers, empty intervals, chromosomes the assembly lacks, intervals beyond
            their chromosome's end, scores that are no finite numbers.
    """
    if path.suffix in (".pickle", ".pkl"):
        kind, rows, files = "chromoformer", *_read_pickles(path)
    else:
        kind, rows = _read_lines(path)
        files = [path]
    if rows.empty:
        raise InputError(str(path), "no contact", "a file of contacts", "give another file")
    table = _check(path, rows, chrom_sizes, _FIRST_BASE[kind], problems)
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    threshold = DEFAULT_MIN_SCORE[kind] if min_score is None else float(min_score)
    return ContactFile(str(path), kind, digest, threshold, table)


def _read_lines(path: pathlib.Path) -> tuple[str, pd.DataFrame]:
    """A BEDPE or .ibed as text: its format, and `_COLUMNS` with the `record` each row is."""
    numbered = [
        (number, line)
        for number, line in enumerate(read_text(path).splitlines(), start=1)
        if line.strip()
    ]
    # The last line is no comment; names of fragments may hold blanks.
    separator = "\t" if numbered and "\t" in numbered[-1][1] else None
    rows = [(number, line.split(separator)) for number, line in numbered]
    header = [name.strip().lstrip("#") for name in rows[0][1]] if rows else []
    if "bait_chr" in header or ".ibed" in path.suffixes:
        kind, names = "ibed", _IBED
        missing = [name for name in names if name not in header]
        if missing:
            raise InputError(
                f"{path}, header",
                f"columns {listing(header, most=12)}, without {', '.join(missing)}",
                f"the header of CHiCAGO's .ibed: {', '.join(names)}",
                "export the interactions with CHiCAGO's format interBed",
            )
        places, rows = [header.index(name) for name in names], rows[1:]
    else:
        kind, places = "bedpe", _BEDPE
        rows = [(number, fields) for number, fields in rows if not fields[0].startswith("#")]
        # A header without a mark: no number where the positions should be.
        if rows and not any(field.strip().isdigit() for field in rows[0][1][1:6]):
            rows = rows[1:]
    short = [f"line {number}" for number, fields in rows if len(fields) <= max(places)]
    if short:
        raise InputError(
            f"{path}, {listing(short, _MOST_RECORDS)}",
            f"{len(short)} lines of too few fields",
            f"at least {max(places) + 1}: "
            + ("as in the header" if kind == "ibed" else "chrom start end, twice; name; score"),
            "correct the lines",
        )
    columns: dict[str, Any] = {
        name: [fields[place].strip() for _, fields in rows]
        for name, place in zip(_COLUMNS, places, strict=True)
    }
    columns["record"] = [f"line {number}" for number, _ in rows]
    return kind, pd.DataFrame(columns, dtype=object)


def _read_pickles(path: pathlib.Path) -> tuple[pd.DataFrame, list[pathlib.Path]]:
    """Chromoformer's two pickles: rows as of `_read_lines`, and the two files."""
    if "frag2neighbors" not in path.name:
        raise InputError(
            str(path),
            "another name",
            "TISSUE_frag2neighbors.pickle, with TISSUE_pair2score.pickle beside it",
            "give the file of neighbours, under its name",
        )
    scores_path = path.with_name(path.name.replace("frag2neighbors", "pair2score"))
    neighbours, scores = _load_dict(path), _load_dict(scores_path)
    pairs, strange = [], []
    for fragment, others in neighbours.items():
        ends: list = list(others) if isinstance(others, set | frozenset | list | tuple) else [None]
        if all(isinstance(end, str) for end in [fragment, *ends]):
            pairs += [(fragment, other) for other in sorted(ends)]  # sets have no order of theirs
        else:
            strange.append(fragment)
    unscored = [pair for pair in pairs if not isinstance(scores.get(pair), int | float)]
    problems = [
        Problem(str(where), f"{len(wrong)} {found} ({listing(wrong)})", expected, "check the file")
        for where, wrong, found, expected in (
            (path, strange, "entries of another kind", "fragments and sets of fragments, as text"),
            (scores_path, unscored, "pairs without a score", "a number for every pair"),
        )
        if wrong
    ]
    if problems:
        raise InputError.of(problems)
    text = pd.DataFrame(pairs, columns=["bait", "other"], dtype=object)
    split = [
        text[end].str.extract(r"^(.+):([^:-]*)-([^:-]*)$").fillna("").set_axis(names, axis=1)
        for end, names in (("bait", _COLUMNS[:3]), ("other", _COLUMNS[3:6]))
    ]
    rows = pd.concat(split, axis=1)
    rows["score"] = [scores[pair] for pair in pairs]
    rows["record"] = [f"{bait} to {other}" for bait, other in pairs]
    return rows, [path, scores_path]


def _load_dict(path: pathlib.Path) -> dict:
    content = load_plain(path)
    if not isinstance(content, dict):
        raise InputError(str(path), f"a {type(content).__name__}", "a dict", "check the file")
    return content


def _check(
    path: pathlib.Path,
    rows: pd.DataFrame,
    chrom_sizes: dict[str, int],
    first_base: int,
    problems: list[Problem] | None,
) -> pd.DataFrame:
    """Numbers for text, 0-based and half-open, chromosomes as the assembly spells them."""
    found: list[Problem] = []
    sound = pd.Series(True, index=rows.index)

    def refuse(
        wrong: pd.Series, what: str, columns: list[str], expected: str, remedy: str, kind: str = ""
    ) -> None:
        sound[wrong] = False
        if wrong.any():
            some = rows[wrong]
            examples = some[columns].head(3).astype(str).agg(" ".join, axis=1)
            found.append(
                Problem(
                    f"{path}, {listing(some['record'], _MOST_RECORDS)}",
                    f"{len(some)} {what} ({listing(examples)})",
                    expected,
                    remedy,
                    kind,
                )
            )

    table = pd.DataFrame(index=rows.index)
    for side, columns in (("baits", _COLUMNS[:3]), ("other ends", _COLUMNS[3:6])):
        chrom, start, end = columns
        spelling = match_chromosomes(rows[chrom].unique(), chrom_sizes)
        table[chrom] = rows[chrom].map(spelling)
        length = table[chrom].map(chrom_sizes)
        low, high = (pd.to_numeric(rows[name], errors="coerce") for name in (start, end))
        whole = (low % 1 == 0) & (high % 1 == 0) & (low >= first_base)
        low -= first_base
        refuse(
            ~whole,
            f"{side} whose positions are no whole numbers",
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
            table[chrom].isna(),
            f"{side} on a chromosome that the assembly lacks",
            [chrom],
            f"chromosomes of the assembly ({listing(chrom_sizes)})",
            "give the --assembly of the contacts, or leave these out",
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
        "scores that are no finite numbers",
        ["score"],
        "a number for every contact",
        "correct the lines, or leave them out",
    )
    report(found, problems)
    table["score"] = score
    positions = dict.fromkeys([*_COLUMNS[1:3], *_COLUMNS[4:6]], np.int64)
    return table.loc[sound, _COLUMNS].astype(positions)
