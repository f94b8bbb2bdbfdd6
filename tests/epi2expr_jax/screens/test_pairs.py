"""Tables of screens are read as they are, and what makes no sense is named."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.screens.pairs import counts, read_pairs
from tests.epi2expr_jax.screens.screen import made_up


@pytest.fixture
def table():
    return made_up(np.random.default_rng(2), (40, 30, 30), 0.0)


def test_public_columns_and_ours_give_the_same(table):
    public = read_pairs(table, "screens").table
    ours = table.rename(
        columns={
            "chromStart": "start",
            "chromEnd": "end",
            "measuredGeneEnsemblId": "gene_id",
            "measuredGeneSymbol": "gene",
            "Regulated": "regulated",
            "Significant": "significant",
            "EffectSize": "change",
            "Dataset": "study",
            "CellType": "cell",
            "distanceToTSS": "distance",
        }
    )
    read = read_pairs(ours, "ours").table
    pd.testing.assert_frame_equal(read, public[list(read)])
    assert public["increase"].sum() == (table.Significant & (table.EffectSize > 0)).sum()


@pytest.mark.parametrize("name", ["REGULATED", "is_positive", "isPositive", "label"])
def test_the_label_has_many_names(table, name):
    read = read_pairs(table.rename(columns={"Regulated": name, "chromStart": "chrom_start"}), "t")
    assert read.table["regulated"].to_list() == table["Regulated"].to_list()


def test_significant_losses_are_regulated_where_no_label_is(table):
    given = table.drop(columns="Regulated")
    read = read_pairs(given, "screens")
    losses = (table.Significant & (table.EffectSize < 0)).to_list()
    assert read.table["regulated"].to_list() == losses
    assert read.notes == ("regulated: Significant, with EffectSize below 0",)
    with pytest.raises(InputError, match="or Significant and EffectSize"):
        read_pairs(given.drop(columns="EffectSize"), "screens")


def test_distance_is_from_the_middle_where_it_is_not_given(table):
    tss = table["chromStart"] + np.where(np.arange(100) % 2, 7250, -6750)
    given = table.drop(columns="distanceToTSS").assign(startTSS=tss)
    assert (read_pairs(given, "screens").table["distance"] == 7000).all()


def test_labels_as_text_or_numbers(table):
    as_text = table.assign(Regulated=table.Regulated.map({True: "TRUE", False: "FALSE"}))
    as_number = table.assign(Regulated=table.Regulated.astype(int))
    expected = table["Regulated"].to_list()
    assert read_pairs(as_text, "t").table["regulated"].to_list() == expected
    assert read_pairs(as_number, "t").table["regulated"].to_list() == expected


def test_unknown_power_is_not_low_power(table):
    regulated = table["Regulated"].to_numpy()
    power = np.where(np.arange(100) % 3 == 0, np.nan, np.where(np.arange(100) % 3 == 1, 0.1, 0.9))
    read = read_pairs(table.assign(power=power), "screens", ("power", 0.8))
    low = (power < 0.8) & ~regulated
    assert len(read.table) == 100 - low.sum()
    assert read.table["regulated"].sum() == regulated.sum()
    assert f"{low.sum()} pairs left out: power below 0.8" in read.notes
    assert f"{np.isnan(power).sum()} pairs of unknown power kept" in read.notes


def test_what_is_left_out_is_counted(table):
    label = table["Regulated"].astype(object)
    label[3] = None
    twice = pd.concat([table.assign(Regulated=label), table.iloc[:2]], ignore_index=True)
    read = read_pairs(twice, "screens")
    assert len(read.table) == 99
    assert read.notes == (
        "1 pairs left out: no label or no distance",
        "2 pairs left out: listed twice in one study",
    )
    assert counts(read)["pairs"].sum() == 99


def test_what_cannot_be_placed_or_contradicts_itself_is_left_out(table):
    odd = table.copy()
    odd.loc[0, "chrom"] = None
    odd.loc[1, "measuredGeneEnsemblId"] = None
    odd.loc[2, "distanceToTSS"] = np.inf
    odd.loc[3, "Dataset"] = None
    other = odd.iloc[4:5].assign(Regulated=~odd.Regulated[4])
    read = read_pairs(pd.concat([odd, other], ignore_index=True), "screens")
    assert len(read.table) == 96
    assert read.notes == (
        "1 pairs left out: no label or no distance",
        "2 pairs left out: no chromosome or no gene",
        "2 pairs left out: listed with both labels in one study",
    )
    assert set(read.table["study"]) == {"", "first", "second"}


def test_columns_keep_their_own_names_too(table):
    """Whoever names a column names it as in the file, also where it has another of our names."""
    twice = table.assign(start=7, power=table.EffectSize.abs())
    read = read_pairs(twice, "screens", ("power", 0.0)).table
    assert (read["start"] == table["chromStart"]).all()
    assert (read["EffectSize"] == read["change"]).all()
    with pytest.raises(InputError, match="a finite number"):
        read_pairs(twice, "screens", ("power", float("nan")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.drop(columns=["Regulated", "Significant", "chromStart"]), "Regulated or "),
        (lambda t: t.drop(columns="distanceToTSS"), "distanceToTSS or distance"),
        (lambda t: t.assign(Regulated="perhaps"), "'perhaps' in column Regulated"),
        (lambda t: t.assign(chromStart="x"), "'x' in column chromStart"),
        (lambda t: t.assign(chromStart=10**400), "in column chromStart"),
        (lambda t: t.assign(chromEnd=t.chromStart), "start below end"),
        (lambda t: t.assign(Regulated=False), "0 regulated of 100 pairs"),
    ],
)
def test_what_makes_no_sense_is_named(table, change, said):
    with pytest.raises(InputError, match="screens") as caught:
        read_pairs(change(table), "screens")
    assert said in str(caught.value)


def test_an_unknown_column_of_power_is_refused(table):
    with pytest.raises(InputError, match="no column strength"):
        read_pairs(table, "screens", ("strength", 0.8))
