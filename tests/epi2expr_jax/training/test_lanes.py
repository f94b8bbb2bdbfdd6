"""Lanes: how wide they are, what replaces one, how states begin on the devices."""

import jax
import numpy as np
import pytest

from epi2expr_jax.models import REGISTRY
from epi2expr_jax.training.lanes import Lanes, first_states
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
    made = first_states(trainer, lanes)(jax.tree.leaves((state.params, state.stats)), status)
    found = jax.tree.unflatten(jax.tree.structure(state), made)
    np.testing.assert_array_equal(found.status, status)
    for name in ("params", "stats", "optimiser", "plateau", "early_stop", "best_params", "epoch"):
        of = [jax.tree.leaves(getattr(tree, name)) for tree in (found, state)]
        for one, other in zip(*of, strict=True):
            np.testing.assert_array_equal(one, other)
    buffers = [leaf.unsafe_buffer_pointer() for leaf in made]
    assert len(set(buffers)) == len(buffers)
