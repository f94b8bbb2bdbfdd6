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
from epi2expr_jax.errors import Problems
from epi2expr_jax.genome import listing, strip_version

_MISSING = frozenset({"", "na", "nan", "n/a", "null", "none"})


def read_expression(
    path: str | pathlib.Path, cells: Sequence[str] | None, problems: Problems
) -> pd.DataFrame:
    """Read an expression table, tab- or comma-separated, gzipped or not.

    The first column holds gene ids, each further column one cell, as the header says.

    Args:
        path: the table.
        cells: the columns to read; None reads them all.
        problems: takes what is wrong with genes, columns and values: each duplicated gene, missing
            cell, column without values, and value that is negative or not a number. The rest is
            returned: of a gene listed twice the first line, and NaN for values that are not
            numbers.

    Returns:
        RPKM (or whatever the table holds) as float64, index `gene_id` without versions, columns
        the cells. Missing values stay NaN: which genes to drop is the caller's decision.

    Raises:
        InputError: if the file cannot be read, or naming every line with the wrong number of
            fields.
    """
    lines = read_delimited(path)
    header = next(lines)[1]
    numbers, genes, values = [], [], []
    for number, fields in lines:
        numbers.append(number)
        genes.append(strip_version(fields[0]))
        values.append(fields)
    _check_genes(path, genes, numbers, problems)
    _check_header(path, header, cells, problems)
    wanted = header[1:] if cells is None else [cell for cell in cells if cell in header[1:]]
    columns = {}
    for cell in wanted:
        position = header.index(cell, 1)
        text = pd.Series([fields[position] for fields in values], dtype=object)
        columns[cell] = column = np.asarray(pd.to_numeric(text, errors="coerce"), np.float64)
        _check_values(f"{path}, column {cell}", text, column, genes, numbers, problems)
    table = pd.DataFrame(columns, index=pd.Index(genes, name="gene_id", dtype=object))
    return table[~table.index.duplicated()]


def _check_genes(
    path: str | pathlib.Path, genes: list[str], numbers: list[int], problems: Problems
) -> None:
    if not genes:
        problems.add(str(path), "no gene", "a line for each gene", "give another table")
        return
    ids = pd.Series(genes, dtype=object)
    unnamed = [number for number, gene in zip(numbers, genes, strict=True) if not gene]
    if unnamed:
        where = f"{path}, line {listing(unnamed)}"
        problems.add(where, "no gene id", "one in every line", "add the ids")
    twice = sorted(set(ids[ids.duplicated() & (ids != "")]))
    if twice:
        problems.add(
            str(path),
            f"{len(twice)} gene ids listed twice ({listing(twice, most=20)})",
            "one line a gene (versions such as .10 do not count)",
            "keep one line of each",
            kind="duplicate_genes",
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
    text: pd.Series,
    values: np.ndarray,
    genes: list[str],
    numbers: list[int],
    problems: Problems,
) -> None:
    """Check the values of one cell."""

    def lines(wrong: np.ndarray) -> str:
        return listing(
            f"{genes[i]} {text[i]!r} in line {numbers[i]}" for i in np.flatnonzero(wrong)
        )

    missing = text.str.lower().isin(_MISSING).to_numpy()
    strange = (np.isnan(values) & ~missing) | np.isinf(values)
    if strange.any():
        problems.add(
            where,
            f"{strange.sum()} values that are not finite numbers ({lines(strange)})",
            "numbers, or NA",
            "correct them; if the whole column is text, leave it out of the table",
        )
    if (values < 0).any():
        problems.add(
            where,
            f"{(values < 0).sum()} negative values ({lines(values < 0)})",
            "expression of 0 or more (RPKM, TPM; not logarithms)",
            "give the values before the logarithm was taken",
            kind="negative_expression",
        )
    if genes and missing.all():
        problems.add(
            where,
            "no value for any gene",
            "a number for each gene",
            "use a table that has this cell, or leave the cell out of the track sheet",
        )
