import dataclasses
import functools
import pathlib
import re
import runpy
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs import batch_plan as batches
from epi2expr_jax.inputs.device_tracks import CellRegions, RegionSignal, RegionTrack
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import from_torch, to_torch
from epi2expr_jax.models.region_batch import RegionBatch, TokenLayout
from epi2expr_jax.training.one_run import TrainConfig, Trainer
from epi2expr_jax.training.runs import RunInputs
from epi2expr_jax.training.targets import LOSSES

GOLDEN_FOLDER = pathlib.Path(__file__).resolve().parents[2] / "golden"
MAKER = runpy.run_path(str(GOLDEN_FOLDER / "make_chromoformer_golden.py"))
PLAIN = runpy.run_path(str(GOLDEN_FOLDER / "plain_chromoformer.py"))
GOLDEN = np.load(GOLDEN_FOLDER / "chromoformer.npz")
CONFIGS = {title: ChromoformerConfig(**fields) for title, fields in MAKER["CONFIGS"].items()}
# Compiling takes longer than running; JAX 0.10 can halve it by an option that later versions lack.
QUICK: dict[str, Any] = {"xla_backend_optimization_level": 0}
if jax.__version_info__ < (0, 11):
    QUICK["xla_cpu_use_fusion_emitters"] = False


def same_program(config):
    """The promoter's width changes what is in a batch, and nothing in the program."""
    return dataclasses.replace(config, window_bp=40_000)


@functools.cache
def empty(config):
    """The structure of a model, and its parameters as zeros."""
    graph, params = nnx.split(nnx.eval_shape(lambda: config.build(rngs=nnx.Rngs(0))), nnx.Param)[:2]
    return graph, jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), params)


def published(config):
    """Drawn weights by their published names, in the order PyTorch saves them."""
    state = to_torch(config, empty(config)[1])
    return {name: MAKER["draw"](name, array.shape) for name, array in state.items()}


@functools.cache
def golden_model(title):
    """Parameters and genes of one of the golden configurations."""
    config = CONFIGS[title]
    _, params = from_torch(published(same_program(config)), title, contacts=config.contacts)
    return params, MAKER["inputs"](MAKER["CONFIGS"][title])


def batch_of(genes, index, slots):
    """These genes as a batch laid out in these slots."""
    layout = TokenLayout.of(slots)
    pair = index[layout.gene]

    def each(part, *at):
        return tuple(jnp.asarray(array[at]) for array in genes[part])

    return RegionBatch(
        promoter=each("promoter", index),
        promoter_valid=each("promoter_valid", index),
        region=each("region", pair, layout.slot) if layout.prefix else (),
        region_valid=each("region_valid", pair, layout.slot) if layout.prefix else (),
        score=jnp.asarray(genes["score"][index][:, : max(slots)]),
        n_contacts=jnp.asarray(genes["contacts"][index], jnp.int32),
        slots=slots,
    )


def laid_out(genes, layout):
    """All genes in this layout: their order, and the batch."""
    contacts, most = genes["contacts"], genes["score"].shape[1]
    if layout == "dense":
        index = np.arange(len(contacts))
        return index, batch_of(genes, index, (most,) * len(contacts))
    index = np.argsort(-contacts, kind="stable")
    slots = contacts[index]
    slots[1], slots[4] = slots[0], slots[3]  # some are empty, as where a plan serves many batches
    return index, batch_of(genes, index, tuple(slots.tolist()))


# Batches and masks are always arguments: constants, XLA's CPU backend would fold into programs of
# another kind (and an L x L softmax under a constant mask into one that races).


@functools.cache
def gradient_program(config):
    graph = empty(config)[0]
    loss_of = LOSSES[config.task]

    @functools.partial(jax.jit, compiler_options=QUICK)
    @functools.partial(jax.value_and_grad, has_aux=True)
    def program(params, batch, target, mask):
        outputs = nnx.merge(graph, params, copy=True).outputs(batch)
        prediction = outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]
        return loss_of(prediction=prediction, target=target, mask=mask), outputs

    return program


@functools.cache
def prediction_program(config):
    graph = empty(config)[0]

    @functools.partial(jax.jit, compiler_options=QUICK)
    def program(params, batch, mask):
        return nnx.merge(graph, params, copy=True)(batch, mask=mask, key=None)

    return program


