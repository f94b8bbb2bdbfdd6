"""Every run that is trained here must prove itself; and a store that lacks a track."""

import pandas as pd
import pytest


@pytest.fixture(scope="session", autouse=True)
def every_run_is_verified(verified_runs):
    """As soon as a training ends."""


@pytest.fixture(scope="session")
def holed(build, build_config, roadmap, tmp_path_factory):
    """A store of two cells and three assays, one track of which is missing; and which."""
    folder = tmp_path_factory.mktemp("holed")
    table = pd.read_csv(roadmap / "tracks.csv").drop(columns="sha256")
    table["path"] = [str(roadmap / path) for path in table.path]
    table.iloc[1:].to_csv(folder / "tracks.csv", index=False)
    store = build(build_config(folder / "store", tracks=str(folder / "tracks.csv")))
    return store, table.cell[0], table.assay[0]
