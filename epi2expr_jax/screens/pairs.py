"""Element-gene pairs of CRISPRi screens: a table in the columns that this package works with.

Source of the public column names: Gschwind et al. (2025), combined screens in K562 and other cells.
"""

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import numbers
from epi2expr_jax.genome import listing, strip_version

# Our name -> names by which it goes in tables of screens, whatever their case and underscores.
NAMES: Mapping[str, tuple[str, ...]] = {
    "chrom": ("chrom", "chr", "chromosome"),
    "start": ("chromStart", "start"),
    "end": ("chromEnd", "end"),
    "gene_id": ("measuredGeneEnsemblId", "gene_id"),
    "regulated": ("Regulated", "regulated", "is_regulated", "is_positive", "positive", "label"),
    "gene": ("measuredGeneSymbol", "gene", "gene_name"),
    "distance": ("distanceToTSS", "distance"),
    "tss": ("startTSS", "tss"),
    "change": ("EffectSize", "change"),
    "significant": ("Significant", "significant", "is_significant"),
    "study": ("Dataset", "study"),
    "cell": ("CellType", "cell"),
}
NEEDED = ("chrom", "start", "end", "gene_id", "regulated")
_TRUTH = dict.fromkeys(("true", "t", "yes", "1", "1.0"), True)
_TRUTH |= dict.fromkeys(("false", "f", "no", "0", "0.0"), False)
_OF_A_PAIR = ["chrom", "start", "end", "gene_id", "study", "cell"]


@dataclasses.dataclass(frozen=True)
class Pairs:
    """Measured pairs, `N` of them.

    Attributes:
        table: a row a pair. chrom, start, end (bp, 0-based, end not included), gene_id, gene,
            distance (bp, from the middle of the element to the TSS, without sign), change (of
            expression, as a fraction; NaN if unknown), regulated (the table's own label: whether
            silencing the element lowers the gene), increase (whether it raises it significantly),
            study, cell; and all other columns as they came.
        notes: what was left out, in sentences.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]


def read_pairs(given: pd.DataFrame, where: str, power: tuple[str, float] | None = None) -> Pairs:
    """The pairs of a table.

    Args:
        given: as published, or with our names of columns (`NAMES`).
        where: the file, for messages.
        power: a column of the power to find an effect, and the least of it: pairs that are not
            regulated and have less are left out. Unknown power is not low power: those stay.

    Raises:
        InputError: naming all that is missing or makes no sense.
    """
    found = {name: _column(given, known) for name, known in NAMES.items()}
    named = {ours: given[theirs] for ours, theirs in found.items() if theirs}
    table = given.assign(**named).reset_index(drop=True)
    with collect() as problems:
        derived = not found["regulated"] and found["significant"] and found["change"]
        for name in NEEDED:
            if not found[name] and not (name == "regulated" and derived):
                expected = f"a column {' or '.join(NAMES[name])}"
                expected += ", or Significant and EffectSize" if name == "regulated" else ""
                problems.add(where, f"columns {listing(given.columns)}", expected, "add it")
        if not found["distance"] and not found["tss"]:
            names = [*NAMES["distance"], *NAMES["tss"]]
            problems.add(where, "no distance", f"a column {' or '.join(names)}", "add it")
        if power and power[0] not in table:
            problems.add("--power", f"no column {power[0]}", listing(given.columns), "correct it")
        if power and not np.isfinite(power[1]):
            problems.add("--power", f"{power[1]} as the least", "a finite number", "correct it")
    with collect() as problems:
        for name in ("start", "end", "distance", "tss", "change"):
            if name not in table:
                continue
            values = numbers(table[name])
            wrong = values.isna() & table[name].notna()
            if name in ("start", "end"):
                wrong |= ~np.isfinite(values)
            if wrong.any():
                bad = table.loc[wrong, name].iloc[0]
                problems.add(where, f"{bad!r} in column {found[name]}", "numbers", "correct it")
            table[name] = values
        for name in ("regulated", "significant"):
            if name not in table:
                continue
            truth = table[name].astype(str).str.strip().str.lower().map(_TRUTH)
            wrong = truth.isna() & table[name].notna()
            if wrong.any():
                bad = table.loc[wrong, name].iloc[0]
                problems.add(where, f"{bad!r} in column {found[name]}", "True, False, 1 or 0",
                             "correct it")  # fmt: skip
            table[name] = truth
    if not (table["start"] < table["end"]).all():
        first = table.loc[~(table["start"] < table["end"])].iloc[0]
        stretch = f"{first.chrom}:{first.start}-{first.end}"
        raise InputError(where, f"an element {stretch}", "start below end", "correct it")
    middle = (table["start"] + table["end"]) / 2
    if "distance" not in table:
        table["distance"] = middle - table["tss"]
    table["distance"] = table["distance"].abs()
    blank = pd.Series("", index=table.index)
    for name in ("study", "cell", "gene"):
        table[name] = table[name].fillna("").astype(str) if name in table else blank
    table["gene_id"] = table["gene_id"].fillna("").astype(str).map(strip_version)
    table["change"] = table.get("change", np.nan)
    table["significant"] = table.get("significant", False)
    raised = table["significant"].eq(True)
    table["increase"] = raised & (table["change"] > 0)
    notes = []
    if derived:
        known = table["significant"].notna() & table["change"].notna()
        table["regulated"] = (raised & (table["change"] < 0)).astype(object).where(known)
        notes.append(f"regulated: {found['significant']}, with {found['change']} below 0")

    def drop(which: pd.Series, why: str) -> None:
        nonlocal table
        if which.any():
            notes.append(f"{which.sum():,} pairs left out: {why}")
            table = table[~which]

    drop(table["regulated"].isna() | ~np.isfinite(table["distance"]), "no label or no distance")
    drop(table["chrom"].isna() | (table["gene_id"] == ""), "no chromosome or no gene")
    table["regulated"] = table["regulated"].astype(bool)
    labels = table.groupby(_OF_A_PAIR)["regulated"].transform("nunique")
    drop(labels > 1, "listed with both labels in one study")
    drop(table.duplicated(_OF_A_PAIR), "listed twice in one study")
    if power:
        known = numbers(table[power[0]])
        drop(~table["regulated"] & (known < power[1]), f"{power[0]} below {power[1]:g}")
        if known.isna().any():
            notes.append(f"{known.isna().sum():,} pairs of unknown {power[0]} kept")
    if not 0 < table["regulated"].sum() < len(table):
        counts = f"{int(table['regulated'].sum())} regulated of {len(table)} pairs"
        raise InputError(where, counts, "some of each", "give another table")
    return Pairs(table.reset_index(drop=True), tuple(notes))


def _column(given: pd.DataFrame, names: Sequence[str]) -> str | None:
    """The column of one of these names, or of one that differs in case and underscores alone."""
    plain = {
        str(column).lower().replace("_", ""): str(column) for column in reversed(given.columns)
    }
    alike = (plain.get(name.lower().replace("_", "")) for name in names)
    return next((name for name in names if name in given), None) or next(filter(None, alike), None)


def counts(pairs: Pairs) -> pd.DataFrame:
    """Pairs, regulated ones and significant increases of every study and cell."""
    grouped = pairs.table.groupby(["study", "cell"], sort=True)
    return grouped.agg(
        pairs=("regulated", "size"), regulated=("regulated", "sum"), increases=("increase", "sum")
    ).reset_index()
