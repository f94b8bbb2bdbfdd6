import html
import html.parser
import json
import pathlib
import re
import shutil

import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.study import tables
from epi2expr_jax.training import checkpoint
from epi2expr_jax.words.caveats import caveats
from experiments import report
from experiments.cli.certificate import Certificate, store_now
from experiments.figures.style import number
from experiments.report import write_report
from tests.experiments.made_up import COMMAND
from tests.experiments.pages import figures, plain


def test_page_loads_nothing(study):
    page = study[1]
    assert not re.search(r"(src|href|action|data)\s*=\s*[\"']?\s*(https?:)?//", page, re.IGNORECASE)
    assert not re.search(r"<(script src|link|iframe|object)|@import|url\(", page, re.IGNORECASE)
    assert not re.search(r"fetch\(|XMLHttpRequest|innerHTML|eval\(", page)
    assert len(figures(page)) == len(re.findall("<img ", page)) == 6
    assert all(re.findall(r'<img [^>]*alt="[^"]{20,}"', page))
    for svg in figures(page):
        links = re.findall(r'href="([^"]*)"', svg)
        assert all(link.startswith(("#", "data:")) for link in links)


def test_page_is_well_formed(study):
    open_tags, void = [], {"meta", "img", "br", "wbr", "source"}

    class Parser(html.parser.HTMLParser):
        def handle_starttag(self, tag, attrs):
            if tag not in void:
                open_tags.append(tag)

        def handle_endtag(self, tag):
            assert open_tags.pop() == tag

    Parser().feed(study[1])
    assert not open_tags


def test_table_holds_every_assay_and_number(study):
    _, page, ranked = study
    rows = [
        plain(row)
        for row in re.findall("<tr>.*?</tr>", page.split('id="ranking"')[1].split("</table>")[0])
    ]
    assert rows.pop(0).startswith("assay")
    over_all = ranked[ranked.cell == scoring.ALL]
    assert len(rows) == len(over_all) == len(ranked.assay.unique())
    for text, row in zip(rows, over_all.itertuples(), strict=True):
        assert row.assay in text
        for name in ("pearson", "low", "high", "simultaneous_low", "simultaneous_high", "spearman",
                     "r2", "mse", "auc", "pearson_raw"):  # fmt: skip
            assert number(getattr(row, name)) in text, name
        ranks = {row.rank_low, row.rank_high}
        assert "–".join(map(str, sorted(ranks))) in text
    assert "raw r, outlier-driven" in plain(page)


def test_answer_names_rivals_and_what_is_not_shown_to_predict(study):
    _, page, ranked = study
    text, rows = plain(page), ranked[ranked.cell == scoring.ALL]
    best = rows.iloc[0]
    assert f"{best.assay} has the highest score" in text
    assert f"{number(best.pearson)} (95 % interval {number(best.low)} to" in text
    rivals = rows.assay[1:][rows.rank_low[1:] == 1]
    assert len(rivals)
    assert f"that could also be {', '.join(rivals)}." in text
    assert "For 1 of 12 assays it cannot be told whether it predicts expression at all" in text
    assert "interval of r includes 0 (H3K9me3)" in text
    assert "averaged over 2 of 3 cells" in text
    assert "Few data" not in text


def test_a_clear_winner_is_called_one(tmp_path, page_of):
    text = plain(page_of(tmp_path / "run", assays={"DNase": 0.9, "H3K9me3": 0.1}))
    assert "Its lead over every other assay is larger than the uncertainty of that lead" in text


def test_heat_map_shows_holes(study, tmp_path, page_of):
    assert 'pattern id="' in figures(study[1])[3]
    whole = page_of(tmp_path / "run", cells=("E003", "E116"), assays={"DNase": 0.6})
    assert "pattern" not in figures(whole)[3]


