"""Lanes: how wide they are, what replaces one, how states begin on the devices."""

import math

import jax
import numpy as np
import pytest

from epi2expr_jax.models import REGISTRY
from epi2expr_jax.training import lanes as lanes_module
from epi2expr_jax.training.lanes import (
    Lanes,
    Packing,
    first_states,
    packed_shapes,
    packings,
    unpacked,
)
from epi2expr_jax.training.runs import FINISHED, RUNNING
from experiments.benchmarks import made_up


def test_lanes_are_as_wide_as_suits_their_devices(monkeypatch):
    """Not as suits the default backend, which is the CPU here."""

    class Device:
        platform = "gpu"

    monkeypatch.setattr(jax, "local_devices", lambda: [Device(), Device()])
    lanes = Lanes.default()
    assert (lanes.width, len(lanes.devices)) == (8, 2)


@pytest.mark.parametrize("width", [1, 3])
def test_one_lane_is_replaced_in_all_arrays_and_no_other(width):
    lanes = Lanes(width, tuple(jax.local_devices()[:1]))
    before = [np.arange(width * 2, dtype=np.float32).reshape(width, 2), np.zeros(width, np.int32)]
    one = [np.full((1, 2), 9, np.float32), np.ones(1, np.int32)]
    after = lanes.replace(lanes.place(before), width - 1, one)
    for old, new, own in zip(before, after, one, strict=True):
        np.testing.assert_array_equal(new, np.concatenate([old[:-1], own]))


def test_states_begin_on_the_devices_as_on_the_host():
    """Bit for bit; current and best weights have buffers of their own, since both are given up."""
    trainer = made_up.window_trainer(REGISTRY["promoter_cnn"](assays=1, width=0.02), 16)
    lanes = Lanes(2, tuple(jax.local_devices()[:1]))
    keys = np.arange(4, dtype=np.uint32).reshape(2, 2)
    status = np.array([RUNNING, FINISHED], np.int32)
    state = trainer.init(keys)
    weights = packings(trainer)[0].pack((state.params, state.stats))
    made = first_states(trainer, lanes)(weights, status)
    found = unpacked(trainer, jax.device_get(made))
    np.testing.assert_array_equal(found.status, status)
    for name in ("params", "stats", "optimiser", "plateau", "early_stop", "best_params", "epoch"):
        of = [jax.tree.leaves(getattr(tree, name)) for tree in (found, state)]
        for one, other in zip(*of, strict=True):
            np.testing.assert_array_equal(one, other)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(made)]
    assert len(set(buffers)) == len(buffers)


@pytest.mark.parametrize("lead", [(), (2,), (2, 3)])
def test_packing_is_exact_for_every_type(lead):
    """Every pattern of bits, NaN with a payload too, on the host and on a device; short floats stay
    by themselves, those of each other type are one."""
    random = np.random.default_rng(0)
    shapes = {"a": (3, 5), "b": (), "c": (7,), "empty": (0, 2)}
    types = ("float32", "bfloat16", "float16", "int32", "uint32", "uint8", "bool")

    def array(type, shape):
        size = np.dtype(type).itemsize * math.prod((*lead, *shape))
        bits = random.integers(0, 256, size, np.uint8)
        return (bits % 2 if type == "bool" else bits).view(type).reshape((*lead, *shape))

    def same(one, other):
        for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
            assert (a.shape, a.dtype) == (b.shape, b.dtype)
            assert np.asarray(a).tobytes() == np.asarray(b).tobytes()

    tree = {type: {name: array(type, own) for name, own in shapes.items()} for type in types}
    tree["float32"]["a"] = np.full((*lead, 3, 5), 0x7F800001, np.uint32).view(np.float32)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[len(lead) :], x.dtype), tree)
    packing = Packing(like)
    packed = packing.pack(tree)
    assert len(packed) == 5 + 2 * len(shapes)
    same(packing.unpack(packed), tree)
    on_device = jax.jit(packing.pack)(tree)
    same(on_device, packed)
    same(jax.jit(packing.unpack)(on_device), tree)


def test_states_of_large_models_and_of_many_arrays_stay_as_they_are(monkeypatch):
    """Where copies, or compiling them, would cost more than the host saves."""
    lanes = Lanes(2, tuple(jax.local_devices()[:1]))

    def arrays(width):
        trainer = made_up.window_trainer(REGISTRY["promoter_cnn"](assays=1, width=width), 16)
        shapes = jax.tree.leaves(packed_shapes(trainer, lanes))
        assert all(x.shape[0] == 2 for x in shapes)
        return len(shapes), len(jax.tree.leaves(trainer.state_shapes()))

    assert (arrays(0.02), arrays(1.0)) == ((4, 61), (61, 61))
    monkeypatch.setattr(lanes_module, "_MOST_ARRAYS", 60)
    assert arrays(0.02) == (61, 61)


def test_what_has_one_array_of_a_type_keeps_it_as_it_is():
    packing = Packing({"a": np.zeros((2, 3), np.float32), "b": np.zeros(4, np.int32)})
    tree = {"a": np.ones((5, 2, 3), np.float32), "b": np.ones((5, 4), np.int32)}
    packed = packing.pack(tree)
    assert [x.shape for x in packed] == [(5, 2, 3), (5, 4)]
    assert packing.unpack(packed)["a"] is packed[0]
