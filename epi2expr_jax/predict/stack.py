"""A stack: the weighted mean of the network and the baselines.

Weights are at least 0 and add up to at most 1 (Breiman, Stacked regressions, Machine Learning
1996). Those for the genes of a chromosome are fitted on the out-of-fold predictions of all other
chromosomes: genes that neither trained nor stopped the models that predicted them.
"""

from collections.abc import Iterable

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float

from epi2expr_jax.predict.baselines import BASELINES, COVARIATES, MEAN_OF_CELLS, MEAN_OF_OTHERS

STACK = "stack"
STACKED = ("ridge", "whole_ridge", "boosting")  # besides the network, where they were asked for
_SET = ["cell", "assays", "seed"]
_GENE = ["run_id", "gene_id"]
_FIRM = 1e4  # how much more the bound of the sum weighs than the data
_OTHERS = {  # what else a model is compared with
    COVARIATES: "ridge regression on what is known of genes without an epigenome, such as length",
    MEAN_OF_CELLS: "a gene's mean expression in the cells trained on; no epigenome",
    MEAN_OF_OTHERS: "a gene's mean expression in the store's other cells; no epigenome",
    STACK: f"a weighted mean of the model and {', '.join(STACKED)}, those that were asked for",
}


def explained(names: Iterable[str]) -> dict[str, str]:
    """What a model is compared with, by name, in words for readers; other names are left out."""
    words = {name: baseline.words for name, baseline in BASELINES.items()} | _OTHERS
    seeds = "the mean of the predictions of the seeds of each run"
    found = {name: seeds if ", mean of " in name else words.get(name, "") for name in names}
    return {name: text for name, text in found.items() if text}


def stacked(predictions: pd.DataFrame, made: pd.DataFrame) -> pd.DataFrame:
    """Held-out genes predicted by the stack.

    Args:
        predictions: of the network, as from `held_out.predict_held_out`.
        made: of baselines, as from `baselines.predict_baselines`.

    Returns:
        The rows of `predictions` whose genes all parts predict, and of whose cell, assay set and
        seed two chromosomes or more are tested, with the prediction of the stack, `model`, and the
        weight of each part in a column `weight of PART`; empty if there is no other part.
    """
    known = [name for name in STACKED if name in set(made.get("model", ()))]
    if not known:
        return pd.DataFrame()
    table, values = predictions, ["predicted", "predicted_raw"]
    for name in known:
        part = made.loc[made["model"] == name, [*_GENE, *values]]
        table = table.merge(part, on=_GENE, suffixes=("", f" of {name}"))
    predicted, raw = (
        table[[value, *(f"{value} of {name}" for name in known)]].to_numpy() for value in values
    )
    observed, observed_raw = table["observed"].to_numpy(), table["observed_raw"].to_numpy()
    weights, found = np.full(predicted.shape, np.nan), np.full((2, len(table)), np.nan)
    for _, rows in table.groupby(_SET).indices.items():
        chrom = table["chrom"].to_numpy()[rows]
        for name in set(chrom):
            own, others = rows[chrom == name], rows[chrom != name]
            if not len(others):
                continue
            weights[own] = w = fit_weights(predicted[others], observed[others])
            for i, (part, seen) in enumerate(((predicted, observed), (raw, observed_raw))):
                middle = seen[others].mean()
                found[i, own] = middle + (part[own] - middle) @ w
    named = {f"weight of {name}": weights[:, i] for i, name in enumerate(["network", *known])}
    table = table[[*predictions]].assign(
        predicted=found[0], predicted_raw=found[1], model=STACK, **named
    )
    return table[~np.isnan(found[0])]


def fit_weights(
    predicted: Float[np.ndarray, "G K"], observed: Float[np.ndarray, " G"]
) -> Float[np.ndarray, " K"]:
    """Weights of least squares, at least 0 and together at most 1, of what predictions differ from
    the mean of `observed`."""
    middle = observed.mean()
    predicted, observed = predicted - middle, observed - middle
    # What is left to 1 is one more weight, in an equation that outweighs the data (Lawson & Hanson,
    # Solving Least Squares Problems, chapter 23).
    firm = _FIRM * max(np.linalg.norm(predicted), np.linalg.norm(observed), 1.0)
    rows = np.hstack([predicted, np.zeros((len(predicted), 1))])
    rows = np.vstack([rows, np.full((1, rows.shape[1]), firm)])
    weights, _ = scipy.optimize.nnls(rows, np.r_[observed, firm])
    return weights[:-1]
