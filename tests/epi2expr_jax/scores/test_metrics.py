"""Scores agree with SciPy and NumPy, whatever the mask, the ties, the offset and the partition."""

import itertools

import hypothesis
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import strategies as st
from scipy import stats

from epi2expr_jax.scores import metrics
from epi2expr_jax.scores.metrics import Moments

FEW = hypothesis.settings(max_examples=25, deadline=None)


def pair(seed, genes, offset=0.0, r=0.6):
    """Observed and predicted float32 values `[G]`, correlated by about r, around an offset."""
    rng = np.random.default_rng(seed)
    observed = rng.normal(size=genes)
    predicted = r * observed + np.sqrt(1 - r**2) * rng.normal(size=genes)
    return np.float32(observed + offset), np.float32(predicted + 2 * offset)


# Compiled once: property tests call these many times.
moments_of = jax.jit(Moments.of)
merge = jax.jit(Moments.merge)
spearman = jax.jit(metrics.spearman)
auc_of = jax.jit(metrics.auc)


def moments(observed, predicted, mask=None):
    mask = np.ones(np.shape(observed), bool) if mask is None else mask
    return moments_of(jnp.asarray(observed), jnp.asarray(predicted), jnp.asarray(mask))


def reference(observed, predicted):
    """Pearson r, R², mean squared error, in double precision."""
    observed, predicted = np.float64(observed), np.float64(predicted)
    error = np.mean((observed - predicted) ** 2)
    return np.corrcoef(observed, predicted)[0, 1], 1 - error / observed.var(), error


@jax.jit
def summary(group):
    return jnp.stack([group.pearson(), group.r2(), group.mse()])


def scores(group):
    return np.asarray(summary(group))


@pytest.mark.parametrize("offset", [0.0, 1.0, 1e3, 1e4])
def test_moments_agree_with_numpy_around_a_large_offset(offset):
    observed, predicted = pair(1, 700, offset)
    np.testing.assert_allclose(
        scores(moments(observed, predicted)), reference(observed, predicted), rtol=2e-5
    )


def test_a_mean_far_from_zero_would_defeat_raw_sums_of_squares():
    observed, predicted = pair(1, 700, 1e4)
    raw = np.sum(observed * observed) - observed.sum() ** 2 / np.float32(700)
    exact = 700 * np.float64(observed).var()
    assert abs(raw / exact - 1) > 0.1
    group = moments(observed, predicted)
    assert float(group.squares_observed) == pytest.approx(exact, rel=1e-5)


def test_double_precision(x64):
    observed, predicted = (np.float64(x) + 1e6 for x in pair(2, 300))
    group = moments(observed, predicted)
    assert group.pearson().dtype == jnp.float64
    np.testing.assert_allclose(scores(group), reference(observed, predicted), rtol=1e-10)
    mask = jnp.ones(300, bool)
    rho = spearman(jnp.asarray(observed), jnp.asarray(predicted), mask)
    assert float(rho) == pytest.approx(stats.spearmanr(observed, predicted)[0], abs=1e-12)


def test_masked_genes_do_not_matter_even_if_they_are_not_finite():
    observed, predicted = pair(3, 90)
    mask = np.random.default_rng(3).random(90) < 0.6
    label = observed > 0
    expected = reference(observed[mask], predicted[mask])
    area = stats.mannwhitneyu(predicted[mask & label], predicted[mask & ~label]).statistic
    observed[~mask], predicted[~mask] = np.nan, np.inf
    np.testing.assert_allclose(scores(moments(observed, predicted, mask)), expected, rtol=1e-5)
    arrays = [jnp.asarray(x) for x in (observed, predicted, mask)]
    rho = stats.spearmanr(observed[mask], predicted[mask])[0]
    assert float(spearman(*arrays)) == pytest.approx(rho, abs=1e-6)
    auc = auc_of(arrays[1], jnp.asarray(label), arrays[2])
    pairs = (mask & label).sum() * (mask & ~label).sum()
    assert float(auc) == pytest.approx(area / pairs, abs=1e-6)


@FEW
@hypothesis.given(
    seed=st.integers(0, 1000),
    cuts=st.lists(st.integers(0, 60), max_size=6),
    order=st.randoms(use_true_random=False),
    offset=st.sampled_from([0.0, 30.0, 1000.0]),
)
def test_merging_any_partition_in_any_order_is_the_whole(seed, cuts, order, offset):
    observed, predicted = pair(seed, 60, offset)
    edges = [0, *sorted(cuts), 60]
    # One width for all parts, so that nothing recompiles; empty parts are allowed.
    position = np.arange(60)
    parts = [
        moments(observed, predicted, (position >= start) & (position < end))
        for start, end in itertools.pairwise(edges)
    ]
    parts.append(Moments.empty())
    order.shuffle(parts)
    while len(parts) > 1:
        first = parts.pop(order.randrange(len(parts)))
        second = parts.pop(order.randrange(len(parts)))
        parts.append(merge(first, second))
    assert float(parts[0].count) == 60
    precision = 1e-3 if offset else 1e-5
    np.testing.assert_allclose(
        scores(parts[0]), reference(observed, predicted), rtol=precision, atol=precision
    )


def test_merging_keeps_a_constant_constant():
    observed, _ = pair(4, 40)
    predicted = np.full(40, 0.1, np.float32)
    parts = [moments(observed[:7], predicted[:7]), moments(observed[7:], predicted[7:])]
    whole = parts[0].merge(Moments.empty()).merge(parts[1])
    assert bool(whole.constant_predicted())
    assert float(whole.squares_predicted) == 0


