"""--genes: which genes a trained run is asked about."""

import pathlib

import numpy as np
from absl import flags

from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.window_store import WindowStore


def define_genes() -> None:
    flags.DEFINE_string(
        "genes", "", "expressed, silent, a comma list of ids or a file of them; default: all."
    )


def genes_of(text: str, ensemble: Ensemble, store: WindowStore) -> list[str] | None:
    """The ids --genes asks for; None for every held-out gene."""
    if not text:
        return None
    if text in ("expressed", "silent"):
        cells = list(dict.fromkeys(run.cell for run in ensemble.runs))
        labels = store.read_labels(cells)
        if labels is None:
            rpkm = store.read_expression(cells)
            labels = rpkm >= np.median(rpkm, axis=1, keepdims=True)
        chosen = (labels if text == "expressed" else ~labels).any(axis=0)
        tested = ensemble.wanted(store, np.arange(len(store.genes)), False).any(axis=0)
        return store.genes.gene_id.to_numpy()[np.asarray(chosen & tested)].tolist()
    if "," in text or not pathlib.Path(text).exists():
        return text.split(",")
    return pathlib.Path(text).read_text().split()
