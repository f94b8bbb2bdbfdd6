import base64
import html
import html.parser
import json
import os
import pathlib
import re
import shutil
import sys

import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_csv
from epi2expr_jax.predict.training_store import places
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.study import tables
from epi2expr_jax.training import checkpoint
from experiments import report
from experiments.cli.certificate import store_now
from experiments.figures.style import number
from experiments.report import write_report
from tests.experiments.made_up import COMMAND


@pytest.fixture(scope="module")
def study(tmp_path_factory, made_up_run):
    """Three cells, twelve assays, five folds; one assay of one cell quarantined."""
    folder = tmp_path_factory.mktemp("runs") / "study"
    made = made_up_run(quarantined=(("E116", "H3K9me3"),), target="minmax")
    ranked = made.write(folder)
    return folder, write_report(folder).read_text(), ranked


@pytest.fixture
def page_of(made_up_run, monkeypatch):
    """`page_of(folder, cells, ...)`: the report of a made-up run, without its folder of figures."""
    monkeypatch.setattr(report, "_export", lambda *_: None)

    def page_of(folder, cells=("E003",), **options):
        made_up_run(cells, **options).write(folder)
        return write_report(folder).read_text()

    return page_of


def plain(page):
    """The words a reader sees."""
    body = re.sub(r"<style>.*?</style>|<[^>]+>", "", page, flags=re.DOTALL)
    return " ".join(html.unescape(body).split())


def figures(page):
    """The SVG sources of the page's images."""
    found = re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page)
    return [base64.b64decode(source).decode() for source in found]


def test_page_loads_nothing(study):
    page = study[1]
    assert not re.search(r"(src|href|action|data)\s*=\s*[\"']?\s*(https?:)?//", page, re.IGNORECASE)
    assert not re.search(r"<(script|link|iframe|object)|@import|url\(", page, re.IGNORECASE)
    assert len(figures(page)) == len(re.findall("<img ", page)) == 6
    assert all(re.findall(r'<img [^>]*alt="[^"]{20,}"', page))
    for svg in figures(page):
        links = re.findall(r'href="([^"]*)"', svg)
        assert all(link.startswith(("#", "data:")) for link in links)


def test_page_is_well_formed(study):
    open_tags, void = [], {"meta", "img", "br", "wbr"}

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
    rows = [plain(row) for row in re.findall("<tr><td>.*?</tr>", page)]
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
    assert "1 of 12 assays is not shown to predict expression at all" in text
    assert "lies below it: H3K9me3" in text
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
    assert "(epoch 1, step 4)" in text
    assert "E116 H3K9me3 fold1 seed 0" in text
    assert "training 1 h 2 min" in text
    for fold in json.loads((folder / "splits.json").read_text())["folds"]:
        for part in ("train", "validation", "test"):
            assert f"{', '.join(fold[part])} ({fold['genes'][part]} genes)" in text
    assert f"jax {checkpoint.versions()['jax']}" in text
    for note in ranking.caveats(pd.read_parquet(folder / "metrics.parquet")):
        assert note in text