def gradients(title, layout):
    """Loss, outputs in the genes' order, and gradients by published name."""
    config = CONFIGS[title]
    params, genes = golden_model(title)
    index, batch = laid_out(genes, layout)
    target = genes["label" if config.task == "classification" else "target"][index]
    mask = jnp.ones(len(index), bool)
    program = gradient_program(same_program(config))
    (loss, outputs), gradient = program(params, batch, jnp.asarray(target, jnp.float32), mask)
    return loss, np.asarray(outputs)[np.argsort(index)], to_torch(config, gradient)


def predictions(title, batch):
    config = CONFIGS[title]
    program = prediction_program(same_program(config))
    params = golden_model(title)[0]
    return np.asarray(program(params, batch, jnp.ones(len(batch.n_contacts), bool)))


# Gradients in one layout, predictions in the other; `make parity` has all gradients in both.
DEALT = ("published", "narrow_window", "five_marks", "classification")


@pytest.mark.parametrize("title", CONFIGS)
def test_outputs_and_gradients_equal_the_published_package(title):
    loss, outputs, gradient = gradients(title, "dealt" if title in DEALT else "dense")
    np.testing.assert_allclose(outputs, GOLDEN[f"{title}/outputs"], rtol=0, atol=1e-5)
    np.testing.assert_allclose(loss, GOLDEN[f"{title}/loss"], rtol=1e-5)
    expected, largest = GOLDEN[f"{title}/gradients"], GOLDEN[f"{title}/largest"]
    names = sorted(name for name in gradient if is_used(name))
    for name, row, most in zip(names, expected, largest, strict=True):
        found = MAKER["sample"](name, gradient[name])
        np.testing.assert_allclose(found, row, rtol=0, atol=1e-4 * most, err_msg=name)


@pytest.mark.parametrize("title", CONFIGS)
def test_predictions_do_not_depend_on_how_genes_are_laid_out(title):
    """A classifier's is the difference of its logits."""
    index, batch = laid_out(golden_model(title)[1], "dense" if title in DEALT else "dealt")
    outputs = GOLDEN[f"{title}/outputs"][index]
    expected = outputs[:, 0] if outputs.shape[1] == 1 else outputs[:, 1] - outputs[:, 0]
    np.testing.assert_allclose(predictions(title, batch), expected, rtol=0, atol=1e-5)


def is_used(name):
    unused = "w_bias" in name or (name.startswith("pairwise") and name.split(".")[2] == "ln")
    return not unused and ("gamma_f" not in name or name.startswith("regulation"))


def test_an_absent_pcre_changes_nothing():
    _, genes = golden_model("classification")
    _, batch = laid_out(genes, "dense")
    random = np.random.RandomState(0)
    layout = TokenLayout.of(batch.slots)
    absent = (layout.slot >= genes["contacts"][layout.gene])[:, None, None]
    full_of = dataclasses.replace(
        batch,
        region=tuple(jnp.where(absent, random.normal(size=x.shape), x) for x in batch.region),
        score=jnp.where(batch.score == 0, 7.0, batch.score),
    )
    before, after = (predictions("classification", one) for one in (batch, full_of))
    np.testing.assert_array_equal(before, after)


def test_a_gene_does_not_see_its_neighbours():
    _, genes = golden_model("classification")
    index, batch = laid_out(genes, "dense")
    before = predictions("classification", batch)
    for gene in (0, 4):
        others = np.where(index == gene, index, np.roll(index, 3))
        after = predictions("classification", batch_of(genes, others, batch.slots))
        assert after[gene] == before[gene]
        assert (np.delete(after, gene) != np.delete(before, gene)).all()


def test_without_pcres_it_is_the_promoter_alone():
    """`contacts=0` has no pairwise weights, and predicts what genes without contacts get."""
    config = dataclasses.replace(CONFIGS["five_marks"], contacts=0)
    params, genes = golden_model("five_marks")
    alone = empty(config)[1]
    known = dict(jax.tree_util.tree_leaves_with_path(params))
    assert len(jax.tree.leaves(alone)) < len(known)
    alone = jax.tree_util.tree_map_with_path(lambda path, _: known[path], alone)
    none = genes | {"contacts": np.zeros_like(genes["contacts"])}
    index = np.arange(9)
    program = prediction_program(config)
    found = program(alone, batch_of(none, index, (0,) * 9), jnp.ones(9, bool))
    expected = predictions("five_marks", batch_of(none, index, (8,) * 9))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_the_published_size():
    config = ChromoformerConfig(assays=7)
    params = empty(config)[1]
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == 5_341_457
    assert sum(array.size for array in to_torch(config, params).values()) == 5_342_543
    assert REGISTRY["chromoformer"] is ChromoformerConfig
    assert (config.window.bins, config.positions) == (400, (20, 80, 400))


