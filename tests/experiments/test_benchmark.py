"""The benchmarks, small: that they measure what they say they do."""

import pandas as pd
import pytest

from epi2expr_jax.models.cnn import CnnConfig
from experiments.benchmarks import bigwig as benchmark_bigwig
from experiments.benchmarks import roadmap as benchmark_roadmap
from experiments.benchmarks import scaling as benchmark_scaling
from experiments.benchmarks import turns


def test_scaling_makes_a_table_and_a_plot(tmp_path, monkeypatch):
    for name, small in (
        ("_SIZES", (1, 3)),
        ("_GENES", (384,)),  # as many as the other measurements have: one program
        ("_LIVING", (1.0, 0.5)),
        ("_OF", 4),
        ("_LANES", (1,)),
        ("REGISTRY", {"cnn": lambda: CnnConfig(width=0.02)}),
    ):
        monkeypatch.setattr(benchmark_scaling, name, small)
    found = benchmark_scaling.scaling(1, tmp_path / "out")
    table = pd.read_csv(tmp_path / "out" / "scaling.csv")
    assert table.groupby("against").value.apply(list).to_dict() == {
        "runs": [1, 3],
        "live share": [1.0, 0.5],
        "genes": [384],
    }
    assert (table.s_a_run > 0).all()
    assert (tmp_path / "out" / "scaling.png").stat().st_size > 5000
    assert found["temporaries_mb"]["L=1"] > 0
    for name in ("cost_a_run_64_to_1", "cost_a_gene_20k_to_1k", "cost_a_live_run_eighth_to_all"):
        assert found[name] > 0


def test_disturbed_rounds_are_measured_again(monkeypatch):
    clock = iter([0, 0, 0, 50, 50, 50, 50, 50])  # the second round is disturbed
    monkeypatch.setattr(turns, "_seconds_of_others", lambda: next(clock))
    rates = {"ours": iter([3.0, 100.0, 4.0, 5.0]), "theirs": iter([1.0, 100.0, 2.0, 2.0])}
    found = turns.take_turns({name: lambda r=r: next(r) for name, r in rates.items()}, 3)
    assert found.rates == {"ours": [3, 4, 5], "theirs": [1, 2, 2]}
    assert found.median == {"ours": 4, "theirs": 2}
    assert found.disturbed == 1
    assert turns.ratio(found.rates["ours"], found.rates["theirs"]) == 2.5


def test_a_machine_that_is_never_quiet_is_named(monkeypatch):
    clock = iter([0, 50, 50, 90, 90, 150, 150, 160])
    monkeypatch.setattr(turns, "_seconds_of_others", lambda: next(clock))
    rates = iter([1.0, 2.0, 3.0, 4.0])
    found = turns.take_turns({"ours": lambda: next(rates)}, 2)
    assert found.disturbed == 4
    assert len(found.rates["ours"]) == 2
    assert 4 in found.rates["ours"]


@pytest.mark.peers
def test_readers_of_bigwigs_give_the_same_numbers_and_a_table(tmp_path, monkeypatch):
    pytest.importorskip("pybigtools")
    for name, small in (
        ("_CHROMOSOMES", {"chr1": 600_000, "chr2": 400_000}),
        ("_WINDOWS", 40),
        ("_WINDOW_BP", (2_000, 10_000)),
        ("_RUN_BP", (60, 30)),
        ("_TRACKS", 12),
        ("_GENES", 100),
    ):
        monkeypatch.setattr(benchmark_bigwig, name, small)
    found = benchmark_bigwig.windows(1, tmp_path / "out")  # the sides are compared on the way
    assert set(found["windows_per_s"]) == {"ours", "list", "stats_exact", "pybigtools"}
    table = pd.read_csv(tmp_path / "out" / "windows.csv")
    assert table.round(4).groupby("against").value.apply(list).to_dict() == {
        "workers": [1, 2],
        "million runs": [0.0167, 0.0333],
        "window kb": [2, 10],
    }
    assert (table.windows_per_s > 0).all()
    assert found["two_workers_to_one"] > 0
    assert benchmark_bigwig.binning(1)["mb_per_s"]["ours"] > 0


@pytest.mark.peers
def test_the_estimate_of_the_roadmap_is_of_what_was_measured(monkeypatch):
    pytest.importorskip("pybigtools")
    monkeypatch.setattr(benchmark_roadmap, "_READS", 3000)
    monkeypatch.setattr(benchmark_roadmap, "_ROADMAP_GENES", 60)
    found = benchmark_roadmap.roadmap(1, 3000, ["chr21", "chr22"])
    assert found["windows_of_40_kb"]["store_gb"] > found["windows_of_10_kb"]["store_gb"] > 0
    assert found["windows_of_10_kb"]["worker_mb"] > 100
    assert found["depth"]["hours_one_worker"] > 0
