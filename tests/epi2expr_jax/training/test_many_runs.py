import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax.errors import OutOfMemory
from epi2expr_jax.inputs.dataset import load_dataset
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.training import many_runs as population_module
from epi2expr_jax.training.lanes import Lanes, epoch, packed, unpacked
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import TrainConfig, Trainer
from epi2expr_jax.training.runs import (
    FINISHED,
    NEVER_IMPROVED,
    QUARANTINED,
    RUNNING,
    STOPPED,
    Log,
    Run,
    plan_runs,
)
from epi2expr_jax.training.schedules import EarlyStopConfig
from epi2expr_jax.training.splits import make_folds
from experiments.benchmarks import made_up

CONFIG = TrainConfig(epochs=4, batch_size=32)
EARLY = TrainConfig(
    epochs=40, batch_size=32, learning_rate=0.003, early_stop=EarlyStopConfig(patience=2)
)
MODEL = REGISTRY["promoter_cnn"](assays=1, width=0.02)


@pytest.fixture(scope="module")
def study(small_store):
    """60 runs over 2 cells, 3 assays, 5 folds and 2 seeds, on one small dataset."""
    cells, assays = small_store.manifest.cells, small_store.manifest.assays
    data = load_dataset(small_store, MODEL, cells, assays)
    folds = make_folds("chromosomes_5", small_store.genes.chrom.value_counts().to_dict())
    runs = [
        Run(cell, (assay,), fold.name, seed)
        for cell in cells
        for assay in assays
        for fold in folds
        for seed in range(2)
    ]
    return data, folds, runs, TrackCache(data)


@pytest.fixture(scope="module")
def trainer():
    return Trainer(MODEL, CONFIG)


@pytest.fixture(scope="module")
def early_trainer():
    return Trainer(MODEL, EARLY)


def make(study, trainer, runs, width=1, poisoned=(), **options):
    """A population; the `poisoned` rows of it have targets that no loss survives."""
    data, folds, _, cache = study
    inputs, _ = plan_runs(data, runs, folds, "log2")
    for i in poisoned:
        inputs.target[i] = np.inf
    lanes = Lanes(width, tuple(jax.local_devices()[:1]))
    return Population(trainer, runs, inputs, options.pop("cache", cache), lanes, **options)


def trained(population):
    """Trained to its end: the best weights and the log of every run, by run."""
    while population.alive:
        population.train_epoch()
    members, weights = population.take_ended()
    return {
        population.runs[i]: (
            [np.asarray(leaf[row]) for leaf in jax.tree.leaves(weights)],
            population.logs[i],
        )
        for row, i in enumerate(members)
    }


def assert_same(a, b):
    """Weights and logs, bit for bit."""
    for x, y in zip(a[0], b[0], strict=True):
        np.testing.assert_array_equal(x, y)
    for name, value in dataclasses.asdict(a[1]).items():
        np.testing.assert_array_equal(value, getattr(b[1], name), err_msg=name)


@pytest.mark.parametrize(("width", "sizes"), [(1, (8, 60)), (4, (8,))])
def test_a_run_is_the_same_bit_for_bit_in_any_company(study, trainer, width, sizes):
    """Alone and among others, at another place each time; idle lanes are company too."""
    wanted = study[2][17]
    others = [run for run in study[2] if run != wanted]
    alone = trained(make(study, trainer, [wanted], width))[wanted]
    for size in sizes:
        place = 2 * size // 3
        runs = [*others[:place], wanted, *others[place : size - 1]]
        assert len(runs) == size
        among = trained(make(study, trainer, runs, width))
        assert len(among) == size
        assert_same(alone, among[wanted])


def test_members_differ(study, trainer):
    """Two seeds share nothing but their data; two assays share their order of genes."""
    found = trained(make(study, trainer, study[2][:6]))
    weights = [np.concatenate([leaf.ravel() for leaf in leaves]) for leaves, _ in found.values()]
    assert len(np.unique(weights, axis=0)) == 6


