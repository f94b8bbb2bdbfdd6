"""Gene expression: the Roadmap RPKM matrix, or any table of genes × cells.

The Roadmap file has a trap: its data rows end in a tab, its header does not. R writes headers that
lack the name of the first column, which looks the same where the last column is empty. A reader
that takes the one for the other shifts every column and trains on the wrong cell. Here lines are
compared with the header before any value is read, and what could be either is refused.
"""

import csv
import dataclasses
import itertools
import pathlib
import re
from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from data_prep.formats.foreign import sample_column
from data_prep.formats.text import MOST_LINES, numbered_lines, separator_of, split_fields
from epi2expr_jax.errors import InputError, Problem, Problems, collect
from epi2expr_jax.genome import listing, strip_version
from epi2expr_jax.units import DEFAULT_UNIT, EXPRESSION_UNITS, unit_words

LABELS = "label"
_LOG2 = "log2_"
# What --expression_unit may say of a table.
TABLE_UNITS = (
    "auto",
    *EXPRESSION_UNITS,
    *(_LOG2 + unit for unit in EXPRESSION_UNITS if unit != "none"),
    LABELS,
)

_MISSING = frozenset({"", "na", "nan", "n/a", "null", "none"})
_OF_GENES = re.compile(
    r"\W*|g|.*(gene|symbol|ensembl|transcript|feature|probe|locus).*|(.*[\W_])?(id|name)s?"
    r"|x|v1|\.\.\.1|unnamed: 0|index|row\W?(name)?s?|accession|target",  # of R and pandas
    re.I,
)
_SAID = re.compile(rf"(?<![a-z])({'|'.join(EXPRESSION_UNITS[:-1])})s?(?![a-z])", re.I)
_DECIMAL_COMMA = re.compile(r"-?\d+,\d+")
_GCT = "#1."  # how its first line begins
# Of all 56 cells of the Roadmap log2(RPKM + 1) is at most 17.7, and the highest RPKM of each at
# least 26,000.
_LOG_MAXIMUM = 25
_LEAST_GENES = 20  # to tell a logarithm by its values
_NO_LOGARITHM = "values before a logarithm was taken: log2(x + 1) is taken in training"


@dataclasses.dataclass(frozen=True)
class Expression:
    """What a table of expression holds, and what there is to say about it.

    Attributes:
        table: float64, index `gene_id`: ids or names as in the file, without versions, as often as
            it lists them; a column for each cell; missing values are NaN.
        unit: of the values, one of `units.EXPRESSION_UNITS`; empty for labels, or without a table.
        labels: whether the values are labels: 1 for an expressed gene, 0 for a silent one.
        notes: how it was read, a line each.
        doubts: what may be right and looks wrong.
    """

    table: pd.DataFrame = dataclasses.field(default_factory=pd.DataFrame)
    unit: str = ""
    labels: bool = False
    notes: tuple[str, ...] = ()
    doubts: tuple[Problem, ...] = ()