@pytest.mark.parametrize(
    ("chromosomes", "genes", "words", "absent"),
    [
        (12, 240, "too few genes to say which assay is best", "So few chromosomes"),
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
    assert "H3K4me3+DNase" in text
    assert "histone+accessibility" in text


def test_one_cell_one_assay(tmp_path, page_of):
    page = page_of(tmp_path / "run", assays={"DNase": 0.6})
    assert "No other assay was scored there" in plain(page)
    assert "in cell E003" in plain(page)
    # the same run gives the same page, and nothing half written stays
    assert write_report(tmp_path / "run").read_text() == page
    assert not list((tmp_path / "run").glob("*.partial"))


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
    assert len(figures(page)) == 7
    null = table.iloc[[2]].assign(null_low=-0.2, null_high=0.3, permutations=19, p=0.05)
    null.to_csv(tmp_path / "run" / "perturb" / "null.csv", index=False)
    text = plain(write_report(tmp_path / "run").read_text())
    assert "−1.500−1.600 to −1.400−0.200 to 0.3000.0509080 %" in text
    assert "lowest and highest effect over 19 permutations of the mark" in text


def test_names_are_escaped(tmp_path, page_of):
    assays = {'<script>alert("1")</script>': 0.6, "A$B_{2}$ & C": 0.5}
    cells = ("<b>cell</b>", "</title><i>", "E & F")
    page = page_of(tmp_path / "run", cells=cells, assays=assays)
    assert not re.search(r"</?script", page)
    for svg in figures(page):
        assert not re.search(r"</?script", svg)
    assert "<b>cell" not in page
    assert "</title><i>" not in page
    assert "&lt;script&gt;alert(" in page
    assert all(name in plain(page) for name in assays)


NEEDS = {table.path: table.program for table in tables.NEEDED}


@pytest.mark.parametrize("missing", list(NEEDS))
def test_missing_outputs_are_named_with_their_remedy(tmp_path, study, missing):
    for name in [*NEEDS, checkpoint.RUN_CARD]:
        if name != missing:
            (tmp_path / name).write_bytes((study[0] / name).read_bytes())
    with pytest.raises(InputError) as caught:
        write_report(tmp_path)
    (problem,) = caught.value.problems
    assert problem.where.endswith(missing)
    assert f"experiments.{NEEDS[missing]}" in problem.remedy
    assert not (tmp_path / "report.html").exists()


def test_all_missing_outputs_at_once(tmp_path, study):
    (tmp_path / checkpoint.RUN_CARD).write_bytes((study[0] / checkpoint.RUN_CARD).read_bytes())
    with pytest.raises(InputError) as caught:
        write_report(tmp_path)
    assert len(caught.value.problems) == len(NEEDS)
    with pytest.raises(InputError, match="no readable run card"):
        write_report(tmp_path / "nowhere")


OPENED: list[str] | None = None  # what is opened while it is a list; hooks cannot be removed


def _listen(event, given):
    if OPENED is not None and event == "open":
        OPENED.append(str(given[0]))


def files_read(run_dir, monkeypatch, make):
    """Every file under a run directory that is opened to make something."""
    found: list[str] = []
    for name in ("read_parquet", "read_csv"):  # pyarrow opens files unheard
        read = getattr(pd, name)

        def heard(path, *given, read=read, **options):
            found.append(str(path))
            return read(path, *given, **options)

        monkeypatch.setattr(pd, name, heard)
    monkeypatch.setattr(sys.modules[__name__], "OPENED", found)
    sys.addaudithook(_listen)
    make()
    return {
        os.path.relpath(path, run_dir) for path in found if path.startswith(f"{run_dir}{os.sep}")
    }


def unknown(paths):
    """Those that are neither of the registry nor its records, nor what the report itself writes."""
    known = {table.path for table in tables.TABLES}
    known |= {f"{pathlib.Path(t.path).parent / t.program}.json" for t in tables.TABLES}
    own = ("verify.json", "report", ".report", "checkpoints")
    return {path for path in paths if path not in known and not path.startswith(own)}


def test_the_report_reads_what_is_verified_and_nothing_else(study, tmp_path, monkeypatch):
    run_dir = shutil.copytree(study[0], tmp_path / "run")
    write_csv(run_dir / "profile.csv", pd.DataFrame({"share": [1.0]}))

    def planted(*_):  # a report that shows one table more
        pd.read_csv(run_dir / "profile.csv")

    def honest(*_):
        pass

    for export, expected in ((honest, set()), (planted, {"profile.csv"})):
        with monkeypatch.context() as patch:
            patch.setattr(report, "_export", export)
            read = files_read(run_dir, patch, lambda: write_report(run_dir))
        assert unknown(read) == expected
        assert {"metrics.parquet", "history.parquet", "groups.csv", "run_card.json"} <= read


def test_results_of_two_evaluations_are_refused(study, tmp_path):
    run_dir = shutil.copytree(study[0], tmp_path / "run")
    scores = pd.read_parquet(run_dir / "metrics.parquet")
    scores.assign(pearson=scores.pearson + 0.001).to_parquet(run_dir / "metrics.parquet")
    page = (run_dir / "report.html").read_text()
    with pytest.raises(InputError, match=r"metrics\.parquet.*other content.*experiments\.evaluate"):
        write_report(run_dir)
    assert (run_dir / "report.html").read_text() == page


def test_results_that_are_replaced_while_they_are_read_are_refused(study, tmp_path, monkeypatch):
    run_dir = shutil.copytree(study[0], tmp_path / "run")
    page = (run_dir / "report.html").read_bytes()

    def meanwhile(*_):
        (run_dir / "calls.csv").write_text("another evaluation\n")

    monkeypatch.setattr(report, "_export", meanwhile)
    # Found where it is read once more, or at the end at the latest.
    with pytest.raises(InputError, match=r"calls\.csv.*other content|read \(calls\.csv\)"):
        write_report(run_dir)
    assert (run_dir / "report.html").read_bytes() == page


def test_runs_are_compared_whose_folds_are_the_same_however_they_are_written(study, tmp_path):
    older = shutil.copytree(study[0], tmp_path / "older")
    content = json.loads((older / "splits.json").read_text())
    for fold in content["folds"]:
        del fold["held_out"]  # as written before genes could be held out by name
    (older / "splits.json").write_text(json.dumps(content))
    report._compared(study[0], [older])
    content["folds"][0]["name"] = "other"
    (older / "splits.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="another division into folds"):
        report._compared(study[0], [older])


def test_names_of_genes_come_from_a_store_that_is_whole(study, tmp_path):
    run_dir = shutil.copytree(study[0], tmp_path / "run")
    card = checkpoint.read_card(run_dir)
    store = shutil.copytree(card["store"]["path"], tmp_path / "store")
    checkpoint.write_card(run_dir, card | {"store": card["store"] | places(store, run_dir)})
    genes = pd.read_parquet(store / "genes.parquet")
    genes.assign(name=genes["name"][::-1].to_numpy()).to_parquet(store / "genes.parquet")
    with pytest.raises(InputError, match=r"genes\.parquet.*differ from the recorded checksum"):
        write_report(run_dir)


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
    assert "splits holds (5 folds)" in text
    assert "quality not checked (not computed again (--quick))" in text
    assert "scores does not hold (r of DNase)" in text
    checkpoint.write_card(run_dir, card | {"seconds": 1.0})
    text = plain(write_report(run_dir).read_text())
    assert "not as it is now: run_card.json changed since it was verified" in text
    assert "splits holds" not in text


def test_an_approach_is_compared_with_another_mark_by_mark(tmp_path, page_of, made_up_run):
    one = {"DNase": 0.5, "H3K4me3": 0.5, "H3K9me3": 0.0}
    page_of(tmp_path / "wide", assays=one | {"DNase": 0.8})
    made_up_run(("E003",), one).write(tmp_path / "narrow")
    page = write_report(tmp_path / "wide", against=tmp_path / "narrow").read_text()
    text = plain(page)
    assert "Does r change more from narrow to wide with some assays than with others?" in text
    assert "more (" in text
    assert "by +0.3" in text
    assert "with DNase, by " in text
    card = checkpoint.read_card(tmp_path / "narrow")
    (part,) = card["populations"]
    elsewhere = [part | {"runs": [run | {"cell": "E116"} for run in part["runs"]]}]
    for change, what in (
        ({"populations": elsewhere}, "another set of cells and assays"),
        ({"target": "minmax"}, "another target"),
        ({"signal": {"transforms": {}}}, "another transform of signal"),
        ({"request": card["request"] | {"train_share": 0.5}}, "another share of training genes"),
    ):
        checkpoint.write_card(tmp_path / "narrow", card | change)
        with pytest.raises(InputError, match=what):
            write_report(tmp_path / "wide", against=tmp_path / "narrow")
