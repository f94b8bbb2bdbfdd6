import sys

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training.one_run import TrainConfig
from experiments.cli.progress import Shown, train_shown


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
    assert "1-assay: 3 runs: 6 of 6 epochs" in capsys.readouterr().out
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
