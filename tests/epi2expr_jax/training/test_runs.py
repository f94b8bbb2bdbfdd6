"""Runs: named by what they are, trained on what their fold holds, in an order of their own."""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import load_dataset
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.training.lanes import Lanes
from epi2expr_jax.training.runs import (
    Run,
    drawn,
    parse_assay_sets,
    plan_batches,
    plan_runs,
)
from epi2expr_jax.training.splits import make_folds
from tests.epi2expr_jax.untrained import SMALL as REGIONS

ROOT = pathlib.Path(__file__).resolve().parents[3]


def test_runs_are_named_by_what_they_are():
    run = Run("E003", ("a", "b"), "fold1", 0)
    assert run.label == "a+b"
    assert run.run_id == Run("E003", ("a", "b"), "fold1", 0).run_id
    others = [
        Run("E004", ("a", "b"), "fold1", 0),
        Run("E003", ("a",), "fold1", 0),
        Run("E003", ("a", "b"), "fold2", 0),
        Run("E003", ("a", "b"), "fold1", 1),
    ]
    assert len({r.run_id for r in [run, *others]}) == 5


def test_a_share_of_the_training_genes_is_drawn_for_each_seed(small_store):
    cell, assays = small_store.manifest.cells[0], small_store.manifest.assays
    data = load_dataset(small_store, PromoterCnnConfig(6000, 100), [cell], assays)
    folds = make_folds("chromosomes_3", small_store.genes.chrom.value_counts().to_dict())
    runs = [Run(cell, (a,), "fold1", seed) for a in assays[:2] for seed in (0, 1)]
    whole, scales = plan_runs(data, runs, folds, "log2")
    half, same = plan_runs(data, runs, folds, "log2", 0.5)
    assert scales == same
    np.testing.assert_array_equal(half.validation, whole.validation)
    assert (whole.train | ~half.train).all()
    assert (half.train.sum(1) == round(0.5 * whole.train[0].sum())).all()
    np.testing.assert_array_equal(half.train[0], half.train[2])  # another assay
    assert (half.train[0] != half.train[1]).any()  # another seed


def test_a_drawn_share_is_in_order_and_never_empty():
    run = Run("E003", ("a",), "fold1", 0)
    assert drawn(7, 1, run).tolist() == list(range(7))
    half = drawn(100, 0.5, run)
    assert len(set(half.tolist())) == 50
    assert half.tolist() == sorted(half)
    assert half.tolist() != list(range(50))
    assert len(drawn(7, 0.01, run)) == 1


def test_runs_that_differ_only_in_assays_share_their_order(small_store):
    cells, assays = small_store.manifest.cells, small_store.manifest.assays
    data = load_dataset(small_store, PromoterCnnConfig(6000, 100), cells, assays)
    folds = make_folds("chromosomes_3", small_store.genes.chrom.value_counts().to_dict())
    runs = [Run(c, (a,), f.name, 0) for c in cells for a in assays for f in folds]
    inputs, scales = plan_runs(data, runs, folds, "log2")
    order, model = np.asarray(inputs.order_key), np.asarray(inputs.model_key)
    assert len(np.unique(model, axis=0)) == len(runs)
    assert len(np.unique(order, axis=0)) == len(cells) * len(folds)
    for i, run in enumerate(runs):
        np.testing.assert_array_equal(
            inputs.train[i], next(f for f in folds if f.name == run.fold).masks(data.genes)["train"]
        )
        rpkm = data.expression[data.cells.index(run.cell)].astype(float)
        expected = scales[i].standardise(np.log2(rpkm + 1))
        np.testing.assert_allclose(inputs.target[i], expected, rtol=1e-5, atol=1e-6)
        y = np.asarray(inputs.target[i])[np.asarray(inputs.train[i])]
        np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-5)
        assert scales[i].kind == "log2"
    assert not (np.asarray(inputs.train) & np.asarray(inputs.validation)).any()
    assert all(leaf.shape[0] == len(runs) for leaf in jax.tree.leaves(inputs))


def place_from_elsewhere():
    """In a process of two devices: arrays of both, of one, and keys."""
    devices = tuple(jax.local_devices())
    assert len(devices) == 2
    values, keys = np.arange(4.0), jax.random.split(jax.random.key(0), 4)
    for own in (devices, devices[:1], devices[1:]):
        lanes = Lanes(4 // len(own), own)
        for lying in (values, *(jax.device_put(values, device) for device in devices)):
            placed = lanes.place({"x": lying, "key": jax.device_put(keys, devices[1])})
            np.testing.assert_array_equal(placed["x"], values)
            assert placed["x"].sharding.device_set == placed["key"].sharding.device_set == {*own}


def test_arrays_are_placed_wherever_they_lie():
    script = "from tests.epi2expr_jax.training.test_runs import place_from_elsewhere as p; p()"
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=2"
    environment = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_assay_sets_from_the_command_line():
    available = ["H3K4me3", "H3K27ac", "DNase"]
    assert parse_assay_sets(["each", "all"], available) == [
        ("H3K4me3",), ("H3K27ac",), ("DNase",), ("H3K4me3", "H3K27ac", "DNase"),
    ]  # fmt: skip
    assert parse_assay_sets(["DNase+H3K27ac", "H3K27ac+DNase", "DNase"], available) == [
        ("H3K27ac", "DNase"), ("DNase",),
    ]  # fmt: skip
    with pytest.raises(InputError, match="unknown assay CTCF, H3K4me4"):
        parse_assay_sets(["CTCF", "H3K4me4+DNase"], available)


def test_sets_of_several_assays_have_names():
    assert parse_assay_sets(["pairs"], ["a", "b", "c"]) == [("a", "b"), ("a", "c"), ("b", "c")]
    assert parse_assay_sets(["leave_one_out"], ["a", "b", "c", "d"]) == [
        ("a", "b", "c"), ("a", "b", "d"), ("a", "c", "d"), ("b", "c", "d"),
    ]  # fmt: skip
    with pytest.raises(InputError) as caught:
        parse_assay_sets(["pairs", "DNAse"], ["DNase"])
    few, unknown = caught.value.problems
    assert (few.where, few.found) == ("--assays=pairs", "1 assay in the store (DNase)")
    assert (few.expected, unknown.remedy) == ("at least 2", "did you mean DNase?")
    with pytest.raises(InputError, match="found nothing"):
        parse_assay_sets([], ["DNase"])


def test_plans_serve_every_cell_and_fold(distal_store):
    store, cells = distal_store, distal_store.manifest.cells
    chrom, assays = store.genes.chrom, store.manifest.assays[:1]
    folds = make_folds("chromosomes_3", chrom.value_counts().to_dict())
    plans = plan_batches(store, REGIONS, folds, 4, balanced=True)
    data = load_dataset(store, REGIONS, cells, assays)
    for part, plan in zip(("train", "validation"), plans, strict=True):
        needed = np.zeros(4, int)
        for fold in folds:
            for cell in cells:
                contacts = np.asarray(data.signal(cell, assays).n_contacts())
                ranked = np.sort(contacts[fold.masks(store.genes)[part]])
                first = ranked[::-1][:: -(-len(ranked) // 4)]
                needed[: len(first)] = np.maximum(needed[: len(first)], first)
        assert plan.slots == tuple(needed)
    assert plan_batches(store, REGIONS, folds, 4, balanced=False) == (BatchPlan(4, (8,) * 4),) * 2
    assert plan_batches(store, CnnConfig(), folds, 4, balanced=True) == (BatchPlan(4),) * 2