def test_made_tells_card_folds_and_failures(study):
    folder, page, _ = study
    text = plain(page)
    assert COMMAND in text
    assert "12 (no expression); 868 (not on the chosen chromosomes)" in text
    assert "5 quarantined" in text
    assert "No intervals were excluded (no blacklist)." in text
    assert "reads 6,000 bp around the TSS in 60 bins of 100 bp and has 0.02 times" in text
    assert "Signal was −log10 p, read as arcsinh(x)." in text
    assert "Models were trained for at most 14 epochs" in text
    assert "(epoch 1, step 4)" in text
    assert "E116 H3K9me3 fold1 seed 0" in text
    assert "training 1 h 2 min" in text
    for fold in json.loads((folder / "splits.json").read_text())["folds"]:
        for part in ("train", "validation", "test"):
            assert f"{', '.join(fold[part])} ({fold['genes'][part]} genes)" in text
    assert f"jax {checkpoint.versions()['jax']}" in text
    for note in caveats(pd.read_parquet(folder / "metrics.parquet")):
        assert note in text


@pytest.mark.parametrize(
    ("chromosomes", "genes", "words", "absent"),
    [
        (12, 240, "fewer than 1,000", "So few chromosomes"),
        (6, 1800, "So few chromosomes say little about others", "too few genes"),
    ],
)
def test_few_data_are_called_few(tmp_path, chromosomes, genes, words, absent, page_of):
    assays = {"DNase": 0.6, "H3K4me3": 0.5}
    page = page_of(tmp_path / "run", assays=assays, chromosomes=chromosomes, genes=genes)
    text = plain(page)
    assert "Few data: " in text
    assert words in text
    assert absent not in text
    assert "--cv=chromosomes_5 tests" not in text, "it was trained so"


def test_blind_chromosomes_alone_are_few(tmp_path, page_of):
    assays = {"DNase": 0.6}
    text = plain(page_of(tmp_path / "run", assays=assays, cv="monte_carlo_5"))
    assert "on 3 chromosomes" in text
    assert "The data hold 14: --cv=chromosomes_5 tests on every one of them" in text


def test_without_intervals(tmp_path, page_of):
    assays = {"H3K4me3+DNase": 0.5, "DNase": 0.6}
    page = page_of(tmp_path / "run", assays=assays, cv="chromosomes_7", folds=("fold7",))
    text = plain(page)
    assert "no interval:" in text
    assert "no assay can be told apart from another" in text
    assert "nan" not in text.lower()
    assert not re.search(r"95 % intervals\b", text)
    assert "H3K4me3+DNase" in text
    assert "histone+accessibility" in text


def test_one_cell_one_assay(tmp_path, page_of):
    page = page_of(tmp_path / "run", assays={"DNase": 0.6})
    assert "No other assay was scored there" in plain(page)
    assert "in cell E003" in plain(page)
    # the same run gives the same page, and nothing half written stays
    assert write_report(tmp_path / "run").read_text() == page
    assert not list((tmp_path / "run").glob("*.partial"))


def test_of_one_cell_nothing_is_said_of_cells(tmp_path, page_of):
    page = page_of(tmp_path / "run", assays={"DNase": 0.7, "H3K4me3": 0.6})
    text = plain(page)
    for absent in ("The highest score in each cell", "Every cell and assay", "How far cells agree",
                   "over all cells", "all cells", "these cells"):  # fmt: skip
        assert absent not in text, absent
    table = page.split('id="cells"')[1].split("</table>")[0]
    groups = re.findall('<th scope="row" class="text">(.*?)</th>', table)
    assert groups == ["expressed", "silent"]
    assert "in cell E003: observed and mean predicted log2(RPKM + 1)" in text
    assert "Of one cell, every dot is another assay" in text
    labels = page_of(tmp_path / "labels", assays={"DNase": 0.7}, target="label")
    assert 'id="cells"' not in labels
    assert 'href="#cells"' not in labels


def test_labels_are_called_labels(tmp_path, page_of):
    assays = {"DNase": 0.7, "H3K9me3": 0.0}
    page = page_of(tmp_path / "run", cells=("E003", "E116"), assays=assays, target="label")
    text = plain(page)
    for said in (
        "between the probability of being expressed that it predicts and the label (expressed or",
        "it cannot be told whether it tells expressed genes from others at all",
        "Loss (cross-entropy) by epoch",
        "Predicting 0.5 for every gene would cost 0.69, the dotted line",
        "Predicted by label",
        "label (1 expressed, 0 not; the share of cells where it is expressed) and mean predicted",
        "telling expressed genes from the others",
        "Whether genes are expressed (a label) of 1,3",
        "mean squared error of the probability of being expressed",
    ):
        assert said in text, said
    for absent in (
        "observed expression",
        "predicts expression at all",
        "equals observed",
        "0 or 1",
    ):
        assert absent not in text, absent
    assert 'data-unit="probability of being expressed" data-labels>' in page


