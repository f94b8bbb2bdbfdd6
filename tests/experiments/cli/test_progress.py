import pytest

from epi2expr_jax.errors import InputError
from experiments.cli.progress import trackers


def test_tensorboard_holds_every_epoch(tmp_path):
    pytest.importorskip("tensorboardX")
    (tracker,) = trackers(["tensorboard"], tmp_path)
    for epoch in (1, 2):
        tracker.log("E003/H3K4me3/fold1/0", epoch, {"validation_loss": 1 / epoch})
    tracker.close()
    (file,) = (tmp_path / "tensorboard").iterdir()
    written = file.read_bytes()
    assert written.count(b"validation_loss/E003/H3K4me3/fold1/0") == 2


def test_a_missing_tracker_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(InputError, match="no tensorboardX, wandb in this Python environment"):
        trackers(["tensorboard", "wandb"], tmp_path)
