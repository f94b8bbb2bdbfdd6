"""From a table of screens to scores, leads, words and a figure."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_csv
from epi2expr_jax.screens.pairs import read_pairs
from epi2expr_jax.screens.predicted import COMPLETED, LOSS, Predicted
from epi2expr_jax.screens.rivals import rivals
from epi2expr_jax.screens.scoring import ALL, REACH
from epi2expr_jax.study import results
from experiments.cli.given_table import read_table
from experiments.crispri import compare_scores, score_screens, three_questions
from experiments.figures.style import number
from experiments.report import write_report
from tests.epi2expr_jax.screens.screen import made_up
from tests.experiments.pages import plain


@pytest.fixture(scope="module")
def screens(tmp_path_factory):
    path = tmp_path_factory.mktemp("screens") / "screens.tsv.gz"
    table = made_up(np.random.default_rng(3))
    direct = np.where(table["Regulated"], 0.5, 0.1)
    table.assign(direct=direct, raw=direct * 3).to_csv(path, sep="\t", index=False)
    return path


def test_scores_of_public_screens(shared_data, tmp_path):
    """What others computed on the same pairs."""
    path = shared_data / "crispri" / "K562_element_gene_pairs.hg38.tsv.gz"
    said = score_screens(path, tmp_path)
    rows = pd.read_csv(tmp_path / "crispri.csv").set_index(["pairs", "score"])
    for name, precision, area in (
        ("distance", 0.438, 0.897),
        ("H3K27ac / distance", 0.503, 0.926),
        ("activity × distance", 0.530, 0.929),
    ):
        row = rows.loc[("all pairs", name)]
        assert (row.average_precision, row.auroc) == pytest.approx((precision, area), abs=0.001)
        assert f"{precision:.3f} (" in said
    assert rows.loc[("all pairs", "distance"), ["n", "regulated"]].to_list() == [10_356, 471]
    assert "42 significant increases" in said
    assert "47% of them change by less than 10 %" in said


def test_tables_words_and_figure(screens, tmp_path):
    said = score_screens(screens, tmp_path, others=["raw"])
    rows = pd.read_csv(tmp_path / "crispri.csv")
    assert {"all pairs", "without significant increases", "study first", "study second"} <= set(
        rows["pairs"]
    )
    leads = pd.read_csv(tmp_path / "crispri_leads.csv")
    assert set(leads["score"]) == {"activity × distance"}
    lead = leads.set_index(["pairs", "rival"]).loc[("all pairs", "distance")]
    assert 0 < lead.low < lead.lead < lead.high
    assert set(pd.read_csv(tmp_path / "crispri_sizes.csv")["score"]) == set(rows["score"])
    for kind in ("png", "svg"):
        assert (tmp_path / f"crispri.{kind}").stat().st_size > 5000
    assert "lead of activity × distance in average precision, all pairs:" in said
    assert len({len(line) for line in said.split("\n\n")[1].splitlines()[2:]}) <= 2  # aligned


def test_weights_count_regulated_pairs_alone(screens):
    pairs = read_pairs(read_table(screens), "screens")
    scores = {"distance": -pairs.table["distance"].to_numpy(float)}
    (plain, _), (weighted, _) = (
        compare_scores(pairs, scores, references=["distance"], weight=weight)
        for weight in ("", "direct")
    )
    # All regulated pairs count half: AUROC, a mean over both kinds, stays; precision falls.
    np.testing.assert_allclose(weighted["auroc"], plain["auroc"])
    assert (weighted["average_precision"] < plain["average_precision"]).all()


def test_distance_alone_has_no_rival(screens, tmp_path):
    table = read_table(screens)
    plain = tmp_path / "plain.csv"
    table.drop(columns=["H3K27ac.RPM", "DHS.RPM"]).to_csv(plain, index=False)
    said = score_screens(plain, tmp_path / "out")
    assert "lead of" not in said
    assert "distance " in said


def test_flags_that_make_no_sense_leave_nothing_behind(screens, tmp_path):
    for options, said in (
        ({"power": "direct"}, "COLUMN:LEAST"),
        ({"power": "no:0.8"}, "no column no"),
        ({"weight": "no"}, "no column no"),
        ({"weight": "raw"}, "above 1"),
        ({"others": ["chrom"]}, "column chrom"),
    ):
        with pytest.raises(InputError, match=said):
            score_screens(screens, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_the_page_of_a_run_shows_what_it_predicts_of_a_screen(screens, tmp_path, page_of):
    pairs = read_pairs(read_table(screens), "screens")
    near = (pairs.table["distance"] < 20_000).to_numpy()
    table = pd.DataFrame({"effect": np.where(near, -(pairs.table["H3K27ac.RPM"] ** 0.1), np.nan)})
    predicted = Predicted(table.assign(reach=near), ())
    scores, _ = rivals(pairs.table)
    rows, leads = three_questions(pairs, scores, "activity × distance", predicted, 0.0, {})
    assert 'id="crispri"' not in page_of(tmp_path)
    with results.written(tmp_path / "crispri", "crispri") as place:
        write_csv(place / "crispri.csv", rows)
        write_csv(place / "crispri_leads.csv", leads)
    page = write_report(tmp_path).read_text()
    assert page.count('<section id="crispri">') == page.count('href="#crispri"') == 1
    section = page.partition('<section id="crispri">')[2].partition("</section>")[0]
    shown = [[plain(cell) for cell in row.split("<td")] for row in section.split("<tr>")[2:]]
    assert len(shown) == 2 * (len(scores) + 1) + 1  # in reach one of predictions, of all two
    best = rows[(rows["pairs"] == REACH + ALL) & (rows["score"] == LOSS)].iloc[0]
    own = next(row for row in shown if "in reach" in row[0] and LOSS in row[1])
    assert number(best.average_precision) in own[4]
    lead = leads[(leads["pairs"] == ALL) & (leads["score"] == COMPLETED)].set_index("rival").lead
    other = next(row for row in shown if "in reach" not in row[0] and ">distance" in row[1])
    assert number(lead["distance"]) in other[7]
