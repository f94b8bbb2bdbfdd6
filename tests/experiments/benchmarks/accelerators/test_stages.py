"""What the one-shot check measures, and in which order."""

import pytest
from jax.profiler import ProfileData

from experiments.benchmarks.accelerators.stages import STAGES
from experiments.benchmarks.accelerators.training import _spent


def test_the_most_telling_figures_come_first():
    assert list(STAGES)[:4] == ["machine", "cnn", "chromoformer", "promoter_cnn"]
    first = {name: next(iter(tasks(False))).of for name, (_, tasks) in STAGES.items()}
    assert first["cnn"] == {"model": "cnn", "lanes": 8, "precision": "bfloat16"}
    assert first["chromoformer"] == {"model": "chromoformer", "lanes": 16, "precision": "bfloat16"}
    assert first["parity"] == {"model": "cnn", "on": "cpu", "precision": "float32"}
    assert sum(weight for weight, _ in STAGES.values()) == 470


def test_this_machine_is_described():
    describe, *ceilings, _ = STAGES["machine"][1](True)
    found = describe.measure()
    assert found["platform"] == "cpu"
    assert found["versions"]["jax"]
    rates = [task.measure() for task in ceilings if task.of != {"matmul": "bfloat16"}]
    assert all(rate.get("tflops", 0) + rate.get("tb_per_s", 0) > 0 for rate in rates)
    assert all(rate["spread"] >= 1 for rate in rates)


def test_an_update_on_the_same_device_does_not_differ():
    reference, *others = STAGES["parity"][1](True)
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
    assert _spent(profile, steps=2) == {
        "kernels_a_step": 1.5,
        "busy_ms_a_step": pytest.approx(0.0045, abs=6e-4),
        "dearest": [
            {"us_a_step": 4.0, "a_step": 1.0, "kernel": "gemm"},
            {"us_a_step": 0.5, "a_step": 0.5, "kernel": "copy"},
        ],
    }
