"""Variant–gene pairs (eQTLs and a background) counted in the places of their gene.

A pair counts in the places of its own gene alone, and in each that holds the variant. Names of
chromosomes may be `1` or `chr1`, gene ids may carry versions.

The background is all that was tested for these genes, with or without the significant pairs. A
sample of it does not suffice: places with significant variants would seem to be better tested than
others, and the fit would take that for the reason. Without a background, a variant's chance to lie
in a place is taken to be proportional to its width.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError, Problems, collect
from epi2expr_jax.files import numbers
from epi2expr_jax.genome import bare_chromosome, listing, strip_version

PLACE_COLUMNS = ["gene_id", "chrom", "start", "end", "effect", "distance", "signal"]
_SYNONYMS = {"grch37": "hg19", "b37": "hg19", "grch38": "hg38", "grcm38": "mm10", "grcm39": "mm39"}
_POSITIONS = 2**40  # more than any chromosome has
_MEASURES = ["effect", "distance", "signal"]


def assign_variants(
    places: pd.DataFrame,
    significant: pd.DataFrame,
    background: pd.DataFrame | None = None,
    *,
    assembly: str,
    places_assembly: str,
) -> tuple[pd.DataFrame, list[str]]:
    """Count significant and tested variants in the places of their gene.

    Args:
        places: one row a gene and place, columns `PLACE_COLUMNS` (0-based, half-open; effect in
            log2 units, distance from the TSS in bp, signed along the strand, mean signal) and
            perhaps `contact`, at least 0, NaN where there is none.
        significant: pairs of a variant and the gene it is an eQTL of: columns gene_id, chrom and
            `pos` (0-based), or instead of it `end` (1-based, as BED files hold it).
        background: all pairs that were tested, or all of them that are not significant; in the
            same form.
        assembly: of the pairs.
        places_assembly: of the places.

    Returns:
        The places, with columns `significant` (how many such variants each holds) and `exposure`
        (how many were tested, significant ones included; or the width in bp); and in plain
        sentences what was left out. Kept are places with effect, distance, signal and exposure,
        of genes with two or more of them, that hold at least one significant variant.

    Raises:
        InputError: if the assemblies differ, columns are missing, values cannot be used (all named
            at once), or nothing is left to test.
    """
    pairs = {"significant variants": significant}
    if background is not None:
        pairs["background"] = background
    _check(places, pairs, assembly, places_assembly)
    notes: list[str] = []

    def keep(kept: pd.Series | np.ndarray, what: str) -> None:
        nonlocal places
        if dropped := int((~kept).sum()):
            notes.append(f"{dropped:,} of {len(places):,} places left out: {what}")
        places = places[kept]

    keep(places[_MEASURES].notna().all(axis=1), "without effect, distance or signal")
    places = places.assign(gene_id=_mapped(places["gene_id"], strip_version))
    chrom = _mapped(places["chrom"], bare_chromosome)
    codes = pd.MultiIndex.from_arrays([places["gene_id"], chrom]).drop_duplicates()
    own = codes.get_indexer(pd.MultiIndex.from_arrays([places["gene_id"], chrom])) * _POSITIONS
    start, end = own + places["start"].to_numpy(int), own + places["end"].to_numpy(int)
    placed = {name: _keys_of(name, table, codes, notes) for name, table in pairs.items()}
    for name, keys in placed.items():
        begun = np.searchsorted(np.sort(start), keys, "right")
        inside = begun > np.searchsorted(np.sort(end), keys, "right")
        if outside := int((~inside).sum()):
            what = "in none of their gene's places"
            notes.append(f"{name}: {outside:,} of {len(pairs[name]):,} pairs left out, {what}")

    def count(keys: np.ndarray) -> np.ndarray:
        return np.searchsorted(keys, end) - np.searchsorted(keys, start)

    hits, exposure = placed["significant variants"], end - start
    if background is not None:
        exposure = count(np.union1d(hits, placed["background"]))
        known = int(np.isin(hits, placed["background"]).sum())
        if 0 < known < len(hits):
            notes.append(
                f"only {known:,} of {len(hits):,} significant variants are in the background: is "
                "it all that was tested? A sample of it hides enrichment"
            )
    places = places.assign(significant=count(hits), exposure=exposure)
    keep(places["exposure"] > 0, "no variant tested in them")
    by_gene = places.groupby("gene_id")["significant"]
    keep(by_gene.transform("size") > 1, "their gene has no other one to compare with")
    by_gene = places.groupby("gene_id")["significant"]
    keep(by_gene.transform("sum") > 0, "their gene has no significant variant in any")
    if places.empty:
        raise InputError(
            "significant variants",
            f"{len(significant):,} pairs, none in a place that can be compared with another "
            f"of its gene ({'; '.join(notes)})",
            "variants in the places of genes with two places or more",
            "check gene ids, chromosomes and --assembly of both tables",
        )
    return places.reset_index(drop=True), notes


def _mapped(values: pd.Series, function: Callable[[str], str]) -> pd.Series:
    """A function of strings, applied once to each distinct one."""
    text = values.astype(str)
    return text.map({name: function(name) for name in text.unique()})


def _position(pairs: pd.DataFrame) -> pd.Series:
    column = "pos" if "pos" in pairs else "end"
    return numbers(pairs[column]) - (column == "end")


def _keys_of(name: str, pairs: pd.DataFrame, codes: pd.MultiIndex, notes: list[str]) -> np.ndarray:
    """Sorted keys of the pairs whose gene and chromosome have places, each once."""
    gene = _mapped(pairs["gene_id"], strip_version)
    chrom = _mapped(pairs["chrom"], bare_chromosome)
    code = codes.get_indexer(pd.MultiIndex.from_arrays([gene, chrom]))
    chromosomes = chrom.isin(codes.get_level_values(1))
    genes = gene.isin(codes.get_level_values(0))
    keys = code * _POSITIONS + _position(pairs).to_numpy(int)
    distinct = np.unique(keys[code >= 0])
    for what, count in {
        "on chromosomes without places": (~chromosomes).sum(),
        "of genes without places": (chromosomes & ~genes).sum(),
        "on another chromosome than their gene's places": (chromosomes & genes & (code < 0)).sum(),
        "listed before": (code >= 0).sum() - len(distinct),
    }.items():
        if count:
            notes.append(f"{name}: {count:,} of {len(pairs):,} pairs left out, {what}")
    return distinct


def _check(
    places: pd.DataFrame, pairs: dict[str, pd.DataFrame], assembly: str, places_assembly: str
) -> None:
    """Raises InputError naming every table, column and row that cannot be used."""
    with collect() as problems:
        names = [_SYNONYMS.get(name.lower(), name) for name in (assembly, places_assembly)]
        if names[0] != names[1]:
            remedy = (
                "give variants of the places' assembly (lift them over), and name it --assembly"
            )
            problems.add("assembly", assembly, f"{places_assembly}, of the places", remedy)
        missing = [name for name in PLACE_COLUMNS if name not in places]
        if missing:
            _lacks(problems, "regions", places, missing)
        else:
            _check_places(problems, places)
        for name, table in pairs.items():
            missing = [column for column in ("gene_id", "chrom") if column not in table]
            if "pos" not in table and "end" not in table:
                missing.append("pos (0-based) or end (1-based)")
            if missing:
                _lacks(problems, name, table, missing)
                continue
            if table.empty:
                problems.add(name, "no pair", "one or more", "give another table")
            rows = table.index.to_numpy()
            unnamed = table[["gene_id", "chrom"]].isna().any(axis=1)
            if unnamed.any():
                _at(problems, name, rows[unnamed], "without gene or chromosome", "both")
            position = _position(table)
            wrong = ~(position.between(0, _POSITIONS - 1) & (position % 1 == 0))
            if wrong.any():
                expected = "whole positions, 0-based `pos` or 1-based `end`"
                _at(problems, name, rows[wrong], "whose position is negative or none", expected)


def _check_places(problems: Problems, places: pd.DataFrame) -> None:
    key = ["gene_id", "chrom", "start", "end"]
    spelled = places.assign(
        gene_id=_mapped(places["gene_id"], strip_version),
        chrom=_mapped(places["chrom"], bare_chromosome),
    )
    bounds = places[["start", "end"]].apply(numbers)
    text = [name for name in _MEASURES if not pd.api.types.is_numeric_dtype(places[name])]
    if text:
        problems.add("regions", f"text in columns {text}", "numbers", "correct the table")
        return
    interval = (bounds["start"] >= 0) & (bounds["start"] < bounds["end"])
    interval &= bounds["end"] < _POSITIONS
    wrong = {
        ("listed twice", "one row a gene and place"): spelled.duplicated(key),
        ("without gene, chromosome, start or end", "all four"): places[key].isna().any(axis=1),
        ("with bounds that do not make an interval", "0 <= start < end"): ~interval,
        ("with an infinite effect, distance or signal", "finite numbers"): places[_MEASURES]
        .isin([np.inf, -np.inf])
        .any(axis=1),
    }
    if "contact" in places:
        wrong[("with a contact below 0", "0 or more, or none")] = places["contact"] < 0
    rows = places.index.to_numpy()
    for (found, expected), where in wrong.items():
        if where.any():
            _at(problems, "regions", rows[where], found, expected)


def _at(problems: Problems, name: str, rows: np.ndarray, found: str, expected: str) -> None:
    found = f"{len(rows):,} rows {found} ({listing(rows)}, counted from 0)"
    problems.add(name, found, expected, "correct the table")


def _lacks(problems: Problems, name: str, table: pd.DataFrame, missing: list[str]) -> None:
    columns = list(map(str, table.columns))
    problems.add(name, f"columns {columns}", f"also {missing}", "add them")
