"""Names that people give, of cells, assays, folds, models and genes: each is known, or refused.

A string is one name, never its letters.
"""

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Int

from epi2expr_jax.errors import InputError, collect, nearest
from epi2expr_jax.genome import listing, strip_version
from epi2expr_jax.units import count


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


def retrain(assays: str) -> str:
    """What to do for models of an assay set, or kind of sets, that was not trained."""
    return (
        f"run the training's command again with {assays} added to --assays: only the new models "
        "are trained"
    )


def label_of_trained_set(
    given: str, assays: Sequence[str], trained: Mapping[frozenset[str], str], stored: Sequence[str]
) -> str:
    """The label of the models of an assay set.

    Args:
        given: the set as it was named, for the message.
        assays: those of the set; a name of several sets has more or fewer.
        trained: label of each set that has models.
        stored: the assays of the store trained on.

    Raises:
        InputError: if there are no such models, saying which there are.
    """
    if label := trained.get(frozenset(assays)):
        return label
    if not assays or not set(assays) <= set(stored):
        remedy = "name one that was trained, its assays joined by +"
        return known_names(given, trained.values(), "--assays", "assay set", remedy)[0]
    of = "+".join(assays)
    raise InputError(
        "--assays",
        f"no model of {of if of == given else f'{given} ({of})'}: it was not trained",
        f"one of {', '.join(trained.values())}",
        f"name one of these; or {retrain(given)}",
    )


def rows_of_genes(genes: pd.DataFrame, names: Sequence[str]) -> Int[np.ndarray, " G"]:
    """Rows `[G]` of genes named by their id, with or without Ensembl's version, or by a symbol
    that one gene alone has; -1 for any other name.

    Args:
        genes: with columns `gene_id` and perhaps `name`.
    """
    ids = {gene_id: row for row, gene_id in enumerate(genes["gene_id"])}
    names_of = genes.get("name", pd.Series(dtype=object))  # tables made by hand may lack it
    alone = ~names_of.duplicated(keep=False).to_numpy()
    symbols = {name: row for row, name in enumerate(names_of) if alone[row]}
    found = [ids.get(n, ids.get(strip_version(n), symbols.get(n, -1))) for n in names]
    return np.array(found, np.intp)


def find_genes(
    genes: pd.DataFrame, given: str | Iterable[str], where: str
) -> Int[np.ndarray, " G"]:
    """Rows `[G]` of named genes in a gene table, in the order given; see `rows_of_genes`.

    Args:
        where: the table, for messages.

    Raises:
        InputError: naming every unknown gene, and every symbol of several genes with their ids.
    """
    names, ids = as_names(given), genes["gene_id"].to_numpy()
    rows = rows_of_genes(genes, names)
    symbols = genes.groupby("name").indices if (rows < 0).any() and "name" in genes else {}
    with collect() as problems:
        unknown = []
        for at in np.flatnonzero(rows < 0):
            found = symbols.get(names[at])
            if found is not None:
                of = f"the symbol of {count(len(found), 'gene')} ({listing(ids[found])})"
                problems.add(f"{where}: {names[at]}", of, "one gene", "name it by its id")
            else:
                unknown.append(names[at])
        if unknown:
            near = nearest([n for n in unknown[:3] if not n.startswith("ENS")], map(str, symbols))
            problems.add(
                where,
                f"{len(unknown)} unknown genes ({listing(unknown)})",
                "ids of the store's gene table, or symbols of its column `name`",
                near or "STORE/genes.parquet lists them (in Python: open_store(STORE).genes)",
            )
    return rows