@FEW
@hypothesis.given(
    values=st.lists(
        st.tuples(st.integers(-3, 3), st.integers(-3, 3), st.booleans()), min_size=12, max_size=12
    )
)
def test_spearman_and_auc_share_ties(values):
    observed, predicted, label = (np.array(column) for column in zip(*values, strict=True))
    hypothesis.assume(np.ptp(observed) and np.ptp(predicted) and np.ptp(label.astype(int)))
    arrays = jnp.float32(observed), jnp.float32(predicted)
    mask = jnp.ones(12, bool)
    expected = stats.spearmanr(observed, predicted)[0]
    assert float(spearman(*arrays, mask)) == pytest.approx(expected, abs=1e-5)
    ahead = predicted[label][:, None] - predicted[~label][None, :]
    area = np.mean(np.where(ahead > 0, 1, np.where(ahead == 0, 0.5, 0)))
    area_under_curve = auc_of(arrays[1], jnp.asarray(label), mask)
    assert float(area_under_curve) == pytest.approx(area, abs=1e-5)


def test_average_ranks_are_scipys():
    values = jnp.asarray([[3.0, 1, 3, 2, -0.0, 0.0, 9], [5, 5, 5, 5, 1, 7, 7]])
    mask = jnp.asarray([[True] * 6 + [False], [True] * 7])
    ranks = np.asarray(jax.jit(metrics.average_ranks)(values, mask))
    np.testing.assert_array_equal(ranks[0], [*stats.rankdata([3, 1, 3, 2, 0, 0]), 0])
    np.testing.assert_array_equal(ranks[1], stats.rankdata(values[1]))


@pytest.mark.parametrize("noise", [0.0, 1e-7])
@pytest.mark.parametrize("side", ["observed", "predicted"])
def test_a_constant_scores_nothing_rounding_noise_included(side, noise):
    varied, other = pair(5, 200)
    constant = np.float32(3.7 * (1 + noise * np.sign(other)))
    observed, predicted = (constant, varied) if side == "observed" else (varied, constant)
    group = moments(observed, predicted)
    assert bool(group.constant())
    assert bool(group.constant_observed()) == (side == "observed")
    assert bool(group.constant_predicted()) == (side == "predicted")
    assert float(group.pearson()) == 0
    assert bool(jnp.isnan(group.r2())) == (side == "observed")
    arrays = jnp.asarray(observed), jnp.asarray(predicted), jnp.ones(200, bool)
    assert float(spearman(*arrays)) == 0
    if side == "predicted":
        assert float(auc_of(arrays[1], arrays[0] > 0, arrays[2])) == 0.5


def test_tiny_values_are_not_constant():
    observed, predicted = pair(6, 100)
    group = moments(observed * np.float32(1e-12), predicted * np.float32(1e-12))
    assert not bool(group.constant())
    expected = reference(observed, predicted)[0]
    assert float(group.pearson()) == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("genes", "measured"), [(0, False), (1, False), (2, True)])
def test_too_few_genes_have_no_score(genes, measured):
    observed, predicted = pair(7, 5)
    mask = np.arange(5) < genes
    group = moments(observed, predicted, mask)
    assert not bool(group.constant())
    assert bool(jnp.isfinite(group.pearson())) == measured
    assert bool(jnp.isfinite(group.r2())) == measured
    assert bool(jnp.isfinite(group.mse())) == (genes > 0)
    arrays = jnp.asarray(observed), jnp.asarray(predicted), jnp.asarray(mask)
    assert bool(jnp.isfinite(spearman(*arrays))) == measured


def test_auc_needs_both_labels():
    score = jnp.asarray([1.0, 2, 3])
    mask = jnp.ones(3, bool)
    assert bool(jnp.isnan(auc_of(score, mask, mask)))
    assert float(auc_of(score, score > 1.5, mask)) == 1
    assert float(auc_of(-score, score > 1.5, mask)) == 0


def test_leading_axes_and_vmap_agree_under_jit():
    observed, predicted = (x.reshape(2, 3, 40) for x in pair(8, 240))
    mask = np.random.default_rng(8).random((2, 3, 40)) < 0.7
    arrays = [jnp.asarray(x) for x in (observed, predicted, mask)]

    @jax.jit
    def everything(observed, predicted, mask):
        group = Moments.of(observed, predicted, mask)
        rho = spearman(observed, predicted, mask)
        auc = auc_of(predicted, observed > 0, mask)
        return jnp.stack([group.pearson(), group.r2(), group.mse(), rho, auc], axis=-1)

    batched = everything(*arrays)
    assert batched.shape == (2, 3, 5)
    np.testing.assert_allclose(jax.vmap(jax.vmap(everything))(*arrays), batched, rtol=1e-6)
    single = everything(*[array[1, 2] for array in arrays])
    np.testing.assert_allclose(single, batched[1, 2], rtol=1e-5)


def test_moments_travel_through_scan_and_vmap():
    observed, predicted = (x.reshape(5, 3, 40) for x in pair(9, 600))
    mask = jnp.ones((5, 3, 40), bool)

    def step(carry, batch):
        return carry.merge(jax.vmap(Moments.of)(*batch)), None

    start = Moments.empty(3)
    total, _ = jax.lax.scan(step, start, (jnp.asarray(observed), jnp.asarray(predicted), mask))
    for run in range(3):
        expected = reference(observed[:, run].ravel(), predicted[:, run].ravel())
        np.testing.assert_allclose(
            scores(jax.tree.map(lambda x, r=run: x[r], total)), expected, rtol=1e-4
        )
