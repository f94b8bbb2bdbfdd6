"""The run card: begun with the request, closed once every share is trained."""

import dataclasses

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.study.lookup import Share, Study
from epi2expr_jax.study.run_card import begin, card_of, finish
from epi2expr_jax.study.train import Machine, train
from epi2expr_jax.training import checkpoint


def test_it_begins_with_what_was_asked_and_typed(small_store, tmp_path, request_for):
    study = Study(request_for(small_store))
    card = card_of(study, tmp_path / "run", True, "what was typed")
    assert not (tmp_path / "run").exists()
    begin(tmp_path / "run", card)
    assert checkpoint.read_card(tmp_path / "run") == {"version": 1, **card}
    assert (card["status"], card["command"]) == ("training", "what was typed")
    assert card["request"] == study.request.as_json()
    again = card_of(study, tmp_path / "run", True, "something else")
    assert again == {"version": 1, **card}
    config = dataclasses.replace(study.request.train_config, batch_size=16)
    other = Study(dataclasses.replace(study.request, seeds=2, train_config=config))
    changed = r"another request \(seeds=1, now 2; train_config.batch_size=32, now 16\)"
    with pytest.raises(InputError, match=changed):
        card_of(other, tmp_path / "run", True, "")


def test_more_may_be_asked_of_a_finished_run_and_nothing_less(finished, small_store, request_for):
    request = request_for(small_store, assays=["each", "all"])
    more = dataclasses.replace(request, seeds=2, assays=["all", "each", "pairs"])
    card = card_of(Study(more), finished, True, "more")
    assert (card["status"], card["command"]) == ("training", "more")
    assert card["request"] == Study(more).request.as_json()
    old = checkpoint.read_card(finished)
    assert (old["status"], card["populations"]) == ("complete", old["populations"])
    cells = small_store.manifest.cells
    for less, lost in (
        ({"assays": ["each"]}, "6 of its 24 runs"),
        ({"folds": ["fold2"], "seeds": 2}, "16 of its 24 runs"),
        ({"cells": cells[:1]}, f"12 of its 24 runs .*({cells[1]} "),
        ({"cells": ["pool"]}, "24 of its 24 runs"),  # other pools
    ):
        with pytest.raises(InputError, match=f"{lost.replace('(', '[(]')}.*ask for these too"):
            card_of(Study(dataclasses.replace(request, **less)), finished, True, "")
    with pytest.raises(InputError, match="an empty run directory"):
        card_of(Study(request), finished, False, "")


def test_of_an_unfinished_run_no_more_is_asked(small_store, tmp_path, request_for):
    study = Study(request_for(small_store, folds=["fold1"]))
    begin(tmp_path / "run", card_of(study, tmp_path / "run", True, "what was typed"))
    more = Study(request_for(small_store, folds=["fold1", "fold2"]))
    with pytest.raises(InputError, match=r"not finished; .* began it: what was typed"):
        card_of(more, tmp_path / "run", True, "")


def test_only_what_was_left_half_written_may_lie_there(small_store, tmp_path, request_for):
    study = Study(request_for(small_store))
    (tmp_path / "run_card.json.1234.partial").touch()
    begin(tmp_path, card_of(study, tmp_path, True, ""))
    (tmp_path / checkpoint.RUN_CARD).unlink()
    (tmp_path / "notes.txt").touch()
    with pytest.raises(InputError, match="files that are not a run"):
        card_of(study, tmp_path, True, "")


def test_it_closes_with_the_last_share(small_store, tmp_path, request_for):
    request = request_for(small_store, folds=["fold1"])
    half = train(request, tmp_path, machine=Machine(share=Share(0, 2)))
    assert half["status"] == "training"
    assert finish(Study(request), tmp_path, half, 1.0) == 3  # 2 cells x 3 assays in all
    assert not (tmp_path / "history.parquet").exists()
    assert train(request, tmp_path, machine=Machine(share=Share(1, 2)))["status"] == "complete"
    assert (tmp_path / "history.parquet").exists()
