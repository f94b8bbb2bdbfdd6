"""The one way from stored bins to model input, by hand, on NumPy and on JAX arrays."""

import math

import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epi2expr_jax.inputs import transforms as signal
from epi2expr_jax.inputs.transforms import as_read, centre_padding, own_positions, window_at


def binned(bases, bin_bp):
    """Means of consecutive bins of single bases, the last one of what remains."""
    starts = range(0, len(bases), bin_bp)
    return np.array([bases[start : start + bin_bp].mean() for start in starts])


@pytest.mark.parametrize("xp", [np, jnp])
def test_the_same_on_numpy_and_jax(xp):
    x = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
    merged = signal.merge_bins(xp.asarray(x), 2)
    assert isinstance(merged, np.ndarray) == (xp is np)
    np.testing.assert_array_equal(merged[0, 0], [0.5, 2.5])
    flipped = signal.orient(xp.asarray(x), xp.asarray([True, False, True]))
    np.testing.assert_array_equal(flipped[:, 0], x[:, 0, ::-1])
    np.testing.assert_array_equal(flipped[:, 1], x[:, 1])


def test_merging_fine_bins_equals_coarse_means():
    bases = np.random.default_rng(0).integers(0, 50, (5, 1000)).astype(np.float64)
    fine = bases.reshape(5, -1, 25).mean(-1)
    np.testing.assert_allclose(signal.merge_bins(fine, 4), bases.reshape(5, -1, 100).mean(-1))


def test_transforms_do_what_their_names_say():
    x = np.array([0.0, 1.0, 100.0])
    np.testing.assert_allclose(signal.TRANSFORMS["log1p"](x), np.log(x + 1))
    np.testing.assert_allclose(signal.TRANSFORMS["arcsinh"](-x), -np.arcsinh(x))
    assert signal.TRANSFORMS["none"](x) is x


def test_padding_is_centred_and_the_larger_half_on_the_left():
    for length in range(1, 30):
        bins = np.arange(length + 1)
        left = [math.ceil((length - n) / 2) for n in bins]
        assert centre_padding(bins, length).tolist() == left
        assert [centre_padding(int(n), length) for n in bins] == left
        own = np.arange(length) - np.array(left)[:, None]
        own = (own >= 0) & (own < bins[:, None])
        np.testing.assert_array_equal(own_positions(bins, length), own)
        if length in (1, 2, 9):  # each length is programs of its own, which take long to compile
            np.testing.assert_array_equal(own_positions(jnp.asarray(bins), length), own)
        np.testing.assert_array_equal(own_positions(bins[-1], length), True)


@pytest.mark.parametrize("xp", [np, jnp])
@settings(deadline=None, max_examples=15)
@given(
    widths=st.lists(st.integers(1, 40_000), min_size=1, max_size=4),
    resolution=st.sampled_from([100, 500, 2000]),
    seed=st.integers(0, 99),
)
@example([1, 40_000, 99, 100, 101, 499, 500, 501, 1999, 2000, 2001, 2100], 2000, 0)
@example([1, 40_000, 99, 100, 101, 499, 500, 501, 1999, 2000, 2001, 2100], 500, 0)
def test_wider_bins_are_exact_means_of_the_bases(xp, widths, resolution, seed):
    """As read from single bases, however few of them the last bin has; 0 beyond."""
    random = np.random.default_rng(seed)
    most = -(-max(widths) // 100)
    fine, share = np.zeros((2, len(widths), most), np.float32)
    expected = np.zeros((len(widths), -(-most * 100 // resolution)))
    for row, width in enumerate(widths):
        bases = random.integers(0, 500, width).astype(float)
        have = -(-width // 100)
        fine[row, :have], share[row, :have] = binned(bases, 100), 1
        share[row, have - 1] = (width - 100 * (have - 1)) / 100
        expected[row, : -(-width // resolution)] = binned(bases, resolution)
    found = signal.merge_bins(xp.asarray(fine), resolution // 100, xp.asarray(share))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=1e-6)


@pytest.mark.parametrize("xp", [np, jnp])
@settings(deadline=None, max_examples=15)
@given(
    bins=st.integers(1, 60),
    factor=st.sampled_from([1, 5, 20]),
    room=st.integers(0, 5),
    transform=st.sampled_from(["log1p", "arcsinh", "none"]),
)
@example(400, 20, 0, "log1p")  # the published window fills its 20 places
@example(90, 20, 15, "log1p")  # 9 kb: the last bin of 2 kb is half full
def test_windows_are_divided_merged_transformed_centred_and_flipped(
    xp, bins, factor, room, transform
):
    random = np.random.default_rng(bins)
    bases = random.integers(0, 500, (4, 100 * bins)).astype(float)
    fine = np.stack([binned(row, 100) for row in bases]).astype(np.float32)
    flip = np.array([False, True, True, False])
    length = math.ceil(bins / factor) + room
    left = math.ceil(room / 2)

    function = {"log1p": np.log1p, "arcsinh": np.arcsinh, "none": np.asarray}[transform]
    # Bins start at the window's left end on both strands; only then is it flipped.
    expected = np.zeros((4, length))
    for row, values in enumerate(bases):
        expected[row, left : length - (room - left)] = function(binned(values, 100 * factor) / 4)
    expected[flip] = expected[flip, ::-1]
    found = as_read(xp.asarray(fine), xp.asarray(np.float32(4)), factor, transform)
    found = window_at(found, length, xp.asarray(flip))
    assert isinstance(found, np.ndarray) == (xp is np)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=2e-6)
