"""--genes: which genes a trained run is asked about."""

import pathlib
import re

import numpy as np
from absl import flags

from data_prep.formats.text import read_text
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import lines_of
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.targets import LABEL, TargetScale

_A_PATH = re.compile(r"/|\.(txt|csv|tsv|list)(\.gz)?$")  # no gene is called so
_HEADER = {"gene", "genes", "gene_id", "gene_name", "gene_symbol", "symbol", "ensembl_gene_id"}


def define_genes() -> None:
    flags.DEFINE_string(
        "genes",
        "",
        "expressed, silent, a comma list of ids or symbols, or a file of them; default: every gene "
        "that some model never saw.",
    )


def genes_of(text: str, ensemble: Ensemble, store: WindowStore) -> list[str] | None:
    """The names --genes asks for, each once; None for every held-out gene.

    Raises:
        InputError: for a file that cannot be read or has no id in it.
    """
    if not text:
        return None
    if text in ("expressed", "silent"):
        cells = list(dict.fromkeys(run.cell for run in ensemble.runs))
        labels = store.read_labels(cells)
        if labels is None:
            rpkm = store.read_expression(cells)
            pairs = zip(cells, rpkm, strict=True)
            labels = np.stack([TargetScale.fit(LABEL, y, c).to_raw(y) > 0 for c, y in pairs])
        chosen = (labels if text == "expressed" else ~labels).any(axis=0)
        tested = ensemble.wanted(store, np.arange(len(store.genes)), False).any(axis=0)
        return store.genes.gene_id.to_numpy()[np.asarray(chosen & tested)].tolist()
    return names_in(text, "--genes")


def names_in(text: str, flag: str) -> list[str]:
    """Names of genes, each once: those of a file, or a comma list.

    Of a file, lines that begin with `#`, quotation marks and a header are left out.

    Raises:
        InputError: for a file that cannot be read or has no name in it.
    """
    if "," not in text and (pathlib.Path(text).exists() or _A_PATH.search(text)):
        lines = lines_of(read_text(text).replace('"', ""))
        lines = [line for line in lines if line.strip() and not line.startswith("#")]
        if lines and set(re.split(r"[\s,;]+", lines[0].lower())) & _HEADER:
            del lines[0]
        names = re.split(r"[\s,;]+", "\n".join(lines))
    else:
        names = re.split(r"[\s,;]+", text)
    if not any(names):
        raise InputError(f"{flag}={text}", "no gene", "ids or symbols of genes", "add some")
    return list(dict.fromkeys(name for name in names if name))
