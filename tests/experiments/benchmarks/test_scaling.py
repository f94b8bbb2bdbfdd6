import types

import pandas as pd
import pytest

from epi2expr_jax.models.cnn import CnnConfig
from experiments.benchmark import define_flags
from experiments.benchmarks import scaling


def test_scaling_makes_a_table_and_a_plot(tmp_path, monkeypatch):
    for name, small in (
        ("_SIZES", (1, 3)),
        ("_GENES", (384,)),  # as many as the other measurements have: one program
        ("_LIVING", (1.0, 0.5)),
        ("_OF", 4),
        ("_LANES", (1,)),
        ("REGISTRY", {"cnn": lambda: CnnConfig(width=0.02)}),
    ):
        monkeypatch.setattr(scaling, name, small)
    found = scaling.scaling(1, tmp_path / "out")
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


def test_a_cost_is_time_and_the_share_of_what_the_device_can_do():
    cost = scaling.Cost.of(gene_steps_per_s=1000, gene_steps=600_000, mflop=200, peak=400_000)
    assert cost == scaling.Cost(1000, minutes=10, tflops=0.2, share_of_matmul_peak=0.5)


def test_the_whole_study_is_both_models_at_their_pace(monkeypatch, parse_flags):
    monkeypatch.setattr(scaling, "training_pace", lambda precision, rounds: 100.0 * rounds)
    monkeypatch.setattr(scaling, "calibrate", lambda *_: types.SimpleNamespace(genes_per_s=2000.0))
    monkeypatch.setattr(scaling, "matmul_mflops", lambda precision: lambda: 1e6)
    monkeypatch.setattr(scaling, "REGISTRY", {"cnn": lambda: CnnConfig(width=0.02)})
    parse_flags([define_flags], "--what=grid", "--precision=tf32")
    found = scaling.whole_study(2)
    cnn, chromoformer = 660 * 40 * 12_700 / 2000 / 60, 308 * 10 * 14_200 / 200 / 60  # minutes
    assert found["cnn"]["minutes"] == pytest.approx(cnn, abs=0.1)
    assert found["chromoformer"]["minutes"] == pytest.approx(chromoformer, abs=0.1)
    assert found["hours"] == pytest.approx((cnn + chromoformer) / 60, abs=0.1)
    assert found["hours_cnn_at_100_epochs"] == pytest.approx(2.5 * cnn / 60, abs=0.1)
    assert found["chromoformer"]["share_of_matmul_peak"] == pytest.approx(0.039)
    assert found["precision"] == "tf32"
