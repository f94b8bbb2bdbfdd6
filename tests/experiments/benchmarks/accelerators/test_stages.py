"""What the one-shot check measures, and in which order."""

from experiments.benchmarks.accelerators.stages import STAGES


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
