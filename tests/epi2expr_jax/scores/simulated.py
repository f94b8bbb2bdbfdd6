"""Held-out predictions drawn so that each model's correlation is known."""

import numpy as np
import pandas as pd


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