def read_expression(
    path: str | pathlib.Path,
    cells: Sequence[str] | None,
    problems: Problems,
    unit: str = "auto",
) -> Expression:
    """Read an expression table: GCT, or text with tabs, semicolons, commas or (R's) blanks.

    The first column holds gene ids or names, each further column one cell, as the header says. The
    header may begin with `#`, or (R's) lack the name of the first column; other lines that begin
    with `#` are comments. Decimal commas are read where no other reading is possible.

    Args:
        path: the table, gzipped or not.
        cells: the columns to read; None reads them all.
        problems: takes what is wrong with columns and values: each missing cell, column without
            values, and value that is negative or not a number. The rest is returned, with NaN for
            values that are not numbers.
        unit: one of `TABLE_UNITS`. `auto`: what the name of the file or its comments say, else
            RPKM; `log2_TPM`: the values are log2(TPM + 1), and become TPM; `label`: 0 and 1.

    Returns:
        The table with every line, those without a gene too: which to drop is for
        `checks.join_expression.each_gene_once`.

    Raises:
        InputError: if the file cannot be read, or its header does not tell which column is which,
            or naming every line with the wrong number of fields.
    """
    lines = _Lines.of(path, cells)
    ids = [row[0].strip() for row in lines.rows]
    if sample := sample_column(path, lines.header, ids, cells, unit):
        column, unit, what = sample
        lines.keep(column, cells[0] if cells else column)
    _check_header(path, lines.header, cells, problems)
    names = lines.header[1:]
    if cells is None:
        wanted = [name for name in names if not (lines.gct and name == "Description")]
    else:
        wanted = [cell for cell in cells if cell in names]
    genes = [strip_version(row[0].strip()) for row in lines.rows]
    if not any(genes):
        problems.add(str(path), "no gene", "a line for each gene", "give another table")
    texts: list[Sequence[str]] = [*zip(*lines.rows, strict=True)] or [()] * len(lines.header)
    columns = {}
    for cell in wanted:
        text = texts[lines.header.index(cell, 1)]
        columns[cell] = values = lines.column(text)
        _check_values(f"{path}, column {cell}", lines, text, values, unit, problems)
        if unit.startswith(_LOG2):
            columns[cell] = np.exp2(np.minimum(values, _LOG_MAXIMUM)) - 1
    table = pd.DataFrame(columns, index=pd.Index(genes, name="gene_id", dtype=object))
    doubts = _doubts(path, table) if unit == "auto" else ()
    known, note = _unit(path, lines.comments, unit)
    if sample:
        note = f"{what}, of one sample: {unit} read as {', '.join(wanted)}; unit: {unit}"
    elif "assumed" in note and not doubts:  # which ask for the unit, too
        doubts = (*doubts, _assumed(path))
    return Expression(table, known, unit == LABELS, (note, *lines.notes), tuple(doubts))


@dataclasses.dataclass
class _Lines:
    """The lines of a table: all rows have as many fields as the header."""

    comments: list[str]
    header: list[str]
    numbers: list[int]
    rows: list[list[str]]
    gct: bool
    decimal: str = "."
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: str | pathlib.Path, cells: Collection[str] | None) -> "_Lines":
        every = numbered_lines(path)
        lines = [(number, line) for number, line in every if line.strip('\t,;" ')]
        gct = bool(lines) and lines[0][1].startswith(_GCT)
        size = lines[1][1].split() if gct and len(lines) > 1 else []
        lines = lines[2:] if gct else lines
        comments = [
            line for _, line in itertools.takewhile(lambda line: line[1].startswith("#"), lines)
        ]
        lines = [line for line in lines if not line[1].startswith("#")]
        if not lines:
            found, expected = "no header", "a table with a header line"
            raise InputError(str(path), found, expected, "give another file")
        (_, top), (_, last) = lines[0], lines[-1]  # a header of one name has no separator
        separator = (
            separator_of(top) or separator_of(last) or (" " if " " in last.strip() else "\t")
        )
        fields = [_fields(line, separator) for _, line in lines]
        above = [name.strip() for name in _fields(comments[-1][1:], separator)] if comments else []
        if len(above) == len(fields[0]) > 1 and not any(map(_is_name, fields[0][1:])):
            header, first = above, 0  # a header that begins with #
        else:
            header, first = [name.strip() for name in fields[0]], 1
        numbers = [number for number, _ in lines[first:]]
        header, rows = _aligned(path, header, numbers, fields[first:], cells)
        if gct and size[:1] != [str(len(rows))]:
            found, expected = f"{len(rows)} genes", f"{' '.join(size[:1])}, as its second line says"
            raise InputError(str(path), found, expected, "download or save the file again")
        read = cls(comments, header, numbers, rows, gct)
        if header[0] == "" and first:
            read.notes = ("the header names one column less than the lines have: genes come first",)
        if separator != "," and _has_decimal_commas(rows):
            read.decimal = ","
            read.notes = (*read.notes, "commas in numbers are decimal commas")
        return read

    def keep(self, column: str, name: str) -> None:
        """Leave all columns but the first and one, which gets another name."""
        place = self.header.index(column, 1)
        self.header = [self.header[0], name]
        self.rows = [[row[0], row[place]] for row in self.rows]

    def column(self, texts: Sequence[str]) -> np.ndarray:
        """The values of a column; NaN for what is not a number."""
        text = pd.Series(texts, dtype=object)
        if self.decimal == ",":
            text = text.str.replace(",", ".")
        return np.asarray(pd.to_numeric(text, errors="coerce"), np.float64)


