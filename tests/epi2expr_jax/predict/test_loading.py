"""A run directory, loaded, predicts as the models that were saved in it."""

import dataclasses
import json
import warnings

import jax
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_sealed
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.predict.loading import load
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.splits import write_splits
from tests.epi2expr_jax.untrained import WINDOW, ensemble_of


@pytest.fixture(scope="module")
def ensemble(small_store):
    """Three folds and two seeds."""
    folds = ("fold1", "fold2", "fold3")
    return ensemble_of(small_store, WINDOW, small_store.manifest.assays[:2], folds, seeds=2)


@pytest.fixture
def save(ensemble, small_store, tmp_path):
    """`save(parts, **changes)`: a run directory of some rows of the runs in each checkpoint."""
    (member,) = ensemble.members

    def write(*parts, quarantined=(), **changes):
        run_dir = tmp_path / "run"
        run_dir.mkdir()
        folds = list(ensemble.folds.values())
        write_splits(run_dir / "splits.json", "chromosomes_3", 0, folds, small_store.genes)
        populations = []
        for number, rows in enumerate(parts):
            weights = jax.tree.map(lambda leaf, rows=rows: leaf[list(rows)], member.weights)
            checkpoint.save(run_dir / f"best-{number}", weights)
            runs = [
                {
                    **dataclasses.asdict(member.runs[row]),
                    "target_scale": dataclasses.asdict(member.scales[row]),
                    "status": "quarantined" if row in quarantined else "finished",
                }
                for row in rows
            ]
            config = dataclasses.asdict(member.model_config)
            populations.append({"model_config": config, "weights": f"best-{number}", "runs": runs})
        card = {
            "status": "complete",
            "model": "promoter_cnn",
            "target": "log2",
            "input_config": dataclasses.asdict(ensemble.input_config),
            "signal": ensemble.signal.as_json(),
            "store": {
                "path": str(small_store.path), "assays": small_store.manifest.assays,
            },
            "store_checksum": small_store.checksum(),
            "populations": populations,
        }  # fmt: skip
        checkpoint.write_card(run_dir, {**card, **changes})
        return run_dir

    return write


def test_loaded_models_predict_as_those_that_were_saved(save, ensemble, small_store):
    found = load(save(range(6)))
    assert found.runs == ensemble.runs
    assert found.folds == ensemble.folds
    assert found.signal == ensemble.signal
    assert (found.target, found.input_config) == ("log2", ensemble.input_config)
    np.testing.assert_array_equal(found.predict(small_store), ensemble.predict(small_store))


def test_weights_that_had_seen_test_genes_are_told_of(save):
    run_dir = save(range(6))
    card = checkpoint.read_card(run_dir)
    for seen in (0, 4):
        card["populations"][0]["runs"][2]["started"] = {"seen": seen, "test_genes": 40}
        checkpoint.write_card(run_dir, card)
        with warnings.catch_warnings(record=True) as said:
            warnings.simplefilter("always")
            load(run_dir)
        assert len(said) == bool(seen)
    assert "(up to 4 of 40): their scores are not of genes that no model saw" in str(said[0])


def test_splits_without_the_folds_of_the_runs_are_refused(save, ensemble, small_store):
    run_dir = save(range(6))
    folds = list(ensemble.folds.values())
    untested = dataclasses.replace(folds[0], test=())
    for left, found in (
        ([], "no folds"), (folds[1:], "no fold fold1"),
        ([untested, *folds[1:]], "no test chromosomes in fold1"),
    ):  # fmt: skip
        write_splits(run_dir / "splits.json", "chromosomes_3", 0, left, small_store.genes)
        with pytest.raises(InputError, match=found):
            load(run_dir)


def test_runs_of_several_checkpoints_come_in_their_own_order(save, ensemble, small_store):
    """Whichever ended first."""
    found = load(save([3, 0], [2, 5], [1, 4]))
    assert found.runs == ensemble.runs
    assert len(found.members) == 1
    np.testing.assert_array_equal(found.predict(small_store), ensemble.predict(small_store))


