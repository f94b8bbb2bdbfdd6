"""One training a window, from one store, as a curve an assay."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer
from epi2expr_jax.study import tables
from epi2expr_jax.study.lookup import Share
from epi2expr_jax.study.train import Machine, train
from epi2expr_jax.training import checkpoint
from experiments import sweep as program
from experiments.sweep import format_table, sweep


@pytest.fixture
def request_(small_store, request_for):
    return request_for(small_store, cells=small_store.manifest.cells[:1])


def test_every_width_is_a_run_and_a_point_of_the_curve(small_store, request_, tmp_path):
    table = sweep(request_, tmp_path, (6000, 3000))
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


def test_what_is_trained_further_is_evaluated_again(request_, tmp_path):
    short = dataclasses.replace(
        request_, train_config=dataclasses.replace(request_.train_config, epochs=1)
    )
    longer = dataclasses.replace(
        request_, train_config=dataclasses.replace(request_.train_config, epochs=2)
    )
    first = sweep(short, tmp_path, (3000, 6000))
    second = sweep(longer, tmp_path, (3000, 6000))
    assert not np.allclose(first.pearson, second.pearson)
    tables.require(tmp_path / "window-3000")  # an evaluation of these models


def test_one_process_sweeps_and_says_how_to_share(parse_flags, monkeypatch):
    """Every process would train everything into the same folders."""
    monkeypatch.setattr(program, "sweep", lambda *_: pytest.fail("it began"))
    definitions = (program.define_training, program.define_machine, program.define_windows)
    parse_flags(definitions, "--store=some.zarr", "--run=run", "--share=0/2")
    with pytest.raises(InputError, match=r"--share: found several processes.*--model_window_bp"):
        program.main()


def test_widths_that_were_trained_in_shares_are_put_together(request_, tmp_path):
    """What the refusal of --share says to do."""
    for width in (3000, 6000):
        options = {**request_.model_options, "window_bp": width}
        of_width = dataclasses.replace(request_, model_options=options)
        for index in range(2):
            machine = Machine(share=Share(index, 2))
            card = train(of_width, tmp_path / f"window-{width}", machine=machine)
        assert card["status"] == "complete"
    table = sweep(request_, tmp_path, (3000, 6000))
    assert set(table.window_bp) == {3000, 6000}
    assert len(list(tmp_path.glob("window-*/checkpoints/*/0-of-1"))) == 0


def test_windows_that_the_store_does_not_have_are_named_together(request_, tmp_path):
    with pytest.raises(InputError) as caught:
        sweep(request_, tmp_path, (3000, 10_000, 1000))
    assert len(caught.value.problems) == 2
    with pytest.raises(InputError, match="two or more to compare"):
        sweep(request_, tmp_path)  # of the usual widths it holds 6 kb alone
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("module", ["experiments.sweep", "experiments.select"])
def test_a_second_one_on_the_same_folder_is_told_who_is_at_it(
    small_store, tmp_path, program, module
):
    arguments = (f"--store={small_store.path}", f"--run={tmp_path / 'run'}", "--model=promoter_cnn")
    with only_writer(tmp_path / "run"):
        done = program(module, *arguments)
    assert done.returncode == 2
    assert "expected: one writer at a time" in done.stderr
    assert list(tmp_path.iterdir()) == []