def _fields(line: str, separator: str) -> list[str]:
    """The fields of one line, so that a stray quotation mark cannot swallow the lines after it."""
    if '"' not in line and separator == " ":
        return line.split()
    if '"' not in line or line.count('"') % 2:
        return line.split(separator)
    try:
        return split_fields(line, separator)
    except csv.Error:
        return line.split(separator)


def _is_name(field: str) -> bool:
    """Whether a field is neither a number nor missing."""
    return field.strip().lower() not in _MISSING and np.isnan(
        pd.to_numeric(field.strip().replace(",", "."), errors="coerce")
    )


def _aligned(
    path: str | pathlib.Path,
    header: list[str],
    numbers: list[int],
    rows: list[list[str]],
    cells: Collection[str] | None,
) -> tuple[list[str], list[list[str]]]:
    """Header and rows of equally many fields.

    Raises:
        InputError: naming the lines with other numbers of fields, or if it cannot be told which
            column a name of the header belongs to.
    """
    wide = len(header)
    ends = wide > 1 and not header[-1]  # as Excel writes them, commas at the ends of all lines
    while len(header) > 1 and not header[-1]:
        header.pop()
    filled = {len(row) for row in rows if row[-1].strip()}
    remedy = "correct the line"
    if not ends and rows and {len(row) for row in rows} == {wide + 1}:
        of_genes = header[0] not in (cells or ()) and _OF_GENES.fullmatch(header[0])
        if filled and of_genes:
            remedy = "name every column in the header: every line has one field more"
        elif not of_genes and (filled or header[0] in (cells or ())):
            header = ["", *header]  # R's
        elif not of_genes:
            raise InputError(
                f"{path}, header",
                f"{wide} names, and lines of {wide + 1} fields of which the last is empty",
                "a header that tells which column is which: it may lack the name of the first "
                "column (as R writes it), or lines may end in a separator",
                f"name the first column gene_id, or write gene_id in place of {header[0]!r}",
            )
    with collect(most=MOST_LINES) as problems:
        for number, row in zip(numbers, rows, strict=True):
            if len(row) > len(header) and not "".join(row[len(header) :]).strip():
                del row[len(header) :]
            if len(row) != len(header):
                expected = f"{len(header)} fields, as in the header"
                found = f"{len(row)} fields"
                problems.add(f"{path}, line {number}", found, expected, remedy)
    return header, rows


def _has_decimal_commas(rows: list[list[str]]) -> bool:
    """Whether commas in numbers can be nothing but decimal commas (1,234 may be a thousand)."""
    texts = [text.strip() for row in rows for text in row[1:] if "," in text]
    numbers = [text for text in texts if _DECIMAL_COMMA.fullmatch(text)]
    return any(
        text.lstrip("-").startswith("0,") or len(text.partition(",")[2]) != 3 for text in numbers
    )


def _check_header(
    path: str | pathlib.Path, header: list[str], cells: Sequence[str] | None, problems: Problems
) -> None:
    where = f"{path}, header"
    names = header[1:]
    asked = names if cells is None else cells
    twice = sorted({name for name in names if names.count(name) > 1 and name in asked})
    if twice:
        found = f"columns named twice: {listing(twice)}"
        problems.add(where, found, "one column a cell", "rename or remove the surplus ones")
    absent = [cell for cell in asked if cell not in names]
    if absent:
        problems.add(
            where,
            f"no column {', '.join(absent)}",
            f"the cells of the track sheet; the table has {listing(names, most=80)}",
            "correct the cell names, or add their columns",
            kind="missing_expression",
        )
    if not names or "" in names:
        found = "a column without a name" if names else "no cell"
        problems.add(where, found, "gene_id and a name for each cell", "complete the header")


