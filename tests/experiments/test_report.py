import base64
import collections
import dataclasses
import html
import html.parser
import json
import re

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import checkpoint, ranking
from epi2expr_jax.errors import InputError
from epi2expr_jax.splits import make_folds, select_folds, write_splits
from experiments.figures import number
from experiments.report import NEEDS, write_report

MARKS = {  # how well each predicts, roughly as in Roadmap
    "H3K27ac": 0.78, "H3K9ac": 0.77, "H3K4me3": 0.74, "H3K79me2": 0.7, "DNase": 0.68,
    "H3K4me2": 0.66, "H2A.Z": 0.6, "H3K36me3": 0.55, "H4K20me1": 0.42, "H3K4me1": 0.4,
    "H3K27me3": 0.35, "H3K9me3": 0.0,
}  # fmt: skip


@dataclasses.dataclass
class FakeRun:
    """A run directory as train and evaluate leave it, of made-up predictions."""

    cells: tuple = ("E003", "E116", "E123")
    assays: dict = dataclasses.field(default_factory=lambda: MARKS)
    chromosomes: int = 14
    genes: int = 1400
    cv: str = "chromosomes_5"
    folds: tuple = ("all",)
    target: str = "log2"
    seeds: int = 1
    epochs: int = 14
    quarantined: tuple = ()  # (cell, assay) pairs

    def write(self, folder):
        folder.mkdir()
        random = np.random.default_rng(0)
        names = [f"chr{i + 1}" for i in range(self.chromosomes)]
        share = np.linspace(2, 0.7, self.chromosomes)
        chrom = np.repeat(names, np.floor(self.genes * share / share.sum()).astype(int))
        counts = collections.Counter(chrom.tolist())
        folds = select_folds(make_folds(self.cv, counts, blind=names[1:4]), list(self.folds))
        write_splits(folder / "splits.json", self.cv, 0, folds, list(chrom))
        runs, history, predictions = [], [], []
        for cell in self.cells:
            level = np.minimum(random.gamma(1.2, 2, len(chrom)), 13)  # log2(RPKM + 1)
            for assay, skill in self.assays.items():
                for fold in folds:
                    for seed in range(self.seeds):
                        run = {"cell": cell, "assays": assay.split("+"), "fold": fold.name}
                        run |= {"seed": seed, "run_id": f"{cell}-{assay}-{fold.name}-{seed}"}
                        failed = (cell, assay) in self.quarantined
                        epochs = 2 if failed else int(random.integers(8, self.epochs + 1))
                        early = "stopped early" if epochs < self.epochs else "finished"
                        run |= {"status": "quarantined" if failed else early, "epochs": epochs}
                        run["quarantined"] = {"epoch": 1, "step": 4} if failed else None
                        runs.append(run)
                        history.append(_history(run, skill, failed, random))
                        if not failed:
                            held_out = fold.masks(chrom)["test"]
                            observed = level[held_out]
                            predictions.append(
                                _predictions(run, assay, chrom, held_out, observed, skill, random)
                            )
        pd.concat(history).to_parquet(folder / "history.parquet", index=False)
        table = pd.concat(predictions)
        if self.target == "minmax":
            for name in ("observed", "predicted"):
                table[name + "_raw"] = (2 ** table[name] - 1) / 1000
        table.to_parquet(folder / "predictions.parquet", index=False)
        scores = ranking.score_table(table)
        scores.to_parquet(folder / "metrics.parquet", index=False)
        ranked = ranking.rank_assays(scores)
        ranked.to_csv(folder / "ranking.csv", index=False)
        checkpoint.write_card(folder, self._card(runs, len(chrom)))
        return ranked

    def _card(self, runs, genes):
        config = {"window_bp": 10000, "bin_bp": 25, "assays": 1, "width": 1.0}
        return {
            "status": "complete",
            "request": {"model": "cnn", "cells": ["all"], "cv": self.cv, "target": self.target},
            "store_checksum": "0123456789abcdef",
            "store": {
                "path": "roadmap.zarr", "cells": self.cells, "assays": list(self.assays),
                "genes": genes, "window_bp": 10000, "bin_bp": 25, "assembly": "hg19",
                "left_out": {"not on the chosen chromosomes": 868, "no expression": 12},
                "groups": {
                    assay: "accessibility" if assay == "DNase" else "histone"
                    for label in self.assays
                    for assay in label.split("+")
                },
            },
            "model": "cnn", "target": self.target, "cv": self.cv,
            "input_config": {"transform": "auto", "orientation": "strand"},
            "versions": checkpoint.versions(),
            "command": "experiments/train.py --store=roadmap.zarr --run=runs/cnn --model=cnn",
            "started": "2026-03-01 10:00:00", "seconds": 3730.0,
            "populations": [{"name": "1-assay-0", "model_config": config, "runs": runs}],
        }  # fmt: skip


def _history(run, skill, failed, random):
    epoch = np.arange(1, run["epochs"] + 1)
    floor = 1 - skill**2
    train = floor * 0.8 + (1.1 - floor) * np.exp(-epoch / 3) + random.normal(0, 0.01, len(epoch))
    validation = floor + (1.2 - floor) * np.exp(-epoch / 2) + random.normal(0, 0.03, len(epoch))
    if failed:
        train[-1] = validation[-1] = np.nan
    return pd.DataFrame(
        {
            "run_id": run["run_id"],
            "epoch": epoch,
            "train_loss": train.astype(np.float32),
            "validation_loss": validation.astype(np.float32),
            "learning_rate": 1e-3,
        }
    )


