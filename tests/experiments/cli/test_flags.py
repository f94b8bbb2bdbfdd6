"""Command lines become requests; what makes no sense is refused by the name of its flag."""

import pathlib
import stat

import jax
import pytest
from absl import flags

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.dataset import InputConfig
from epi2expr_jax.training.one_run import TrainConfig
from epi2expr_jax.training.schedules import EarlyStopConfig, PlateauConfig
from epi2expr_jax.training.targets import LABEL
from experiments.cli.flags import (
    Machine,
    TrainRequest,
    cache_compiled_programs,
    define_machine,
    define_training,
    require,
)
from experiments.cli.shares import Share


@pytest.fixture
def given(parse_flags):
    """`given("--model=cnn", ...)`: a command line of experiments.train."""
    return lambda *arguments: parse_flags((define_training, define_machine), *arguments)


@pytest.fixture
def request_of(given):
    def request(*arguments):
        given("--store=data/some.zarr", "--run=run", *arguments)
        return TrainRequest.from_flags()

    return request


def refused(make, *names):
    """These flags are named, and no others."""
    with pytest.raises(InputError) as caught:
        make()
    assert [problem.where for problem in caught.value.problems] == list(names)


def test_without_flags_training_is_as_published(request_of):
    request = request_of()
    assert request == TrainRequest("data/some.zarr", model_options={"width": 1.0})
    assert request.train_config.batch_size == 128
    decay = request_of("--model=chromoformer").train_config
    assert (decay.epochs, decay.learning_rate, decay.decay) == (10, 3e-5, 0.87)
    assert decay.plateau is decay.early_stop is None


def test_a_request_is_what_its_flags_say(request_of):
    request = request_of(
        "--model=promoter_cnn", "--width=0.5", "--model_window_bp=6000", "--model_bin_bp=50",
        "--cells=E003,E004+E005", "--assays=each,all", "--folds=fold1,fold2", "--blind=chr1,chr2",
        "--cv=chromosomes_5", "--split_seed=3", "--target=minmax", "--seeds=4",
        "--train_share=0.5", "--transform=log1p", "--orientation=genomic", "--normalise=depth",
        "--epochs=7", "--batch_size=32", "--learning_rate=0.01", "--weight_decay=0.1",
        "--plateau_factor=0.5", "--plateau_patience=2", "--early_stop_patience=5",
        "--nobalance_contacts", "--precision=tf32", "--masked",
    )  # fmt: skip
    assert request == TrainRequest(
        store="data/some.zarr",
        model="promoter_cnn",
        model_options={"width": 0.5, "window_bp": 6000, "bin_bp": 50},
        cells=["E003", "E004+E005"],
        assays=["each", "all"],
        folds=["fold1", "fold2"],
        cv="chromosomes_5",
        blind=["chr1", "chr2"],
        split_seed=3,
        target="minmax",
        seeds=4,
        train_share=0.5,
        input_config=InputConfig("log1p", "genomic", "depth"),
        train_config=TrainConfig(
            epochs=7,
            batch_size=32,
            learning_rate=0.01,
            weight_decay=0.1,
            plateau=PlateauConfig(0.5, 2),
            early_stop=EarlyStopConfig(5),
            balanced=False,
            precision="tf32",
            masked=True,
        ),
    )


def test_chromoformer_has_options_of_its_own(request_of):
    request = request_of("--model=chromoformer", "--resolutions=2000,500", "--contacts=3")
    options = {"width": 1.0, "task": "regression", "resolutions": [2000, 500], "contacts": 3}
    assert request.model_options == options
    assert request_of("--model=chromoformer", "--no_pcre").model_options["contacts"] == 0


def test_a_class_is_predicted_from_labels(request_of):
    request = request_of("--task=classification")
    assert request.target == LABEL
    assert request.train_config.task == "classification"


def test_flags_of_another_model_are_refused(request_of):
    refused(
        lambda: request_of("--model=cnn", "--contacts=3", "--resolutions=2000", "--no_pcre"),
        "--resolutions", "--contacts", "--no_pcre",
    )  # fmt: skip
    refused(lambda: request_of("--model=chromoformer", "--model_bin_bp=50"), "--model_bin_bp")
    refused(lambda: request_of("--model=chromoformer", "--resolutions=2000,5x"), "--resolutions")


@pytest.mark.parametrize(
    "wrong", ["--model=cnnn", "--seeds=0", "--train_share=1.5", "--epochs=0", "--transform=square"]
)
def test_values_out_of_range_are_refused(given, wrong):
    with pytest.raises(flags.IllegalFlagValueError, match=wrong.partition("=")[0]):
        given(wrong)


def test_what_a_program_cannot_do_without_is_named(given):
    given()
    with pytest.raises(InputError) as caught:
        TrainRequest.from_flags()
    assert [problem.found for problem in caught.value.problems] == ["no --store", "no --run"]
    given("--store=some.zarr")
    assert TrainRequest.from_flags(needs_run=False).store == "some.zarr"
    with pytest.raises(InputError, match="no --run"):
        require("run", "store")


def test_a_card_keeps_the_stores_name_alone():
    moved = TrainRequest("elsewhere/some.zarr/").as_json()
    assert moved == TrainRequest("data/some.zarr").as_json()
    assert moved["store"] == "some.zarr"


def test_a_machine_is_what_its_flags_say(given):
    given()
    assert Machine.from_flags() == Machine()
    given(
        "--devices=2", "--runs_at_once=5", "--data_gib=0.5", "--checkpoint_every=3",
        "--track=tensorboard", "--share=1/4",
    )  # fmt: skip
    assert Machine.from_flags() == Machine(2, 5, 2**29, 3, ("tensorboard",), Share(1, 4))
    given("--distributed=host:1234", "--process=1/2")
    assert Machine.from_flags() == Machine(distributed="host:1234", process=Share(1, 2))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--share=4/4"], ["--share"]),
        (["--share=half"], ["--share"]),
        (["--process=0/2"], ["--process"]),
        (["--distributed=host:1234"], ["--process"]),
        (["--distributed=auto", "--share=0/2"], ["--share"]),
        (["--track=paper", "--share=-1/2"], ["--track", "--share"]),
    ],
)
def test_machines_that_make_no_sense_are_refused(given, arguments, named):
    given(*arguments)
    refused(Machine.from_flags, *named)


def test_a_process_that_joins_others_gets_its_share(monkeypatch):
    met = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *place: met.append(place))
    assert Machine(share=Share(1, 4)).join() == Share(1, 4)
    assert met == []
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert Machine(distributed="host:1234", process=Share(1, 2)).join() == Share(1, 2)
    assert Machine(distributed="auto").join() == Share(1, 2)
    assert met == [("host:1234", 2, 1), ()]


def test_compiled_programs_are_kept_where_nobody_else_may_write(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: kept.append((name, value)))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "already/chosen")
    cache_compiled_programs()
    assert kept == []
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_compiled_programs()
    ((name, folder),) = kept
    assert name == "jax_compilation_cache_dir"
    assert pathlib.Path(folder).is_relative_to(tmp_path)
    assert stat.S_IMODE(pathlib.Path(folder).stat().st_mode) == 0o700


def test_help_tells_what_may_be_asked_for(given):
    given()
    text = flags.FLAGS.get_help()
    for word in ("leave_one_out", "pairs", "--assays=each,all", "H3K27ac+DNase", "--[no]masked",
                 "chromoformer_4", "--cv=chromosomes_5", "monte_carlo_5", "--masked"):  # fmt: skip
        assert word in text
