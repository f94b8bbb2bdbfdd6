"""Genes that a model may know from others: families named in a table, and copies seen in signal.

Chromosomes are held out whole, but a gene and its copy on another chromosome may be on both sides.
A model that saw one then knows the other, however idle the mark.
"""

import os
from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float, Int

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import read_csv
from epi2expr_jax.names import rows_of_genes
from epi2expr_jax.store.window_store import WindowStore

COLUMNS = ["gene", "group", "chrom", "nearest", "r"]
# How near copies are: 1 - r, as a share of the median 1 - r to a gene's nearest other gene.
NEAR = 0.05
SAME = 1e-4  # 1 - r, whatever is usual
LEAST_BINS = 20  # above a row's lowest, in all tracks: rows of less signal are alike by chance
SKETCH, BLOCK, MOST = 64, 512, 16


def read_groups(path: str | os.PathLike, genes: pd.DataFrame) -> pd.DataFrame:
    """Groups of genes, such as paralogs or families, from a table.

    Args:
        path: CSV with the columns gene (id, with or without version, or symbol) and group. A gene
            may be in several groups.
        genes: the gene table of the store.

    Returns:
        Columns gene (its id in the store) and group; genes that the store lacks are left out.

    Raises:
        InputError: if it cannot be read, a name is empty, or the store has none of its genes.
    """
    columns = ["gene", "group"]
    table = read_csv(str(path), "table of gene groups", "see docs/commands.md", columns, columns)
    table = table[columns].apply(lambda column: column.str.strip())
    if (empty := (table == "").any(axis=1).to_numpy()).any():
        found = f"{empty.sum()} rows without gene or group (row {empty.argmax() + 2} first)"
        raise InputError(str(path), found, "both in every row", "complete or delete them")
    rows = rows_of_genes(genes, table["gene"].tolist())
    table["gene"] = genes["gene_id"].to_numpy()[rows]
    known = table[rows >= 0].drop_duplicates(ignore_index=True)
    if known.empty:
        found = f"none of its {len(table)} genes is in the store"
        raise InputError(str(path), found, "ids or symbols of the store's genes", "correct them")
    return known


def signal_copies(store: WindowStore) -> pd.DataFrame:
    """Genes on different chromosomes whose signal is all but the same in every track.

    Rows are normalised within gene and track, 5′ to 3′, and rid of the shape that genes share; r is
    their correlation over all tracks. Random projections find the pairs, so memory is that of one
    track and `[G, 64]`.

    Returns:
        One row a gene that has a copy, with columns `COLUMNS`: `nearest` is its nearest copy. Empty
        where there is none.
    """
    chrom = pd.factorize(store.genes["chrom"])[0]
    sketch = np.zeros((len(chrom), SKETCH), np.float32)
    filled = np.zeros(len(chrom), np.int64)
    for number, (rows, above) in enumerate(_tracks(store)):
        random = np.random.default_rng(number)
        sketch += rows @ random.standard_normal((rows.shape[1], SKETCH), np.float32)
        filled += above
    sketch /= np.maximum(np.linalg.norm(sketch, axis=1, keepdims=True), 1e-9)
    sketch[filled < LEAST_BINS] = 0
    near, pairs = _near(sketch, chrom)
    r = _correlation(store, pairs)
    close = 1 - r <= near
    return _as_groups(store.genes, pairs[close], r[close])


def _tracks(store: WindowStore) -> Iterator[tuple[Float[np.ndarray, "G W"], Int[np.ndarray, "G"]]]:
    """Normalised rows of each track, and in how many bins each is above its lowest."""
    minus = (store.genes["strand"] == "-").to_numpy()
    for cell, assay in store.manifest.tracks:
        raw = np.nan_to_num(store.read_signal([cell], [assay])[0, 0])
        rows = np.log1p(np.maximum(raw, 0))
        rows[minus] = rows[minus, ::-1]
        above = (rows > rows.min(axis=1, keepdims=True)).sum(axis=1)
        rows -= rows.mean(axis=1, keepdims=True)
        spread = rows.std(axis=1, keepdims=True)
        rows /= np.where(spread > 0, spread, 1)
        yield rows - rows.mean(axis=0), above


def _near(
    sketch: Float[np.ndarray, "G S"], chrom: Int[np.ndarray, "G"]
) -> tuple[float, Int[np.ndarray, "P 2"]]:
    """How near a copy is at least, as 1 - r; and the pairs that may be so near."""

    def blocks() -> Iterator[tuple[int, Float[np.ndarray, "B G"]]]:
        for begin in range(0, len(sketch), BLOCK):
            r = sketch[begin : begin + BLOCK] @ sketch.T
            yield begin, np.where(chrom[begin : begin + BLOCK, None] == chrom, -1, r)

    nearest = np.concatenate([r.max(axis=1) for _, r in blocks()])
    there = np.any(sketch != 0, axis=1)
    near = max(SAME, NEAR * float(np.median(1 - nearest[there]))) if there.any() else 0.0
    pairs = np.empty((0, 2), int)
    for begin, r in blocks():
        may = r >= 1 - 3 * near  # a sketch errs by a fifth of 1 - r
        may &= may.cumsum(axis=1) <= MOST
        one, other = np.nonzero(may)
        pairs = np.concatenate([pairs, np.stack([one + begin, other], axis=1)])
    return near, np.unique(np.sort(pairs, axis=1), axis=0)


def _correlation(store: WindowStore, pairs: Int[np.ndarray, "P 2"]) -> Float[np.ndarray, "P"]:
    """r of the rows of each pair, over all tracks."""
    products = np.zeros((3, len(pairs)))
    if len(pairs):
        for rows, _ in _tracks(store):
            a, b = rows[pairs.T].astype(np.float64)
            products += [(a * b).sum(axis=1), (a * a).sum(axis=1), (b * b).sum(axis=1)]
    both, own, other = products
    return both / np.sqrt(np.maximum(own * other, 1e-30))


def _as_groups(
    genes: pd.DataFrame, pairs: Int[np.ndarray, "P 2"], r: Float[np.ndarray, "P"]
) -> pd.DataFrame:
    """The genes of some pairs, those that are linked in one group."""
    size = len(genes)
    linked = scipy.sparse.coo_array((np.ones(len(pairs)), pairs.T), (size, size))
    component = scipy.sparse.csgraph.connected_components(linked, directed=False)[1]
    ids, chrom = genes["gene_id"].to_numpy(), genes["chrom"].to_numpy()
    one = np.concatenate([pairs, pairs[:, ::-1]])
    both = pd.DataFrame({"at": one[:, 0], "other": one[:, 1], "r": np.tile(r, 2)})
    both = both.sort_values(["at", "r"], ascending=[True, False]).drop_duplicates("at")
    at, other = both["at"].to_numpy(), both["other"].to_numpy()
    names = [f"copies {number + 1}" for number in pd.factorize(component[at])[0]]
    group = np.array(names, object)  # names even where there are none
    found = {"gene": ids[at], "group": group, "chrom": chrom[at], "nearest": ids[other]}
    return pd.DataFrame({**found, "r": both["r"].to_numpy()}, columns=pd.Index(COLUMNS))