def _predictions(run, assay, chrom, held_out, observed, skill, random):
    noise = random.normal(0, observed.std(), len(observed))
    predicted = 2 + skill * (skill * (observed - 2) + np.sqrt(1 - skill**2) * noise)
    if skill == 0:
        predicted = 2 + 0.1 * noise
    return pd.DataFrame(
        {
            **{name: run[name] for name in ("run_id", "cell", "fold", "seed")},
            "assays": assay,
            "gene_id": [f"ENSG{i:011d}" for i in np.flatnonzero(held_out)],
            "chrom": chrom[held_out],
            "observed": observed,
            "predicted": predicted,
            "observed_raw": observed,
            "predicted_raw": predicted,
        }
    )


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    """Three cells, twelve assays, five folds; one assay of one cell quarantined."""
    folder = tmp_path_factory.mktemp("runs") / "study"
    fake = FakeRun(quarantined=(("E116", "H3K9me3"),), target="minmax")
    ranked = fake.write(folder)
    return folder, write_report(folder).read_text(), ranked


def page_of(folder, cells=("E003",), **options):
    FakeRun(cells, **options).write(folder)
    return write_report(folder).read_text()


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
    assert len(figures(page)) == len(re.findall("<img ", page)) == 4
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
    over_all = ranked[ranked.cell == ranking.ALL]
    assert len(rows) == len(over_all) == len(MARKS)
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
    text, rows = plain(page), ranked[ranked.cell == ranking.ALL]
    best = rows.iloc[0]
    assert f"{best.assay} has the highest score" in text
    assert f"{number(best.pearson)} (95 % interval {number(best.low)} to" in text
    rivals = rows.assay[1:][rows.rank_low[1:] == 1]
    assert len(rivals)
    assert f"that may as well be {', '.join(rivals)}." in text
    assert "1 of 12 assays is not shown to predict expression at all" in text
    assert "lies below it: H3K9me3" in text
    assert "averaged over 2 of 3 cells" in text
    assert "Few data" not in text


def test_a_clear_winner_is_called_one(tmp_path):
    text = plain(page_of(tmp_path / "run", assays={"DNase": 0.9, "H3K9me3": 0.1}))
    assert "Its lead over every other assay is larger than the uncertainty of that lead" in text


def test_heat_map_shows_holes(study, tmp_path):
    assert 'pattern id="' in figures(study[1])[1]
    whole = page_of(tmp_path / "run", cells=("E003", "E116"), assays={"DNase": 0.6})
    assert "pattern" not in figures(whole)[1]


def test_made_tells_card_folds_and_failures(study):
    folder, page, _ = study
    text = plain(page)
    assert "experiments/train.py --store=roadmap.zarr --run=runs/cnn --model=cnn" in text
    assert "868 (not on the chosen chromosomes); 12 (no expression)" in text
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
def test_few_data_are_called_few(tmp_path, chromosomes, genes, words, absent):
    assays = {"DNase": 0.6, "H3K4me3": 0.5}
    page = page_of(tmp_path / "run", assays=assays, chromosomes=chromosomes, genes=genes)
    text = plain(page)
    assert "Few data." in text
    assert words in text
    assert absent not in text
    assert "--cv=chromosomes_5 tests" not in text, "it was trained so"


def test_blind_chromosomes_alone_are_few(tmp_path):
    assays = {"DNase": 0.6}
    text = plain(page_of(tmp_path / "run", assays=assays, cv="monte_carlo_5"))
    assert "on 3 chromosomes" in text
    assert "The data hold 14: --cv=chromosomes_5 tests on every one of them" in text


def test_without_intervals(tmp_path):
    assays = {"DNase": 0.6, "H3K4me3+DNase": 0.5}
    page = page_of(tmp_path / "run", assays=assays, cv="chromosomes_7", folds=("fold7",))
    text = plain(page)
    assert "no interval:" in text
    assert "no assay can be told apart from another" in text
    assert "nan" not in text.lower()
    assert "H3K4me3+DNase" in text
    assert "histone+accessibility" in text


def test_one_cell_one_assay(tmp_path):
    page = page_of(tmp_path / "run", assays={"DNase": 0.6})
    assert "No other assay was scored there" in plain(page)
    assert "in cell E003" in plain(page)
    # the same run gives the same page, and nothing half written stays
    assert write_report(tmp_path / "run").read_text() == page
    assert not list((tmp_path / "run").glob("*.partial"))


def test_no_cell_has_every_assay(tmp_path):
    assays = {"DNase": 0.6, "H3K4me3": 0.5}
    failed = (("E003", "DNase"), ("E116", "H3K4me3"))
    page = page_of(tmp_path / "run", cells=("E003", "E116"), assays=assays, quarantined=failed)
    assert "There is no ranking over all cells: no cell has every assay." in plain(page)


def test_nothing_predicts(tmp_path):
    text = plain(page_of(tmp_path / "run", assays={"H3K9me3": 0.0, "H3K27me3": 0.0}))
    assert "No assay is shown to predict expression here." in text


def test_names_are_escaped(tmp_path):
    assays = {'<script>alert("1")</script>': 0.6, "A$B_{2}$ & C": 0.5}
    page = page_of(tmp_path / "run", cells=("<b>cell</b>", "E & F"), assays=assays)
    assert "<script" not in page
    assert "<b>cell" not in page
    assert "&lt;script&gt;alert(" in page
    assert all(name in plain(page) for name in assays)


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
