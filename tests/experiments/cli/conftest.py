"""One small training that several files look at."""

import pytest

from epi2expr_jax.training.one_run import TrainConfig
from experiments.cli.flags import TrainRequest
from experiments.cli.training import train


@pytest.fixture(scope="session")
def request_for():
    """`request_for(store, assays=..., ...)`: two epochs of a tiny model."""

    def request(store, **changes):
        fields = {
            "model": "promoter_cnn",
            "model_options": {"width": 0.02},
            "cv": "chromosomes_3",
            "train_config": TrainConfig(epochs=2, batch_size=32),
        }
        return TrainRequest(**{**fields, "store": str(store.path), **changes})

    return request


@pytest.fixture(scope="session")
def finished(small_store, request_for, tmp_path_factory):
    """A finished run of single assays and one set of all."""
    run_dir = tmp_path_factory.mktemp("finished") / "run"
    train(request_for(small_store, assays=["each", "all"]), run_dir)
    return run_dir
