"""A study from its file: its flags are checked, its work is said, and done once."""

import os
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.training.splits import make_folds
from experiments import study
from experiments.cli.study_file import SHIPPED, read_study

URL = "https://example.org"
SHEET = f"cell,assay,url,unit\nE003,DNase,{URL}/a.bigwig,pvalue\nE004,DNase,{URL}/b.bw,pvalue\n"
TEXT = """
[store]
tracks = "tracks.csv"
[train.small]
model = "promoter_cnn"
epochs = 3
[train.wide]
model = "cnn"
cv = "chromoformer_4"
assays = "each"
[[perturb]]
run = "small"
assay = "DNase"
"""


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "tracks.csv").write_text(SHEET)

    def read(text=TEXT):
        (tmp_path / "mine.toml").write_text(text)
        return read_study(str(tmp_path / "mine.toml"))

    return read


@pytest.fixture
def ran(monkeypatch, tmp_path):
    """The programs that were started; each makes what it is there for, or gives a status."""
    started, statuses = [], {}

    def run(command, cwd, env):
        module, arguments = command[2], command[3:]
        assert (cwd, env["PYTHONPATH"].split(os.pathsep)[0]) == (tmp_path, str(study._CODE))
        started.append(f"{module.partition('.')[2]} {arguments[-1].rpartition('/')[2]}")
        status = statuses.get(module, 0)
        for step in read_study(str(tmp_path / "mine.toml")).steps:
            if [step.module, *step.arguments] == [module, *arguments] and not status:
                for name in step.makes:
                    (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
                    (tmp_path / name).write_text("")
        return status

    monkeypatch.setattr(study, "_status", run)

    def take():
        names = [*started]
        started.clear()
        return names

    return types.SimpleNamespace(take=take, statuses=statuses)


ALL = [
    "build_store --tracks=tracks.csv", "train --epochs=3", "evaluate small",
    "train --assays=each", "evaluate wide", "perturb --assay=DNase", "verify small", "verify wide",
    "report small", "report wide",
]  # fmt: skip


def test_what_is_done_is_left_and_what_depends_on_a_change_is_done_again(mine, ran, tmp_path):
    assert study.carry_out(mine())
    assert ran.take() == ALL
    assert study.carry_out(mine())
    assert ran.take() == []
    # A training that changes: it, and what is asked of it; the other is left.
    assert study.carry_out(mine(TEXT.replace("epochs = 3", "epochs = 4")))
    small = ["train --epochs=4", "evaluate small", "perturb --assay=DNase", "verify small",
             "report small"]  # fmt: skip
    assert ran.take() == small
    # An input that changes: all of it.
    (tmp_path / "tracks.csv").write_text(SHEET + f"E005,DNase,{URL}/c.bw,pvalue\n")
    assert study.carry_out(mine(TEXT.replace("epochs = 3", "epochs = 4")))
    assert len(ran.take()) == len(ALL)
    # What is gone is made again.
    (tmp_path / "mine/runs/wide/report.html").unlink()
    assert study.carry_out(mine(TEXT.replace("epochs = 3", "epochs = 4")))
    assert ran.take() == ["report wide"]


def test_a_command_that_fails_ends_it_and_is_begun_again(mine, ran):
    ran.statuses["experiments.perturb"] = 143
    with pytest.raises(SystemExit) as left:
        study.carry_out(mine())
    assert left.value.code == 143
    assert ran.take() == ALL[:6]
    ran.statuses.clear()
    assert study.carry_out(mine())
    assert ran.take() == ALL[5:]


def test_what_rests_on_a_step_that_failed_is_not_taken_for_done(mine, ran, tmp_path):
    """The store is built anew, then one training refuses: the other was of the old store, too."""
    assert study.carry_out(mine())
    ran.take()
    (tmp_path / "tracks.csv").write_text(SHEET + f"E005,DNase,{URL}/c.bw,pvalue\n")
    ran.statuses["experiments.train"] = 2
    with pytest.raises(SystemExit):
        study.carry_out(mine())
    assert ran.take() == ALL[:2]
    due = [step.name for step, due in study.to_do(mine()) if due]
    assert due == [step.name for step in mine().steps if step.name != "store"]


def test_a_check_that_does_not_hold_is_told_and_the_page_still_made(mine, ran):
    ran.statuses["experiments.verify"] = 1
    assert not study.carry_out(mine())
    assert ran.take() == ALL
    assert not study.carry_out(mine())
    assert ran.take() == ["verify small", "verify wide", "report small", "report wide"]


def test_flags_are_checked_before_anything_begins(mine):
    text = TEXT.replace("epochs = 3", "epoch = 3").replace('assay = "DNase"', "factors = true")
    with pytest.raises(InputError) as caught:
        study.check(mine(text))
    said = [(problem.where, problem.found) for problem in caught.value.problems]
    assert [where.partition(", ")[2] for where, _ in said] == [
        "train small: command line", "perturb small: command line"]  # fmt: skip
    assert "Did you mean: epochs" in said[0][1]
    with pytest.raises(InputError, match="--contacts"):
        study.check(mine(TEXT.replace("epochs = 3", "contacts = 3")))


def test_the_plan_counts_cells_assays_folds_and_models(mine):
    made = mine()
    lines = study.plan(made, study.check(made))
    assert lines[0] == "  2 cells, 1 assays, 2 tracks"
    assert lines[1].startswith("  to download: 2 files, about 1 GB")
    assert "2 cells × 1 sets of assays × 5 folds × 1 seeds = 10 models of promoter_cnn" in lines[2]
    assert "at most 3 epochs, 570,000 gene-steps for 19,000 genes" in lines[3]
    assert "× 8 folds × 1 seeds = 16 models of cnn" in lines[4]
    # 16 models × 100 epochs × 19,000 genes at 770 and 333,800 a second
    work = "30,000,000 gene-steps for 19,000 genes: 11 h"
    assert work in lines[5]
    assert "0.025 h" in lines[5]
    made = mine(TEXT.replace("chromoformer_4", "chromosomes_2"))
    with pytest.raises(InputError, match=r"cv|fold"):
        study.plan(made, study.check(made))
    counts = {f"chr{number}": 100 for number in range(1, 23)}
    for scheme, folds in (("chromoformer_4", 8), ("chromosomes_7", 7), ("monte_carlo_5", 5)):
        assert len(make_folds(scheme, counts, blind=["chr3"], seed=0)) == folds


def test_a_step_ends_with_the_study(tmp_path):
    sleeper = "import os, time; open('pid', 'w').write(str(os.getpid())); time.sleep(60)"
    pid = tmp_path / "pid"

    def interrupt():
        while not (pid.exists() and pid.read_text()):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        study._status([sys.executable, "-c", sleeper], tmp_path, dict(os.environ))
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_studies_that_ship_run_dry(name, program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = program("experiments.study", f"--study={name}", "--dry_run")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())
    models = {"approach_1": "1,320 models of cnn", "approach_2": "2,464 models of chromoformer",
              "compare": "704 models of promoter_cnn", "next_steps": "55 models of promoter_cnn",
              "demo": "the track sheet, which is yet to be made"}  # fmt: skip
    assert models[name] in done.stdout
    assert "to do  python -m experiments.report" in done.stdout


def test_the_program_takes_the_file_alone(mine, tmp_path):
    mine()
    command = [sys.executable, "-m", "experiments.study", str(tmp_path / "mine.toml"), "--dry_run"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "to do  python -m experiments.train --store=mine/store.zarr" in done.stdout
