import dataclasses

import numpy as np
import pytest

from epi2expr_jax.inputs.device_tracks import RegionTrack, WindowSignal
from epi2expr_jax.predict.matching import (
    Matched,
    MatchingEnsemble,
    Reference,
    match_quantiles,
    quantiles,
)
from tests.epi2expr_jax.untrained import WINDOW, ensemble_of


def signal(times=1.0, seed=0):
    random = np.random.default_rng(seed)
    values = random.gamma(2, size=(200, 60)).astype(np.float32) * times
    values[random.random(values.shape) < 0.4] = 0
    return values


def test_values_become_those_of_the_same_rank_and_0_stays_0():
    x, other = signal(seed=1), signal(3.0, seed=2)
    found = match_quantiles(x, quantiles(WindowSignal(other)).values)
    assert found.dtype == x.dtype
    np.testing.assert_array_equal(found == 0, x == 0)
    # The same rank among all values, up to the width of a quantile.
    rank, place = x.ravel().argsort().argsort(), np.sort(other.ravel())
    near = np.abs(found.ravel() - place[rank])
    assert near[x.ravel() > 0].mean() < 0.01 * other.mean()
    order = np.argsort(x[x > 0])
    assert (np.diff(found[x > 0][order]) >= -1e-6).all()


def test_signed_values_keep_their_sign():
    """Log2 ratios: most bins below 0 in one track, above 0 in the other."""
    random = np.random.default_rng(3)
    x = random.normal(-0.5, 1, (200, 60)).astype(np.float32)
    other = random.normal(1.0, 3, (200, 60)).astype(np.float32)
    x[:, :5] = 0
    found = match_quantiles(x, quantiles(WindowSignal(other)).values)
    np.testing.assert_array_equal(np.sign(found), np.sign(x))
    for own, known in ((x < 0, other < 0), (x > 0, other > 0)):
        for share in (0.1, 0.5, 0.9):
            expected = np.quantile(other[known], share)
            assert np.quantile(found[own], share) == pytest.approx(expected, rel=0.03)
    # Of tracks of one sign nothing is said of the other.
    above = match_quantiles(x, quantiles(WindowSignal(np.abs(other))).values)
    np.testing.assert_array_equal(above[x < 0], x[x < 0])
    assert np.median(above[x > 0]) == pytest.approx(np.median(np.abs(other)), rel=0.03)


class Data:
    """Tracks by cell; of assay `b` ten times as high."""

    assays = ("a", "b")

    def __init__(self, cells, times=1.0):
        self.cells, self._times = tuple(cells), times

    def track(self, cell, assay):
        values = signal(self._times * (10 if assay == "b" else 1), seed=ord(cell))
        return RegionTrack((values,), (values[:, 0],))

    def regions(self, _):
        return None


def test_each_array_of_a_track_is_matched_to_the_mean_of_the_cells():
    reference = Reference.of(Data("xyz"))
    data = Matched(Data("w", times=7.0), reference)
    assert (data.cells, data.assays, data.regions("w")) == (("w",), ("a", "b"), None)
    for assay in data.assays:
        track, mean = data.track("w", assay), reference.mean(assay)
        own = [np.quantile(signal(seed=ord(c)), 0.9) for c in "xyz"]
        expected = np.mean(own) * (10 if assay == "b" else 1)
        assert np.quantile(track.promoter[0], 0.9) == pytest.approx(expected, rel=0.02)
        np.testing.assert_allclose(
            track.regions[0],
            match_quantiles(Data("w", 7.0).track("w", assay).regions[0], mean.regions[0]),
        )


def test_a_track_of_another_scale_is_unlike_the_reference_and_others_are_not():
    reference = Reference.of(Data("vwxyz"))
    every = [np.quantile(signal(seed=ord(c)), np.linspace(0, 1, 1001)) for c in "vwxyz"]
    usual = max(np.abs(q - np.mean(np.delete(every, i, 0), 0)).mean() for i, q in enumerate(every))
    far, limit = reference.unlike("a", Data("s").track("s", "a"))
    own = np.quantile(signal(seed=ord("s")), np.linspace(0, 1, 1001))
    assert far == pytest.approx(np.abs(own - np.mean(every, 0)).mean(), rel=1e-5)
    assert limit == pytest.approx(max(3 * usual, 0.05 * np.mean(every)), rel=1e-5)
    assert far < limit
    for times in (0.5, 2, 10):
        far, limit = reference.unlike("a", Data("s", times).track("s", "a"))
        assert far > limit
    # Of one cell nothing is known of how cells differ.
    alone = Reference.of(Data("v"))
    assert alone.unlike("a", Data("v").track("v", "a"))[0] < 1e-6
    far, limit = alone.unlike("a", Data("s", 2).track("s", "a"))
    assert far > limit


def test_models_that_match_predict_from_matched_tracks(small_store):
    assay, *_ = small_store.manifest.assays
    one, other = small_store.manifest.cells
    ensemble = ensemble_of(small_store, WINDOW, [assay], ("fold1", "fold2", "fold3"))
    (member,) = ensemble.members
    data = ensemble.dataset(small_store, member.model_config, [one], [assay])
    matching = MatchingEnsemble.of(ensemble, Reference.of(data))
    assert dataclasses.replace(matching.select(lambda run: True), signal=None).runs == ensemble.runs
    tracks = matching.tracks(
        member.model_config, [dataclasses.replace(member.runs[0], cell=other)], small_store
    ).data
    np.testing.assert_array_equal(
        quantiles(tracks.track(other, assay)).values.round(3)[-1],
        quantiles(data.track(one, assay)).values.round(3)[-1],
    )
    # A track matched to itself hardly changes; another one does.
    for cell, same in ((one, True), (other, False)):
        before, after = (m.predict(small_store, cell=cell).values for m in (ensemble, matching))
        assert np.allclose(before, after, rtol=0.02, equal_nan=True) is same


def test_equal_values_get_the_mean_of_their_ranks():
    """Counts: every value is tied, and each stands for a stretch of ranks."""
    random = np.random.default_rng(0)
    counts = random.poisson(1.5, 50_000).astype(np.float32)
    reference = np.quantile(random.exponential(1, 50_000), np.linspace(0, 1, 1001))
    found = match_quantiles(counts, reference)
    for value in (1, 2, 3):
        ranks = [(counts < value).mean(), (counts <= value).mean()]
        expected = reference[int(1000 * ranks[0]) : int(1000 * ranks[1]) + 1].mean()
        assert found[counts == value][0] == pytest.approx(expected, rel=0.03)
    assert match_quantiles(np.full(9, 3.0), reference) == pytest.approx(reference.mean())
