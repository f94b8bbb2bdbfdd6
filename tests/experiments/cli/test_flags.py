"""Command lines become requests; what makes no sense is refused by the name of its flag."""

import dataclasses
import sys
import types

import pytest
from absl import flags

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.dataset import InputConfig
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.config import WindowModelConfig
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training.one_run import TrainConfig
from epi2expr_jax.training.schedules import EarlyStopConfig, PlateauConfig
from epi2expr_jax.training.targets import LABEL
from experiments.cli.flags import (
    command_line,
    define_field,
    define_training,
    described_fields,
    request_of_flags,
    require,
)
from experiments.cli.shares import define_machine


@pytest.fixture
def given(parse_flags):
    """`given("--model=cnn", ...)`: a command line of experiments.train."""
    return lambda *arguments: parse_flags((define_training, define_machine), *arguments)


@pytest.fixture
def request_of(given):
    def request(*arguments):
        given("--store=data/some.zarr", "--run=run", *arguments)
        return request_of_flags()

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
        "--cv=monte_carlo_5", "--split_seed=3", "--target=minmax", "--seeds=4",
        "--train_share=0.5", "--transform=log1p", "--orientation=genomic", "--normalise=depth",
        "--epochs=7", "--batch_size=32", "--learning_rate=0.01", "--weight_decay=0.1",
        "--plateau_factor=0.5", "--plateau_patience=2", "--early_stop_patience=5",
        "--precision=tf32", "--masked", "--noretry",
    )  # fmt: skip
    assert request == TrainRequest(
        store="data/some.zarr",
        model="promoter_cnn",
        model_options={"width": 0.5, "window_bp": 6000, "bin_bp": 50},
        cells=["E003", "E004+E005"],
        assays=["each", "all"],
        folds=["fold1", "fold2"],
        cv="monte_carlo_5",
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
            retry=False,
            precision="tf32",
            masked=True,
        ),
    )


def test_chromoformer_has_options_of_its_own(request_of):
    request = request_of("--model=chromoformer", "--resolutions=2000,500", "--contacts=3")
    options = {"width": 1.0, "task": "regression", "resolutions": [2000, 500], "contacts": 3}
    assert request.model_options == options
    assert request_of("--model=chromoformer", "--no_pcre").model_options["contacts"] == 0
    dealt = ("--model=chromoformer", "--nobalance_contacts", "--lr_decay=0.5")
    assert not request_of(*dealt).train_config.balanced
    assert request_of(*dealt).train_config.decay == 0.5


def test_a_class_is_predicted_from_labels(request_of):
    request = request_of("--task=classification")
    assert request.target == LABEL
    assert request.train_config.task == "classification"


@pytest.mark.parametrize(
    ("others", "without_effect"),
    [
        ([], ["--resolutions=2000", "--contacts=3", "--no_pcre", "--shuffle_regions"]),
        ([], ["--resolutions=fine"]),  # no number either: said once
        (["--model=promoter_cnn"], ["--nobalance_contacts"]),
        (["--model=chromoformer"], ["--model_bin_bp=50"]),
        (["--model=chromoformer", "--no_pcre"], ["--contacts=8", "--nobalance_contacts"]),
        (["--model=chromoformer", "--contacts=0"], ["--shuffle_regions"]),
        (["--model=chromoformer", "--contacts=0"], ["--balance_contacts"]),
        (["--model=chromoformer", "--train_share=0.5"], ["--balance_contacts"]),
        (
            ["--schedule=decay"],
            ["--plateau_factor=0.5", "--plateau_patience=2", "--early_stop_patience=12"],
        ),
        (["--model=chromoformer"], ["--early_stop_patience=12"]),
        ([], ["--lr_decay=0.87"]),
        (["--model=chromoformer", "--schedule=plateau"], ["--lr_decay=0.9"]),
        (["--cv=chromoformer_4"], ["--blind=chr1", "--split_seed=1"]),
        (["--cv=chromosomes_5"], ["--blind=chr1", "--split_seed=0"]),
        (["--task=classification"], ["--target=log2"]),
    ],
)
def test_a_flag_without_effect_is_refused_if_it_is_given(request_of, others, without_effect):
    request_of(*others)
    names = [text.partition("=")[0].replace("--nob", "--b") for text in without_effect]
    refused(lambda: request_of(*others, *without_effect), *names)


