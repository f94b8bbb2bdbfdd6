"""One small training that several files look at."""

import pandas as pd
import pytest

from data_prep.build_store import build
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import train
from epi2expr_jax.training.one_run import TrainConfig


@pytest.fixture(scope="session", autouse=True)
def every_run_is_verified(verified_runs):
    """As soon as a training ends."""


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


@pytest.fixture(scope="session")
def holed(build_config, roadmap, tmp_path_factory):
    """A store of two cells and three assays, one track of which is missing; and which."""
    folder = tmp_path_factory.mktemp("holed")
    table = pd.read_csv(roadmap / "tracks.csv").drop(columns="sha256")
    table["path"] = [str(roadmap / path) for path in table.path]
    table.iloc[1:].to_csv(folder / "tracks.csv", index=False)
    store = build(build_config(folder / "store", tracks=str(folder / "tracks.csv")))
    return store, table.cell[0], table.assay[0]
