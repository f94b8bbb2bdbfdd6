"""What both sides of the comparison get, and our pace; the original itself is not needed."""

import types

import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.region_batch import RegionBatch
from experiments.benchmarks import chromoformer as room


def test_the_pace_is_the_median_of_some_epochs(clock, monkeypatch):
    trained = []

    def population(data, precision, runs):
        assert runs == 8
        trained.append((data.n_contacts, precision))
        return types.SimpleNamespace(train_epoch=clock.taking(9, 4, 1, 2))

    monkeypatch.setattr(room, "_population", population)
    monkeypatch.setattr(room.Lanes, "default", lambda: room.Lanes(8, (None,)))
    # Training genes of all eight lanes in the epoch of 2 s.
    assert room.training_pace("tf32", 3) == 8 * 1024 / 2
    ((contacts, precision),) = trained
    assert precision == "tf32"
    assert len(contacts) == 1024 + 8
    assert contacts.mean() == pytest.approx(5.8, abs=0.15)  # as in the demo of the original


@pytest.mark.peers
def test_a_batch_is_what_the_originals_loader_gives(monkeypatch):
    torch = pytest.importorskip("torch")
    small = ChromoformerConfig(assays=2, resolutions=(2000,), contacts=2)
    monkeypatch.setattr(room, "_CONFIG", small)
    genes, assays, positions = 2, 2, 3
    promoter = np.arange(genes * assays * positions, dtype=np.float32).reshape(genes, assays, -1)
    region = 100 + np.arange(3 * assays * positions, dtype=np.float32).reshape(3, assays, -1)
    batch = RegionBatch(
        promoter=(promoter,),
        promoter_valid=(np.array([[True, True, False], [True, True, True]]),),
        region=(jnp.asarray(region),),  # the first of either gene, the second of the first
        region_valid=(jnp.asarray([[1, 0, 0], [1, 1, 0], [1, 1, 1]], bool),),
        score=np.array([[3.0, 2.0], [1.5, 0.0]], np.float32),
        n_contacts=np.array([2, 1]),
        slots=(2, 1),
    )
    *parts, frequency = room.torch_inputs(batch, "cpu")
    own, own_mask, regions, regions_mask, absent = (part[2000].numpy() for part in parts)
    np.testing.assert_array_equal(own[1, 0], promoter[1].T)
    np.testing.assert_array_equal(own_mask[0, 0, 0], [[0, 0, 1], [0, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(regions[0, 1], region[2].T)
    np.testing.assert_array_equal(regions[1, 0], region[1].T)
    assert (regions[1, 1] == 0).all()
    np.testing.assert_array_equal(regions_mask[0, 0, 0], [[0, 1, 1], [0, 1, 1], [1, 1, 1]])
    assert regions_mask[1, 1].all()
    assert not absent[0].any()
    np.testing.assert_array_equal(absent[1, 0], [[0, 0, 1], [0, 0, 1], [1, 1, 1]])
    np.testing.assert_array_equal(frequency[0], [[0, 3, 2], [0, 0, 0], [0, 0, 0]])
    assert frequency.dtype == torch.float32


@pytest.mark.peers
def test_without_a_gpu_nothing_is_moved_to_one(monkeypatch):
    torch = pytest.importorskip("torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    before, constant = torch.Tensor.cuda, torch.ones(2)
    with room.on_its_device() as device:
        assert device == "cpu"
        assert constant.cuda() is constant
    assert torch.Tensor.cuda is before


def test_without_the_original_it_says_what_is_missing(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match="no torch, chromoformer"):
        room.chromoformer(1)
