"""A model of plain NNX layers, registered in one line, goes all the way that the others go."""

import dataclasses
import pathlib
import subprocess
import sys
from collections.abc import Mapping
from typing import ClassVar

import jax
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.interpret import attribution
from epi2expr_jax.models import REGISTRY, register
from epi2expr_jax.models.config import ModelConfig, WindowModelConfig
from epi2expr_jax.models.weights import fresh_weights, parts_of
from epi2expr_jax.predict import load

ROOT = pathlib.Path(__file__).resolve().parents[2]


@dataclasses.dataclass(frozen=True)
class PlainConfig(WindowModelConfig):
    """A convolution, its mean over the window, a dense layer."""

    window_bp: int = 6000
    bin_bp: int = 100

    NAME: ClassVar[str] = "plain"
    TRAINING: ClassVar[Mapping] = {"plateau": {"epochs": 2, "batch_size": 32}}

    def build(self, *, rngs: nnx.Rngs) -> "Plain":
        return Plain(self, rngs=rngs)


class Plain(nnx.Module):
    def __init__(self, config, *, rngs):
        self.conv = nnx.Conv(config.assays, config.hidden(8), 5, rngs=rngs)
        self.norm = nnx.BatchNorm(config.hidden(8), rngs=rngs)
        self.dropout = nnx.Dropout(0.1 * config.dropout)
        self.output = nnx.Linear(config.hidden(8), 1, rngs=rngs)

    def __call__(self, x, *, mask, key):
        x = self.norm(self.conv(x), use_running_average=key is None)
        x = self.dropout(nnx.relu(x).mean(1), deterministic=key is None, rngs=key)
        return self.output(x)[:, 0]


@pytest.fixture(scope="module")
def registered():
    register(PlainConfig)
    yield
    del REGISTRY["plain"]


@pytest.fixture(scope="module")
def run(registered, small_store, tmp_path_factory):
    """A run of the model, trained by the program that trains all models."""
    folder = tmp_path_factory.mktemp("plain") / "run"
    program = (
        "from epi2expr_jax.models import register\n"
        "from experiments import train\n"
        "from tests.experiments.test_own_model import PlainConfig\n"
        "register(PlainConfig)\n"
        "train.run()"
    )
    cell, assays = small_store.manifest.cells[0], small_store.manifest.assays[:2]
    command = [
        sys.executable, "-c", program, f"--store={small_store.path}", f"--run={folder}",
        "--model=plain", f"--cells={cell}", f"--assays={'+'.join(assays)}", "--cv=chromosomes_3",
        "--width=0.5",
    ]  # fmt: skip
    subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    return folder


def test_it_is_trained_loaded_and_predicts(run, small_store):
    ensemble = load(run)
    (member,) = ensemble.members
    assert member.model_config == PlainConfig(assays=2, width=0.5)
    assert isinstance(member.model_config, ModelConfig)
    drawn = fresh_weights(member.model_config, jax.random.key(0))[0]
    for ours, other in zip(
        jax.tree.leaves(member.weights["params"]), jax.tree.leaves(drawn), strict=True
    ):
        assert ours.shape == (3, *other.shape)
        assert (ours[0] != ours[1]).any()  # another fold is another run
    predicted = ensemble.predict(small_store)
    assert (np.isfinite(predicted).sum("run") == 1).all()  # by the model that never saw the gene
    assert predicted.std() > 0


def test_it_is_attributed(run, small_store):
    ensemble = load(run)
    genes = small_store.genes.gene_id[:6].tolist()
    found = attribution.integrated_gradients(ensemble, small_store, genes)
    np.testing.assert_allclose(
        found.promoter.sum(("assay", "bin")), found.difference, rtol=1e-3, atol=1e-3
    )
    assert (found.promoter != 0).any(("gene", "bin")).all()
    with pytest.raises(InputError, match="plain models without regions"):
        attribution.attention_rollout(ensemble, small_store, genes)


def test_it_is_perturbed(run, small_store):
    ensemble = load(run)
    genes = small_store.genes.gene_id[:6].tolist()
    predicted = ensemble.predict(small_store, genes).mean("run")
    assay = small_store.manifest.assays[0]
    edits = [perturb.scale(assay, perturb.span(-1000, 1000), 0)]
    effects = perturb.run(ensemble, small_store, edits, genes)
    assert effects.changed.any()
    assert (effects.effect.fillna(0) != 0).any()
    np.testing.assert_allclose(effects.before.mean("run"), predicted, rtol=1e-5)


def test_weights_of_plain_layers_come_from_their_own_initialisers_and_the_key():
    config = PlainConfig(assays=3)
    first, again, other = (fresh_weights(config, jax.random.key(i)) for i in (1, 1, 2))
    jax.tree.map(np.testing.assert_array_equal, first, again)
    params, stats = (nnx.to_pure_dict(part) for part in first)
    kernel = params["conv"]["kernel"]
    assert isinstance(kernel, np.ndarray)  # on the host
    assert np.std(kernel) == pytest.approx((5 * 3) ** -0.5, rel=0.25)  # LeCun's
    for layer in ("conv", "norm", "output"):
        np.testing.assert_array_equal(params[layer]["bias"], 0)
    np.testing.assert_array_equal(stats["norm"]["var"], 1)
    assert (kernel != nnx.to_pure_dict(other[0])["conv"]["kernel"]).all()


def test_what_a_registered_model_lacks_is_named(registered):
    @dataclasses.dataclass(frozen=True)
    class Bare:
        assays: int = 1

    with pytest.raises(InputError, match="Bare: found without NAME, TRAINING, build, contacts, "):
        register(Bare)
    with pytest.raises(InputError, match="the name plain of another model"):
        register(dataclasses.make_dataclass("Twin", [], bases=(PlainConfig,), frozen=True))
    assert register(PlainConfig) is PlainConfig  # again: it stays the same


def test_variables_that_nobody_would_keep_are_refused():
    class Counting(nnx.Module):
        def __init__(self, config, *, rngs):
            self.dropout = nnx.Dropout(0.5, rngs=rngs)

    @dataclasses.dataclass(frozen=True)
    class CountingConfig(PlainConfig):
        def build(self, *, rngs):
            return Counting(self, rngs=rngs)

    with pytest.raises(InputError, match=r"other variables .*dropout.*without rngs"):
        parts_of(CountingConfig())
