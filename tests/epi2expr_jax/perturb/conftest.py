"""Genes whose edits differ in every way."""

import numpy as np
import pytest


@pytest.fixture(scope="module")
def rows(distal_store):
    """Genes of both strands, with and without regions."""
    count = distal_store.regions("E003").by_gene(len(distal_store.genes), 8)[0] >= 0
    genes = distal_store.genes.assign(count=count.sum(1))
    picked = [
        genes[(genes.strand == strand) & some].index[:2]
        for strand in "+-"
        for some in (genes["count"] > 1, genes["count"] == 0)
    ]
    return np.sort(np.concatenate(picked))
