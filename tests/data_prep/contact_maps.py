"""A small contact map and what is known of it, written as `.cool` and `.mcool`."""

import cooler
import numpy as np
import pandas as pd
from scipy.sparse import coo_matrix

MASKED = 17  # a bin that balancing left out


def write_cool(path, sizes, bin_bp, seed=0):
    """Write a map to `path`, a file or FILE::/resolutions/N; returns what it says, `[B B]` balanced
    frequencies by chromosome."""
    random = np.random.default_rng(seed)
    bins, pixels, said, first = [], [], {}, 0
    for chrom, size in sizes.items():
        start = np.arange(0, size, bin_bp)
        number = len(start)
        apart = np.abs(np.subtract.outer(np.arange(number), np.arange(number)))
        counts = np.triu(random.poisson(400 / (1 + apart) ** 1.1))
        weight = random.uniform(0.02, 0.05, number)
        weight[MASKED % number] = np.nan
        bins.append(
            pd.DataFrame(
                {"chrom": chrom, "start": start, "end": np.minimum(start + bin_bp, size),
                 "weight": weight}
            )
        )  # fmt: skip
        held = coo_matrix(counts)
        pixels.append(
            pd.DataFrame(
                {"bin1_id": held.row + first, "bin2_id": held.col + first, "count": held.data}
            )
        )
        said[chrom] = (counts + np.triu(counts, 1).T) * np.outer(weight, weight)
        first += number
    table = pd.concat(bins, ignore_index=True)
    cooler.create_cooler(str(path), table, pd.concat(pixels), mode="a")
    return said
