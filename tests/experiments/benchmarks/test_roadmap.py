import numpy as np
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
    assert found["as_training"]["plain_mb_per_s"] > 0


def test_both_sides_read_of_a_store_what_is_asked_for(tmp_path):
    checked = roadmap._made_up_store(tmp_path / "checked", 70)
    roadmap._write_without_checks(checked, tmp_path / "plain")
    plain = roadmap._Unchecked(tmp_path / "plain", checked.manifest, checked.genes)
    for bins in slice(None), slice(3, 43):
        own = plain.read_signal(["c"], ["m3", "m1"], bins)
        np.testing.assert_array_equal(own, checked.read_signal(["c"], ["m3", "m1"], bins))
