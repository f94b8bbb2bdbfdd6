import math

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.genome import WindowSpec
from epi2expr_jax.predict.window_features import (
    Places,
    gene_score,
    mean_within,
    stretches,
    strongest_bin,
)

GENES = pd.DataFrame(
    {
        "strand": ["+", "-", "+", "-", "+"],
        "tss": [1000, 5000, 2000, 3000, 9000],
        "start": [1000, 4750, 2000, None, 4000],
        "end": [1450, 5001, 90_000, None, 8000],  # the last gene ends before its TSS
    }
)
BODY = [450, 251, 88_000, 0, 0]
SPEC = WindowSpec(2000, 100)
PLACES = Places.of(SPEC, GENES)
WINDOWS = np.random.default_rng(0).gamma(1.0, size=(5, 20)).astype(np.float32)


def test_where_bins_and_gene_bodies_lie():
    assert PLACES.edges.tolist() == list(range(-1000, 1001, 100))
    assert PLACES.centres.tolist() == list(range(-950, 1000, 100))
    assert PLACES.body.tolist() == BODY
    assert Places.of(SPEC, GENES[["strand", "tss"]]).body.tolist() == [0] * 5


def test_means_of_a_width_weigh_bins_by_what_lies_in_it():
    (mean,) = mean_within(500)(WINDOWS, PLACES)[2]  # 2.5 bins on either side
    bins = [*WINDOWS[2, 8:12].tolist(), WINDOWS[2, 7] / 2, WINDOWS[2, 12] / 2]
    assert mean == pytest.approx(sum(bins) / 5)
    assert mean_within(2000)(WINDOWS, PLACES)[:, 0] == pytest.approx(WINDOWS.mean(axis=1))


def test_stretches_are_means():
    assert stretches(5)(WINDOWS, PLACES) == pytest.approx(WINDOWS.reshape(5, 5, 4).mean(axis=2))
    uneven = stretches(3)(WINDOWS, PLACES)[1]  # of 6, 7 and 7 bins
    parts = WINDOWS[1, :6], WINDOWS[1, 6:13], WINDOWS[1, 13:]
    assert uneven == pytest.approx([part.mean() for part in parts])
    assert stretches(50)(WINDOWS, PLACES) == pytest.approx(WINDOWS)


def test_the_strongest_bin_and_its_place():
    found = strongest_bin(np.vstack([WINDOWS[:4], np.ones((1, 20))]), PLACES)
    for row, window in zip(found, WINDOWS[:4].tolist(), strict=False):
        assert row.tolist() == [max(window), 100 * window.index(max(window)) - 950]
    assert found[4].tolist() == [1, 0]  # as strong everywhere: it has no place


def test_a_gene_score_weighs_by_distance_from_the_gene():
    for row, score in enumerate(gene_score(WINDOWS, PLACES)[:, 0]):
        total = weights = 0.0
        for place, value in zip(range(-950, 1000, 100), WINDOWS[row], strict=True):
            away = -place if place < 0 else max(0, place - BODY[row])
            weights += math.exp(-away / 5000)
            total += float(value) * math.exp(-away / 5000)
        assert score == pytest.approx(total / weights)
