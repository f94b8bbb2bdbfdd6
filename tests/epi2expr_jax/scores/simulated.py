"""Held-out predictions, and scores, drawn so that each model's correlation is known."""

import numpy as np
import pandas as pd

from epi2expr_jax.scores.table import METRICS


def simulated(rng, r, genes, spread=0.05, shared=False):
    """Predictions whose correlation on a chromosome varies around r `[C, A]` by `spread`.

    With `shared`, cells share most of their expression, of the models' errors and all of the
    chromosomes' effects; otherwise cells are independent, so that each can be a trial.
    """
    C, A = r.shape
    parts = []
    for chrom, n in genes.items():

        def draw(*shape, weight=0.8 if shared else 0.0):
            common = rng.normal(size=(1, *shape))
            return np.sqrt(weight) * common + np.sqrt(1 - weight) * rng.normal(size=(C, *shape))

        effect = draw(A, weight=1.0 if shared else 0.0) + rng.normal(size=(1 if shared else C, 1))
        rho = np.clip(r + spread * effect / np.sqrt(2), -0.99, 0.99)[..., None]
        observed = draw(1, n)
        predicted = rho * observed + np.sqrt(1 - rho**2) * draw(A, n)
        observed = np.broadcast_to(observed, predicted.shape)
        cell, assay, gene = (axis.ravel() for axis in np.indices(predicted.shape))
        part = {"cell": cell, "assays": assay, "gene_id": gene, "chrom": chrom}
        part |= {"observed": observed.ravel(), "predicted": predicted.ravel()}
        parts.append(pd.DataFrame(part))
    table = pd.concat(parts, ignore_index=True)
    return table.assign(
        cell=np.char.mod("E%03d", table["cell"]),
        assays=np.char.mod("mark%02d", table["assays"]),
        gene_id=table["chrom"] + "_" + np.char.mod("%d", table["gene_id"]),
        fold="f0",
        seed=0,
        observed_raw=table["observed"],
        predicted_raw=table["predicted"],
    )


def scores(level, K=20, folds=5, seeds=1, rng=None, own=0.01, training=0.0, blind=False, n=100):
    """Scores of a world `{cell: {assay: r}}`; NaN is an assay without a track.

    Args:
        own: noise of an assay in a cell on a chromosome; `training` of a model on all of its fold.
        blind: every fold tests all chromosomes.
        n: genes of a chromosome.
    """
    rng = rng or np.random.default_rng(0)
    rows = []
    for cell, assays in level.items():
        for assay, r in assays.items():
            of_chromosome = own * rng.standard_normal(K)
            of_model = training * rng.standard_normal((folds, seeds))
            for fold, seed, k in np.ndindex(folds, seeds, K):
                if blind or k % folds == fold:
                    score = r + of_chromosome[k] + of_model[fold, seed]
                    rows.append((cell, assay, fold, seed, f"chr{k + 1}", score))
    names = ["cell", "assays", "fold", "seed", "chrom", "pearson"]
    table = pd.DataFrame(rows, columns=names).dropna()
    table = table.assign(n=n, constant=False, constant_observed=False)
    return table.assign(**dict.fromkeys(METRICS[1:], table["pearson"]))


def world(*rows, names="ABCDEFGHIJKL"):
    """Cells E1, E2, … with the scores of assays A, B, … by row."""
    return {f"E{i + 1}": dict(zip(names, row, strict=False)) for i, row in enumerate(rows)}


def failed(table, cell, assay):
    """The training of an assay in a cell ended in a constant, whose score is 0."""
    here = (table.cell == cell) & (table.assays == assay)
    return table.assign(constant=table.constant | here, pearson=table.pearson.where(~here, 0.0))