@pytest.mark.parametrize("width", [1, 4])
def test_one_program_serves_any_population(study, trainer, width):
    """Across epochs, sizes, assays and cells: nothing is compiled after the first epoch."""
    compiled = []

    def note(event, _, **__):
        if event == "/jax/core/compile/backend_compile_duration":
            compiled.append(event)

    population = make(study, trainer, study[2][:4], width)
    population.train_epoch()
    jax.monitoring.register_event_duration_secs_listener(note)
    try:
        for _ in range(3):
            population.train_epoch()
        make(study, trainer, study[2][5:17], width).train_epoch()
        make(study, trainer, study[2][40:41], width).train_epoch()
        assert not compiled
        jax.jit(lambda x: x + width)(1.0)  # which would have been seen
        assert compiled
    finally:
        jax.monitoring.unregister_event_duration_listener(note)


def test_training_lowers_the_loss_and_keeps_the_best_weights(study, early_trainer):
    data, folds, every, _ = study
    runs = every[3:5]
    population = make(study, early_trainer, runs, 2)
    while population.alive:
        population.train_epoch()
    _, weights = population.take_ended()
    inputs, _ = plan_runs(data, runs, folds, "log2")
    validation_loss = jax.jit(early_trainer._validation_loss)
    for i, log in enumerate(population.logs):
        assert log.train_loss[-1] < log.train_loss[0]
        # The best weights are those of the epoch with the lowest validation loss.
        one, own = (
            jax.tree.map(lambda x, i=i: jnp.asarray(x[i]), tree) for tree in (inputs, weights)
        )
        signal = data.signal(runs[i].cell, runs[i].assays)
        loss = validation_loss(own["params"], own["stats"], one, signal)
        np.testing.assert_allclose(loss, min(log.validation_loss), rtol=1e-5)
        assert log.best == min(log.validation_loss)


def test_a_run_whose_loss_is_not_finite_is_quarantined_by_name(study, trainer):
    """It leaves after its first epoch, its first step named; the others end as without it."""
    runs = study[2]
    chosen = [runs[0], runs[10], runs[20]]  # three assays of one cell
    population = make(study, trainer, chosen, poisoned=[1])
    found = trained(population)
    assert [log.status for log in population.logs] == [FINISHED, QUARANTINED, FINISHED]
    assert population.logs[1].status_name == "quarantined"
    assert (population.logs[1].epochs, population.logs[1].bad_step) == (1, 0)
    assert population.logs[0].bad_step == -1
    clean = trained(make(study, trainer, chosen))
    for run in (runs[0], runs[20]):
        assert_same(found[run], clean[run])


def test_the_step_that_broke_a_run_is_known(study, trainer):
    """One gene's target is lost: the run breaks in the step that reads the gene."""
    data, folds, runs, cache = study
    inputs, _ = plan_runs(data, runs[:1], folds, "log2")
    order_key = jax.random.wrap_key_data(inputs.order_key[0], impl="threefry2x32")
    order = trainer.plan.order(jnp.asarray(inputs.train[0]), jax.random.fold_in(order_key, 0), None)
    gene = int(order[2 * CONFIG.batch_size + 5])
    inputs.target[0, gene] = np.nan
    population = Population(
        trainer, runs[:1], inputs, cache, Lanes(1, tuple(jax.local_devices()[:1]))
    )
    population.train_epoch()
    assert population.logs[0].bad_step == 2


def test_early_stopping_ends_runs_one_by_one(study, early_trainer):
    population = make(study, early_trainer, study[2][:4], 2)
    trained(population)
    stopped = [log for log in population.logs if log.status == STOPPED]
    assert stopped
    for log in stopped:
        # Two epochs without improvement after the best.
        assert np.argmin(log.validation_loss) == log.epochs - 3


