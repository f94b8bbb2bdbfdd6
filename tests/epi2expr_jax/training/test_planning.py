"""Memory plans and their costs: sizes against those of real arrays."""

import types

import jax
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.dataset import load_dataset
from epi2expr_jax.inputs.track_cache import TrackCache, device_memory
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.training import planning
from epi2expr_jax.training import runs as runs_module
from epi2expr_jax.training.lanes import Lanes
from epi2expr_jax.training.one_run import TrainConfig, Trainer
from epi2expr_jax.training.planning import (
    Pace,
    calibrate,
    estimate_cpu,
    lanes_for,
    plan_memory,
)
from epi2expr_jax.training.runs import Run, plan_runs
from epi2expr_jax.training.splits import make_folds

MODEL = REGISTRY["promoter_cnn"](assays=1, width=0.02)
TRAINER = Trainer(MODEL, TrainConfig(epochs=4, batch_size=32))
KEY = np.zeros(2, np.uint32)


@pytest.fixture(scope="module")
def study(small_store):
    manifest = small_store.manifest
    data = load_dataset(small_store, MODEL, manifest.cells, manifest.assays)
    folds = make_folds("chromosomes_3", small_store.genes.chrom.value_counts().to_dict())
    runs = [
        Run(cell, (assay,), fold.name, 0)
        for cell in manifest.cells
        for assay in manifest.assays
        for fold in folds
    ]
    return data, folds, runs


def lanes(width, devices=1):
    return Lanes(width, tuple(jax.local_devices() * devices)[:devices])


def nbytes(tree):
    return sum(np.asarray(leaf).nbytes for leaf in jax.tree.leaves(tree))


def test_sizes_are_those_of_the_arrays(study):
    data, _, runs = study
    found = plan_memory(TRAINER, runs, TrackCache(data), lanes(1), memory=1 << 30)
    state = TRAINER.init(KEY)
    assert found.state_bytes == nbytes(state)
    assert found.weight_bytes == nbytes((state.params, state.stats))
    assert found.track_bytes == nbytes(data.track(runs[0].cell, runs[0].assays[0]))
    assert (found.runs, found.tracks, found.data_limit) == (18, 6, None)
    assert found.device_bytes == 18 * nbytes(state) + 6 * found.track_bytes
    assert found.disk_bytes == 36 * nbytes(state) + 18 * found.weight_bytes


def test_less_memory_means_fewer_at_once_and_never_narrower(study):
    data, _, runs = study
    state = nbytes(TRAINER.init(KEY))
    seen = []
    for states in (100, 14, 9, 4):
        found = plan_memory(
            TRAINER, runs, TrackCache(data), lanes(4), memory=int(states * state / 0.3) + 9
        )
        assert found.lanes.width == 4
        assert found.at_once % 4 == 0
        assert found.chunks * 4 * state <= states * state
        seen.append(found.at_once)
    assert seen == [100, 12, 8, 4]
    with pytest.raises(InputError, match="for 4 runs side by side"):
        plan_memory(TRAINER, runs, TrackCache(data), lanes(4), memory=int(3 * state / 0.3))
    assert (
        plan_memory(TRAINER, runs, TrackCache(data), lanes(4), at_once=8, memory=1 << 30).at_once
        == 8
    )


def test_signal_that_does_not_fit_is_streamed(study):
    data, _, runs = study
    track = TrackCache(data).track_bytes
    cache = TrackCache(data, limit=7 * track)
    found = plan_memory(TRAINER, runs, cache, lanes(1), memory=1 << 30)
    assert found.data_limit == 7 * track
    assert found.device_bytes == 18 * found.state_bytes + 6 * track  # never more than there are