def test_bins_are_numbers(request_of):
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
        request_of_flags()
    assert [problem.found for problem in caught.value.problems] == ["no --store", "no --run"]
    given("--store=some.zarr")
    assert request_of_flags(needs_run=False).store == "some.zarr"
    with pytest.raises(InputError, match="no --run"):
        require("run", "store")


def test_help_tells_what_may_be_asked_for(given):
    given()
    text = flags.FLAGS.get_help()
    for word in ("leave_one_out", "pairs", "--assays=each,all", "H3K27ac+DNase", "--[no]masked",
                 "chromoformer_4", "--cv=chromosomes_5", "monte_carlo_5", "--masked"):  # fmt: skip
        assert word in text


# Flags that are named after no field of their own, or have a default that depends on the model.
NOT_FIELDS = {"run", "store", "schedule", "no_pcre", "resolutions"}
RENAMED = {
    "from": (TrainRequest, "start_from"),
    "lr_decay": (TrainConfig, "decay"),
    "plateau_factor": (PlateauConfig, "factor"),
    "plateau_patience": (PlateauConfig, "patience"),
    "early_stop_patience": (EarlyStopConfig, "patience"),
    "balance_contacts": (TrainConfig, "balanced"),
}
BY_MODEL = {"epochs", "batch_size", "learning_rate", "weight_decay", "retry"}
BY_MODEL |= {"lr_decay", "model_window_bp", "model_bin_bp"}


def test_defaults_and_help_are_those_of_the_fields(parse_flags):
    """Nothing is written twice: a default that changes in a field changes in its flag."""
    known = set(flags.FLAGS)
    parse_flags([define_training])
    configs = (TrainRequest, TrainConfig, InputConfig, WindowModelConfig, ChromoformerConfig)
    for name in set(flags.FLAGS) - known - NOT_FIELDS:
        flag, (config, field) = flags.FLAGS[name], RENAMED.get(name, (None, name))
        field = field.removeprefix("model_")
        owners = [config] if config else [c for c in configs if field in c.__dataclass_fields__]
        made = owners[0].__dataclass_fields__[field]
        described = described_fields(owners[0])[field]
        assert described
        assert described in flag.help, name
        if name not in {*BY_MODEL, "test_genes", "freeze"}:  # lists
            default = made.default
            if default is dataclasses.MISSING:
                default = made.default_factory()
            assert flag.default == default, name


def test_a_field_becomes_a_flag(parse_flags):
    @dataclasses.dataclass
    class Tea:
        """How tea is made.

        Attributes:
            minutes: how long it stands,
                with a `lid`.
            milk, sugar: whether there is any.
        """

        minutes: float = 3.0
        milk: bool = False
        sugar: bool = True

    define = [lambda: define_field(Tea, "minutes", "steep", "(black)", lower_bound=1)]
    parse_flags([*define, lambda: define_field(Tea, "sugar")], "--steep=4")
    assert (flags.FLAGS.steep, flags.FLAGS["steep"].default, flags.FLAGS.sugar) == (4.0, 3.0, True)
    assert flags.FLAGS["steep"].help == "how long it stands, with a lid. (black)"
    assert flags.FLAGS["sugar"].help == "whether there is any."
    with pytest.raises(flags.IllegalFlagValueError, match="steep"):
        parse_flags(define, "--steep=0.5")


def test_the_command_line_is_what_was_typed(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/somewhere/train.py", "--run=my runs/cnn"])
    main = types.SimpleNamespace(__spec__=types.SimpleNamespace(name="experiments.train"))
    monkeypatch.setitem(sys.modules, "__main__", main)
    assert command_line() == "python -m experiments.train '--run=my runs/cnn'"
    monkeypatch.setattr(main, "__spec__", None)  # of an installed command
    assert command_line() == "train.py '--run=my runs/cnn'"
