"""A study from its file: its flags are checked, its work is said, and done once."""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
import types

import pytest

from epi2expr_jax.errors import InputError
from experiments import study
from experiments.cli.study_file import SHIPPED, read_study
from tests.experiments.test_whole_studies import run_snakemake

URL = "https://example.org"
SHEET = f"cell,assay,url,unit\nE003,DNase,{URL}/a.bigwig,pvalue\nE004,DNase,{URL}/b.bw,pvalue\n"
TEXT = """
[store]
tracks = "tracks.csv"
expression = "rpkm.tsv"
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


def reader(folder, own):
    """`read(text)`: a study of two tracks in a folder, by default as `own` says."""
    (folder / "tracks.csv").write_text(SHEET)

    def read(text=own):
        (folder / "mine.toml").write_text(text)
        return read_study(str(folder / "mine.toml"))

    return read


@pytest.fixture
def mine(tmp_path):
    return reader(tmp_path, TEXT)


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
    monkeypatch.setattr(
        study,
        "store_now",
        lambda path, whole=False: statuses.get((str(path), whole), "its checksum"),
    )

    def take():
        names = [*started]
        started.clear()
        return names

    return types.SimpleNamespace(take=take, statuses=statuses)


ALL = [
    "build_store --expression=rpkm.tsv", "train --epochs=3", "evaluate small",
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


def test_a_copied_folder_is_done_and_what_is_done_again_says_why(mine, ran, tmp_path, capsys):
    """As of `cp -r`, which keeps what files hold and not their times."""
    sheet = tmp_path / "tracks.csv"
    assert study.carry_out(mine())
    os.utime(sheet, ns=(0, 0))
    assert ran.take() == ALL
    assert study.carry_out(mine())
    assert ran.take() == []
    capsys.readouterr()
    sheet.write_text(SHEET.replace("pvalue", "counts"))  # as long as before
    (tmp_path / "mine/runs/wide/report.html").unlink()
    study.carry_out(mine(TEXT.replace("epochs = 3", "epochs = 4")))
    said = capsys.readouterr().out
    assert "again: tracks.csv changed since it was read" in said
    assert "again: its flags were others (--epochs=3, --epochs=4)" in said
    assert "again: it rests on: train small" in said
    assert "again: mine/runs/wide/report.html is gone" in said
    # A record of an older version has no checksum: of such, a file's time must be the same.
    journal = tmp_path / "mine/study.json"
    done = json.loads(journal.read_text())
    done["store"]["read"]["tracks.csv"] = done["store"]["read"]["tracks.csv"][:2]
    journal.write_text(json.dumps(done))
    os.utime(sheet, ns=(0, 0))
    (step, why), *_ = study.to_do(mine())
    assert (step.name, why) == ("store", "tracks.csv changed since it was read")


@pytest.mark.parametrize("damage", ["gone", "changed"])
def test_a_result_that_is_gone_or_changed_is_made_again(mine, ran, tmp_path, monkeypatch, damage):
    """Not the page alone: with it, and what rests on it."""
    as_before, scores = study._status, tmp_path / "mine/runs/small/scores.csv"

    def run(command, cwd, env):
        if command[2] == "experiments.evaluate" and command[3].endswith("small"):
            scores.parent.mkdir(parents=True, exist_ok=True)
            scores.write_text("0.5")
        if command[2] == "experiments.verify":  # which keeps what it found there as well
            scores.write_text("0.5, verified")
        return as_before(command, cwd, env)

    monkeypatch.setattr(study, "_status", run)
    for names in (ALL, []):
        assert study.carry_out(mine())
        assert ran.take() == names
    if damage == "gone":
        scores.unlink()
    else:
        scores.write_text("0.6, verified")
    assert study.carry_out(mine())
    assert ran.take() == [name for name in ALL if "small" in name or "perturb" in name]
    assert study.carry_out(mine())
    assert ran.take() == []


@pytest.mark.parametrize("where", ["elsewhere", "mine"])
def test_weights_that_are_gone_are_trained_again_wherever_the_study_writes(
    mine, ran, tmp_path, monkeypatch, where
):
    """Also out of the folder of its file."""
    as_before, out = study._status, tmp_path / "of" / where
    weights = out / "runs/small/checkpoints/best/d/0a"

    def run(command, cwd, env):
        if command[2] == "experiments.train" and "small" in " ".join(command):
            weights.parent.mkdir(parents=True, exist_ok=True)
            weights.write_bytes(b"12")
        return as_before(command, cwd, env)

    monkeypatch.setattr(study, "_status", run)
    text = f'out = "{out if where == "elsewhere" else "of/mine"}"' + TEXT
    for _ in range(2):
        assert study.carry_out(mine(text))
    assert ran.take() == ALL
    weights.unlink()
    assert study.carry_out(mine(text))
    assert ran.take() == [n for n in ALL if "small" in n or "perturb" in n or "epochs" in n]


@pytest.mark.parametrize(
    "text",
    ['{"store": 3}', '{"store": {"made": null}}', '{"store": {"arguments": null}}', "[]", "{",
     '{"store": {"arguments": [["a"]]}}', '{"store": {"read": {"tracks.csv": null}}}',
     '{"store": {"read": []}}', '{"store": {"read": {"a\\u0000b": [1, 2]}}}'],
)  # fmt: skip
def test_a_record_that_is_none_is_refused(mine, ran, tmp_path, text):
    assert study.carry_out(mine())
    (tmp_path / "mine/study.json").write_text(text)
    with pytest.raises(InputError, match="no readable record of a study"):
        study.carry_out(mine())


def test_a_damaged_store_is_built_again_and_all_that_rests_on_it(mine, ran, tmp_path):
    assert study.carry_out(mine())
    ran.take()
    store = str(tmp_path / "mine/store.zarr")
    ran.statuses[store, False] = study.DAMAGED
    assert study.carry_out(mine())
    assert ran.take() == ALL
    # One that is damaged within: read where its files are not as they were when it was built.
    ran.statuses.clear()
    ran.statuses[store, True] = study.DAMAGED
    assert study.carry_out(mine())
    assert ran.take() == []
    for path in (tmp_path / "mine/store.zarr").iterdir():
        os.utime(path, ns=(0, 0))
    assert study.carry_out(mine())
    assert ran.take() == ALL


def test_a_copied_store_is_read_once(mine, ran, tmp_path, capsys):
    assert study.carry_out(mine())
    for path in (tmp_path / "mine/store.zarr").iterdir():
        os.utime(path, ns=(0, 0))
    capsys.readouterr()
    for reads in (1, 0):
        assert study.carry_out(mine())
        assert capsys.readouterr().out.count("reading it ...") == reads
    assert ran.take() == ALL


def test_an_input_that_was_gone_for_a_while_costs_nothing(mine, ran, tmp_path):
    assert study.carry_out(mine())
    sheet = tmp_path / "tracks.csv"
    sheet.rename(tmp_path / "elsewhere")
    (_, why), *_ = study.to_do(mine())
    assert why == "tracks.csv, which it read, is gone"
    ran.statuses["data_prep.build_store"] = 2
    with pytest.raises(SystemExit):
        study.carry_out(mine())
    (tmp_path / "elsewhere").rename(sheet)
    assert not any(why for _, why in study.to_do(mine()))


def test_what_an_older_version_has_done_is_left(mine, ran, tmp_path):
    assert study.carry_out(mine())
    journal = tmp_path / "mine/study.json"
    older = {name: {key: state[key] for key in ("arguments", "read")}
             for name, state in json.loads(journal.read_text()).items()}  # fmt: skip
    journal.write_text(json.dumps(older))
    ran.take()
    assert study.carry_out(mine())
    assert ran.take() == []


def test_a_command_that_fails_ends_it_and_is_begun_again(mine, ran):
    ran.statuses["experiments.perturb"] = 143
    with pytest.raises(SystemExit) as left:
        study.carry_out(mine())
    assert left.value.code == 143
    assert ran.take() == ALL[:6]
    ran.statuses.clear()
    assert study.carry_out(mine())
    assert ran.take() == ALL[5:]


def test_another_training_under_the_same_name_says_how_to_train_anew(mine, ran, capsys):
    assert study.carry_out(mine())
    ran.statuses["experiments.train"] = 2
    with pytest.raises(SystemExit):
        study.carry_out(mine(TEXT.replace("epochs = 3", "epochs = 4")))
    assert "rename [train.small]" in capsys.readouterr().err


def test_what_a_command_would_refuse_to_alter_is_said_before_it_runs(mine, ran, capsys):
    assert study.carry_out(mine())

    def why(text):
        return {step.name: due for step, due in study.to_do(mine(text))}

    other = TEXT.replace("epochs = 3", 'epochs = 3\ncv = "chromosomes_5"')
    found = why(other)["train small"]
    assert "(--cv=chromosomes_5); train adds seeds, cells, assays, folds and epochs" in found
    other = TEXT.replace("[train.small]", 'expression_unit = "TPM"\n[train.small]')
    assert "for another one delete mine/store.zarr" in why(other)["store"]
    ran.statuses["data_prep.build_store"] = 2
    with pytest.raises(SystemExit):
        study.carry_out(mine(other))
    assert "in a study: build_store does not change a finished store" in capsys.readouterr().err


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


@pytest.mark.trial
def test_a_workflow_has_the_steps_of_a_study(mine, tmp_path):
    study = mine()
    said = run_snakemake(tmp_path, "-n", "-p", "--config", f"study={tmp_path / 'mine.toml'}")
    done = [shlex.split(line) for line in re.findall(r" -m (\S+ .*)", said)]
    assert sorted(done) == sorted([step.module, *step.arguments] for step in study.steps)
    assert not (tmp_path / "mine").exists()