@pytest.mark.parametrize(
    ("model", "platform", "gib", "width"),
    [
        ("cnn", "gpu", 60, 8),  # launching is 14 % of a step of 8
        ("promoter_cnn", "gpu", 60, 8),
        ("chromoformer", "gpu", 60, 16),  # 29 % of 8, 17 % of 16
        ("chromoformer", "gpu", 18, 8),  # 16 need 10 GB between kernels
        ("chromoformer", "gpu", 2, 1),
        ("chromoformer", "tpu", 16, 4),
        ("chromoformer", "cpu", 60, 1),
    ],
)
def test_lanes_follow_from_kernels_bytes_and_memory(monkeypatch, model, platform, gib, width):
    device = types.SimpleNamespace(platform=platform)
    monkeypatch.setattr(runs_module.jax, "local_devices", lambda: [device, device])
    config = REGISTRY[model](assays=1)
    published = next(iter(config.TRAINING.values()))
    trainer = Trainer(config, TrainConfig(batch_size=published["batch_size"] or 64))
    found = lanes_for(trainer, memory=gib << 30)
    assert (found.width, len(found.devices)) == (width, 2)
    # Twice the genes a step: launches weigh half as much, and memory holds half as many.
    if (model, gib) == ("chromoformer", 60) and platform == "gpu":
        assert lanes_for(Trainer(config, TrainConfig(batch_size=128)), memory=gib << 30).width == 8


def test_lanes_leave_room_for_their_states(monkeypatch):
    """With a gene a step launching would ask for 32, of which memory holds the states of 15."""
    device = types.SimpleNamespace(platform="gpu")
    monkeypatch.setattr(runs_module.jax, "local_devices", lambda: [device])
    trainer = Trainer(REGISTRY["chromoformer"](assays=7), TrainConfig(batch_size=1))
    assert lanes_for(trainer, memory=60 << 30).width == 32
    assert lanes_for(trainer, memory=4 << 30).width == 8


def test_a_model_that_says_no_cost_has_the_usual_lanes(monkeypatch):
    device = types.SimpleNamespace(platform="gpu")
    monkeypatch.setattr(runs_module.jax, "local_devices", lambda: [device])
    monkeypatch.delattr(REGISTRY["chromoformer"], "STEP_COST")
    trainer = Trainer(REGISTRY["chromoformer"](assays=1), TrainConfig(batch_size=64))
    assert lanes_for(trainer).width == 8


@pytest.mark.parametrize(
    ("model", "options", "measured"),
    [  # gene-steps/s on two cores whose matrix products ran at 240 GFLOP/s
        ("promoter_cnn", {"window_bp": 20_000}, 488),
        ("promoter_cnn", {}, 1923),
        ("promoter_cnn", {"window_bp": 20_000, "width": 0.25}, 4677),
        ("promoter_cnn", {"window_bp": 20_000, "width": 0.1}, 19_049),
        ("cnn", {}, 764),
        ("cnn", {"width": 0.25}, 5538),
        ("chromoformer", {"assays": 7}, 569),
    ],
)
def test_the_pace_on_cpu_is_foretold_within_a_factor_of_two(monkeypatch, model, options, measured):
    monkeypatch.setattr(planning, "_matmul_flops", lambda: 240e9)
    foretold = 1 / estimate_cpu(REGISTRY[model](**options))
    assert measured / 2 < foretold < measured * 2


def test_how_fast_the_machine_is_is_measured(monkeypatch):
    rate = planning._matmul_flops()
    assert 1e8 < rate < 1e14
    assert rate == planning._matmul_flops()  # once
    monkeypatch.delattr(REGISTRY["cnn"], "STEP_COST")
    assert estimate_cpu(REGISTRY["cnn"]()) is None


def test_a_calibration_predicts_from_what_it_measured(study):
    data, folds, runs = study
    inputs, _ = plan_runs(data, runs, folds, "log2")
    pace = calibrate(TRAINER, runs, inputs, TrackCache(data), lanes(1))
    assert pace.genes_per_s > 0
    genes = inputs.train.sum() + inputs.validation.sum() / 3
    assert Pace(10.0, 5.0).seconds(inputs, 4) == pytest.approx(5 + 4 * genes / 10)


def test_a_device_has_memory():
    assert device_memory() > 1 << 28