def test_quarantined_runs_are_left_out(save, ensemble, small_store):
    found = load(save([0, 1, 4], [2, 3], [5], quarantined=(1, 3, 5)))
    assert found.runs == [ensemble.runs[i] for i in (0, 2, 4)]
    expected = ensemble.select(lambda run: run.seed == 0)
    np.testing.assert_array_equal(found.predict(small_store), expected.predict(small_store))


def test_a_run_of_which_nothing_is_left_is_refused(save):
    with pytest.raises(InputError, match=r"2 runs, all quarantined.*--learning_rate"):
        load(save([0, 1], quarantined=(0, 1)))


def test_weights_that_came_from_elsewhere_read_depth(save, small_store):
    run_dir = save([0], converted=True)
    card = json.loads((run_dir / checkpoint.RUN_CARD).read_text())
    del card["signal"]
    checkpoint.write_card(run_dir, card)
    assert load(run_dir).signal == TrainedSignal.of_depth(small_store.manifest.assays)


def test_a_run_that_has_not_ended_is_refused(save):
    run_dir = save([0], status="training")
    with pytest.raises(InputError) as caught:
        load(run_dir)
    (problem,) = caught.value.problems
    assert (problem.where, problem.found) == (str(run_dir), "training that is training")
    assert problem.expected == "a finished run"
    assert "it resumes" in problem.remedy


def test_a_damaged_card_is_refused(save, tmp_path):
    path = save([0]) / checkpoint.RUN_CARD
    text = path.read_text()
    path.write_text(text[: len(text) // 2])
    with pytest.raises(InputError, match="no readable run card"):
        load(path.parent)
    write_sealed(path, json.loads(text) | {"version": 99})
    with pytest.raises(InputError, match="run card version 99; expected version 1"):
        load(path.parent)
    with pytest.raises(InputError, match="check --run"):
        load(tmp_path / "nothing")


@pytest.mark.parametrize(
    "change",
    [
        {"populations": {}}, {"populations": [{}]}, {"store": 3}, {"model": []},
        {"input_config": {"odd": 1}}, {"signal": 3}, {"status": None},
    ],
    ids=str,
)  # fmt: skip
def test_a_card_whose_fields_make_no_sense_is_refused(save, change):
    with pytest.raises(InputError):
        load(save([0], **change))


def test_what_has_changed_since_it_was_written_is_refused(save):
    """A flipped bit in weights and splits, or a number in the card; once checked, checked again."""
    run_dir = save([0])
    card = checkpoint.read_card(run_dir)
    weights, splits = run_dir / "best-0", run_dir / "splits.json"
    card["populations"][0]["weights_sha256"] = checkpoint.files_sha256(weights)
    card["splits_sha256"] = checkpoint.files_sha256(splits)
    checkpoint.write_card(run_dir, card)
    load(run_dir)
    for path in (max((weights / "d").iterdir(), key=lambda p: p.stat().st_size), splits):
        whole = path.read_bytes()
        path.write_bytes(whole[:-9] + bytes([whole[-9] ^ 1]) + whole[-8:])
        with pytest.raises(InputError, match="found damage"):
            load(run_dir)
        path.write_bytes(whole)
    path = run_dir / checkpoint.RUN_CARD
    path.write_text(path.read_text().replace('"deviation": 1.0', '"deviation": 1.5'))
    with pytest.raises(InputError, match="a run card that was changed"):
        load(run_dir)


def test_weights_of_another_shape_are_refused(save):
    run_dir = save([0, 1])
    card = json.loads((run_dir / checkpoint.RUN_CARD).read_text())
    card["populations"][0]["model_config"]["width"] = 0.2
    checkpoint.write_card(run_dir, card)
    with pytest.raises(InputError, match="arrays that do not fit the model"):
        load(run_dir)