def _check_values(
    where: str,
    lines: _Lines,
    texts: Sequence[str],
    values: np.ndarray,
    unit: str,
    problems: Problems,
) -> None:
    """Check the values of one cell."""

    def refuse(rows: np.ndarray, what: str, expected: str, remedy: str, kind: str = "") -> None:
        wrong: list[int] = rows.tolist()
        if wrong:
            shown = listing(
                f"{lines.rows[i][0]} {texts[i].strip()!r} in line {lines.numbers[i]}" for i in wrong
            )
            problems.add(where, f"{len(wrong)} {what} ({shown})", expected, remedy, kind)

    unknown: list[int] = np.flatnonzero(np.isnan(values)).tolist()
    strange = [i for i in unknown if texts[i].strip().lower() not in _MISSING]
    refuse(
        np.sort(np.r_[strange, np.flatnonzero(np.isinf(values))].astype(int)),
        "values that are not finite numbers",
        "numbers, or NA",
        "correct them; if the whole column is text, leave it out of the table",
    )
    refuse(
        np.flatnonzero(values < 0),
        "negative values",
        "expression of 0 or more (RPKM, TPM; not logarithms)",
        "give the values before the logarithm was taken",
        "negative_expression",
    )
    if unit == LABELS:
        wrong = ~np.isin(values, (0, 1)) & ~np.isnan(values)
        remedy = "correct them, or give the unit of expression"
        refuse(np.flatnonzero(wrong), "values that are no labels", "0 or 1", remedy)
    if unit.startswith(_LOG2):
        remedy = f"give --expression_unit={unit.removeprefix(_LOG2)}"
        wrong = np.flatnonzero(values >= _LOG_MAXIMUM)
        refuse(wrong, "values too high for a logarithm", f"less than {_LOG_MAXIMUM}", remedy)
    if len(values) and len(unknown) - len(strange) == len(values):
        problems.add(
            where,
            "no value for any gene",
            "a number for each gene",
            "use a table that has this cell, or leave the cell out of the track sheet",
        )


def _unit(path: str | pathlib.Path, comments: list[str], asked: str) -> tuple[str, str]:
    """The unit of the table read, and a line that says so."""
    said = " ".join([pathlib.Path(path).name, *comments])
    found = {unit.upper() for unit in _SAID.findall(said)}
    if asked == LABELS:
        return "", "labels alone: a store of this table is for classification"
    if asked != "auto":
        unit = asked.removeprefix(_LOG2)
        undone = f", made of log2({unit_words(unit)} + 1)" if asked.startswith(_LOG2) else ""
        against = "" if found <= {unit} else f"; the table says {listing(sorted(found))}"
        return unit, f"unit of expression: {unit}{undone}, as --expression_unit says{against}"
    if len(found) == 1:
        (unit,) = found
        return unit, f"unit of expression: {unit}, as the table says"
    said = f"says several ({listing(sorted(found))})" if found else "does not say"
    why = f"assumed: the table {said}; --expression_unit gives another"
    return DEFAULT_UNIT, f"unit of expression: {DEFAULT_UNIT}, {why}"


def _assumed(path: str | pathlib.Path) -> Problem:
    return Problem(
        str(path),
        f"no unit of expression: {DEFAULT_UNIT} is assumed",
        "a unit in the file's name or comments (as in expression.TPM.tsv), or --expression_unit",
        f"nothing to do if it is {DEFAULT_UNIT}; else give it: --expression_unit=TPM",
        kind="unit_assumed",
    )


def _doubts(path: str | pathlib.Path, table: pd.DataFrame) -> list[Problem]:
    """What may be right and looks wrong about the values of a table."""
    values = table.to_numpy()
    values = values[np.isfinite(values)]
    if len(table) < _LEAST_GENES or not values.size or values.min() < 0:
        return []
    if np.isin(values, (0, 1)).all():
        return [
            Problem(
                str(path),
                "no value but 0 and 1",
                "expression; or labels, said so",
                f"if they say which genes are expressed, give --expression_unit={LABELS}",
                kind="labels_as_expression",
            )
        ]
    if values.max() >= _LOG_MAXIMUM or (values == np.round(values)).all():
        return []
    return [
        Problem(
            str(path),
            f"expression as if its logarithm had been taken (highest value {values.max():g})",
            _NO_LOGARITHM,
            f"if it is log2(TPM + 1), give --expression_unit={_LOG2}TPM; if it is no logarithm, "
            "give its unit: --expression_unit=TPM",
            kind="log_expression",
        )
    ]
