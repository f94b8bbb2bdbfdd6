"""Masked-mark models from training to tables; comparison with models trained on each subset."""

import dataclasses
import json
import shutil
import types

import numpy as np
import pandas as pd
import pyBigWig
import pytest

from data_prep.checks.build_inputs import BuildConfig
from data_prep.simulate import simulate
from epi2expr_jax import predict
from epi2expr_jax.errors import InputError
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import train
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.one_run import TrainConfig
from experiments import combinations
from experiments.combinations import combine

TWIN = "H3K999ac"


def request_for(store, assays, epochs, *, masked=False):
    return TrainRequest(
        store=str(store.path),
        model="promoter_cnn",
        model_options={"width": 0.1},
        assays=assays,
        cv="chromosomes_3",
        train_config=TrainConfig(
            epochs=epochs, batch_size=32, early_stop=None, plateau=None, masked=masked
        ),
    )


@dataclasses.dataclass(frozen=True)
class Planted:
    """A store of a simulated Roadmap, and what is known of it.

    The best assay is there twice, under another name.
    """

    store: WindowStore
    best: str
    idle: list[str]


def written_again(path):
    """The same signal in another file: one file under two names is refused."""
    copy = path.with_name(f"twin-{path.name}")
    with pyBigWig.open(str(path)) as source, pyBigWig.open(str(copy), "w") as file:
        file.addHeader(list(source.chroms().items()), maxZooms=0)
        for chrom in source.chroms():
            if intervals := source.intervals(chrom):
                starts, ends, values = map(list, zip(*intervals, strict=True))
                file.addEntries([chrom] * len(starts), starts, ends=ends, values=values)
    return copy.name


@pytest.fixture(scope="module")
def planted(build, trial_size, tmp_path_factory):
    """The trial: 3 cells, 12 assays."""
    folder = tmp_path_factory.mktemp("planted")
    genes, cells, assays = trial_size((300, 1, 3), (1500, 3, 11))
    data = simulate(folder / "data", genes=genes, cells=cells, assays=assays)
    oracle = pd.Series(json.loads((data / "truth.json").read_text())["oracle"]["6000"][ALL])
    table = pd.read_csv(data / "tracks.csv")
    twin = table[table.assay == oracle.idxmax()].assign(assay=TWIN)
    twin["path"] = [written_again(data / path) for path in twin["path"]]
    twin = twin.drop(columns="sha256")
    pd.concat([table, twin]).to_csv(data / "twins.csv", index=False)
    config = BuildConfig(
        tracks=str(data / "twins.csv"),
        expression=str(data / "RPKM.pc.gz"),
        genes=str(data / "genes.gtf.gz"),
        assembly=str(data / "genome.chrom.sizes"),
        store=str(folder / "store.zarr"),
        window_bp=6000,
        bin_bp=100,
    )
    return Planted(build(config), str(oracle.idxmax()), list(oracle.index[oracle == 0]))


@pytest.fixture(scope="module")
def runs(planted, trial_size, tmp_path_factory):
    """A masked-mark run, and one of models trained on each subset alone, both evaluated."""
    folder = tmp_path_factory.mktemp("runs")
    alone = trial_size(["each", "all"], ["each", "pairs", "leave_one_out", "all"])
    train(request_for(planted.store, ["all"], trial_size(12, 60), masked=True), folder / "masked")
    train(request_for(planted.store, alone, trial_size(5, 8)), folder / "alone")
    for name in ("masked", "alone"):
        evaluate(folder / name)
    return folder


@pytest.fixture(scope="module")
def tables(runs):
    return combine(runs / "masked", against=runs / "alone")


def test_every_subset_is_scored_and_every_assay_gets_its_share(runs, tables, planted):
    cells, assays = planted.store.manifest.cells, planted.store.manifest.assays
    subsets = pd.read_csv(runs / "masked" / "subsets.csv")
    assert len(subsets) == (len(cells) + 1) * (2 ** len(assays) - 1)
    assert set(subsets.cell) == {ALL, *cells}
    assert (subsets.low <= subsets.pearson).all()
    assert (subsets.simultaneous_low <= subsets.low).all()
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
