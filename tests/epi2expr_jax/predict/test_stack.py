import itertools

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.predict.baselines import BASELINES, COVARIATES, MEAN_OF_CELLS, MEAN_OF_OTHERS
from epi2expr_jax.predict.stack import STACK, explained, fit_weights, stacked


def predictions(seeds=1):
    """Held-out predictions of 60 genes on three chromosomes, and what two baselines predict."""
    random = np.random.default_rng(0)
    tables = []
    for seed in range(seeds):
        observed = random.normal(3, 1, 60)
        table = pd.DataFrame({"gene_id": [f"g{i}" for i in range(60)], "observed": observed})
        table = table.assign(chrom=np.repeat(["chr1", "chr2", "chr3"], 20), run_id=f"r{seed}")
        table = table.assign(cell="c", assays="m", fold="f", seed=seed, observed_raw=2 * observed)
        for name, noise in (("network", 0.7), ("ridge", 0.9), ("boosting", 2.0)):
            predicted = observed + random.normal(0, noise, 60)
            own = {"predicted": predicted, "predicted_raw": 2 * predicted}
            tables.append(table.assign(model=name, **own))
    every = pd.concat(tables, ignore_index=True)
    network = every[every["model"] == "network"].drop(columns="model")
    return network, every[every["model"] != "network"]


def by_grid(predicted, observed):
    """Least squares over a grid of weights."""
    middle, steps = observed.mean(), np.linspace(0, 1, 41)
    found = min(
        (np.sum((observed - middle - (predicted - middle) @ weights) ** 2), weights)
        for weights in itertools.product(steps, steps)
        if sum(weights) <= 1
    )
    return np.array(found[1])


@pytest.mark.parametrize(
    "mix", [(0.3, 0.2), (0.9, 0.6), (-0.5, 0.6), (0.0, 0.0), (-1.0, -1.0)],
    ids=["inside", "sum", "negative", "nothing", "all negative"],
)  # fmt: skip
def test_weights_are_least_squares_within_their_bounds(mix):
    random = np.random.default_rng(1)
    predicted = random.normal(size=(200, 2)) + 5
    observed = predicted @ mix + random.normal(0, 0.3, 200)
    weights = fit_weights(predicted, observed)
    assert (weights >= 0).all()
    assert weights.sum() <= 1 + 1e-6
    assert weights == pytest.approx(by_grid(predicted, observed), abs=0.03)


def test_a_chromosome_has_the_weights_of_the_others():
    network, simple = predictions()
    found = stacked(network, simple).set_index("gene_id")
    parts = [network, *(simple[simple["model"] == name] for name in ("ridge", "boosting"))]
    values = np.stack([part["predicted"] for part in parts], axis=1)
    observed, chrom = network["observed"].to_numpy(), network["chrom"].to_numpy()
    for name in ("chr1", "chr2", "chr3"):
        own = chrom == name
        weights = fit_weights(values[~own], observed[~own])
        expected = observed[~own].mean() + (values[own] - observed[~own].mean()) @ weights
        predicted = found.loc[own, ["predicted", "predicted_raw"]].to_numpy()
        assert predicted == pytest.approx(np.stack([expected, 2 * expected], axis=1))
        columns = [f"weight of {part}" for part in ("network", "ridge", "boosting")]
        assert found.loc[own, columns].to_numpy() == pytest.approx(np.tile(weights, (20, 1)))
    assert set(found["model"]) == {"stack"}


def test_a_chromosome_has_no_say_in_its_own_weights():
    network, simple = predictions()
    other = network["observed"].where(network["chrom"] != "chr2", -network["observed"])
    before, after = (stacked(table, simple).set_index("gene_id") for table in (
        network, network.assign(observed=other)))  # fmt: skip
    own = before["chrom"] == "chr2"
    assert (before["predicted"][own] == after["predicted"][own]).all()
    assert not np.allclose(before["predicted"][~own], after["predicted"][~own])


def test_seeds_have_weights_of_their_own_and_what_cannot_be_stacked_is_left_out():
    network, simple = predictions(seeds=2)
    both = stacked(network, simple)
    alone = stacked(network[network["seed"] == 1], simple)
    pd.testing.assert_frame_equal(
        both[both["seed"] == 1].reset_index(drop=True), alone.reset_index(drop=True)
    )
    assert stacked(network, pd.DataFrame()).empty
    assert stacked(network, simple.assign(model="linear")).empty
    assert stacked(network[network["chrom"] == "chr1"], simple).empty


def test_every_model_that_is_compared_says_what_it_is():
    names = [*BASELINES, COVARIATES, MEAN_OF_CELLS, MEAN_OF_OTHERS, STACK, "cnn, mean of 3 seeds"]
    words = explained(["cnn", *names])
    assert list(words) == names
    assert len(set(words.values())) == len(names)
    assert "seeds of each run" in words["cnn, mean of 3 seeds"]
    assert words["mean_3kb"].endswith("in 3 kb around the TSS")
