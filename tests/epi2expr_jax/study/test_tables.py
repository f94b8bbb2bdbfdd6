"""The registry of the files that a report is made from: how they are read, compared and refused."""

import shutil

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.study import tables
from epi2expr_jax.training import checkpoint

WRITTEN = [table for table in tables.TABLES if table.program == "evaluate"]


@pytest.fixture
def run_dir(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "run")


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == "truncated":
        del content[len(content) // 2 :]
    elif how == "emptied":
        content.clear()
    elif how == "a bit":
        content[len(content) // 2] ^= 1
    elif how == "text":
        content = bytearray(b"<html>please log in</html>\n")
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["truncated", "emptied", "a bit", "text"])
def test_damage_is_refused_with_a_remedy(run_dir, how):
    for table in (*WRITTEN, tables.HISTORY, tables.SPLITS):
        path = run_dir / table.path
        if path.exists():
            damage(path, how)
            with pytest.raises(InputError, match=rf"{path.name}.*experiments\.{table.program}"):
                table.checked(run_dir)


@pytest.mark.parametrize("how", ["truncated", "emptied", "text"])
def test_without_a_record_damage_is_refused_as_well(run_dir, how):
    """As far as it can be told: no traceback."""
    (run_dir / "evaluate.json").unlink()
    for table in WRITTEN:
        path = run_dir / table.path
        if path.exists():
            if path.suffix == ".csv" and how == "truncated":
                continue  # which looks like a shorter table
            damage(path, how)
            with pytest.raises(InputError, match=rf"{path.name}.*experiments\.evaluate"):
                table.read(run_dir)


def test_foreign_tables_are_refused(run_dir):
    (run_dir / "evaluate.json").unlink()
    scores = pd.read_parquet(run_dir / "metrics.parquet")
    for foreign, words in (
        (scores.drop(columns=["pearson", "n"]), "without pearson, n"),
        (scores.assign(pearson="high"), "'high' in column pearson"),
    ):
        foreign.to_parquet(run_dir / "metrics.parquet")
        with pytest.raises(InputError, match=words):
            tables.SCORES.read(run_dir)
    ranking = pd.read_csv(run_dir / "ranking.csv")
    ranking.assign(low="much").to_csv(run_dir / "ranking.csv", index=False)
    with pytest.raises(InputError, match="'much' in column low"):
        tables.RANKING.read(run_dir)


def test_names_that_look_like_numbers_or_nothing_are_names(tmp_path):
    rows = [("1", "NA", "", 0.5, 0.1, np.nan, True), ("007", "nan", "None", 0.2, 0.1, 0.1, False)]
    columns = ["cell", "assay", "other", "lead", "p", "q", "called"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "calls.csv", index=False)
    table = tables.CALLS.read(tmp_path)
    assert table[["cell", "assay", "other"]].to_numpy().tolist() == [list(r[:3]) for r in rows]
    assert table["q"].isna().tolist() == [True, False]
    assert table["called"].tolist() == [True, False]


def test_what_was_not_written_is_empty_but_has_its_columns(tmp_path):
    table = tables.ACROSS.read(tmp_path)
    assert table.empty
    assert {"assays", "cell", "pearson", "seen"} <= set(table)


def test_everything_that_is_needed_and_missing_is_named(run_dir):
    tables.require(run_dir)
    for table in tables.NEEDED:
        (run_dir / table.path).unlink()
    with pytest.raises(InputError) as caught:
        tables.require(run_dir)
    assert len(caught.value.problems) == len(tables.NEEDED)


def test_checksums_are_of_tables_and_weights(run_dir):
    card = checkpoint.read_card(run_dir)
    sums = tables.checksums(run_dir, card)
    assert {"run_card.json", "splits.json", "history.parquet", "metrics.parquet"} <= set(sums)
    assert {population["weights"] for population in card["populations"]} <= set(sums)


MADE = pd.DataFrame({"cell": ["a", "b"], "assay": "x", "pearson": [0.5, np.nan], "note": "",
                     "depth": 1.0, "signal_to_noise": [np.inf, 2e6]})  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        (MADE.assign(pearson=[0.5002, np.nan]), "1 of 2 rows differ.*by up to 0.0002: a x"),
        (MADE.assign(pearson=[0.5, 0.0]), "1 of 2 rows.*: b x"),
        (MADE.assign(note=["", "few"]), "1 of 2 rows differ in the words of note: b x"),
        (MADE.assign(note=["", "few"], pearson=[0.6, np.nan]), "2 of 2.*0.1 and in the words"),
        (MADE.assign(signal_to_noise=[np.nan, 2e6]), "1 of 2 rows.*: a x"),
        (MADE.iloc[:1], "1 of 2 rows in one of the two alone: b x"),
        (pd.concat([MADE, MADE.iloc[:1]]), "of 3 rows in one of the two alone"),
    ],
)
def test_differences_are_named(changed, words):
    with pytest.raises(InputError, match=words):
        tables.QUALITY.difference(changed, MADE)


def test_what_is_equal_within_the_tolerance_says_how_far_it_differs():
    again = MADE.assign(pearson=[0.50003, np.nan], signal_to_noise=[np.inf, 2e6 + 2])
    assert tables.QUALITY.difference(MADE.iloc[::-1], again) == "at most 2"
