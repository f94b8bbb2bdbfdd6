"""A store and a run that version 0.1 made (golden/make_run_of_0_1.py) serve as before."""

import pathlib
import re
import tarfile

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.predict.loading import load
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.training import checkpoint
from experiments.verify import verify

GOLDEN = pathlib.Path(__file__).resolve().parents[1] / "golden" / "run_of_0_1.tar.gz"

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*taken from its own store:UserWarning"),
    pytest.mark.usefixtures("full_compile"),
]


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Unpacked, in the working directory that its run card's paths start from."""
    with tarfile.open(GOLDEN) as archive:
        archive.extractall(tmp_path, filter="data")
    monkeypatch.chdir(tmp_path)
    return pathlib.Path("run")


def test_the_store_opens_with_the_numbers_that_were_written(run):
    store = WindowStore.open("store.zarr")
    assert store.verify() == []
    assert store.checksum() == checkpoint.read_card(run)["store_checksum"]
    assert store.read_signal(["E003"], store.manifest.assays).shape == (1, 2, 66, 60)


def test_the_run_predicts_what_it_predicted(run):
    before = pd.read_parquet(run / "predictions.parquet").set_index(["run_id", "gene_id"])
    now = load(run).predict("store.zarr").to_series().dropna()
    now.index.names = ["run_id", "gene_id"]
    assert len(now) == len(before) == 2 * 66
    np.testing.assert_allclose(now, before.predicted[now.index], atol=1e-5)


def test_the_run_is_verified_and_evaluated_as_before(run):
    claims = {claim.name: claim for claim in verify(run)}
    assert claims.pop("results").holds is None, "it left no records of results"
    assert claims.pop("copies").holds is None, "it looked for none"
    assert all(claim.holds for claim in claims.values()), claims
    ranking = pd.read_csv(run / "ranking.csv")
    evaluate(run)
    again = pd.read_csv(run / "ranking.csv")
    assert again["low"].isna().all(), "so few genes a chromosome get no interval any more"
    kept = [name for name in again if not re.search("low|high|note", name)]
    pd.testing.assert_frame_equal(again[kept], ranking[kept], atol=1e-5)