def test_a_run_whose_first_epoch_was_its_best_never_improved():
    for losses, name in (([0.5, 0.6, 0.7], "never improved"), ([0.5, 0.4, 0.7], "stopped early")):
        assert Log(losses, losses, [0.1] * 3, STOPPED).status_name == name
    assert Log([0.5], [0.5], [0.1], FINISHED).status_name == "finished"
    for losses, name in (  # a second attempt, after two epochs
        ([0.5, 0.6, 0.6, 0.7], "never improved"),
        ([0.5, 0.6, 0.4, 0.7], "never improved"),
        ([0.5, 0.6, 0.6, 0.4], "stopped early"),
    ):
        assert Log(losses, losses, [0.1] * 4, STOPPED, restarted=2).status_name == name
    assert Log([1.0] * 5, [1.0] * 5, [0.1] * 5, FINISHED, restarted=2).short_of(4)


@pytest.mark.parametrize("width", [1, 4])
def test_a_run_that_never_improved_trains_once_more(study, width):
    """The others are left alone; killed in the second attempt, it goes on to the same end."""
    once = dataclasses.replace(EARLY, learning_rate=0.1, epochs=8)  # too fast to learn
    runs = study[2][:8]
    first = trained(make(study, Trainer(MODEL, once), runs, width))
    flat = [run for run in runs if first[run][1].status_name == NEVER_IMPROVED]
    assert 0 < len(flat) < len(runs)

    trainer = Trainer(MODEL, dataclasses.replace(once, retry=True))
    found = trained(make(study, trainer, runs, width))
    for run in runs:
        if run not in flat:
            assert_same(found[run], first[run])
            continue
        weights, log = found[run]
        before = first[run][1]
        assert log.restarted == before.epochs
        assert log.validation_loss[: log.restarted] == before.validation_loss
        second = log.validation_loss[log.restarted :]
        assert second != before.validation_loss[: len(second)]  # other weights
        assert log.best == min(before.best, *second)
        if min(second) > before.best:  # the first attempt's weights stay
            for mine, theirs in zip(weights, first[run][0], strict=True):
                np.testing.assert_array_equal(mine, theirs)
            assert len(second) == EARLY.early_stop.patience

    half = make(study, trainer, flat, width)
    while not all(log.restarted and log.epochs > log.restarted for log in half.logs):
        half.train_epoch()
    saved = {
        i: jax.tree.map(lambda x, row=row: x[row], states)
        for members, states in half.states(range(len(flat)))
        for row, i in enumerate(members)
    }
    assert saved
    population = make(study, trainer, flat, width, saved=(saved, copy.deepcopy(half.logs)))
    for run, resumed in trained(population).items():
        assert_same(resumed, found[run])


def test_runs_that_end_leave_and_waiting_ones_take_their_lanes(study, early_trainer):
    """Two chunks of two lanes for ten runs: always full while runs wait, and the same results."""
    runs = study[2][:10]
    population = make(study, early_trainer, runs, 2, at_once=4)
    lanes_used, begun = [], []
    while population.alive:
        population.train_epoch()
        lanes_used.append(population.chunks)
        begun.append(sum(log.epochs > 0 for log in population.logs))
    assert max(lanes_used) == 2
    assert begun[0] == 4
    assert lanes_used[-1] == 0
    # Fewer chunks once two lanes hold all that live.
    assert 1 in lanes_used
    members, _ = population.take_ended()
    assert members == list(range(10))
    whole = trained(make(study, early_trainer, runs, 2))
    for i, run in enumerate(runs):
        assert population.logs[i] == whole[run][1]


def test_a_snapshot_goes_on_where_it_was_taken(study, trainer):
    """In the middle of an epoch, too, and with another number of lanes' neighbours."""
    runs = study[2][:5]
    whole = trained(make(study, trainer, runs))
    half = make(study, trainer, runs)
    half.train_epoch()
    steps = half.advance()
    next(steps)  # some runs are an epoch ahead
    steps.close()
    saved = {
        i: jax.tree.map(lambda x, row=row: x[row], states)
        for members, states in half.states(range(5))
        for row, i in enumerate(members)
    }
    assert sorted(saved) == list(range(5))
    assert len({half.logs[i].epochs for i in saved}) == 2
    resumed = make(study, trainer, runs, saved=(saved, copy.deepcopy(half.logs)))
    for run, found in trained(resumed).items():
        assert_same(found, whole[run])


