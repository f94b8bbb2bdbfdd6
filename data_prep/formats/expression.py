"""Gene expression: the Roadmap RPKM matrix, or any table of genes × cells.

The Roadmap file has a trap: its data rows end in a tab, its header does not. A reader that takes
the surplus field for an index shifts every column by one, leaves E128 empty and trains on the
wrong cell. Here fields are counted line by line, and only an empty surplus field is dropped.
"""

import pathlib
from collections.abc import Sequence

import numpy as np
import pandas as pd

from data_prep.formats.text import read_delimited
from epi2expr_jax.errors import Problem, report
from epi2expr_jax.genome import listing, strip_version

_MISSING = frozenset({"", "na", "nan", "n/a", "null", "none"})


def read_expression(
    path: str | pathlib.Path,
    cells: Sequence[str] | None = None,
    problems: list[Problem] | None = None,
) -> pd.DataFrame:
    """Read an expression table, tab- or comma-separated, gzipped or not.

    The first column holds gene ids, each further column one cell, as the header says.

    Args:
        path: the table.
        cells: the columns to read; None reads them all.
        problems: where given, problems of genes, columns and values are added to it instead of
            being raised; columns that are missing are then left out, of a gene listed twice the
            first line is returned, and values that are no numbers are NaN.

    Returns:
        RPKM (or whatever the table holds) as float64, index `gene_id` without versions, columns
        the cells. Missing values stay NaN: which genes to drop is the caller's decision.

    Raises:
        InputError: naming every line with the wrong number of fields, duplicated gene, missing
            cell, column without values, and value that is negative or no number.
    """
    lines = read_delimited(path)
    header = next(lines)[1]
    numbers, genes, values = [], [], []
    for number, fields in lines:
        numbers.append(number)
        genes.append(strip_version(fields[0]))
        values.append(fields)
    found = _gene_problems(path, genes, numbers)
    found += _header_problems(path, header, cells)
    wanted = header[1:] if cells is None else [cell for cell in cells if cell in header[1:]]
    columns = {}
    for cell in wanted:
        position = header.index(cell, 1)
        text = pd.Series([fields[position] for fields in values], dtype=object)
        columns[cell] = column = np.asarray(pd.to_numeric(text, errors="coerce"), np.float64)
        found += _value_problems(f"{path}, column {cell}", text, column, genes, numbers)
    report(found, problems)
    table = pd.DataFrame(columns, index=pd.Index(genes, name="gene_id", dtype=object))
    return table[~table.index.duplicated()]


def _gene_problems(path: str | pathlib.Path, genes: list[str], numbers: list[int]) -> list[Problem]:
    if not genes:
        return [Problem(str(path), "no gene", "a line for each gene", "give another table")]
    problems = []
    ids = pd.Series(genes, dtype=object)
    unnamed = [number for number, gene in zip(numbers, genes, strict=True) if not gene]
    if unnamed:
        problems.append(
            Problem(
                f"{path}, line {listing(unnamed)}", "no gene id", "one in every line", "add the ids"
            )
        )
    twice = sorted(set(ids[ids.duplicated() & (ids != "")]))
    if twice:
        problems.append(
            Problem(
                str(path),
                f"{len(twice)} gene ids listed twice ({listing(twice, most=20)})",
                "one line a gene (versions such as .10 do not count)",
                "keep one line of each",
                kind="duplicate_genes",
            )
        )
    return problems


def _header_problems(
    path: str | pathlib.Path, header: list[str], cells: Sequence[str] | None
) -> list[Problem]:
    problems = []
    names = header[1:]
    asked = names if cells is None else cells
    twice = sorted({name for name in names if names.count(name) > 1 and name in asked})
    if twice:
        problems.append(
            Problem(
                f"{path}, header",
                f"columns named twice: {listing(twice)}",
                "one column a cell",
                "rename or remove the surplus ones",
            )
        )
    absent = [cell for cell in asked if cell not in names]
    if absent:
        problems.append(
            Problem(
                f"{path}, header",
                f"no column {', '.join(absent)}",
                f"the cells of the track sheet; the table has {listing(names, most=80)}",
                "correct the cell names, or add their columns",
                kind="missing_expression",
            )
        )
    if not names or "" in names:
        problems.append(
            Problem(
                f"{path}, header",
                "a column without a name" if names else "no cell",
                "gene_id and a name for each cell",
                "complete the header",
            )
        )
    return problems


def _value_problems(
    where: str, text: pd.Series, values: np.ndarray, genes: list[str], numbers: list[int]
) -> list[Problem]:
    """What is wrong with the values of one cell."""

    def lines(wrong: np.ndarray) -> str:
        return listing(
            f"{genes[i]} {text[i]!r} in line {numbers[i]}" for i in np.flatnonzero(wrong)
        )

    problems = []
    missing = text.str.lower().isin(_MISSING).to_numpy()
    strange = (np.isnan(values) & ~missing) | np.isinf(values)
    if strange.any():
        problems.append(
            Problem(
                where,
                f"{strange.sum()} values that are no finite numbers ({lines(strange)})",
                "numbers, or NA",
                "correct them; if the whole column is text, leave it out of the table",
            )
        )
    if (values < 0).any():
        problems.append(
            Problem(
                where,
                f"{(values < 0).sum()} negative values ({lines(values < 0)})",
                "expression of 0 or more (RPKM, TPM; not logarithms)",
                "give the values before the logarithm was taken",
                kind="negative_expression",
            )
        )
    if genes and missing.all():
        problems.append(
            Problem(
                where,
                "no value for any gene",
                "a number for each gene",
                "use a table that has this cell, or leave the cell out of the track sheet",
            )
        )
    return problems
