"""What the report reads of run directories, and which of them it refuses."""

import json
import os
import pathlib
import shutil
import sys

import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_csv
from epi2expr_jax.predict.training_store import places
from epi2expr_jax.study import tables
from epi2expr_jax.training import checkpoint
from experiments import report
from experiments.report import write_report
from tests.experiments.pages import plain

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
    with pytest.warns(UserWarning, match=r"genes\.parquet.*differ from the recorded checksum"):
        page = write_report(run_dir).read_text()
    assert "could not be read: " in page


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
