"""Which genes of an annotation an expression table has values for, by their ids or their names."""

import dataclasses
import pathlib
import re
from collections.abc import Sequence

import numpy as np
import pandas as pd

from data_prep.formats.expression import Expression, read_expression
from epi2expr_jax.errors import Problem, collect
from epi2expr_jax.genome import gene_order, listing

# Of ENCODE's tables: spike-ins, and tRNAs by number.
_NO_GENE = re.compile(r"gSpikein|ERCC-\d|\d+$")


def first_look(path: pathlib.Path, cells: Sequence[str], unit: str = "") -> list[str]:
    """How a build would read a table of expression, in words; nothing if it is not there yet.

    Args:
        cells: of the track sheet.
        unit: as --expression_unit; empty for its default.

    Raises:
        InputError: if a build would refuse it, as a table without these cells.
    """
    if not path.is_file():
        return []
    with collect() as problems:
        read = read_expression(path, cells, problems, unit or "auto")
    return [f"  {note}" for note in read.notes]


def each_gene_once(
    read: Expression, genes: pd.DataFrame, where: str
) -> tuple[Expression, dict[str, int]]:
    """Expression by gene id, each gene once.

    A line whose gene is not an id of the annotation and is the name of one of its genes is of that
    gene; one that is named like several genes is left out. Lines of a gene that say the same are
    one; a gene whose lines differ, and lines without a gene, are left out.

    Args:
        genes: columns `gene_id` and `name` of every gene of the annotation.
        where: the table, for messages.

    Returns:
        The same with such a table, and what there is to say of it; and why and how many genes or
        lines were left out.
    """
    table, left_out = read.table, {}
    notes, doubts = [*read.notes], [*read.doubts]
    nameless = table.index == ""
    left_out["no gene named"] = int(nameless.sum())
    table = table[~nameless]
    known = table.index.isin(genes["gene_id"]) | table.index.isin(genes["name"])
    odd = ~known & np.array([bool(_NO_GENE.match(gene)) for gene in table.index], bool)
    if 2 * odd.sum() < len(table):  # else the table has ids of another kind, as Entrez's
        left_out["no genes but spike-ins, or tRNAs by number"] = int(odd.sum())
        table = table[~odd]
    named = genes[genes["name"].isin(table.index[~table.index.isin(genes["gene_id"])])]
    several = named["name"].duplicated(keep=False)
    ambiguous = sorted(set(named["name"][several]))
    left_out["name of several genes"] = len(ambiguous)
    if ambiguous:
        doubts.append(
            Problem(
                where,
                f"{len(ambiguous)} names that several genes of the annotation have "
                f"({listing(ambiguous, most=20)})",
                "names of one gene each",
                "nothing to do, they are left out; to keep them give gene ids in the table",
                kind="ambiguous_names",
            )
        )
    if len(named):
        ids = dict(zip(named["name"][~several], named["gene_id"][~several], strict=True))
        table = table[~table.index.isin(ambiguous)].rename(index=ids)
        notes.append(f"{len(ids)} genes found by the names that the annotation gives them")
    if table.index.has_duplicates:
        lines = table[table.index.duplicated(keep=False)].reset_index().drop_duplicates()
        different = sorted(set(lines["gene_id"][lines["gene_id"].duplicated()]))
        table = table[~table.index.isin(different)]
        left_out["listed twice, with other values"] = len(different)
        if same := int(table.index.duplicated().sum()):
            notes.append(f"{same} lines that repeat a gene with the same values")
        table = table[~table.index.duplicated()]
        if different:
            doubts.append(
                Problem(
                    where,
                    f"{len(different)} genes listed twice, with other values "
                    f"({listing(different, most=20)})",
                    "one line a gene (versions such as .10 do not count)",
                    "nothing to do, they are left out; to keep them leave one line of each",
                    kind="duplicate_genes",
                )
            )
    joined = dataclasses.replace(read, table=table, notes=tuple(notes), doubts=tuple(doubts))
    return joined, {why: count for why, count in left_out.items() if count}


def candidates(
    annotated: pd.DataFrame,
    expression: pd.DataFrame,
    cells: tuple[str, ...],
    chromosomes: list[str],
) -> tuple[pd.DataFrame, np.ndarray, dict[str, int]]:
    """The candidate genes, their expression `[C, G]`, and why others were left out.

    A cell without any expression is NaN, and leaves out no gene.
    """
    expression = expression.dropna(axis="columns", how="all")
    left_out = {"not in the annotation": int((~expression.index.isin(annotated.gene_id)).sum())}
    genes = annotated[annotated.gene_id.isin(expression.index)]
    elsewhere = ~genes.chrom.isin(chromosomes)
    left_out["on another chromosome"] = int(elsewhere.sum())
    genes = genes[~elsewhere].reset_index(drop=True)
    genes = genes.iloc[gene_order(genes.chrom, genes.tss)].reset_index(drop=True)
    unknown = expression.loc[genes.gene_id].isna().any(axis=1).to_numpy()
    left_out["expression missing in a cell"] = int(unknown.sum())
    genes = genes[~unknown].reset_index(drop=True)
    table = expression.reindex(columns=list(cells)).loc[genes.gene_id]
    return genes, np.ascontiguousarray(table.to_numpy(np.float32).T), left_out
