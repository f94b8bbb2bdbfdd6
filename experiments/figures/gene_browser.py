"""What the page's gene browser shows of each gene: tracks, predictions, edits, contacts."""

import base64
import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from epi2expr_jax.names import find_genes
from epi2expr_jax.roadmap import cell_name
from epi2expr_jax.store.window_store import WindowStore

MOST_ASSAYS = 16
MOST_CELLS = 12
MOST_BINS = 80
MOST_EDITS = 12  # a gene and cell
MOST_CONTACTS = 20  # likewise
_PERTURBED = 20


def chosen_genes(
    predictions: pd.DataFrame, effects: pd.DataFrame, most: int, named: Sequence[str] = ()
) -> list[str]:
    """Ids of the genes to show: those named, those with the largest errors of either sign, and
    those that edits change most.

    Args:
        predictions: columns gene_id, observed and predicted, of the first assay of the ranking.
        effects: columns gene and effect; may be empty.
        most: how many of the largest errors.
    """
    errors = (predictions["predicted"] - predictions["observed"]).groupby(predictions["gene_id"])
    order = errors.mean().sort_values(kind="stable").index
    half = most // 2
    found = [*named, *order[::-1][: most - half], *order[:half]]
    if len(effects):
        largest = effects["effect"].abs().groupby(effects["gene"]).max()
        found += largest.sort_values(ascending=False, kind="stable").index[:_PERTURBED].tolist()
    return list(dict.fromkeys(found))


def browser_data(
    genes: Sequence[str],
    predictions: pd.DataFrame,
    effects: pd.DataFrame,
    store: WindowStore | None,
    cells: Sequence[str],
    assays: Sequence[str],
) -> dict[str, Any]:
    """What the browser is given, to be written as JSON.

    Args:
        genes: their ids.
        predictions: columns gene_id, chrom, cell, assays, observed and predicted; of these genes.
        effects: columns gene, cell, mark, place, change and effect; may be empty.
        store: for tracks, names, places and contacts; None where it is not found.
        cells, assays: those to show, of which the first are taken.
    """
    cells, assays = list(cells[:MOST_CELLS]), list(assays[:MOST_ASSAYS])
    means = predictions.groupby(["gene_id", "cell", "assays"])[["observed", "predicted"]].mean()
    table = means.round(2).astype(object).where(means.notna(), None)
    known = table.to_dict("index")
    rows = None if store is None else find_genes(store.genes, genes, str(store.path))
    about = predictions.drop_duplicates("gene_id").set_index("gene_id")["chrom"]
    found: dict[str, dict[str, Any]] = {}
    for gene in genes:
        found[gene] = {"id": gene, "name": "", "chrom": str(about.get(gene, "")), "predicted": [
            [known.get((gene, cell, assay), {}).get("predicted") for assay in assays]
            for cell in cells
        ], "observed": [
            next((known[gene, cell, assay]["observed"] for assay in assays
                  if (gene, cell, assay) in known), None)
            for cell in cells
        ]}  # fmt: skip
    if len(effects):
        own = effects[effects["gene"].isin(genes) & effects["cell"].isin(cells)]
        own = own.reindex(own["effect"].abs().sort_values(ascending=False, kind="stable").index)
        own = own.groupby(["gene", "cell"]).head(MOST_EDITS)
        own = own.assign(placed=pd.Categorical(own["place"], effects["place"].unique()))
        order = [name for name in ("assays", "mark", "placed", "factor") if name in own]
        own = own.sort_index().sort_values(order, kind="stable")  # doses from low to high
        several = own["assays"].nunique() > 1 if "assays" in own else False
        for row in own.to_dict("records"):
            name = f"{row['mark']} {row['place']} {row['change']}"
            name = f"{name} (model of {row['assays']})" if several else name
            edit = [cells.index(row["cell"]), name, round(float(row["effect"]), 3)]
            found[row["gene"]].setdefault("edits", []).append(edit)
    if store is None or rows is None:
        return _named(list(found.values()), cells, assays)
    marks = [assay for assay in store.manifest.assays if any(assay in a.split("+") for a in assays)]
    return _named(list(found.values()), cells, assays) | _of_store(store, found, rows, cells, marks)


def _named(genes: list[Any], cells: list[str], assays: list[str]) -> dict[str, Any]:
    labels = [f"{cell} {cell_name(cell)}".strip() for cell in cells]
    return {"genes": genes, "cells": labels, "assays": assays}


def _of_store(
    store: WindowStore, genes: dict[str, Any], rows: np.ndarray, cells: list[str], marks: list[str]
) -> dict[str, Any]:
    """Names and places of genes, their contacts, and tracks `[cell mark bin]`, a byte a value."""
    for gene, row in zip(genes.values(), store.genes.iloc[rows].to_dict("records"), strict=True):
        name = row.get("name")
        gene |= {"name": name if isinstance(name, str) else "", "tss": int(row["tss"])}
        gene |= {"chrom": row["chrom"], "strand": row["strand"]}
    for number, cell in enumerate(cells):
        if cell in store.manifest.regions_sha256:
            regions = store.regions(cell)
            contacts = regions.contacts[regions.contacts["rank"] < MOST_CONTACTS]
            table = contacts.join(regions.table[["start", "end"]], on="region")
            for gene, row in zip(genes.values(), rows, strict=True):
                own = table.loc[table["gene"] == row, ["start", "end", "score"]]
                listed = [[int(a), int(b), round(float(s), 3)] for a, b, s in own.to_numpy()]
                gene.setdefault("contacts", {})[str(number)] = listed
    bins = store.manifest.window.bins
    edges = np.linspace(0, bins, min(bins, MOST_BINS) + 1).astype(int)
    signal = np.zeros((len(rows), len(cells), len(marks), len(edges) - 1), np.float32)
    there = {tuple(pair) for pair in store.manifest.tracks}
    for c, cell in enumerate(cells):
        for m, mark in enumerate(marks):
            if (cell, mark) in there:
                own = store.read_signal(cell, mark)[0, 0, rows]
                sums = np.add.reduceat(own.reshape(len(rows), bins), edges[:-1], axis=1)
                signal[:, c, m] = sums / np.diff(edges)
    top = np.quantile(signal, 0.999, axis=(0, 1, 3)).clip(1e-6)
    scaled = np.clip(signal / top[:, None].astype(np.float32), 0, 1) * 255
    for gene, own in zip(genes.values(), scaled.round().astype(np.uint8), strict=True):
        gene["tracks"] = base64.b64encode(own.tobytes()).decode()
    return {
        "marks": [[mark, float(f"{t:.4g}")] for mark, t in zip(marks, top, strict=True)],
        "bins": len(edges) - 1,
        "window": store.manifest.window_bp,
    }


def as_script(data: dict[str, Any]) -> str:
    """JSON for within a `script` element: no name in it can end the element."""
    text = json.dumps(data, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
