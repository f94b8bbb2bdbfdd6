"""What the one-shot check measures, and in which order."""

import pytest

from experiments.benchmarks.accelerators.stages import STAGES


def test_the_most_telling_figures_come_first():
    assert list(STAGES)[:4] == ["machine", "cnn", "chromoformer", "parity"]
    first = {name: next(iter(tasks(False)))[0] for name, (_, tasks) in STAGES.items()}
    assert first["cnn"] == {"model": "cnn", "lanes": 8, "precision": "bfloat16"}
    assert first["chromoformer"] == {"model": "chromoformer", "lanes": 8, "precision": "bfloat16"}
    assert first["parity"] == {"model": "cnn", "on": "cpu", "precision": "float32"}
    assert sum(weight for weight, _ in STAGES.values()) == 470


def test_this_machine_is_described():
    (_, describe), _, *ceilings = STAGES["machine"][1](True)
    found = describe()
    assert found["platform"] == "cpu"
    assert found["versions"]["jax"]
    rates = [measure() for of, measure in ceilings if of != {"matmul": "bfloat16"}]
    assert all(rate.get("tflops", 0) + rate.get("tb_per_s", 0) > 0 for rate in rates)
    assert all(rate["spread"] >= 1 for rate in rates)


def test_an_update_on_the_same_device_does_not_differ():
    tasks = [task for task in STAGES["parity"][1](True) if task[0]["model"] == "promoter_cnn"]
    assert "update_difference" not in tasks[0][1]()  # the reference
    (again,) = (measure for of, measure in tasks[1:] if of["precision"] == "float32")
    assert again()["update_difference"] == pytest.approx(0, abs=1e-6)