def test_a_control_and_the_run_that_is_spoken_of_are_named(tmp_path, page_of):
    page_of(tmp_path / "run", assays={"DNase": 0.7, "H3K4me3": 0.6})
    other = shutil.copytree(tmp_path / "run", tmp_path / "shuffled")
    card = checkpoint.read_card(other)
    card["input_config"]["shuffle_regions"] = True
    checkpoint.write_card(other, card)
    text = plain(write_report(other).read_text())
    control = "Run shuffled is a control: each gene read the regions of another gene"
    assert control in text
    assert "Control run shuffled: DNase has the highest score" in text
    assert "; a control: each gene read the regions of another gene (--shuffle_regions). " in text
    compared = plain(write_report(tmp_path / "run", compare=[other]).read_text())
    assert control in compared
    assert "Run run: DNase has the highest score" in compared
    assert "Run run: Whether a mark is universal" not in compared
    assert "promoter_cnn (shuffled: a control)" in compared
    assert (
        "Mean over assays (or sets of them): of the r of each. All other sections speak of"
        in compared
    )
    assert "all assays" not in compared.replace("for all assays together", "")


def test_what_is_compared_is_explained_and_what_runs_share_is_told_once(tmp_path, page_of):
    assays = {"DNase": 0.6, "DNase+H3K4me3": 0.5}
    page = page_of(tmp_path / "run", cells=("E003", "E116"), assays=assays)
    text, words = plain(page), "a gene's mean expression in the store's other cells; no epigenome"
    assert f"mean of the other cells{words}" in text
    assert 'title="a gene&#39;s mean expression in' in page
    made = text.rpartition("How it was made")[2].partition("target")[0]
    assert made.count("window_bp") == 1
    assert "; 10 runs with assays 1; 10 runs with assays 2" in made


def test_no_cell_has_every_assay(tmp_path, page_of):
    assays = {"DNase": 0.6, "H3K4me3": 0.5}
    failed = (("E003", "DNase"), ("E116", "H3K4me3"))
    page = page_of(tmp_path / "run", cells=("E003", "E116"), assays=assays, quarantined=failed)
    assert "There is no ranking over all cells: no cell has every assay." in plain(page)


def test_nothing_predicts(tmp_path, page_of):
    text = plain(page_of(tmp_path / "run", assays={"H3K9me3": 0.0, "H3K27me3": 0.0}))
    assert "No assay is shown to predict expression here." in text


def test_altered_marks_are_shown(tmp_path, page_of):
    assert "Marks altered" not in plain(page_of(tmp_path / "run", assays={"DNase": 0.6}))
    (tmp_path / "run" / "perturb").mkdir()
    rows = [
        ("E003", "DNase+H3K27ac", "DNase", place, distance, f"x{factor:g}", factor, effect, effect
         - 0.1, effect + 0.1, 90, 0.8, 0.25)
        for place, distance, least in (("-5..-3 kb", -4000.0, -0.7), ("+3..+5 kb", 4000.0, -1.5))
        for factor, effect in ((0.0, least), (1.0, 0.0))
    ]  # fmt: skip
    columns = ["cell", "assays", "mark", "place", "distance", "change", "factor", "effect", "low",
               "high", "genes", "changed", "outside"]  # fmt: skip
    table = pd.DataFrame(rows, columns=columns)
    table.to_csv(tmp_path / "run" / "perturb" / "dose_distance.csv", index=False)
    page = write_report(tmp_path / "run").read_text()
    text = plain(page)
    assert "if the signal of DNase were altered" in text
    first, second = text.index("+3..+5 kbx0−1.500"), text.index("-5..-3 kbx0−0.700")
    assert first < second
    assert "−1.500−1.600 to −1.4009080 %25 %" in text
    assert len(figures(page)) == 6
    null = table.iloc[[2]].assign(null_low=-0.2, null_high=0.3, permutations=19, p=0.05)
    null.to_csv(tmp_path / "run" / "perturb" / "null.csv", index=False)
    text = plain(write_report(tmp_path / "run").read_text())
    assert "−1.500−1.600 to −1.400−0.200 to 0.3000.0509080 %" in text
    assert "lowest and highest effect over 19 permutations of the mark" in text