@pytest.mark.parametrize(
    ("fields", "messages"),
    [
        ({"contacts": -1}, ["contacts=-1; expected 0 or more"]),
        ({"width": 0.0}, ["width=0.0"]),
        ({"task": "ranking"}, ["regression or classification"]),
        ({"assays": 0, "embed_heads": 0, "head": 0}, ["assays=0", "embed_heads=0", "head=0"]),
        ({"resolutions": ()}, [r"resolutions \[\]"]),
        ({"resolutions": (500, 300)}, [r"resolutions \[500, 300\]"]),
        ({"resolutions": (3000, 100)}, ["padded to 40000 bp"]),
        ({"window_bp": 42_000}, ["a promoter window of 42000 bp"]),
        ({"window_bp": 10_100}, ["an even number of bins of 100 bp"]),
        ({"window_bp": 0, "regulation_layers": 0}, ["regulation_layers=0", "window of 0 bp"]),
    ],
)
def test_configurations_that_make_no_sense_are_refused(fields, messages):
    with pytest.raises(InputError) as caught:
        ChromoformerConfig(**fields)
    assert len(caught.value.problems) == len(messages)
    for message in messages:
        assert re.search(message, str(caught.value)), message


def test_attention_weights_equal_a_plain_computation():
    config = CONFIGS["classification"]
    params, genes = golden_model("classification")
    state = {name: array.astype(np.float64) for name, array in published(config).items()}
    index, batch = laid_out(genes, "dealt")
    graph = empty(config)[0]

    @functools.partial(jax.jit, compiler_options=QUICK)
    def program(params, batch):
        return nnx.merge(graph, params, copy=True).attention(batch)

    found = program(params, batch)
    embedding, pairwise, regulation = (np.asarray(stage[0]) for stage in found)
    layers, heads = config.pairwise_layers, config.pairwise_heads
    assert embedding.shape == (9, config.embed_heads, 80)
    assert pairwise.shape == (9, 8, layers, heads, 80)
    assert regulation.shape == (9, config.regulation_layers, config.regulation_heads, 9, 9)
    for place, g in enumerate(index):
        there = genes["contacts"][g]
        outputs, (looked, looks, shares) = PLAIN["network"](state, config, genes, g)
        np.testing.assert_allclose(outputs, GOLDEN["classification/outputs"][g], atol=1e-5)
        np.testing.assert_allclose(embedding[place], looked, atol=1e-5)
        own = genes["promoter_valid"][0][g]
        np.testing.assert_allclose(embedding[place][:, own].sum(-1), 1, rtol=1e-5)
        if there:
            expected = np.reshape(looks, (there, layers, heads, 80))
            np.testing.assert_allclose(pairwise[place, :there], expected, atol=1e-5)
            within = pairwise[place, :there] * genes["region_valid"][0][g, :there, None, None]
            np.testing.assert_allclose(within.sum(-1), 1, rtol=1e-5)
        part = regulation[place, ..., : there + 1, : there + 1]
        np.testing.assert_allclose(part, np.stack(shares), atol=1e-5)
        np.testing.assert_allclose(part.sum(-1), 1, rtol=1e-5)
        assert not regulation[place, ..., there + 1 :].any()
        assert not regulation[place, ..., there + 1 :, :].any()


@pytest.fixture
def package():
    """PyTorch and the published package, which `make parity` installs."""
    pytest.importorskip("chromoformer")
    return pytest.importorskip("torch")


