"""Targets: from RPKM to what the loss sees and back, by the training genes' statistics; losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.training.targets import (
    LABEL,
    TargetScale,
    masked_cross_entropy,
    masked_mse,
)


def test_target_statistics_come_from_training_genes_alone():
    rpkm = np.array([0.0, 1, 3, 7, 15, 1000])
    for kind, low, high in (("minmax", 0, 1), ("log2", 0, 4)):
        scale = TargetScale.fit(kind, rpkm[:5], "here")
        raw = scale.to_raw(rpkm)
        assert (raw[0], raw[4]) == (low, high)
        assert raw[5] > high  # a test gene may lie beyond; it changes nothing
        standard = scale.standardise(scale.to_raw(rpkm))
        np.testing.assert_allclose([standard[:5].mean(), standard[:5].std()], [0, 1], atol=1e-12)
        np.testing.assert_allclose(scale.raw_to_log2(scale.unstandardise(standard)),
                                   np.log2(rpkm + 1), atol=1e-9)  # fmt: skip
    with pytest.raises(InputError, match="the same expression"):
        TargetScale.fit("log2", np.ones(4), "cell E003")
    with pytest.raises(InputError, match="minmax or log2"):
        TargetScale.fit("zscore", rpkm, "here")


def test_predictions_below_zero_expression_count_as_zero():
    scale = TargetScale.fit("minmax", np.array([0.0, 10.0]), "here")
    np.testing.assert_allclose(scale.raw_to_log2(np.array([-0.5, 0.1])), [0, 1])


def test_a_label_is_given_or_told_by_the_median():
    rpkm = np.array([0.0, 1, 3, 7, 15])
    scale = TargetScale.fit(LABEL, rpkm, "here")
    assert scale.observed(rpkm, None).tolist() == [0, 0, 1, 1, 1]
    given = np.array([True, False, False, True, False])
    assert scale.observed(rpkm, given).tolist() == given.tolist()
    # The loss sees labels as they are; a model's output are log odds.
    labels = scale.observed(rpkm, None)
    assert scale.standardise(labels).tolist() == labels.tolist()
    odds = np.log(np.array([1 / 3, 1, 3]))
    np.testing.assert_allclose(scale.unstandardise(odds), [0.25, 0.5, 0.75])
    assert scale.raw_to_log2(labels).tolist() == labels.tolist()


def test_where_most_genes_are_silent_the_others_are_labelled():
    rpkm = np.array([0.0] * 6 + [0.5, 1, 2, 3])
    scale = TargetScale.fit(LABEL, rpkm, "here")
    assert scale.observed(rpkm, None).tolist() == (rpkm > 0).tolist()


def test_only_labels_are_taken_as_given():
    rpkm = np.array([0.0, 1, 3])
    scale = TargetScale.fit("log2", rpkm, "here")
    np.testing.assert_allclose(scale.observed(rpkm, np.array([True] * 3)), [0, 1, 2])


def test_expression_that_does_not_differ_is_refused_with_a_remedy():
    with pytest.raises(InputError) as caught:
        TargetScale.fit("minmax", np.full(7, 2.5), "cell E003, fold fold1")
    (problem,) = caught.value.problems
    assert problem.where == "cell E003, fold fold1"
    assert problem.found == "the same expression (2.5) in all 7 training genes"
    assert problem.expected == "expression that differs between genes"
    assert "leave this cell out" in problem.remedy


def loss(prediction, target, mask):
    return masked_mse(
        prediction=jnp.asarray(prediction), target=jnp.asarray(target), mask=jnp.asarray(mask)
    )


def test_only_genes_in_the_mask_count():
    assert loss([1.0, 2.0, 50.0], [0.0, 4.0, 0.0], [True, True, False]) == 2.5


def test_nan_outside_the_mask_reaches_neither_loss_nor_gradient():
    prediction, target = jnp.asarray([1.0, jnp.nan]), jnp.asarray([0.0, jnp.nan])
    mask = jnp.asarray([True, False])
    value, gradient = jax.value_and_grad(loss)(prediction, target, mask)
    assert value == 1
    assert gradient.tolist() == [2, 0]


def test_nan_inside_the_mask_stays():
    assert np.isnan(loss([1.0, jnp.nan], [0.0, 0.0], [True, True]))


def test_no_gene_makes_zero():
    assert loss([1.0, 2.0], [0.0, 0.0], [False, False]) == 0


def test_cross_entropy_is_that_of_two_logits():
    random = np.random.default_rng(0)
    logits, label = random.normal(0, 3, (20, 2)), random.random(20) < 0.5
    mask = jnp.arange(20) < 17
    expected = -np.log(np.exp(logits)[np.arange(20), label.astype(int)] / np.exp(logits).sum(1))
    odds = jnp.asarray(logits[:, 1] - logits[:, 0]).at[18].set(jnp.nan)

    def loss(odds):
        return masked_cross_entropy(prediction=odds, target=jnp.asarray(label, float), mask=mask)

    assert loss(odds) == pytest.approx(expected[:17].mean(), rel=1e-5)
    gradient = jax.grad(loss)(odds)
    np.testing.assert_array_equal(gradient[17:], 0)
    np.testing.assert_allclose(
        gradient[:17], (1 / (1 + np.exp(-odds[:17])) - label[:17]) / 17, rtol=1e-4
    )
    assert np.isnan(loss(odds.at[3].set(jnp.nan)))
