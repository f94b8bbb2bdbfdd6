"""What the evaluation says on the terminal."""

import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.study import tables
from experiments import evaluate as program

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


def test_scores_by_model_are_shown():
    columns = ["model", "assay", "pearson", "lead", "lead_low", "lead_high"]
    rows = [
        ("cnn", "DNase", 0.6, 0.0, 0.0, 0.0),
        ("ridge", "DNase", 0.65, 0.05, 0.02, 0.08),
        ("linear", "DNase", 0.61, 0.01, -0.02, 0.04),
    ]
    line = program.format_baselines(pd.DataFrame(rows, columns=columns))
    assert line == "r by model (DNase): cnn 0.600, ridge 0.650, linear 0.610"


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
    assert "2 are called at a false discovery rate of 5 %" in said
    assert said.index("DNase") < said.index("H3K9me3")
    assert "note: One seed: training noise is not in the interval." in said


def test_eight_genes_are_too_few_and_nothing_is_written(made_up_run, tmp_path):
    few = made_up_run(("E003",), {"DNase": 0.8}, genes=8, chromosomes=4, cv="chromosomes_3")
    with pytest.raises(InputError, match=r"at most 2 held-out genes on a chromosome.*more genes"):
        few.write(tmp_path / "run")
    assert not list((tmp_path / "run").glob("*metrics*"))
    assert not (tmp_path / "run" / "evaluate.json").exists()
