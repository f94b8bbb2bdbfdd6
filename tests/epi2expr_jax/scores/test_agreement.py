"""Agreement of cells, the best of each, and scores against the quality of tracks."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.scores import agreement as agree
from epi2expr_jax.scores.table import METRICS
from epi2expr_jax.store.window_store import WindowStore


def scores(level, folds=5, rng=None, shared=0.0, own=0.0, training=0.0):
    """Scores of assays by cell `[C A]`, each of 20 chromosomes in one fold, with three noises.

    Args:
        shared: of an assay on a chromosome, alike in all cells; `own`: in each cell; `training`:
            of a model, on all chromosomes of its fold.
    """
    rng = rng or np.random.default_rng(0)
    C, A = level.shape
    k = np.arange(20)
    noise = shared * rng.standard_normal((1, A, 20)) + own * rng.standard_normal((C, A, 20))
    noise = noise + training * rng.standard_normal((C, A, folds))[:, :, k % folds]
    c, a, k = (axis.ravel() for axis in np.indices((C, A, 20)))
    table = pd.DataFrame(
        {"cell": np.char.mod("E%d", c), "assays": np.char.mod("a%d", a), "fold": k % folds,
         "seed": 0, "chrom": np.char.mod("chr%d", k + 1), "n": 100,
         "pearson": (level[:, :, None] + noise).ravel(), "constant": False,
         "constant_observed": False}
    )  # fmt: skip
    return table.assign(**dict.fromkeys(METRICS[1:], table["pearson"]))


def truth(level):
    """Covariance over assays between cells, in that within cells."""
    products = np.cov(level)
    C = len(level)
    return (products.sum() - np.trace(products)) / (C - 1) / np.trace(products)


def test_agreement_without_noise():
    level = np.array([[0.7, 0.5, 0.3], [0.8, 0.6, 0.4], [0.75, 0.5, 0.25]])
    found = agree.agreement(scores(level))
    assert found.value == pytest.approx(truth(level))
    assert found.low == pytest.approx(found.high)  # without noise
    assert agree.agreement(scores(level[:2])).value == pytest.approx(1)
    opposite = agree.agreement(scores(np.array([[0.7, 0.5, 0.3], [0.3, 0.5, 0.7]])))
    assert opposite.value == pytest.approx(-1)
    assert "apart from the noise of shared genes: -1.00" in str(opposite)


@pytest.mark.trial
@pytest.mark.parametrize(
    ("C", "A", "alike", "folds"),
    [(2, 12, 0.9, 5), (3, 5, 0.5, 5), (11, 12, 0.0, 5), (4, 6, 0.5, 20)],
)
def test_its_interval_covers_under_noise_that_cells_share(C, A, alike, folds, trial_size):
    """Where an interval is given; that it seldom is where assays hardly differ is right."""
    rng = np.random.default_rng(C)
    inside = []
    for _ in range(trial_size(40, 1000)):
        base = rng.standard_normal(A)
        level = np.sqrt(alike) * base + np.sqrt(1 - alike) * rng.standard_normal((C, A))
        level = 0.5 + 0.05 * level
        found = agree.agreement(scores(level, folds, rng, shared=0.05, own=0.03, training=0.02))
        if not found.why:
            inside.append(found.low <= truth(level) <= found.high)
    print(f"agreement of {C} cells, {A} assays, {folds} folds: {np.mean(inside):.3f} "
          f"of {len(inside)}")  # fmt: skip
    assert np.mean(inside) >= (0.93 if len(inside) >= 500 else 0.85)
    assert len(inside) >= 20


def test_noise_that_cells_share_is_not_agreement():
    """Two cells that have nothing in common but their genes: Kendall's W would be near 0.8."""
    rng = np.random.default_rng(0)
    level = np.full((2, 8), 0.5)
    found = [agree.agreement(scores(level, 5, rng, shared=0.1, own=0.03)) for _ in range(20)]
    assert np.mean([one.why == "assays differ too little within cells" for one in found]) >= 0.9


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda t: t[t.cell == "E0"], "it takes two cells that have every assay"),
        (lambda t: t[t.assays < "a2"], "it takes 3 assays"),
        (lambda t: t[t.fold < 3], "it takes 4 folds that test every cell"),
        (lambda t: pd.concat([t, t.assign(fold=9)]), "folds test the same chromosomes"),
        (lambda t: t[(t.cell == "E0") == (t.assays < "a2")], "it takes two cells"),
        (lambda t: t.assign(pearson=0.5), "assays differ too little within cells"),
    ],
)
def test_too_little_to_agree(change, why):
    level = np.array([[0.7, 0.5, 0.3, 0.2], [0.8, 0.6, 0.4, 0.1]])
    found = agree.agreement(change(scores(level)))
    assert np.isnan(found.value)
    assert why in found.why
    assert f"cannot be told: {found.why}" in str(found)


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
    level = np.array([[0.4 + 0.02 * c, 0.7 - 0.02 * c] for c in range(6)])
    quality = pd.DataFrame(
        [{"cell": cell, "assay": assay, "depth": 2.0**c, "signal_to_noise": 3.0}
         for c, cell in enumerate(f"E{c}" for c in range(6)) for assay in ("a0", "a1")]
    )  # fmt: skip
    table = agree.score_against_quality(scores(level), quality)
    assert len(table) == 12
    assert table.set_index(["cell", "assay"]).pearson["E2", "a1"] == pytest.approx(0.66)
    found = agree.quality_correlations(table)
    assert set(found.measure) == {"depth"}  # signal-to-noise does not vary
    rho = found.set_index("assay").rho
    assert rho["a0"] == pytest.approx(1)
    assert rho["a1"] == pytest.approx(-1)
    # Between assays b is the better one, whatever its depth; within assays the two cancel.
    assert abs(rho["all"]) < 0.2
    # Of 720 orders of six cells this one and its reverse are the most extreme.
    p = found.set_index("assay").p
    assert p["a0"] == pytest.approx(2 / 720)
    assert p["all"] > 0.3
    two = agree.quality_correlations(table[table.cell < "E2"])
    assert two.rho.notna().all()
    assert two.p.isna().all()


@pytest.mark.trial
@pytest.mark.parametrize(
    ("C", "together", "lacking"), [(3, 2, 0), (4, 2, 0), (5, 0, 0), (5, 2, 0.2), (11, 2, 0)]
)
def test_quality_seldom_seems_to_matter_where_it_does_not(C, together, lacking, trial_size):
    """Cells differ as a whole in both, without relation; by track p <= 0.05 in 17 to 38 %."""
    rng, p = np.random.default_rng(C), []
    cell, assay = (axis.ravel() for axis in np.indices((C, 4)))
    for i in range(trial_size(8, 1000)):
        score, quality = (
            together * rng.standard_normal(C)[cell] + rng.standard_normal(C * 4) for _ in range(2)
        )
        table = pd.DataFrame({"cell": cell, "assay": assay, "pearson": score})
        table = table.assign(depth=np.exp(quality), signal_to_noise=1.0)
        found = agree.quality_correlations(table[rng.random(C * 4) >= lacking], seed=i)
        p += found.p[found.assay == "all"].tolist()
    print(
        f"{C} cells, as a whole {together}, lacking {lacking}: {np.mean(np.array(p) <= 0.05):.3f}"
    )
    assert np.mean(np.array(p) <= 0.05) <= (0.06 if len(p) >= 900 else 0.26)
