import dataclasses
import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression, Ridge

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.models import PromoterCnnConfig
from epi2expr_jax.predict.baselines import (
    BASELINES,
    COVARIATES,
    PENALTIES,
    STRETCHES,
    WITH_ASSAYS,
    mean_of_other_cells,
    mean_of_seeds,
    predict_baselines,
)
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.splits import make_folds
from epi2expr_jax.training.targets import TargetScale


def ensemble_of(store, kind="log2", seeds=1):
    """Models that baselines are compared with: what they are, without any weights."""
    counts = store.genes.chrom.value_counts().to_dict()
    folds = {fold.name: fold for fold in make_folds("chromosomes_3", counts)}
    cells, assays = store.manifest.cells, store.manifest.assays
    runs, scales = [], []
    for c, cell in enumerate(cells):
        rpkm = store.read_expression(cells)[c]
        for fold in folds.values():
            train = fold.masks(store.genes)["train"]
            for seed in range(seeds):
                runs.append(Run(cell, tuple(assays[:2]), fold.name, seed))
                fitted = rpkm if kind == "label" else rpkm[train]
                scales.append(TargetScale.fit(kind, fitted, cell))
    member = Member(PromoterCnnConfig(), tuple(runs), tuple(scales), {})
    read = InputConfig()
    signal = TrainedSignal.of(store.manifest, read.transform)
    return Ensemble({}, read, kind, folds, (member,), signal)


@pytest.fixture(scope="module")
def predictions(small_store):
    return predict_baselines(ensemble_of(small_store, seeds=2), small_store, list(BASELINES))


def test_every_test_gene_once_a_run_and_baseline(predictions, small_store):
    genes, cells = len(small_store.genes), len(small_store.manifest.cells)
    assert predictions.groupby("model").size().eq(genes * cells * 2).all()
    scores = {name: scoring.score_table(part) for name, part in predictions.groupby("model")}
    assert set(scores) == {*BASELINES} - {"mean_40kb"}  # its window is 6 kb wide
    for name, table in scores.items():
        assert table.pearson.mean() > 0.2, name  # planted assays do predict


def test_the_linear_one_is_least_squares_on_mean_signal(predictions, small_store):
    cells, assays = small_store.manifest.cells, small_store.manifest.assays[:2]
    counts = small_store.genes.chrom.value_counts().to_dict()
    fold = make_folds("chromosomes_3", counts)[1]
    data = load_dataset(small_store, PromoterCnnConfig(), [cells[0]], assays)
    x = np.stack([data.track(cells[0], assay).values.mean(1) for assay in assays], 1)
    y = np.log2(small_store.read_expression(cells)[0].astype(float) + 1)
    masks = fold.masks(small_store.genes)
    expected = LinearRegression().fit(x[masks["train"]], y[masks["train"]]).predict(x)
    own = predictions[(predictions.model == "linear") & (predictions.cell == cells[0])]
    own = own[(own.fold == fold.name) & (own.seed == 0)]
    np.testing.assert_allclose(own.predicted, expected[masks["test"]], atol=1e-5)
    np.testing.assert_allclose(own.observed, y[masks["test"]], atol=1e-6)


def test_those_of_the_whole_window_read_it_by_strand(small_store):
    """Whatever a model reads: here 3 kb in genomic order."""
    every = ensemble_of(small_store)
    narrow = dataclasses.replace(every.members[0], model_config=PromoterCnnConfig(window_bp=3000))
    read = InputConfig(orientation="genomic")
    ensemble = dataclasses.replace(every, members=(narrow,), input_config=read)
    ensemble = ensemble.select(lambda run: run == every.runs[0])
    (run,), genes = ensemble.runs, small_store.genes
    table = predict_baselines(ensemble, small_store, ["gene_score", "mean_1.5kb"])
    masks = ensemble.folds[run.fold].masks(genes)
    train, test = masks["train"], masks["test"]
    y = np.log2(small_store.read_expression([run.cell])[0].astype(float) + 1)
    raw = small_store.read_signal([run.cell], run.assays)[0].astype(float)  # bins of 50 bp
    signal = np.arcsinh(raw.reshape(2, len(genes), 60, 2).mean(axis=3))  # -log10 p
    minus = (genes.strand == "-").to_numpy()
    signal[:, minus] = signal[:, minus, ::-1]
    place = np.arange(60) * 100 - 2950
    away = np.maximum(np.maximum(place - (genes.end - genes.start).to_numpy()[:, None], -place), 0)
    weights = np.exp(-away / 5000)
    narrow = (signal[:, :, 23:37].sum(axis=2) + signal[:, :, [22, 37]].sum(axis=2) / 2) / 15
    scores = (signal * weights).sum(axis=2) / weights.sum(axis=1)
    for name, x in (("gene_score", scores.T), ("mean_1.5kb", narrow.T)):
        expected = LinearRegression().fit(x[train], y[train]).predict(x[test])
        own = table[table.model == name]
        np.testing.assert_allclose(own.predicted, expected, atol=1e-4)


def test_test_genes_have_no_say(small_store, predictions, monkeypatch):
    """Expression of the test genes may be anything: predictions stay."""
    every = ensemble_of(small_store)
    ensemble = every.select(lambda run: run == every.runs[0])
    test = ensemble.folds[every.runs[0].fold].masks(small_store.genes)["test"]
    read = type(small_store).read_expression

    def disturbed(self, cells):
        values = read(self, cells).copy()
        values[:, test] = values[:, test][:, ::-1]
        return values

    monkeypatch.setattr(type(small_store), "read_expression", disturbed)
    again = predict_baselines(ensemble, small_store, ["ridge", "boosting"])
    first = predictions[predictions.run_id.isin(again.run_id)]
    first = first[first.model.isin(again.model)]
    np.testing.assert_allclose(
        again.sort_values(["model", "gene_id"]).predicted,
        first.sort_values(["model", "gene_id"]).predicted,
        rtol=1e-9,
    )
    assert not np.allclose(
        again.sort_values(["model", "gene_id"]).observed,
        first.sort_values(["model", "gene_id"]).observed,
    )


