"""The evaluation: which genes it scores, and what it writes in addition to the ranking."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores.ranking import rank_assays
from epi2expr_jax.scores.table import score_table
from epi2expr_jax.study import tables
from epi2expr_jax.study.evaluate import evaluate, of_older_rules
from experiments.verify import Verification


def test_evaluation_uses_held_out_genes_alone(finished, small_store, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "run")
    genes = small_store.genes["gene_id"]
    table = pd.DataFrame({"gene": genes, "cpg": range(len(genes)), "rich": genes.index % 2 == 0})
    table.to_csv(tmp_path / "genes.csv", index=False)
    ranked = evaluate(run_dir, baselines="ridge", covariates=tmp_path / "genes.csv")
    predictions = pd.read_parquet(run_dir / "predictions.parquet")
    folds = {fold["name"]: fold for fold in json.loads(
        (run_dir / "splits.json").read_text())["folds"]}  # fmt: skip
    for (fold, _), part in predictions.groupby(["fold", "run_id"]):
        assert set(part.chrom) == set(folds[fold]["test"])
        assert len(part) == folds[fold]["genes"]["test"]
    row = predictions.iloc[17]
    cell = small_store.manifest.cells.index(row.cell)
    gene = small_store.genes.gene_id.tolist().index(row.gene_id)
    rpkm = small_store.read_expression(small_store.manifest.cells)[cell, gene]
    np.testing.assert_allclose(row.observed, np.log2(rpkm + 1), rtol=1e-6)
    table = pd.read_csv(run_dir / "ranking.csv")
    assert {"cell", "assay", "pearson", "low", "high", "spearman"} <= set(table.columns)
    assert set(table.cell) == {*small_store.manifest.cells, "all"}
    assert set(table.assay) == {*small_store.manifest.assays, "+".join(small_store.manifest.assays)}
    assert len(ranked) == len(table)
    groups = pd.read_csv(run_dir / "groups.csv")
    assert set(groups.group) == {"expressed", "silent", "rich: True", "rich: False"}
    class_of = dict(zip(genes, genes.index % 2 == 0, strict=True))
    own = predictions[predictions.gene_id.map(class_of)]
    row = groups[(groups.group == "rich: True") & (groups.cell == "all")].iloc[0]
    own = own[own.assays == row.assay]
    by_chrom = own.groupby(["cell", "chrom"]).agg(n=("gene_id", "size"))
    by_chrom["r"] = own.groupby(["cell", "chrom"])[["observed", "predicted"]].apply(
        lambda part: part.corr(numeric_only=True).iloc[0, 1]
    )
    means = by_chrom[by_chrom.n >= 3].fillna(0).groupby("chrom").mean()
    assert row.n_genes == means.n.sum()
    assert row.pearson == pytest.approx(np.average(means.r, weights=means.n), abs=1e-4)
    questions = pd.read_csv(run_dir / "questions.csv")
    assert set(questions.question) == {"on", "level", "both"}
    assert len(questions) == 3 * 3 * len(ranked)
    known = pd.read_parquet(run_dir / "covariates.parquet")
    ends = small_store.genes["end"] - small_store.genes["start"]
    assert known["gene length"].tolist() == ends.tolist()
    assert known["cpg"].tolist() == [*range(len(genes))]
    made = pd.read_parquet(run_dir / "baselines.parquet")
    simple = {"covariates", "covariates and assays", "mean of the other cells", "ridge", "stack"}
    assert set(made["model"]) == simple
    by_stack = pd.read_csv(run_dir / "ranking_stack.csv").set_index(["cell", "assay"])
    scored = rank_assays(score_table(made[made["model"] == "stack"])).set_index(["cell", "assay"])
    pd.testing.assert_series_equal(by_stack["pearson"], scored["pearson"], atol=1e-6)
    assert "covariates" in set(pd.read_csv(run_dir / "baselines.csv").model)
    sets = {*small_store.manifest.assays, "+".join(small_store.manifest.assays)}
    assert set(pd.read_csv(run_dir / "added.csv").assay) == sets
    own = pd.read_csv(run_dir / "ranking_own.csv")
    assert set(own.cell) == {*small_store.manifest.cells, "all"}
    checks = Verification(run_dir, quick=True)
    again = checks.scores()
    for name in ("questions", "added", "ranking_own", "ranking_stack"):
        assert f"{name}.csv by at most" in again
    assert "covariates.parquet by at most" in again
    known.assign(**{"gene length": 1.0}).to_parquet(run_dir / "covariates.parquet")
    with pytest.raises(InputError, match=r"covariates\.parquet"):
        checks.scores()
    called = pd.read_csv(run_dir / "calls.csv")
    assert called.p.between(0, 1).all()
    assert (called.q >= called.p - 1e-6).all()
    assert (called.called == (called.q <= 0.05)).all()
    quality = pd.read_csv(run_dir / "quality.csv")
    assert set(zip(quality.cell, quality.assay, strict=True)) == set(
        map(tuple, small_store.manifest.tracks)
    )
    assert (quality.depth > 0).all()


def test_the_library_trains_and_evaluates_without_scikit_learn():
    code = (
        "import sys; sys.modules['sklearn'] = None\n"
        "from epi2expr_jax import study\n"
        "from epi2expr_jax.predict.baselines import predict_baselines\n"
        "assert study.train and study.evaluate and predict_baselines\n"
        "assert not [name for name in sys.modules if name.startswith('sklearn.')]\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(("high", "which"), [(0.9, "leads and of groups"), (1.2, "all")])
def test_intervals_of_older_rules_are_not_compared(high, which):
    """Those of version 0.1 went beyond 1."""
    row = {"low": 0.2, "high": high, "note": "", "training_sd": np.nan, "spearman": 0.5}
    row["pearson"] = (row["low"] + row["high"]) / 2
    written = pd.DataFrame([row])
    made = {tables.RANKING: written.assign(high=min(high, 1.0)), tables.GROUPS: written}
    made[tables.BASELINES] = written.assign(lead_low=0.0)
    kept, said = of_older_rules(made, written)
    assert said == which
    assert of_older_rules(made, written.assign(low=-9.0))[1] == "leads and of groups"  # not theirs
    assert ("high" in kept[tables.RANKING]) == (which != "all")
    assert "high" not in kept[tables.GROUPS]
    assert "lead_low" not in kept[tables.BASELINES]
    assert all("pearson" in table for table in kept.values())
