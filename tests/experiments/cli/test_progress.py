import functools
import io
import re
import sys
import types

import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training import planning
from epi2expr_jax.training.many_runs import Log
from epi2expr_jax.training.one_run import TrainConfig
from experiments.cli import progress
from experiments.cli.progress import Shown, in_words, train_shown


@pytest.fixture
def request_(small_store):
    """Three runs of two epochs."""
    return TrainRequest(
        str(small_store.path),
        model="promoter_cnn",
        model_options={"width": 0.02},
        cells=small_store.manifest.cells[:1],
        assays=small_store.manifest.assays[:1],
        cv="chromosomes_3",
        train_config=TrainConfig(epochs=2, batch_size=32),
    )


def test_a_training_is_shown(request_, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", ["/bin/epi2expr-train", "--run=r"])
    card = train_shown(request_, tmp_path / "run")
    assert "1-assay, 3 runs: 100 %, 3 ended, loss " in capsys.readouterr().out
    assert len(repr(card)) < 1000
    assert card["command"].endswith(" --run=r")  # what was typed
    train_shown(request_, tmp_path / "run")
    assert "is complete: nothing to do" in capsys.readouterr().out


def test_tensorboard_holds_every_epoch(request_, tmp_path):
    pytest.importorskip("tensorboardX")
    card = train_shown(request_, tmp_path / "run", track=["tensorboard"])
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    written = file.read_bytes()
    for run in card["populations"][0]["runs"]:
        name = f"{run['cell']}/{run['assays'][0]}/{run['fold']}/{run['seed']}"
        for loss in ("train_loss", "validation_loss", "learning_rate"):
            assert written.count(f"{loss}/{name}".encode()) == 2


def test_what_is_missing_goes_to_stderr(tmp_path, capsys):
    Shown(tmp_path).warns("left out: 4 of 14")
    assert capsys.readouterr().err == "left out: 4 of 14\n"


def test_a_missing_tracker_is_named(tmp_path, monkeypatch):
    """Or one that cannot be imported."""
    for package in ("tensorboardX", "wandb"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(InputError, match=r"no tensorboardX that works.*\n.*no wandb that works"):
        Shown(tmp_path, ["tensorboard", "wandb"])


def population_of(logs, platform="gpu"):
    """What is asked of a population of CNNs that train for ten epochs."""
    config = types.SimpleNamespace(epochs=10, early_stop=None)
    trainer = types.SimpleNamespace(config=config, model_config=REGISTRY["cnn"]())
    lanes = types.SimpleNamespace(platform=platform)
    return types.SimpleNamespace(
        runs=logs, logs=logs, trainer=trainer, alive=len(logs), lanes=lanes
    )


def test_what_takes_long_on_cpu_is_said_before_it_does(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planning, "_matmul_flops", lambda: 240e9)

    def told(runs, platform="cpu"):
        shown = Shown(tmp_path)
        shown.begins("1-assay", population_of([Log()] * runs, platform), np.full(runs, 1000))
        return capsys.readouterr().out

    assert told(2) == told(500, "gpu") == ""
    first, *less = told(60).splitlines()
    assert first.startswith("1-assay, 60 runs: training on the CPU here (cores: ")
    assert first.endswith("an estimate: at most about 12 min")
    assert not less
    first, less = told(500).splitlines()
    assert first.endswith("at most about 1.7 h")
    assert "for a quicker first look, one of: --width=0.25 (at most 12 min); scores" in less


def test_what_has_begun_is_told_the_time_that_is_left_alone(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(planning, "_matmul_flops", lambda: 240e9)
    population = population_of([Log(train_loss=[1.0] * 4) for _ in range(500)], "cpu")
    population.trainer.config = TrainConfig(epochs=40)
    Shown(tmp_path).begins("1-assay", population, np.full(500, 1000))
    assert (
        capsys.readouterr().out.strip().endswith("an estimate: at most about 6.0 h")
    )  # 36 of 40 epochs


class Clock:
    """Stands for `time`: it goes on when told to."""

    now = 100.0

    def perf_counter(self):
        return self.now


@pytest.mark.parametrize("slow", [1.0, 1.3])
def test_the_line_fits_and_estimates_after_a_tenth_of_the_work(tmp_path, monkeypatch, capsys, slow):
    """40 runs of unlike folds, 8 at a time; compiling takes as long as a fifth of the training."""
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    monkeypatch.setattr(progress, "_LINE_EVERY", -1)
    logs = [Log() for _ in range(40)]
    genes = np.array([900, 1100, 1300, 700, 1000] * 8)
    trained = population_of(logs)
    shown = Shown(tmp_path)
    shown.begins("12-assay-11-cell", trained, genes)
    clock.now += 80.0
    shown.compiled()
    began, said = clock.now, []
    for _ in range(10):
        for members in np.split(np.arange(40), 5):
            clock.now += slow * genes[members].sum() / 1000
            for log in (logs[i] for i in members):
                log.train_loss.append(0.9)
                log.validation_loss.append(0.87)
                log.learning_rate.append(1e-3)
            shown.advances(list(members))
            said.append((clock.now, capsys.readouterr().out.strip()))
    total = clock.now - began
    assert all(len(line) < 80 for _, line in said)
    for now, line in said[5:40]:  # from a tenth on
        number, unit = re.search(r", loss 0.870, (\d+) (s|min) left$", line).groups()
        estimate = now - began + float(number) * {"s": 1, "min": 60}[unit]
        assert total / 1.5 < estimate < total * 1.5, line
    assert in_words(20_000) == "5.6 h"


def test_stopped_while_it_compiles_it_says_where_it_stands(tmp_path, capsys):
    shown = Shown(tmp_path)
    shown.begins("1-assay", population_of([Log()] * 9), np.ones(9))
    shown.ends()
    assert "1-assay, 9 runs: 0 %, no loss" in capsys.readouterr().out


def test_a_line_says_that_it_compiles(tmp_path, monkeypatch):
    written = io.StringIO()
    terminal = functools.partial(progress.tqdm, file=written)
    monkeypatch.setattr(progress, "tqdm", lambda **how: terminal(**how | {"disable": False}))
    Shown(tmp_path).begins("1-assay", population_of([Log()] * 180), np.ones(180))
    assert written.getvalue().strip("\r \n").endswith("1-assay, 180 runs: compiling")