def test_labels_get_probabilities(small_store):
    ensemble = ensemble_of(small_store, "label")
    table = predict_baselines(ensemble, small_store, ["linear", "ridge", "boosting"])
    assert table.predicted.between(0, 1).all()
    assert set(table.observed.unique()) == {0, 1}
    assert (scoring.score_table(table[table.model == "ridge"]).auc.mean()) > 0.6


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_labels_of_one_class_are_predicted_to_be_it(small_store, monkeypatch, label):
    def labels(self, cells):
        return np.full((len(cells), len(self.genes)), bool(label))

    ensemble = ensemble_of(small_store, "label")
    monkeypatch.setattr(type(small_store), "read_labels", labels)
    table = predict_baselines(ensemble, small_store, ["linear", "ridge", "boosting"])
    assert (table.predicted_raw == label).all()


@pytest.mark.parametrize(
    ("given", "used"), [({}, "passive"), ({"OMP_WAIT_POLICY": "active"}, "active")]
)
def test_threads_that_wait_leave_the_cores_to_others(given, used):
    """Two threads of trees took 95 s for what they do in 6 (13,000 genes, a busy machine)."""
    script = "import os, epi2expr_jax.predict.baselines; print(os.environ['OMP_WAIT_POLICY'])"
    environment = {k: v for k, v in os.environ.items() if k != "OMP_WAIT_POLICY"} | given
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert done.stdout == f"{used}\n", done.stderr


def test_unknown_baselines_are_named(small_store):
    with pytest.raises(InputError, match="did you mean ridge"):
        predict_baselines(ensemble_of(small_store), small_store, ["rigde"])


def test_the_mean_of_seeds_is_one_prediction():
    rows = [("a", s, g, s + g) for s in (0, 1) for g in (1, 2)]
    table = pd.DataFrame(rows, columns=["cell", "seed", "gene_id", "predicted"])
    table = table.assign(assays="x", fold="f", predicted_raw=table.predicted * 2.0)
    means = mean_of_seeds(table)
    assert means.predicted.tolist() == [1.5, 2.5, 1.5, 2.5]
    assert means.predicted_raw.tolist() == [3, 5, 3, 5]


def test_pools_have_no_baseline(small_store):
    ensemble = ensemble_of(small_store)
    (member,) = ensemble.members
    runs = tuple(dataclasses.replace(run, cell="E1+E2") for run in member.runs)
    pooled = dataclasses.replace(ensemble, members=(dataclasses.replace(member, runs=runs),))
    assert predict_baselines(pooled, small_store, ["linear"]).empty


def test_covariates_alone_and_with_assays(small_store):
    every = ensemble_of(small_store)
    ensemble = every.select(lambda run: run == every.runs[0])
    (run,), genes = ensemble.runs, small_store.genes
    known = np.random.default_rng(0).normal(size=(len(genes), 3))
    table = predict_baselines(ensemble, small_store, [], of_genes=known).set_index("model")
    assert set(table.index) == {COVARIATES, WITH_ASSAYS}
    masks = ensemble.folds[run.fold].masks(genes)
    y = np.log2(small_store.read_expression([run.cell])[0].astype(float) + 1)
    data = load_dataset(small_store, PromoterCnnConfig(), [run.cell], run.assays)
    windows = [data.track(run.cell, assay).values.astype(float) for assay in run.assays]
    assert windows[0].shape[1] == 60  # so each of 20 stretches has three bins
    stretches = [window.reshape(len(genes), STRETCHES, 3).mean(axis=2) for window in windows]
    for name, x in ((COVARIATES, known), (WITH_ASSAYS, np.hstack([*stretches, known]))):
        x = (x - x[masks["train"]].mean(axis=0)) / x[masks["train"]].std(axis=0)
        target = (y - y[masks["train"]].mean()) / y[masks["train"]].std()
        fits = [Ridge(alpha).fit(x[masks["train"]], target[masks["train"]]) for alpha in PENALTIES]
        off = [np.mean((fit.predict(x) - target)[masks["validation"]] ** 2) for fit in fits]
        expected = fits[np.argmin(off)].predict(x)[masks["test"]]
        expected = expected * y[masks["train"]].std() + y[masks["train"]].mean()
        np.testing.assert_allclose(table.loc[name, "predicted"], expected, atol=1e-5)


def test_the_mean_of_the_other_cells_knows_nothing_of_the_tested_one(small_store):
    ensemble, (one, other) = ensemble_of(small_store), small_store.manifest.cells
    rows = [{"run_id": run.run_id, "cell": run.cell, "gene_id": gene} for run in ensemble.runs
            for gene in small_store.genes.gene_id[:5]]  # fmt: skip
    table = mean_of_other_cells(ensemble, small_store, pd.DataFrame(rows))
    assert set(table["model"]) == {"mean of the other cells"}
    for cell, elsewhere in ((one, other), (other, one)):
        expected = np.log2(small_store.read_expression([elsewhere])[0, :5].astype(float) + 1)
        for _, part in table[table["cell"] == cell].groupby("run_id"):
            np.testing.assert_allclose(part["predicted"], expected)
