"""Forward selection: by validation alone, round by round, resumable."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.one_run import TrainConfig
from experiments import select as program
from experiments.select import select


@pytest.fixture(scope="module")
def request_(small_store):
    return TrainRequest(
        store=str(small_store.path),
        model="promoter_cnn",
        model_options={"width": 0.05},
        cells=small_store.manifest.cells[:1],
        assays=small_store.manifest.assays[:2],
        cv="chromosomes_3",
        train_config=TrainConfig(epochs=4, batch_size=32),
    )


@pytest.fixture(scope="module")
def selected(request_, tmp_path_factory):
    out = tmp_path_factory.mktemp("selection") / "out"
    return out, select(request_, out)


def losses_of(run_dir):
    """Assay set → mean lowest validation loss, from the history alone."""
    card = checkpoint.read_card(run_dir)
    history = pd.read_parquet(run_dir / "history.parquet")
    lowest = history.groupby("run_id").validation_loss.min()
    runs = [run for population in card["populations"] for run in population["runs"]]
    table = pd.DataFrame(
        {"assays": "+".join(run["assays"]), "loss": lowest[run["run_id"]]} for run in runs
    )
    return table.groupby("assays").loss.mean()


def test_each_round_chooses_by_validation_loss(selected, small_store):
    out, table = selected
    chosen = table[table.chosen]
    order = list(chosen.candidate)
    assert 1 <= len(order) <= 2
    for number, rows in table.groupby("round"):
        run_dir = out / f"round-{number}"
        losses = losses_of(run_dir)
        before = order[: number - 1]
        assert set(rows.candidate) == set(small_store.manifest.assays[:2]) - set(before)
        for row in rows.itertuples():
            in_order = [a for a in small_store.manifest.assays if a in {*before, row.candidate}]
            assert row.assays == "+".join(in_order)
            np.testing.assert_allclose(row.validation_loss, losses[row.assays], rtol=1e-5)
        if rows.chosen.any():
            assert rows.loc[rows.chosen, "validation_loss"].item() == rows.validation_loss.min()
    lowest = chosen.validation_loss.to_numpy()
    assert (np.diff(lowest) < 0).all()
    last = table[table["round"] == table["round"].max()]
    if not last.chosen.any():
        assert last.validation_loss.min() >= lowest[-1]
    else:
        assert len(order) == 2
    np.testing.assert_array_equal(table.pearson.notna(), table.chosen)
    assert chosen.low.isna().all(), "five genes a chromosome are too few for an interval"
    assert len(pd.read_csv(out / "selection.csv")) == len(table)


def test_the_same_command_resumes(selected, request_, monkeypatch):
    out, table = selected
    cards = {path: path.read_bytes() for path in out.rglob("run_card.json")}
    again = select(request_, out)
    pd.testing.assert_frame_equal(again, table)
    assert {path: path.read_bytes() for path in out.rglob("run_card.json")} == cards


def test_most_bounds_the_search(selected, request_, tmp_path):
    _, table = selected
    few = select(request_, tmp_path / "out", most=1)
    first = table[table["round"] == 1].reset_index(drop=True)
    pd.testing.assert_frame_equal(few, first)


def test_it_ends_when_no_assay_helps(selected, request_, tmp_path, monkeypatch):
    """The second assay brings nothing: what was chosen stays."""
    _, table = selected
    loss = program._loss
    monkeypatch.setattr(program, "_loss", lambda card, assays: loss(card, assays) + len(assays))
    ended = select(request_, tmp_path / "out")
    assert ended.chosen.tolist() == [True, False, False]
    assert ended.candidate[0] == table.candidate[0]
    assert ended.pearson.notna().tolist() == [True, False, False]


def test_test_chromosomes_are_read_once_the_choice_is_made(
    selected, request_, tmp_path, monkeypatch
):
    out, table = selected
    called = []

    def recorded(name):
        function = getattr(program, name)

        def call(*args, **named):
            called.append(name)
            return function(*args, **named)

        return call

    for name in ("train_shown", "_held_out"):
        monkeypatch.setattr(program, name, recorded(name))
    select(request_, out)
    rounds = table["round"].nunique()
    assert called == ["train_shown"] * rounds + ["_held_out"] * int(table.chosen.sum())


def test_one_process_selects(parse_flags, monkeypatch):
    monkeypatch.setattr(program, "select", lambda *_, **__: pytest.fail("it began"))
    definitions = (program.define_training, program.define_machine, program.define_flags)
    parse_flags(definitions, "--store=some.zarr", "--run=run", "--share=0/2")
    with pytest.raises(InputError, match=r"--share: found several processes.*let it use all"):
        program.main()


def test_nonsense_is_refused(request_, tmp_path):
    with pytest.raises(InputError, match="unknown assay CTCF"):
        select(dataclasses.replace(request_, assays=["CTCF"]), tmp_path)
