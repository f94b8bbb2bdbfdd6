"""Agreement of cells, the best of each, and scores against the quality of tracks."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.scores import agreement as agree
from epi2expr_jax.scores.ranking import METRICS, rank_assays
from epi2expr_jax.store.window_store import WindowStore

CHROMOSOMES = [f"chr{i}" for i in range(1, 13)]


def scores(levels, spread=0.01, seed=0):
    """A score table of assays' levels by cell `{cell: {assay: r}}`, which vary by chromosome."""
    rng = np.random.default_rng(seed)
    rows = [
        {"cell": cell, "assays": assay, "fold": "f", "seed": 0, "chrom": chrom, "n": 100,
         "constant": False, "constant_observed": False,
         **dict.fromkeys(METRICS, r + spread * rng.standard_normal())}
        for cell, assays in levels.items() for assay, r in assays.items() for chrom in CHROMOSOMES
    ]  # fmt: skip
    return pd.DataFrame(rows)


ALIKE = {cell: {"a": 0.7, "b": 0.5, "c": 0.3} for cell in ("E1", "E2", "E3")}


def answer(levels, **options):
    table = scores(levels, **options)
    agreed = agree.agreement(table)
    return agreed, agree.verdict(agree.best_assays(rank_assays(table)), agreed)


def test_cells_that_agree():
    agreed, words = answer(ALIKE)
    assert agreed == agree.Agreement(1.0, 1.0, 1.0, 3, 3)
    assert words.startswith("A universal mark, as far as these cells go: a has the highest")
    assert "Kendall's W 1.00" in words


def test_cells_that_disagree():
    agreed, words = answer(ALIKE | {"E3": {"a": 0.3, "b": 0.5, "c": 0.7}})
    assert agreed.w == pytest.approx(1 / 9)  # rank sums 7, 6, 5
    assert words.startswith("No universal mark: a has the highest score in 2 of 3 cells")
    assert "elsewhere c" in words


def test_cells_that_cannot_tell():
    close = {cell: {"a": 0.51, "b": 0.5, "c": 0.1} for cell in ALIKE}
    agreed, words = answer(close, spread=0.1)
    assert words.startswith("No mark is ruled out as universal, and none is proved")
    assert agreed.low < agreed.w <= agreed.high <= 1


def test_the_interval_of_agreement_covers():
    """Over simulated sets of chromosomes, of the W that is expected of so many of them."""
    level = {f"E{c}": {f"a{i}": 0.5 + 0.03 * i * (-1) ** (c * (i > 2)) for i in range(6)}
             for c in range(4)}  # fmt: skip
    found = [agree.agreement(scores(level, spread=0.1, seed=seed)) for seed in range(60)]
    truth = np.mean([one.w for one in found])
    assert np.mean([one.low <= truth <= one.high for one in found]) >= 0.85
    assert np.mean([one.high - one.low for one in found]) < 0.8


def test_too_little_to_agree():
    agreed, words = answer({"E1": ALIKE["E1"]})
    assert np.isnan(agreed.w)
    assert words == "With a single cell, nothing can be said of a universal mark."
    lacking = agree.agreement(scores({"E1": {"a": 0.5}, "E2": {"b": 0.5}}))
    assert lacking.cells == 0


class Tracks(WindowStore):
    """Windows of one track, as a store gives them."""

    def __init__(self, windows):
        self.windows = windows

    def read_signal(self, cells, assays):
        return self.windows[cells[0], assays[0]][None, None]


def test_depth_and_signal_to_noise():
    flat, peaked, empty = np.ones((100, 8)), np.ones((100, 8)), np.zeros((100, 8))
    peaked[:5] = 21
    store = Tracks({("E1", "flat"): flat, ("E1", "peaked"): peaked, ("E1", "empty"): empty})
    table = agree.track_quality(store, store.windows).set_index("assay")
    assert table.depth.to_dict() == {"flat": 1, "peaked": 2, "empty": 0}
    assert table.signal_to_noise[["flat", "peaked"]].tolist() == [1, 21]
    assert np.isnan(table.signal_to_noise["empty"])


def test_score_against_quality():
    level = {f"E{c}": {"a": 0.4 + 0.02 * c, "b": 0.7 - 0.02 * c} for c in range(6)}
    quality = pd.DataFrame(
        [{"cell": cell, "assay": assay, "depth": 2.0**c, "signal_to_noise": 3.0}
         for c, cell in enumerate(level) for assay in ("a", "b")]
    )  # fmt: skip
    table = agree.score_against_quality(scores(level, spread=0), quality)
    assert len(table) == 12
    assert table.set_index(["cell", "assay"]).pearson["E2", "b"] == pytest.approx(0.66)
    found = agree.quality_correlations(table)
    assert set(found.measure) == {"depth"}  # signal-to-noise does not vary
    rho = found.set_index("assay").rho
    assert rho["a"] == pytest.approx(1)
    assert rho["b"] == pytest.approx(-1)
    # Between assays b is the better one, whatever its depth; within assays the two cancel.
    assert abs(rho["all"]) < 0.2
    assert agree.quality_correlations(table[table.cell < "E3"], least=7).empty
