"""What the evaluation says on the terminal."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.intervals import ONE_VALUE
from epi2expr_jax.study import statements, tables
from experiments import evaluate as program
from experiments.verify import Verification

RANKED = {"low": 0.61, "high": 0.79, "simultaneous_low": 0.55, "simultaneous_high": 0.85}


def ranked(*rows):
    columns = ["cell", "rank", "assay", "pearson", "spearman"]
    return pd.DataFrame(rows, columns=columns).assign(**RANKED)


def test_the_ranking_over_all_cells_is_shown():
    of_all = (scoring.ALL, 1, "DNase", 0.7, 0.65)
    table = ranked(("E003", 1, "H3K27ac", 0.8, 0.6), of_all)
    _, *lines = program.format_ranking(table).splitlines()
    shown = "1 DNase 0.700 0.610 to 0.790 0.550 to 0.850 0.650"
    assert [" ".join(line.split()) for line in lines] == [shown]


def test_without_one_the_ranking_in_cells_is_shown():
    text = program.format_ranking(ranked(("E003", 1, "H3K27ac", 0.8, 0.6)))
    assert "H3K27ac" in text


def test_without_an_interval_none_is_shown():
    table = ranked(("E003", 1, "H3K27ac", 0.8, 0.6))
    table[["low", "high", "simultaneous_low", "simultaneous_high"]] = np.nan
    _, line = program.format_ranking(table).splitlines()
    assert line.split() == ["1", "H3K27ac", "0.800", "none", "none", "0.600"]


def test_scores_by_model_are_shown():
    columns = ["model", "assay", "pearson", "lead", "lead_low", "lead_high"]
    rows = [
        ("cnn", "DNase", 0.6, 0.0, 0.0, 0.0),
        ("ridge", "DNase", 0.65, 0.05, 0.02, 0.08),
        ("linear", "DNase", 0.61, 0.01, -0.02, 0.04),
    ]
    table = pd.DataFrame(rows, columns=columns)
    line, where = program.format_baselines(table).splitlines()
    assert line == "r by model (DNase): cnn 0.600, ridge 0.650, linear 0.610"
    assert "--help" in where
    idle = table.assign(assay="all", note=["", "", ONE_VALUE])
    line = program.format_baselines(idle).splitlines()[0]
    assert line == "r by model (the mean over assays): cnn 0.600, ridge 0.650, linear one value"


@pytest.fixture
def run_dir(made_up_run, tmp_path):
    made_up_run(("E003", "E116"), assays={"DNase": 0.8, "H3K9me3": 0.1}).write(tmp_path / "run")
    calls = tables.CALLS.read(tmp_path / "run").iloc[:3].assign(called=[True, False, True])
    calls.to_csv(tmp_path / "run" / "calls.csv", index=False)
    (tmp_path / "run" / "evaluate.json").unlink()
    return tmp_path / "run"


def test_the_program_evaluates_what_its_flags_name(run_dir, parse_flags, monkeypatch, capsys):
    asked = []

    def evaluate(*given):
        asked.append(given[:6])
        assert list(given[6](["shown"])) == ["shown"]
        return pd.read_csv(run_dir / "ranking.csv")

    monkeypatch.setattr(program, "evaluate", evaluate)
    definitions = (program.define_run, program.define_store, program.define_evaluation)
    parse_flags(definitions, f"--run={run_dir}", "--baselines=mean", "--groups=kind",
                "--claim=DNase")  # fmt: skip
    program.main()
    assert asked == [(run_dir, None, ["mean"], "kind", 0.01, "DNase")]
    said = capsys.readouterr().out
    assert "Of 3 comparisons" in said
    assert "2 are significant at a false discovery rate of 5 %" in said
    assert said.index("DNase") < said.index("H3K9me3")
    assert "note: One seed: " in said


def test_eight_genes_are_too_few_and_nothing_is_written(made_up_run, tmp_path):
    few = made_up_run(("E003",), {"DNase": 0.8}, genes=8, chromosomes=4, cv="chromosomes_3")
    with pytest.raises(InputError, match=r"at most 2 held-out genes on a chromosome.*more genes"):
        few.write(tmp_path / "run")
    assert not list((tmp_path / "run").glob("*metrics*"))
    assert not (tmp_path / "run" / "evaluate.json").exists()


def test_copied_genes_are_found_and_scored_without(made_up_run, tmp_path):
    """An idle mark seems to predict where models know genes from their copies."""
    made = made_up_run(("E003",), {"H3K9me3": 0.0}, copied=212)
    run_dir = tmp_path / "run"
    made.write(run_dir)
    copies = tables.COPIES.read(run_dir)
    assert len(copies) == 424
    assert copies["group"].nunique() == 212
    assert (copies["r"] > 0.9999).all()
    assert copies["leaked"].isin([0, 1]).all()
    apart = copies["gene"].str[4:].astype(int) - copies["nearest"].str[4:].astype(int)
    assert apart.abs().nunique() == 1
    every, without = (
        table.read(run_dir).set_index("cell").loc["all"]
        for table in (tables.RANKING, tables.WITHOUT)
    )
    assert every["low"] > 0.1
    assert without["low"] < 0 < without["high"]
    lost = (copies["leaked"] > 0).sum()
    assert 200 < lost == every["n_genes"] - without["n_genes"]
    said = statements.of_run(run_dir).copies
    assert said.startswith("424 genes in 212 groups are like others")
    assert f"Without the {lost} test genes like one trained on, r of H3K9me3 is" in said
    assert "no longer above 0: H3K9me3" in said
    checks = Verification(run_dir)
    assert checks.copies().startswith("424 genes, 0 named by a table")
    assert "ranking_without_copies.csv by at most" in checks.scores()
    copies.drop(index=0).to_csv(run_dir / "copies.csv", index=False)
    with pytest.raises(InputError, match="in one of the two alone"):
        checks.copies()


@pytest.mark.trial
def test_a_learner_knows_genes_from_their_copies(made_up_run, tmp_path, trial_size):
    """Boosted trees on an idle mark, where 212 genes have a copy on another chromosome."""
    if not trial_size(False, True):
        pytest.skip("in make trials; the test before has a made-up learner")
    run_dir = tmp_path / "run"
    made_up_run(("E003",), {"H3K9me3": 0.0}, copied=212, baselines=("boosting",)).write(run_dir)
    for table, above in ((tables.BASELINES, True), (tables.BASELINES_WITHOUT, False)):
        rows = table.read(run_dir).set_index("model")
        r, low, high = rows.loc["boosting", ["pearson", "low", "high"]]
        print(f"{table.path}: {r:.3f} ({low:.3f} to {high:.3f})")
        assert (low > 0) == above
        assert high > 0
    assert "424 genes in 212 groups are like others" in statements.of_run(run_dir).copies


def test_groups_of_a_table_leave_training(made_up_run, tmp_path):
    named = pd.DataFrame({"gene": [f"ENSG{i:011d}" for i in (0, 150, 300)], "group": "family"})
    named.to_csv(tmp_path / "families.csv", index=False)
    made = made_up_run(("E003",), {"DNase": 0.5}, cv="chromosomes_3",
                       gene_groups=str(tmp_path / "families.csv"))  # fmt: skip
    run_dir = tmp_path / "run"
    made.write(run_dir)  # and what it trained on is verified
    checks = Verification(run_dir, quick=True)
    genes, chrom = checks.store.genes, checks.store.genes.set_index("gene_id").chrom
    for fold in checks.folds:
        assert set(fold.held_out) == {g for g in named["gene"] if chrom[g] not in fold.test}
        assert not fold.leaked(genes, named)
        assert dataclasses.replace(fold, held_out=()).leaked(genes, named)
    (run_dir / "gene_groups.csv").unlink()
    with pytest.raises(Exception, match="not as chromosomes_3 makes them"):
        checks.splits()


def test_new_cells_are_compared_with_the_mean_of_their_training_cells(made_up_run, tmp_path):
    cells, run_dir = ("E003", "E116", "E123"), tmp_path / "run"
    made = made_up_run(cells, {"DNase": 0.5}, asked=("leave_one_out",), cv="chromosomes_3")
    made.write(run_dir)
    said = statements.of_run(run_dir)
    assert "No cell is tested by a model trained there" in said.notes[0]
    assert said.new_cell == ""
    store = Verification(run_dir).store
    others = np.log2(store.read_expression(cells[1:]) + 1).mean(axis=0)
    rows = tables.OF_BASELINES.read(run_dir)
    rows = rows[rows["cell"] == "E003"].set_index("gene_id")
    expected = dict(zip(store.genes.gene_id, others, strict=True))
    assert set(rows["model"]) == {"mean of the training cells"}
    assert rows["predicted"].to_numpy() == pytest.approx(rows.index.map(expected).to_numpy())
    assert said.beyond_mean == (
        "In cells new to the models: promoter_cnn predicts better than the mean of the training "
        "cells, which needs no epigenome, for DNase."
    )
