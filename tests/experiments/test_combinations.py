"""Masked-mark models from training to tables; comparison with models trained on each subset."""

import shutil
import types

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import predict
from epi2expr_jax.errors import InputError
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.training import checkpoint
from experiments import combinations
from experiments.combinations import combine
from tests.experiments.masked_runs import TWIN


@pytest.fixture(scope="module")
def planted(masked_runs):
    return masked_runs


@pytest.fixture(scope="module")
def runs(masked_runs, tmp_path_factory):
    """Copies of its runs, to write into."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("masked", "alone"):
        shutil.copytree(masked_runs.folder / name, folder / name)
    return folder


@pytest.fixture(scope="module")
def tables(runs):
    return combine(runs / "masked", against=runs / "alone")


def test_every_subset_is_scored_and_every_assay_gets_its_share(runs, tables, planted):
    cells, assays = planted.store.manifest.cells, planted.store.manifest.assays
    subsets = pd.read_csv(runs / "masked" / "subsets.csv")
    assert len(subsets) == (len(cells) + 1) * (2 ** len(assays) - 1)
    assert set(subsets.cell) == {ALL, *cells}
    given = subsets.note.isna()  # few genes a chromosome give none
    assert subsets.low.notna().equals(given)
    assert (subsets.low <= subsets.pearson)[given].all()
    assert (subsets.simultaneous_low <= subsets.low)[given].all()
    # The model's score with all assays present is that of its evaluation.
    ranked = pd.read_csv(runs / "masked" / "ranking.csv").set_index("cell").pearson
    whole = subsets[subsets["size"] == len(assays)].set_index("cell").pearson
    np.testing.assert_allclose(whole[ranked.index], ranked, atol=1e-4)
    shares = pd.read_csv(runs / "masked" / "shapley.csv")
    assert set(shares.assay) == set(assays)
    total = shares.groupby("cell").value.sum()
    np.testing.assert_allclose(total, whole[total.index], atol=1e-4)
    pairs = pd.read_csv(runs / "masked" / "agreement_subsets.csv")
    assert set(pairs.cell) == {ALL, *cells}
    assert (runs / "masked" / "agreement.csv").exists()


@pytest.mark.trial
def test_masked_scores_agree_with_models_trained_on_each_subset(tables, trial_size):
    """Of single assays and all; the trial: of pairs and all but one as well."""
    agreed = tables["agreement"].set_index("cell")
    print(agreed)
    assert agreed.loc[ALL, "subsets"] == trial_size(4 + 1, 12 + 66 + 12 + 1)
    # Of a few subsets, noise decides in which order the twins come.
    assert agreed.loc[ALL, "spearman"] >= trial_size(0.5, 0.9)
    assert agreed.loc[ALL, "pearson"] >= 0.9


@pytest.mark.trial
def test_twins_split_their_credit_and_idle_assays_get_nothing(tables, planted, trial_size):
    shares = tables["shapley"]
    shares = shares[shares.cell == ALL].set_index("assay")
    print(shares)
    twins, others = shares.value[[planted.best, TWIN]], shares.value.drop([planted.best, TWIN])
    assert np.ptp(twins) < trial_size(0.1, 0.03)
    assert twins.min() > 0.1
    assert others[planted.idle].abs().max() < trial_size(0.1, 0.03)
    assert twins.sum() > others.max()


def test_the_run_card_says_that_models_are_masked(runs):
    card = checkpoint.read_card(runs / "masked")
    assert card["request"]["train_config"]["masked"] is True
    assert predict.load(runs / "masked").masked
    assert not predict.load(runs / "alone").masked


def test_runs_that_cannot_be_compared_are_refused(runs, planted, tmp_path):
    with pytest.raises(InputError, match="train with --masked"):
        combine(runs / "alone")
    other = tmp_path / "other"
    shutil.copytree(runs / "masked", other)
    splits = (other / "splits.json").read_text()
    (other / "splits.json").write_text(splits.replace("chr21", "chr23"))
    (other / "metrics.parquet").unlink()
    with pytest.raises(InputError, match=r"experiments\.evaluate"):
        combine(runs / "masked", against=other)
    (other / "metrics.parquet").touch()
    with pytest.raises(InputError, match="a run of other folds"):
        combine(runs / "masked", against=other)
    card = checkpoint.read_card(other)
    checkpoint.write_card(other, {**card, "store_checksum": "another"})
    with pytest.raises(InputError, match="another store and other folds"):
        combine(runs / "masked", against=other)
    (other / "splits.json").write_text(splits)
    with pytest.raises(InputError, match="other contents"):
        combine(other)


def test_the_program_prints_the_tables(runs, tables, planted, capsys, monkeypatch):
    given = {"run": str(runs / "masked"), "store": None, "against": str(runs / "alone")}
    monkeypatch.setattr(combinations, "FLAGS", types.SimpleNamespace(**given))
    monkeypatch.setattr(combinations, "require", lambda *names: None)
    monkeypatch.setattr(combinations, "combine", lambda *asked: tables)
    combinations.main()
    text = capsys.readouterr().out
    shares = tables["shapley"]
    whole = shares[shares.cell == ALL].value.sum()
    assert f"sum, the score of all     {whole:.3f}" in text
    assert "rank correlation" in text
    assert all(assay in text for assay in planted.store.manifest.assays)
