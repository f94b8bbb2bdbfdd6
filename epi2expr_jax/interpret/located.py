"""Where edited places are in the genome, with their signal and contacts."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pandas as pd

from epi2expr_jax.perturb.places import Place, Scene
from epi2expr_jax.store.window_store import WindowStore


def locate(
    table: pd.DataFrame, places: Sequence[Place], store: WindowStore, window_bp: int
) -> pd.DataFrame:
    """Effects with where each gene has the place: columns start and end, and those of the gene.

    Genes without such a place are left out. `distance` becomes that of the place's middle from
    the TSS, along the strand, where a place lies elsewhere in every gene.
    """
    index = {place.name: place for place in places}
    parts = []
    for (cell, name), part in table.groupby(["cell", "place"], sort=False):
        own = store.genes[store.genes.gene_id.isin(part["gene"])]
        found = index[str(name)].intervals(Scene(store, own, str(cell), window_bp, (0,)))[:, 0, 0]
        own = own.assign(start=found[:, 0], end=found[:, 1])
        part = part.merge(own, left_on="gene", right_on="gene_id", suffixes=("", "_"))
        offset = (part["start"] + part["end"]) / 2 - part["tss"]
        part["distance"] = np.where(part["strand"] == "-", -offset, offset)
        parts.append(part[part["end"] > part["start"]])
    return pd.concat(parts, ignore_index=True)


def place_table(
    located: pd.DataFrame, assay: str, store: WindowStore, window_bp: int
) -> pd.DataFrame:
    """Each gene's places with their effect, signal and contacts, for experiments.enrichment.

    Returns:
        Columns cell, assays, gene_id, chrom, start, end, effect, distance (bp), signal (mean of
        the window's bins there; of the gene's region where the place lies in one beyond the
        window), and, of cells with contacts, contact: the best score of a region of the gene that
        overlaps. Places of which the store holds no signal are left out.
    """
    found = located.assign(signal=np.nan)
    for cell, part in found.groupby("cell", sort=False):
        found.loc[part.index, "signal"] = _window_signal(part, str(cell), assay, store, window_bp)
        if cell in store.manifest.contacts:
            met = _met_regions(part, str(cell), assay, store)
            found.loc[part.index, "contact"] = met["score"]
            found.loc[part.index, "signal"] = found.loc[part.index, "signal"].fillna(met["signal"])
    found = found[found["signal"].notna()]
    columns = ["cell", "assays", "gene_id", "chrom", "start", "end", "effect", "distance", "signal"]
    return found[[*columns, *(["contact"] if "contact" in found else [])]].reset_index(drop=True)


def _window_signal(
    part: pd.DataFrame, cell: str, assay: str, store: WindowStore, window_bp: int
) -> np.ndarray:
    """Mean of the store's bins that a place overlaps; NaN where its middle is out of the window."""
    spec = store.manifest.window
    rows = pd.Index(store.genes.gene_id).get_indexer(pd.Index(part["gene"]))
    first = part["tss"].to_numpy() - spec.window_bp // 2
    low = np.clip((part["start"].to_numpy() - first) // spec.bin_bp, 0, spec.bins - 1)
    high = np.clip(-(-(part["end"].to_numpy() - first) // spec.bin_bp), low + 1, spec.bins)
    signal = store.read_signal([cell], [assay])[0, 0]
    total = np.pad(np.cumsum(signal, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
    mean = (total[rows, high] - total[rows, low]) / (high - low)
    return np.where(part["distance"].abs() < window_bp // 2, mean, np.nan)


def _met_regions(part: pd.DataFrame, cell: str, assay: str, store: WindowStore) -> pd.DataFrame:
    """For each place the best of the gene's regions that overlap it: its score and mean signal."""
    touched = contacts_of(store, cell, assay)
    pairs = part[["gene", "start", "end"]].assign(row=part.index)
    pairs = pairs.merge(touched, left_on="gene", right_on="gene_id", suffixes=("", "_region"))
    over = (pairs["start"] < pairs["end_region"]) & (pairs["start_region"] < pairs["end"])
    best = pairs[over].sort_values("score", ascending=False).drop_duplicates("row")
    met = best.set_index("row")[["score", "signal"]].reindex(part.index)
    return met.assign(score=met["score"].fillna(0.0))


def contacts_of(store: WindowStore, cell: str, assay: str) -> pd.DataFrame:
    """Every contact of a cell: gene_id, chrom, start, end, score, and the region's mean signal."""
    regions = store.regions(cell)
    signal = store.read_region_signal(cell, [assay])[0]
    table = regions.table.assign(signal=np.nan)
    if len(table):
        table["signal"] = np.add.reduceat(signal, table["first"].to_numpy()) / table["bins"]
    joined = regions.contacts.join(table, on="region")
    joined["gene_id"] = store.genes.gene_id.to_numpy()[joined["gene"]]
    return joined[["gene_id", "chrom", "start", "end", "score", "signal"]]


@dataclasses.dataclass(frozen=True)
class GenePlot:
    """What is drawn of one gene and model.

    Attributes:
        gene: its row of the store's gene table.
        title: what the mark is, in which cell.
        signal: of the mark, a bin each, in genomic order.
        edges: of those bins, in bp from the TSS.
        edits: columns start, end (bp from the TSS), place, change, effect, low and high.
        contacts: columns start, end (bp from the TSS) and score.
    """

    gene: pd.Series
    title: str
    signal: np.ndarray
    edges: np.ndarray
    edits: pd.DataFrame
    contacts: pd.DataFrame


def gene_plots(located: pd.DataFrame, assay: str, store: WindowStore, most: int) -> list[GenePlot]:
    """Plots of the genes with the largest effects, each in the model that predicts it."""
    size = located.assign(size=located["effect"].abs()).groupby(["gene", "cell", "assays"])["size"]
    strongest = size.max().sort_values(ascending=False, kind="stable").reset_index()
    strongest = strongest.drop_duplicates("gene").head(most)[["gene", "cell", "assays"]]
    spec, plots = store.manifest.window, []
    for name, cell, assays in strongest.astype(str).to_numpy().tolist():
        row = store.genes.gene_id.tolist().index(name)
        gene = store.genes.iloc[row]
        own = located[
            (located["gene"] == name) & (located["cell"] == cell) & (located["assays"] == assays)
        ]
        contacts = pd.DataFrame(columns=pd.Index(["start", "end", "score"]))
        if cell in store.manifest.contacts:
            contacts = contacts_of(store, cell, assay)
            contacts = contacts[contacts["gene_id"] == name]
        plots.append(
            GenePlot(
                gene,
                f"{cell} {assay}",
                store.read_signal([cell], [assay])[0, 0, row],
                np.arange(spec.bins + 1) * spec.bin_bp - spec.window_bp // 2,
                _from_tss(own, gene)[["start", "end", "place", "change", "effect", "low", "high"]],
                _from_tss(contacts, gene)[["start", "end", "score"]],
            )
        )
    return plots


def _from_tss(table: pd.DataFrame, gene: pd.Series) -> pd.DataFrame:
    return table.assign(start=table["start"] - gene["tss"], end=table["end"] - gene["tss"])
