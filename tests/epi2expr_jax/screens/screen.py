"""A made-up screen: pairs whose effects are known, as a table in the public columns."""

import numpy as np
import pandas as pd

# Pairs by chromosome, as uneven as those of the public screens in K562.
SIZES = (250, 33, 420, 180, 42, 18, 52, 97, 21, 680, 92, 34, 30, 240, 33, 76, 150, 90, 240, 29, 290)


def made_up(rng: np.random.Generator, sizes=SIZES, spread: float = 0.4) -> pd.DataFrame:
    """Pairs whose chance to be regulated falls with distance and grows with H3K27ac.

    Args:
        sizes: pairs by chromosome.
        spread: by how much chromosomes differ (standard deviation, log odds a unit).
    """
    chrom = np.repeat(np.arange(len(sizes)), sizes)
    n = len(chrom)
    gene = rng.integers(0, 1 + np.array(sizes)[chrom] // 5) + 1000 * chrom
    reach = np.log(1e3), np.log(1e6)
    distance = np.maximum(rng.uniform(*reach, n), rng.uniform(*reach, n))
    signal = rng.normal(0, 1, n)
    of_chrom = rng.normal(0, spread, (len(sizes), 3))[chrom]
    of_gene = rng.normal(0, 0.5, gene.max() + 1)[gene]
    odds = -(1.1 + 0.3 * of_chrom[:, 0]) * (distance - np.log(3e4))
    odds += (1 + of_chrom[:, 1]) * signal - 2.4 + of_chrom[:, 2] + of_gene
    regulated = rng.random(n) < 1 / (1 + np.exp(-odds))
    start = 10**6 + 1000 * np.arange(n)
    return pd.DataFrame(
        {
            "chrom": np.char.mod("chr%d", chrom + 1),
            "chromStart": start,
            "chromEnd": start + 500,
            "measuredGeneEnsemblId": np.char.mod("ENSG%011d", gene),
            "measuredGeneSymbol": np.char.mod("GENE%d", gene),
            "Regulated": regulated,
            "Significant": regulated | (rng.random(n) < 0.01),
            "EffectSize": np.where(regulated, -0.3, 0.1) * rng.uniform(0.2, 1.5, n),
            "Dataset": np.where(rng.random(n) < 0.6, "first", "second"),
            "CellType": "K562",
            "distanceToTSS": np.exp(distance).round(),
            "H3K27ac.RPM": np.exp(0.9 * signal),
            "DHS.RPM": np.exp(0.9 * signal + rng.normal(0, 0.5, n)),
        }
    )
