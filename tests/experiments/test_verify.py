"""A run directory proves itself, and every way to cheat that is planted here is found."""

import dataclasses
import json
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import files
from epi2expr_jax.errors import InputError
from epi2expr_jax.scores.comparison import compare_models
from epi2expr_jax.scores.table import score_table
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import lookup, run_card
from epi2expr_jax.study.train import train
from epi2expr_jax.training import checkpoint
from experiments.cli.certificate import CERTIFICATE, read_certificate
from experiments.verify import Verification, verify


@pytest.fixture
def unverified(monkeypatch):
    """Every other training is verified as it ends."""
    monkeypatch.setattr(run_card, "finish", run_card.finish.__wrapped__)


@pytest.fixture
def run_dir(finished, tmp_path):
    """A copy to tamper with."""
    return shutil.copytree(finished, tmp_path / "run")


def failures(*args, **options) -> dict[str, str]:
    return {claim.name: claim.found for claim in verify(*args, **options) if claim.holds is False}


def test_an_honest_run_holds(run_dir):
    claims = verify(run_dir)
    assert [claim.name for claim in claims] == [
        "splits", "training", "history", "store", "weights", "results", "predictions", "scores",
        "copies", "quality",
    ]  # fmt: skip
    assert all(claim.holds for claim in claims)
    written = json.loads((run_dir / "verify.json").read_text())
    assert written["holds"] is True
    assert written["notes"] == []


def test_what_was_not_evaluated_is_said(run_dir):
    for name in ("predictions.parquet", "ranking.csv"):
        (run_dir / name).unlink()
    claims = {claim.name: claim for claim in verify(run_dir, quick=True)}
    assert claims["predictions"].holds is None
    assert claims["scores"].holds is None
    assert claims["training"].holds


def test_a_planted_leak_is_found(small_store, tmp_path, monkeypatch, unverified, request_for):
    plan_runs = lookup.plan_runs

    def leaking(*args):
        inputs, scales = plan_runs(*args)
        train = inputs.train.copy()
        train[1] |= ~train[1] & ~inputs.validation[1]  # one run also trains on its test genes
        return dataclasses.replace(inputs, train=train), scales

    monkeypatch.setattr(lookup, "plan_runs", leaking)
    train(request_for(small_store), tmp_path / "run")
    found = failures(tmp_path / "run", quick=True)
    assert set(found) == {"training"}
    assert "1 parts are not those of the fold" in found["training"]


def test_validation_on_test_genes_is_found(
    small_store, tmp_path, monkeypatch, unverified, request_for
):
    plan_runs = lookup.plan_runs

    def leaking(*args):
        inputs, scales = plan_runs(*args)
        return dataclasses.replace(inputs, validation=~inputs.train), scales

    monkeypatch.setattr(lookup, "plan_runs", leaking)
    train(request_for(small_store), tmp_path / "run")
    assert "validation genes" in failures(tmp_path / "run", quick=True)["training"]


def test_an_edited_split_is_found(run_dir):
    path = run_dir / "splits.json"
    splits = json.loads(path.read_text())
    fold = splits["folds"][0]
    fold["test"], fold["train"] = fold["test"] + fold["train"][:1], fold["train"][1:]
    path.write_text(json.dumps(splits))
    found = failures(run_dir, quick=True)
    assert "not the file that training wrote" in found["splits"]
    assert "training" in found
    # Whoever edits the card as well is found by the scheme and by what was read.
    card = checkpoint.read_card(run_dir)
    checkpoint.write_card(run_dir, card | {"splits_sha256": checkpoint.files_sha256(path)})
    found = failures(run_dir, quick=True)
    assert "not as chromosomes_3 makes them" in found["splits"]
    assert "training" in found


def test_a_chromosome_in_two_parts_is_refused(run_dir):
    path = run_dir / "splits.json"
    splits = json.loads(path.read_text())
    splits["folds"][1]["train"].append(splits["folds"][1]["test"][0])
    path.write_text(json.dumps(splits))
    with pytest.raises(InputError, match="a chromosome twice in fold2"):
        verify(run_dir, quick=True)


def test_a_swapped_store_is_found(run_dir, small_store, tmp_path):
    swapped = tmp_path / "store.zarr"
    shutil.copytree(small_store.path, swapped)
    shards = [p for p in (swapped / "signal").rglob("*") if p.is_file() and p.name != "zarr.json"]
    a, b = sorted(shards)[:2]
    assert a.read_bytes() != b.read_bytes()
    shutil.copy(a, b)  # one track in the place of another; the manifest is as before
    found = failures(run_dir, str(swapped))
    assert "store" in found
    assert "predictions" in found  # which do not come out again
    other = WindowStore.open(small_store.path)
    assert failures(run_dir, str(other.path)) == {}


def test_a_changed_prediction_is_found(run_dir):
    path = run_dir / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[7, "predicted"] += 0.5
    table.to_parquet(path, index=False)
    found = failures(run_dir)
    assert "1 of" in found["predictions"]
    assert table.gene_id[7] in found["predictions"]
    assert "scores" in found


