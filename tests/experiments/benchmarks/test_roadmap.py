import pytest

from experiments.benchmarks import roadmap


@pytest.mark.peers
def test_the_estimate_of_the_roadmap_is_of_what_was_measured(monkeypatch):
    pytest.importorskip("pybigtools")
    monkeypatch.setattr(roadmap, "_READS", 3000)
    monkeypatch.setattr(roadmap, "_ROADMAP_GENES", 60)
    found = roadmap.roadmap(1, 3000, ["chr21", "chr22"])
    assert found["windows_of_40_kb"]["store_gb"] > found["windows_of_10_kb"]["store_gb"] > 0
    assert found["windows_of_10_kb"]["worker_mb"] > 100
    assert found["depth"]["hours_one_worker"] > 0


def test_what_checks_cost_is_of_equal_values():
    found = roadmap.store(1, genes=600)
    assert found["all"]["checked_mb_per_s"] > 0
    assert found["part"]["time_with_over_without"] > 0