def test_a_damaged_store_costs_the_tracks_alone(tmp_path, made_up_run, page_of, monkeypatch):
    """One flipped bit in each chunk of signal; of what the results are made of it is refused."""
    made_up_run(("E003",), assays={"DNase": 0.7, "H3K4me3": 0.6}).write(tmp_path)
    store = pathlib.Path(checkpoint.read_card(tmp_path)["store"]["path"])
    chunks = [path for path in (store / "signal" / "c").rglob("*") if path.is_file()]
    for path in chunks:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    with pytest.warns(UserWarning, match="the page is without tracks of genes: "):
        page = write_report(tmp_path).read_text()
    assert len(chunks) == 2
    words = plain(page).partition("trained on could not be read: ")[2]
    assert str(store) in words[:300]
    assert "0.7" in plain(page)
    assert "not as it is now: the store changed since it was verified" not in plain(page)
    found = Certificate((), (), without_store=False)
    monkeypatch.setattr(report, "read_certificate", lambda _: found)
    with pytest.warns(UserWarning, match="the page is without tracks of genes: "):
        page = write_report(tmp_path).read_text()
    assert "not as it is now: the store changed since it was verified" in plain(page)
    monkeypatch.undo()
    of_another = {**checkpoint.read_card(tmp_path), "store_checksum": "0"}
    assert "another store than" in report._store(tmp_path, of_another)[1]
    (store / "manifest.json").write_text("{")
    none, lost = report._store(tmp_path, checkpoint.read_card(tmp_path))
    assert none is None
    assert "manifest.json" in lost
    store.rename(tmp_path / "elsewhere")
    with pytest.warns(UserWarning, match="without tracks of genes: no training store at "):
        page = write_report(tmp_path).read_text()
    assert f"could not be read: no training store at {store}" in plain(page)
    (tmp_path / "elsewhere").rename(store)
    (tmp_path / "predictions.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"predictions\.parquet"):
        write_report(tmp_path)


def test_names_are_escaped(tmp_path, page_of):
    assays = {'<script>alert("1")</script>': 0.6, "A$B_{2}$ & C": 0.5}
    cells = ("<b>cell</b>", "</title><i>", "E & F")
    page = page_of(tmp_path / "run", cells=cells, assays=assays)
    assert re.findall(r"</?script[^>]*>", page) == [
        '<script type="application/json" id="browser-data">',
        "</script>",
        "<script>",
        "</script>",
    ]
    for svg in figures(page):
        assert not re.search(r"</?script", svg)
    assert "<b>cell" not in page
    assert "</title><i>" not in page
    assert "&lt;script&gt;alert(" in page
    assert all(name in plain(page) for name in assays)


def test_what_was_verified_is_told_claim_by_claim(study, tmp_path, monkeypatch):
    monkeypatch.setattr(report, "_export", lambda *_: None)
    run_dir = shutil.copytree(study[0], tmp_path / "run")
    card = checkpoint.read_card(run_dir)
    claims = [
        {"name": "splits", "holds": True, "found": "5 folds"},
        {"name": "quality", "holds": None, "found": "not computed again (--quick)"},
        {"name": "scores", "holds": False, "found": "r of DNase"},
    ]
    store = card["store"] | {"sha256": store_now(pathlib.Path(card["store"]["path"]))}
    content = {"claims": claims, "files": tables.checksums(run_dir, card), "store": store}
    (run_dir / "verify.json").write_text(json.dumps(content))
    text = plain(write_report(run_dir).read_text())
    assert "splits: holds (5 folds)" in text
    assert "quality: not checked (not computed again (--quick))" in text
    assert "scores: does not hold (r of DNase)" in text
    checkpoint.write_card(run_dir, card | {"seconds": 1.0})
    text = plain(write_report(run_dir).read_text())
    assert "not as it is now: run_card.json changed since it was verified" in text
    assert "splits: holds" not in text
