"""Targets: from RPKM to what the loss sees and back, by the training genes' statistics."""

import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.training.targets import LABEL, TargetScale


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