def test_a_prediction_of_a_gene_that_was_trained_on_is_found(run_dir):
    path = run_dir / "predictions.parquet"
    table = pd.read_parquet(path)
    table.loc[0, "chrom"] = next(c for c in table.chrom.unique() if c != table.chrom[0])
    table.to_parquet(path, index=False)
    assert "predictions" in failures(run_dir, quick=True)


def test_changed_weights_are_found(run_dir):
    card = checkpoint.read_card(run_dir)
    part = run_dir / card["populations"][0]["weights"]
    largest = max((p for p in part.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)
    content = bytearray(largest.read_bytes())
    content[len(content) // 2] ^= 1
    largest.write_bytes(content)
    assert set(failures(run_dir, quick=True)) == {"weights"}


def test_better_scores_than_the_predictions_give_are_found(run_dir):
    path = run_dir / "ranking.csv"
    table = pd.read_csv(path)
    table["pearson"] = np.minimum(1, table.pearson + 0.2)
    table.to_csv(path, index=False)
    assert "scores" in failures(run_dir, quick=True)


def test_every_column_that_is_reported_is_made_again(run_dir):
    """Whoever changes tables and makes the records fit is found, table by table."""
    made = pd.read_parquet(run_dir / "predictions.parquet").assign(model="ridge")
    made.to_parquet(run_dir / "baselines.parquet")  # as if the model had been compared with ridge
    scores = score_table(made)
    compared = compare_models({"promoter_cnn": scores, "ridge": scores})
    compared.to_csv(run_dir / "baselines.csv", index=False)
    for name, columns in (
        ("metrics.parquet", ("n", "constant", "constant_observed", "auc", "pearson_raw")),
        ("ranking.csv", ("n_genes", "r2", "training_sd", "rank_low", "simultaneous_low")),
        ("groups.csv", ("pearson", "n_folds")),
        ("calls.csv", ("lead", "q", "called")),
        ("baselines.csv", ("lead", "auc")),
        ("history.parquet", ("validation_loss",)),
    ):
        path = run_dir / name
        packed = path.suffix == ".parquet"
        table = pd.read_parquet(path) if packed else pd.read_csv(path)
        for row, column in enumerate(columns):  # each in a row of its own
            old = table.at[row, column]
            table.at[row, column] = (
                not old if table[column].dtype == bool else -9 - np.nan_to_num(old)
            )
        table.to_parquet(path) if packed else table.to_csv(path, index=False)
    card = checkpoint.read_card(run_dir)
    sums = {"history_sha256": checkpoint.files_sha256(run_dir / "history.parquet")}
    checkpoint.write_card(run_dir, card | sums)
    (run_dir / "evaluate.json").unlink()
    found = failures(run_dir, quick=True)
    assert set(found) == {"history", "scores"}
    rows = re.findall(r"(\S+): found (\d+) of \d+ rows differ", found["scores"])
    assert dict(rows) == {"metrics.parquet": "5", "ranking.csv": "5", "groups.csv": "2",
                          "calls.csv": "3", "baselines.csv": "2"}  # fmt: skip


def test_damaged_results_are_claims_that_fail(run_dir):
    (run_dir / "metrics.parquet").write_bytes(b"PAR1")
    (run_dir / "calls.csv").write_bytes(b"\xff\xfe")
    claims = {claim.name: claim for claim in verify(run_dir, quick=True)}
    found = {claim.name: claim.found for claim in claims.values() if claim.holds is False}
    assert set(found) == {"results", "scores"}
    assert claims["quality"].holds is None
    assert "not predicted again" in claims["predictions"].found
    assert "metrics.parquet" in found["results"]
    assert "calls.csv" in found["results"]


def test_a_verify_that_begins_leaves_no_older_certificate(run_dir, monkeypatch):
    """Whether it crashes, is killed, or is refused."""
    verify(run_dir, quick=True)
    monkeypatch.setattr(Verification, "weights", lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        verify(run_dir, quick=True)
    assert read_certificate(run_dir) is None
    monkeypatch.undo()
    verify(run_dir, quick=True)
    with pytest.raises(InputError):
        verify(run_dir, str(run_dir / "nowhere.zarr"))
    assert read_certificate(run_dir) is None


def test_what_changes_while_it_is_verified_voids_the_certificate(run_dir, monkeypatch):
    changing = Verification.scores

    def scores(self):
        (run_dir / "calls.csv").write_text("another evaluation\n")
        return changing(self)

    monkeypatch.setattr(Verification, "scores", scores)
    verify(run_dir, quick=True)
    assert read_certificate(run_dir).changed == ("calls.csv",)


def test_two_do_not_verify_one_run_at_once(run_dir):
    with (
        files.only_writer(run_dir / CERTIFICATE),
        pytest.raises(InputError, match="one writer at a time"),
    ):
        verify(run_dir, quick=True)


def test_an_unfinished_run_is_refused(run_dir):
    card = checkpoint.read_card(run_dir)
    checkpoint.write_card(run_dir, card | {"status": "training"})
    with pytest.raises(InputError, match="a finished run"):
        verify(run_dir)
