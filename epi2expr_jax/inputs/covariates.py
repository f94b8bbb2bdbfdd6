"""What is known of genes without any epigenome: their length, and what a table says of them."""

import os

import numpy as np
import pandas as pd
from jaxtyping import Float
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import read_csv
from epi2expr_jax.genome import listing
from epi2expr_jax.names import rows_of_genes

LENGTH = "gene length"  # in bp, where the store holds gene ends
BIOTYPE = "biotype"
KEYS = ("gene", "gene_id")
UNKNOWN = "unknown"


def read_covariates(path: str | os.PathLike, genes: pd.DataFrame) -> pd.DataFrame:
    """Columns of genes from a table.

    Args:
        path: CSV with a column gene or gene_id (id, with or without version, or symbol) and any
            others: of numbers, such as CpG content or half-life, or of classes.
        genes: the gene table of the store.

    Returns:
        gene_id, as in the store, and the other columns; genes that the store lacks are left out.

    Raises:
        InputError: if it cannot be read, lacks such a column or any other, has a gene of the store
            twice, a number that is infinite, a column that the store knows itself, or none of the
            store's genes.
    """
    what, remedy = "table of covariates", "see docs/commands.md"
    table = read_csv(str(path), what, remedy, text=KEYS)
    key = next((name for name in KEYS if name in table), None)
    if key is None or len(table.columns) < 2:
        found, expected = f"the columns {', '.join(table.columns)}", f"{' or '.join(KEYS)} and more"
        raise InputError(str(path), found, expected, remedy)
    rows = rows_of_genes(genes, table[key].str.strip().tolist())
    table = table.drop(columns=[*KEYS], errors="ignore")[rows >= 0].reset_index(drop=True)
    ids = genes["gene_id"].to_numpy()[rows[rows >= 0]]
    with collect() as problems:
        if not len(ids):
            found, expected = f"none of its {len(rows)} genes is in the store", "the store's genes"
            problems.add(str(path), found, expected, "give their ids or symbols")
        if (twice := pd.Series(ids).duplicated().to_numpy()).any():
            found = f"{twice.sum()} genes again ({listing(ids[twice])})"
            problems.add(str(path), found, "one row a gene", "keep one of each")
        for name in table.columns.intersection(covariates_of(genes, pd.DataFrame()).columns):
            found, expected = "a column that the store holds, too", "others than it knows"
            problems.add(f"{path}: {name}", found, expected, "give it another name")
        for name in numeric(table):
            if np.isinf(table[name]).any():
                remedy = "write nothing where it is not known"
                problems.add(f"{path}: {name}", "infinite numbers", "finite ones", remedy)
    table.insert(0, "gene_id", ids)
    return table


def covariates_of(genes: pd.DataFrame, given: pd.DataFrame) -> pd.DataFrame:
    """All that is known of each gene of a store.

    Args:
        genes: its gene table; where it holds `start` and `end`, the length of a gene is known,
            where it holds different biotypes, these.
        given: from `read_covariates`, or from here; may be empty.

    Returns:
        One row a gene: gene_id, `LENGTH` and `BIOTYPE` where known of any gene, and the columns
        given: numbers, NaN where a gene has none, and classes as text, `UNKNOWN` where it has none.
    """
    known = genes[["gene_id"]].reset_index(drop=True)
    if {"start", "end"} <= set(genes):
        length = (genes["end"] - genes["start"]).astype("Float64").to_numpy(float, na_value=np.nan)
        if np.isfinite(length).any():
            known[LENGTH] = length
    if BIOTYPE in genes and genes[BIOTYPE].nunique() > 1:
        known[BIOTYPE] = genes[BIOTYPE].to_numpy()
    if len(given):
        more = given.columns.difference(known.columns.drop("gene_id"), sort=False)
        known = known.merge(given[more], on="gene_id", how="left")
    for name in known.columns.drop("gene_id"):
        if is_bool_dtype(known[name]) or not is_numeric_dtype(known[name]):
            there = known[name].notna() & (known[name] != "")
            known[name] = known[name].astype(str).where(there, UNKNOWN)
    return known


def gene_features(known: pd.DataFrame) -> Float[np.ndarray, "G F"]:
    """Numbers known of genes as a linear model reads them; F is 0 where there are none.

    Of each column its quantile among the genes, from −0.5 to 0.5, and the square of it: a length
    and its logarithm are then the same, and effects need not be monotone. A gene without a value
    counts as the middle one.

    Args:
        known: from `covariates_of`.
    """
    ranks = known[numeric(known)].rank(pct=True).fillna(0.5).to_numpy(float) - 0.5
    return np.concatenate([ranks, ranks**2], axis=1)


def without_value(known: pd.DataFrame) -> int:
    """How many genes lack a number that others have."""
    return int(known[numeric(known)].isna().any(axis=1).sum())


def numeric(table: pd.DataFrame) -> list[str]:
    """Columns of numbers that differ."""
    return [
        str(name)
        for name, column in table.items()
        if is_numeric_dtype(column) and not is_bool_dtype(column) and column.nunique() > 1
    ]
