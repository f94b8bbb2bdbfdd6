"""What the one-shot check says of training: parity, and kernels from a trace."""

import pytest
from jax.profiler import ProfileData

from experiments.benchmarks.accelerators.training import parity, spent


def test_an_update_on_the_same_device_does_not_differ():
    reference, *others = parity(True)
    assert "update_difference" not in reference.measure()
    (again,) = (task for task in others if task.of["precision"] == "float32")
    assert again.measure()["update_difference"] == pytest.approx(0, abs=1e-6)


def test_kernels_are_counted_from_the_profiler_s_trace():
    """By hand: of two steps on one device, its copies to the host and the host's own left out."""
    space = """
    planes { name: "/host:CPU" lines { name: "python3" events { metadata_id: 1 duration_ps: 9 } }
      event_metadata { key: 1 value { id: 1 name: "call" } } }
    planes { name: "/device:GPU:0"
      lines { name: "Stream #14(Compute)"
        events { metadata_id: 1 offset_ps: 0 duration_ps: 3000000 }
        events { metadata_id: 2 offset_ps: 4000000 duration_ps: 1000000 }
        events { metadata_id: 1 offset_ps: 6000000 duration_ps: 5000000 } }
      lines { name: "XLA Ops" events { metadata_id: 1 duration_ps: 8000000 } }
      event_metadata { key: 1 value { id: 1 name: "gemm" } }
      event_metadata { key: 2 value { id: 2 name: "copy" } } }
    """
    profile = ProfileData.from_serialized_xspace(ProfileData.text_proto_to_serialized_xspace(space))
    assert spent(profile, steps=2) == {
        "kernels_a_step": 1.5,
        "busy_ms_a_step": pytest.approx(0.0045, abs=6e-4),
        "dearest": [
            {"us_a_step": 4.0, "a_step": 1.0, "kernel": "gemm"},
            {"us_a_step": 0.5, "a_step": 0.5, "kernel": "copy"},
        ],
    }
