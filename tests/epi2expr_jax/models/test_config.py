"""What both models of one window ask of their configuration."""

import dataclasses

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.models import REGISTRY, ChromoformerConfig, cnn, promoter_cnn
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.models.config import MEMBERS, ModelConfig, Reads, WindowModelConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig

RATES = {
    CnnConfig: [rate for *_, rate in (*cnn.TRUNK, *cnn.HEAD)],
    PromoterCnnConfig: [promoter_cnn.TRUNK_RATE, promoter_cnn.FLAT_RATE],
}
POOLS = {
    CnnConfig: [pool for _, _, pool, _ in (*cnn.TRUNK, *cnn.HEAD)],
    PromoterCnnConfig: [pool for _, _, pool in promoter_cnn.TRUNK],
}


@pytest.mark.parametrize(
    ("config", "window_bp", "bin_bp", "bins"),
    [(CnnConfig, 10_000, 25, 400), (PromoterCnnConfig, 6_000, 100, 60)],
)
def test_defaults_are_the_published_ones(config, window_bp, bin_bp, bins):
    made = config()
    assert isinstance(made, WindowModelConfig)
    assert dataclasses.asdict(made) == {
        "window_bp": window_bp, "bin_bp": bin_bp, "assays": 1, "width": 1.0, "dropout": 1.0,
    }  # fmt: skip
    assert made.window.bins == bins
    assert [made.hidden(published) for published in (8, 192, 700)] == [8, 192, 700]


@pytest.mark.parametrize("config", RATES)
def test_limits_follow_from_the_layers(config):
    bins = 1
    for pool in POOLS[config]:
        bins *= pool
    assert bins == config.MIN_BINS
    assert max(RATES[config]) == config.MAX_RATE


def test_hidden_widths_are_rounded_and_never_zero():
    assert [CnnConfig(width=0.3).hidden(n) for n in (1, 5, 8, 9)] == [1, 2, 2, 3]
    assert CnnConfig(width=2.0).hidden(175) == 350
    assert CnnConfig(width=0.001).hidden(175) == 1


@pytest.mark.parametrize(
    ("config", "window_bp", "bin_bp", "message"),
    [
        (CnnConfig, 10_000, 100, "cnn: .*100 bins; expected at least 128 bins.*at most 78 bp"),
        (PromoterCnnConfig, 1500, 100, "promoter_cnn: .*15 bins; expected at least 16 bins"),
    ],
)
def test_a_window_too_short_for_the_pooling_is_refused(config, window_bp, bin_bp, message):
    with pytest.raises(InputError, match=message) as caught:
        config(window_bp=window_bp, bin_bp=bin_bp)
    shortest = config.MIN_BINS * bin_bp
    assert f"or a window of at least {shortest} bp" in str(caught.value)
    assert config(window_bp=shortest, bin_bp=bin_bp).window.bins == config.MIN_BINS


def test_every_bad_value_is_named_at_once():
    with pytest.raises(InputError) as caught:
        CnnConfig(window_bp=1000, assays=0, width=0.0, dropout=4.0)
    found = [problem.found for problem in caught.value.problems]
    assert found[:3] == ["assays=0", "width=0.0", "dropout=4.0"]
    assert found[3:] == ["a window of 1000 bp in bins of 25 bp, 40 bins"]
    assert {problem.where for problem in caught.value.problems} == {"cnn"}


@pytest.mark.parametrize("dropout", [-0.1, 3.34, float("nan")])
def test_a_dropout_that_makes_a_rate_of_1_is_refused(dropout):
    """Of the published rates of the CNN, 0.3 is the largest."""
    with pytest.raises(InputError, match=r"from 0 to less than 3\.33"):
        CnnConfig(dropout=dropout)
    assert CnnConfig(dropout=3.33).dropout == 3.33
    assert CnnConfig(dropout=0.0).dropout == 0


@pytest.mark.parametrize("width", [-1.0, 0.0, float("nan"), float("inf")])
def test_a_width_that_is_not_a_positive_number_is_refused(width):
    with pytest.raises(InputError, match=r"width=.*a number more than 0; 1 is the published width"):
        PromoterCnnConfig(width=width)
    with pytest.raises(InputError, match=r"width=.*a number more than 0"):
        ChromoformerConfig(width=width)


def test_a_window_that_its_bin_does_not_divide_is_refused():
    with pytest.raises(InputError, match=r"an even window that its bin divides.*window_bp=10050"):
        CnnConfig(window_bp=10_060)
    with pytest.raises(InputError) as caught:  # and hides nothing else
        CnnConfig(window_bp=10_060, assays=0, dropout=4.0)
    assert len(caught.value.problems) == 3


def test_no_remedy_is_impossible():
    """No bin is narrow enough to cut 100 bp into 128: a wider window is the only way."""
    with pytest.raises(InputError, match="take a window of at least 3200 bp"):
        CnnConfig(window_bp=100)


def test_every_model_offers_what_the_protocol_lists():
    assert {"NAME", "TRAINING", "window", "contacts", "token_width", "build"} < MEMBERS
    for name, config in REGISTRY.items():
        assert isinstance(config(), ModelConfig)
        assert name == config.NAME
        assert hash(config()) == hash(config())  # compiled programs are kept by it
    window = WindowModelConfig(2000, 100)
    assert isinstance(window, Reads)
    assert not isinstance(window, ModelConfig)
    assert (window.resolutions, window.positions, window.contacts) == ((100,), (), 0)
    assert (window.region_bp, window.token_width) == (0, 0)