def test_what_has_ended_is_handed_over_once(study, trainer):
    population = make(study, trainer, study[2][:5], 4)
    assert population.take_ended() == ([], None)
    found = trained(population)
    assert len(found) == 5
    assert population.take_ended() == ([], None)
    assert list(population.states(range(5))) == []


def test_streamed_and_resident_are_the_same(study, trainer):
    """With room for few tracks at a time."""
    data, _, runs, cache = study
    small = TrackCache(data, limit=6 * cache.track_bytes)
    found = trained(make(study, trainer, runs[:40], cache=small))
    assert small.streams((run.cell, run.assays[0]) for run in runs[:40])
    resident = trained(make(study, trainer, runs[:40]))
    for run in runs[:40]:
        assert_same(found[run], resident[run])


def test_too_little_memory_is_told_apart(study, trainer, monkeypatch):
    class Full:
        def lower(self, *_):
            return self

        def compile(self):
            return self

        def __call__(self, *_):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating")

    population = make(study, trainer, study[2][:2])
    monkeypatch.setattr(population_module, "epoch", Full())
    with pytest.raises(OutOfMemory, match="allocating"):
        population.train_epoch()


def test_logs_begin_empty():
    log = Log()
    assert (log.epochs, log.best, log.status) == (0, None, RUNNING)


def test_states_packed_and_made_on_the_device_are_those_of_one_run(study, trainer):
    """Bit for bit those of `init` and `train_epoch`, which take and give them as trees."""
    population = make(study, trainer, study[2][:1])
    population._fill()
    (chunk,), lanes = population._chunks, population.lanes
    assert len(jax.tree.leaves(chunk.state)) == 4  # each costs the host some time at every call
    tree = trainer.init(population.inputs.model_key)
    for one, other in zip(*map(jax.tree.leaves, (chunk.state, packed(trainer, tree))), strict=True):
        np.testing.assert_array_equal(one, other)
    tracks = lanes.tracks(population.cache, population.runs)
    expected, record = jax.jit(functools.partial(lanes.map, trainer.train_epoch))(
        (tree, population.inputs), tracks
    )
    state, losses, statuses = epoch(trainer, lanes, chunk.state, chunk.inputs, tracks)
    found = unpacked(trainer, jax.device_get(state))
    for one, other in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(one, other)
    wanted = record.train_loss, record.validation_loss, record.learning_rate
    np.testing.assert_array_equal(losses, np.stack(wanted, axis=1))
    np.testing.assert_array_equal(statuses, np.stack([record.bad_step, expected.status], axis=1))


def test_weights_of_many_runs_are_drawn_by_one_call_and_are_those_of_each_alone(monkeypatch):
    config = REGISTRY["promoter_cnn"](assays=1, width=0.02)
    trainer = made_up.window_trainer(config, 16)
    draw, drawn = trainer.weights, []
    monkeypatch.setattr(trainer, "weights", lambda keys: drawn.append(len(keys)) or draw(keys))
    cache = TrackCache(made_up.OneTrack(40, config.window.bins))
    lanes = Lanes(1, tuple(jax.local_devices()[:1]))
    monkeypatch.setattr(population_module, "_DRAWS", 5)
    runs = made_up.population(trainer, cache, 40, 30, 5, lanes)
    runs._fill()
    assert (drawn, runs.chunks) == ([5], 5)
    for (i,), state in runs.states(range(5)):
        alone = trainer.init(runs.inputs.model_key[[i]])
        for one, other in zip(jax.tree.leaves(state), jax.tree.leaves(alone), strict=True):
            np.testing.assert_array_equal(one, other)


def test_the_programs_that_make_chunks_are_compiled_before_training(study, trainer):
    """With the first chunk, which is made once."""
    population = make(study, trainer, study[2][:3])
    population.compile()
    (chunk,) = population._chunks
    assert (chunk.members, population.chunks, population.alive) == ([0], 3, 3)
    population.compile()
    assert population._chunks == [chunk]
    population.train_epoch()
    assert [log.epochs for log in population.logs] == [1, 1, 1]
