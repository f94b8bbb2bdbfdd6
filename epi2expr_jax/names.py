"""Names that people give, of cells, assays, folds, models and genes: each is known, or refused.

A string is one name, never its letters.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
from jaxtyping import Int

from epi2expr_jax.errors import InputError, collect, nearest
from epi2expr_jax.genome import listing, strip_version


def as_names(given: str | Iterable[str]) -> list[str]:
    """Names as a list; a string is one."""
    return [given] if isinstance(given, str) else list(given)


def known_names(
    given: str | Iterable[str],
    known: Iterable[str],
    where: str,
    kind: str,
    remedy: str = "correct it",
) -> list[str]:
    """Names as a list, each of which is known.

    Args:
        kind: of what they are names, for the message.
        remedy: where no known name is near.

    Raises:
        InputError: naming every unknown one, and the nearest known one.
    """
    names, choices = as_names(given), list(known)
    unknown = [name for name in names if name not in choices]
    if unknown:
        raise InputError(
            where,
            f"unknown {kind} {listing(unknown)}",
            f"one of {', '.join(choices)}",
            nearest(unknown, choices) or remedy,
        )
    return names


def find_genes(
    genes: pd.DataFrame, given: str | Iterable[str], where: str
) -> Int[np.ndarray, " G"]:
    """Rows `[G]` of named genes in a gene table, in the order given.

    Args:
        genes: with columns `gene_id` and `name`.
        given: ids, with or without Ensembl's version, or symbols, as in `name`.
        where: the table, for messages.

    Raises:
        InputError: naming every unknown gene, and every symbol of several genes with their ids.
    """
    names, ids = as_names(given), pd.Index(genes.gene_id)
    rows = ids.get_indexer(pd.Index(names, dtype=object))
    for at in np.flatnonzero(rows < 0):
        rows[at] = ids.get_indexer(pd.Index([strip_version(names[at])]))[0]
    symbols = genes.groupby("name").indices if (rows < 0).any() else {}
    with collect() as problems:
        unknown = []
        for at in np.flatnonzero(rows < 0):
            found = symbols.get(names[at], ())
            if len(found) == 1:
                rows[at] = found[0]
            elif len(found):
                of = f"the symbol of {len(found)} genes ({listing(ids[found])})"
                problems.add(f"{where}: {names[at]}", of, "one gene", "name it by its id")
            else:
                unknown.append(names[at])
        if unknown:
            near = nearest([n for n in unknown[:3] if not n.startswith("ENS")], map(str, symbols))
            problems.add(
                where,
                f"{len(unknown)} unknown genes ({listing(unknown)})",
                "ids of the store's gene table, or symbols of its column `name`",
                near or "see store.genes",
            )
    return rows