@pytest.mark.peers
@pytest.mark.parametrize("title", CONFIGS)
def test_every_gradient_equals_the_package(package, title):
    outputs, loss, expected = MAKER["reference"](MAKER["CONFIGS"][title], "float32")
    np.testing.assert_allclose(outputs, GOLDEN[f"{title}/outputs"], rtol=0, atol=1e-6)
    for layout in ("dense", "dealt"):
        found_loss, found, gradient = gradients(title, layout)
        np.testing.assert_allclose(found, outputs, rtol=0, atol=1e-5)
        np.testing.assert_allclose(found_loss, loss, rtol=1e-5)
        assert expected.keys() == {name for name in gradient if is_used(name)}
        for name, array in expected.items():
            most = 1e-4 * abs(array).max()
            np.testing.assert_allclose(gradient[name], array, rtol=0, atol=most, err_msg=name)


def on_device(config, genes):
    """The drawn genes as a dataset would give them to a run."""
    there = np.arange(config.contacts) < genes["contacts"][:, None]
    region = np.where(there, np.arange(there.size).reshape(there.shape), -1)
    signal, begin, bins = [], [], []
    for x, valid in zip(genes["region"], genes["region_valid"], strict=True):
        length = x.shape[-1]
        signal.append(jnp.asarray(np.moveaxis(x, 2, 0).reshape(config.assays, -1)))
        begin.append(jnp.arange(there.size) * length)
        bins.append(jnp.asarray(valid.sum(-1).reshape(-1)))
    tracks = RegionTrack(
        promoter=tuple(jnp.asarray(np.moveaxis(x, 1, 0)) for x in genes["promoter"]),
        regions=tuple(signal),
    )
    cell = CellRegions(
        own=tuple(jnp.asarray(valid[:2]) for valid in genes["promoter_valid"]),
        minus=jnp.zeros(len(there), bool),
        begin=tuple(begin),
        bins=tuple(bins),
        region=jnp.asarray(region, jnp.int32),
        score=jnp.asarray(genes["score"]),
    )
    return RegionSignal(tracks, cell)


@pytest.mark.peers
def test_training_steps_equal_torch_adamw(package):
    """Three steps of a population's training loop, batches dealt by contacts."""
    title = "five_marks"
    config, fields = CONFIGS[title], MAKER["CONFIGS"][title]
    params, genes = golden_model(title)
    plan = batches.BatchPlan.of(3, config.contacts, [genes["contacts"]], balanced=True)
    training = ChromoformerConfig.TRAINING["decay"] | {"batch_size": 3, "learning_rate": 1e-3}
    trainer = Trainer(config, TrainConfig(plateau=None, early_stop=None, **training), (plan, plan))
    every = jnp.ones(9, bool)
    key = jnp.asarray([1, 2], jnp.uint32)
    target = jnp.asarray(genes["target"], jnp.float32)
    run = RunInputs(target, every, every, key, key)
    state = dataclasses.replace(
        trainer.init(key), params=params, best_params=params, optimiser=trainer.adam.init(params)
    )
    epoch = jax.jit(trainer.train_epoch, compiler_options=QUICK)
    trained, record = epoch(state, run, on_device(config, genes))

    with MAKER["without_gpu"]():
        net = MAKER["network"](fields)
        MAKER["load_drawn"](net)
        adamw = package.optim.AdamW(net.parameters(), lr=1e-3)
        shuffle = jax.random.fold_in(jax.random.wrap_key_data(key), 0)
        order = plan.order(every, shuffle, jnp.asarray(genes["contacts"]))
        losses_seen = []
        for step in range(3):
            index, taken = plan.batch(jnp.int32(step), order, jnp.int32(9))
            chosen = np.asarray(index)[np.asarray(taken)]
            adamw.zero_grad()
            outputs = net(*MAKER["arguments"](fields, genes, chosen))
            loss = MAKER["loss_of"](fields, outputs, genes, chosen)
            loss.backward()
            adamw.step()
            losses_seen.append(loss.item())
    np.testing.assert_allclose(record.train_loss, np.mean(losses_seen), rtol=1e-5)
    found = to_torch(config, trained.params)
    before = published(config)
    for name, parameter in net.named_parameters():
        if is_used(name):
            expected = parameter.detach().numpy()
            # Steps are 1e-3 long; Adam blows up rounding where a gradient is next to nothing.
            differ = abs(found[name] - expected)
            assert np.mean(differ > 2e-6) < 0.01, (name, differ.max())
            assert abs(expected - before[name]).max() > 1e-3, name
