"""The programs as they are lowered for accelerators: nothing there goes gene by gene, or by lane.

No device is needed: what is counted are the loops and the products of the real programs.
"""

import functools
import re

import jax
import numpy as np
import pytest
from jax.extend.mlir import ir

from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import REGISTRY, attention, layers
from epi2expr_jax.models.weights import parts_of
from epi2expr_jax.predict import inference
from epi2expr_jax.training.lanes import Lanes, epoch, packed_shapes
from experiments.benchmarks.made_up import (
    ASSAYS,
    OneCell,
    OneTrack,
    population,
    region_trainer,
    window_trainer,
)

ACCELERATORS = ("cuda", "tpu")
BATCH = 64
# Turns of a loop. In training how many batches there are is known, in prediction it is data.
TRAINED, VALIDATED, BY_DATA = 2, 1, None
# Matrix products of training with its validation, and of prediction, whatever the batch and lanes.
# Chromoformer trains its three resolutions as one stack, and predicts one after the other.
PRODUCTS = {"cnn": [36, 8], "promoter_cnn": [23, 6], "chromoformer": [207, 122]}


class OfAccelerator(Lanes):
    """Lanes that say they are on an accelerator."""

    platform = "cuda"


def population_of(name, lanes, precision="float32", where=OfAccelerator):
    """As many runs as lanes of a model, of a few genes of the right shapes."""
    genes, train = 3 * BATCH, 2 * BATCH
    where = where(lanes, tuple(jax.local_devices()[:1]))
    if name == "chromoformer":  # few layers: the others are like them
        data = OneCell(genes)
        few = {"pairwise_layers": 1, "regulation_layers": 2}
        config = REGISTRY[name](assays=ASSAYS, **few)
        trainer = region_trainer(config, data, train, BATCH, precision)
    else:
        config = REGISTRY[name](assays=1)
        data = OneTrack(genes, config.window.bins)
        trainer = window_trainer(config, BATCH, precision, (train, genes - train))
    return population(trainer, TrackCache(data), genes, train, lanes, where)


def traced(name, lanes=2, **how):
    """The programs of training, with its validation, and of prediction."""
    runs = population_of(name, lanes, **how)
    trainer, where = runs.trainer, runs.lanes
    shapes = functools.partial(jax.tree.map, lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype))
    tracks = shapes(where.tracks(runs.cache, runs.runs))
    wanted = runs.inputs.validation
    plan = inference.plan_of(trainer.model_config, runs.runs, runs.cache, wanted)
    _, params, stats = parts_of(trainer.model_config)
    weights = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((lanes, *x.shape), x.dtype), (params, stats)
    )
    stacked = *weights, shapes(wanted), None
    state = shapes(packed_shapes(trainer, where))
    # Of a function of its own: what was traced before a fault was put in is not taken for it.
    predict = functools.partial(inference._predict.__wrapped__, trainer.graph, plan, where)
    return (
        epoch.trace(trainer, where, state, shapes(runs.inputs), tracks),
        jax.jit(predict).trace(stacked, tracks),
    )


def counted(program, platform):
    """The turns of each loop of a program, and how many matrix products it has."""
    module = program.lower(lowering_platforms=(platform,)).compiler_ir("stablehlo")
    turns, products = [], 0

    def visit(op):
        nonlocal products
        assert op.name != "stablehlo.convolution"  # grouped over lanes, it is slow everywhere
        products += op.name == "stablehlo.dot_general"
        if op.name == "stablehlo.while":
            condition = op.regions[0].blocks[0].operations
            compare = next(own for own in condition if own.name == "stablehlo.compare")
            bound = compare.operands[1].owner
            known = getattr(bound, "name", "") == "stablehlo.constant"
            turns.append(int(np.array(bound.attributes["value"])) if known else BY_DATA)
        return ir.WalkResult.ADVANCE

    module.operation.walk(visit)
    return turns, products


@pytest.fixture(scope="module")
def programs():
    """`programs(name)`: those of a model as it is, traced once."""
    return functools.cache(traced)


def as_they_should_be(name, programs, platform):
    """Two loops of training, over batches and over those of validation, and one of prediction."""
    training, prediction = PRODUCTS[name]
    found = [counted(program, platform) for program in programs]
    return found == [([TRAINED, VALIDATED], training), ([BY_DATA], prediction)]


@pytest.mark.parametrize("name", REGISTRY)
def test_no_loop_runs_over_genes_or_lanes_on_an_accelerator(name, programs):
    """Whole batches of all lanes there, whatever the default backend of this process."""
    for platform in ACCELERATORS:
        assert as_they_should_be(name, programs(name), platform)


def row_by_row(self, x):
    return jax.lax.map(lambda row: row @ self.kernel[...] + self.shift, x)


ONE_GENE_AT_A_TIME = {
    "cnn": (layers, "PATCH_BYTES", dict.fromkeys(ACCELERATORS, 1)),
    "promoter_cnn": (layers, "PATCH_BYTES", dict.fromkeys(ACCELERATORS, 1)),
    "chromoformer": (attention.Linear, "__call__", row_by_row),
}


@pytest.mark.parametrize("name", REGISTRY)
def test_such_a_loop_would_be_seen(name, monkeypatch):
    """In each of the programs."""
    monkeypatch.setattr(*ONE_GENE_AT_A_TIME[name])
    faulty = traced(name)
    assert not as_they_should_be(name, faulty, "cuda")
    for program in faulty:
        assert {BATCH, inference._WINDOW_BATCH} & set(counted(program, "cuda")[0])


def test_on_cpu_patches_are_made_a_few_genes_at_a_time():
    turns, _ = counted(traced("cnn", where=Lanes)[0], "cpu")
    assert {2, 4} <= set(turns)  # pieces of a batch, by layer


def float32_arrays(program, platform):
    """The shapes of the float32 arrays of a program, and whether it has others in bfloat16."""
    text = program.lower(lowering_platforms=(platform,)).as_text()
    shapes = {tuple(map(int, x.split("x"))) for x in re.findall(r"tensor<([\dx]+)xf32>", text)}
    return shapes, "bf16>" in text


LARGE = {"cnn": (400, 192), "chromoformer": (1024,)}


@pytest.mark.parametrize(
    ("name", "where", "platform"),
    [
        ("cnn", OfAccelerator, "cuda"),
        ("chromoformer", OfAccelerator, "cuda"),
        ("cnn", Lanes, "cpu"),
    ],
)
def test_with_bfloat16_an_accelerator_keeps_no_large_array_in_float32(name, where, platform):
    """Of the CNN its unpooled first layer, of Chromoformer queries, keys, values and gates of all
    tokens; weights `[128, 1024]` are float32. On CPU nothing is rounded."""
    program = traced(name, precision="bfloat16", where=where)[0]
    shapes, rounds = float32_arrays(program, platform)
    large = LARGE[name]
    found = {x for x in shapes if x[-len(large) :] == large and x[-2] != 128}
    low = platform != "cpu"
    assert (not found, rounds) == (low, low), found
