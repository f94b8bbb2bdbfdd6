import matplotlib
import pandas as pd
import pytest

from epi2expr_jax.training import checkpoint
from experiments.figures.page import headline, page_figures
from experiments.figures.style import STYLE
from experiments.report import STUDIES


@pytest.fixture
def drawn(made_up_run, tmp_path):
    """`drawn(assays=..., tables=...)`: the figures of a made-up run, by name."""

    def draw(assays, **tables):
        ranked = made_up_run(("E003",), assays=assays).write(tmp_path / "run")
        card = checkpoint.read_card(tmp_path / "run")
        runs = pd.DataFrame(
            [run for population in card["populations"] for run in population["runs"]]
        )
        runs["assay"] = runs["assays"].str.join("+")
        empty = dict.fromkeys((*STUDIES, "effects", "models", "sweep"), pd.DataFrame())
        with matplotlib.rc_context(STYLE):
            all_tables = {**empty, "ranking": ranked, **tables}
            return page_figures(tmp_path / "run", "log2(TPM + 1)", ["E003"], runs, all_tables)

    return draw


def test_what_has_no_table_has_no_figure(drawn):
    # Of one cell a heat map of cells would be the ranking again.
    assert set(drawn({"DNase": 0.7, "H3K9me3": 0.1})) == {"ranking", "curves", "predictions"}


def test_a_table_that_is_there_is_drawn(drawn):
    quality = pd.DataFrame(
        {"cell": "E003", "assay": ["DNase", "H3K9me3"], "depth": [1.0, 2.0], "pearson": [0.7, 0.1]}
    ).assign(signal_to_noise=[3.0, 2.0])
    figures = drawn({"DNase": 0.7, "H3K9me3": 0.1, "DNase+H3K9me3": 0.75}, quality=quality)
    assert {"pairs", "quality"} <= set(figures)


def test_the_answer_is_over_all_cells_or_of_the_first():
    ranked = pd.DataFrame({"cell": ["E116", "E116", "E003"], "assay": ["a", "b", "a"]})
    assert headline(ranked).assay.tolist() == ["a", "b"]
