"""The evaluation: which genes it scores, and what it writes in addition to the ranking."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pandas as pd

from epi2expr_jax.study.evaluate import evaluate


def test_evaluation_uses_held_out_genes_alone(finished, small_store, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "run")
    ranked = evaluate(run_dir)
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
    assert {"expressed", "silent"} <= set(groups.group)
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
