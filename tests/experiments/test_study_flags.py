"""Keys of a study file are flags of its commands: what is wrong is told before anything begins."""

import pytest

from epi2expr_jax.errors import InputError
from experiments import study
from tests.experiments.test_study import TEXT, reader


@pytest.fixture
def mine(tmp_path):
    return reader(tmp_path, TEXT)


def test_flags_are_checked_before_anything_begins(mine):
    """Each wrong key by its table, with the nearest, also several of a table."""
    text = TEXT.replace("epochs = 3", "epoch = 3\nseedz = 2")
    text = text.replace('assay = "DNase"', "asay = true") + '[[perturb]]\nrun = "small"\nnull = -1'
    with pytest.raises(InputError) as caught:
        study.check(mine(text))
    said = [
        (one.where.rpartition("mine.toml, ")[2], one.found, one.remedy.partition("?")[0])
        for one in caught.value.problems
    ]
    assert said[:3] == [
        ("[train.small]", "unknown key epoch", "did you mean epochs"),
        ("[train.small]", "unknown key seedz", "did you mean seeds"),
        ("[[perturb]] number 1", "unknown key asay", "did you mean assay"),
    ]
    assert said[3][0] == "[[perturb]] number 2"
    assert said[3][1] == "null = -1"
    first = caught.value.problems[0]
    assert first.expected == "flags of experiments.train"
    assert first.remedy.endswith("; see python -m experiments.train --help")
    with pytest.raises(InputError, match=r"mine.toml, \[train.small\], .*--contacts"):
        study.check(mine(TEXT.replace("epochs = 3", "contacts = 3")))


def test_every_bad_value_of_a_table_is_told_as_its_key(mine):
    """Those of other tables, and unknown keys beside them, too; in words, not those of absl."""
    bad = (
        'epochs = "many"\nwidth = "thin"\nseeds = 0\nretry = "maybe"\n'
        'schedule = "plateu"\nfolly = 3'
    )
    text = TEXT.replace("epochs = 3", bad).replace("[store]", '[store]\nwindow_bp = "wide"')
    with pytest.raises(InputError) as caught:
        study.check(mine(text))
    said = {
        (one.where.rpartition(", ")[2], one.found, one.expected, one.remedy.partition(";")[0])
        for one in caught.value.problems
    }
    see = "see python -m experiments.train --help"
    assert said == {
        ("[store]", "window_bp = wide", "an integer",
         "see python -m data_prep.build_store --help"),
        ("[train.small]", "unknown key folly", "flags of experiments.train", "did you mean folds?"),
        ("[train.small]", "epochs = many", "a positive integer", see),
        ("[train.small]", "width = thin", "a number", see),
        ("[train.small]", "seeds = 0", "a positive integer", see),
        ("[train.small]", "retry = maybe", "true or false", see),
        ("[train.small]", "schedule = plateu", "one of plateau, decay", "did you mean plateau?"),
    }  # fmt: skip


def test_files_that_flags_name_are_looked_for_beside_the_study(mine, tmp_path):
    (tmp_path / "few.txt").write_text("ENSG1\nENSG2\n")
    requests = study.check(mine(TEXT.replace("epochs = 3", 'test_genes = "few.txt"')))
    assert requests["train small"].test_genes == ["ENSG1", "ENSG2"]


def test_true_and_false_are_values_of_switches_alone(mine):
    """Of another key they are refused by its name; no key takes the next one for its value."""
    bad = ("epochs = true\nseeds = false\nmodel_bin_bp = true\nassays = true\nmasked = true\n"
           "width = false\nretry = false")  # fmt: skip
    text = TEXT.replace("[store]", "[store]\ngenes = true").replace("epochs = 3", bad)
    with pytest.raises(InputError) as caught:
        study.check(mine(text.replace('"DNase"', "true\nnull = false", 1)))
    said = [
        (one.where.rpartition(", ")[2], one.found, one.expected) for one in caught.value.problems
    ]
    assert said == [
        ("[store]", "genes = true", "a text"),
        ("[train.small]", "epochs = true", "a positive integer"),
        ("[train.small]", "seeds = false", "a positive integer"),
        ("[train.small]", "model_bin_bp = true", "an integer"),
        ("[train.small]", "assays = true", "a comma separated list"),
        ("[train.small]", "width = false", "a number"),
        ("[[perturb]] number 1", "assay = true", "a text"),
        ("[[perturb]] number 1", "null = false", "a non-negative integer"),
    ]
    alone = mine(TEXT.replace("[store]", "[store]\ngenes = true"))  # the last one of its table
    with pytest.raises(InputError, match="genes = true"):
        study.check(alone)
