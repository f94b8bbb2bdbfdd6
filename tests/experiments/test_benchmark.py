"""The benchmarks that need no peer, small: that they measure what they say they do."""

import pandas as pd

from epi2expr_jax.models.cnn import CnnConfig
from experiments import benchmark_scaling


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
