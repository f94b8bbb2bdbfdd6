"""One training a window, from one store, as a curve an assay."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.one_run import TrainConfig
from experiments.sweep import format_table, sweep

pytestmark = pytest.mark.usefixtures("quick_compile")


def request_for(store) -> TrainRequest:
    return TrainRequest(
        store=str(store.path),
        model="promoter_cnn",
        model_options={"width": 0.02},
        cells=store.manifest.cells[:1],
        cv="chromosomes_3",
        train_config=TrainConfig(epochs=1, batch_size=64),
    )


def test_every_width_is_a_run_and_a_point_of_the_curve(small_store, tmp_path):
    table = sweep(request_for(small_store), tmp_path, (6000, 3000))
    assays = small_store.manifest.assays
    assert set(table.assay) == {"all", *assays}
    assert set(table.window_bp) == {3000, 6000}
    narrow = table[table.window_bp == 3000]
    assert (narrow.lead == 0).all()
    for width in (3000, 6000):
        card = checkpoint.read_card(tmp_path / f"window-{width}")
        assert card["populations"][0]["model_config"]["window_bp"] == width
        scored = pd.read_csv(tmp_path / f"window-{width}" / "ranking.csv").set_index("assay")
        own = table[(table.window_bp == width) & (table.assay == assays[0])].iloc[0]
        own_ranked = scored[scored.cell == "all"].loc[assays[0]]
        np.testing.assert_allclose(own.pearson, own_ranked.pearson, atol=1e-5)
        np.testing.assert_allclose(own.low, own_ranked.low, atol=1e-5)
    written = pd.read_csv(tmp_path / "sweep.csv")
    np.testing.assert_allclose(written.pearson, table.pearson, rtol=1e-5)
    for kind in ("png", "svg"):
        assert (tmp_path / f"sweep.{kind}").stat().st_size > 5000
    assert "3 kb" in format_table(table).splitlines()[0]


def test_windows_that_the_store_does_not_have_are_named_together(small_store, tmp_path):
    with pytest.raises(InputError) as caught:
        sweep(request_for(small_store), tmp_path, (3000, 10_000, 1000))
    assert len(caught.value.problems) == 2
    with pytest.raises(InputError, match="two or more to compare"):
        sweep(request_for(small_store), tmp_path)  # of the usual widths it holds 6 kb alone
    assert not list(tmp_path.iterdir())
