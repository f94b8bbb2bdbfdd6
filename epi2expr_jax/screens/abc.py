"""The activity-by-contact score of candidates whose activity and contacts are given.

Source: Fulco et al. (2019); Nasser et al. (2021): activity × contact of an element and a gene, as a
share of the sum over all candidates of the gene, its own promoter among them.
"""

import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import numbers
from epi2expr_jax.genome import listing, match_chromosomes
from epi2expr_jax.names import rows_of_genes

ABC = "ABC.Score"
PROMOTER_BP = 250  # from a TSS: an element that comes so near is the gene's promoter
# What the model multiplies activity with, the last step first.
CONTACTS = ("hic_contact_pl_scaled_adj", "hic_contact_pl_scaled", "hic_contact", "powerlaw_contact",
            "contact")  # fmt: skip
_PLACE = ("chr", "start", "end")
_GENES = ("TargetGeneEnsemblID", "TargetGeneEnsembl_ID", "TargetGene")


def abc_scores(
    candidates: pd.DataFrame, genes: pd.DataFrame, where: str, contact: str = ""
) -> pd.DataFrame:
    """Scores of all candidates of a store's genes.

    Args:
        candidates: a row a candidate and gene: chr, start, end (bp, 0-based, half-open),
            activity_base, TargetGene (symbol or id) or TargetGeneEnsemblID, and contacts.
        genes: of the store.
        where: the file, for messages.
        contact: the column of contacts; by default the first of `CONTACTS`.

    Returns:
        Columns chr (as the store spells it), start, end, gene (row of `genes`) and ABC.Score, NaN
        for genes without a candidate within `PROMOTER_BP` of their TSS.

    Raises:
        InputError: naming columns that are missing, or hold anything but numbers of 0 or more; if
            a gene has a candidate twice, or none is of a gene of the store.
    """
    named = [name for name in _GENES if name in candidates]
    known = [name for name in CONTACTS if name in candidates]
    contact = contact or next(iter(known), "")
    with collect() as problems:
        for name in (*_PLACE, "activity_base"):
            if name not in candidates:
                problems.add(where, f"no column {name}", listing(candidates.columns), "add it")
        if not named:
            problems.add(where, "no column of genes", " or ".join(_GENES), "add it")
        if contact not in candidates:
            found = f"no column {contact}" if contact else "no column of contacts"
            problems.add(where, found, " or ".join(CONTACTS), "name it by --contact")
    with collect() as problems:
        for name in ("start", "end", "activity_base", contact):
            values = numbers(candidates[name]).to_numpy(float)
            fit = np.isfinite(values) & (values >= 0)
            if position := name in _PLACE:
                fit &= values == np.floor(values)
            if not fit.all():
                bad = f"{candidates[name].iloc[fit.argmin()]} in column {name}"
                expected = "whole numbers from 0" if position else "numbers from 0"
                problems.add(where, bad, expected, "correct it")
    gene = np.full(len(candidates), -1)  # by the first column that names one of the store's
    for name in named:
        text = candidates[name].fillna("").astype(str)
        gene = np.where(gene < 0, rows_of_genes(genes, text.tolist()), gene)
    spelled = match_chromosomes(genes["chrom"].unique(), candidates["chr"].unique())
    table = pd.DataFrame(
        {
            "chr": candidates["chr"].map({theirs: ours for ours, theirs in spelled.items()}),
            "start": candidates["start"].astype(np.int64),
            "end": candidates["end"].astype(np.int64),
            "gene": gene,
            "score": numbers(candidates["activity_base"]) * numbers(candidates[contact]),
        }
    )
    table = table[(table["gene"] >= 0) & table["chr"].notna()].reset_index(drop=True)
    if table.empty:
        found = f"{len(candidates):,} candidates, none on a chromosome and of a gene of the store"
        raise InputError(where, found, "candidates of the store's genes", "give another table")
    if (twice := table.duplicated([*_PLACE, "gene"])).any():
        row = table[twice].iloc[0]
        found = f"{row.chr}:{row.start}-{row.end} twice for {genes.gene_id[row.gene]}"
        raise InputError(where, found, "a candidate of a gene once", "of one cell alone")
    tss = genes["tss"].to_numpy()[table["gene"]]
    own = (table["start"] < tss + PROMOTER_BP) & (table["end"] > tss - PROMOTER_BP)
    total = table.groupby("gene")["score"].transform("sum")
    complete = own.groupby(table["gene"]).transform("any") & (total > 0)
    return table.drop(columns="score").assign(**{ABC: (table["score"] / total).where(complete)})
