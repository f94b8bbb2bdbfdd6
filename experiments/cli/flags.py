"""The flags that say what to train, made from the fields they set, and the request they become."""

import dataclasses
import inspect
import pathlib
import re
import shlex
import sys
import typing
from collections.abc import Iterable, Iterator
from typing import Any

from absl import flags

from epi2expr_jax.errors import collect
from epi2expr_jax.inputs.dataset import NORMALISATIONS, ORIENTATIONS, InputConfig
from epi2expr_jax.inputs.transforms import TRANSFORMS
from epi2expr_jax.models import REGISTRY, ChromoformerConfig
from epi2expr_jax.models.config import WindowModelConfig
from epi2expr_jax.program import require
from epi2expr_jax.study.request import DECAY, SCHEDULES, TrainRequest, default_schedule, published
from epi2expr_jax.training.one_run import PRECISIONS, TrainConfig
from epi2expr_jax.training.schedules import EarlyStopConfig, PlateauConfig
from epi2expr_jax.training.targets import LABEL, LOSSES, TARGETS
from experiments.cli.genes import names_in

FLAGS = flags.FLAGS

_OF_THE_FIELD: Any = object()
_DEFINE = {bool: flags.DEFINE_boolean, int: flags.DEFINE_integer, float: flags.DEFINE_float}


# Fields of `TrainRequest` that are flags of the same name.
_SAME = ("store", "model", "cells", "assays", "folds", "cv", "blind", "split_seed", "gene_groups",
         "target", "seeds", "train_share")  # fmt: skip
# Fields of `TrainConfig` whose default depends on the model and the schedule, and lower bounds.
_PUBLISHED = {"epochs": 1, "batch_size": 1, "learning_rate": None, "weight_decay": None}


def define_field(
    config: type,
    name: str,
    flag: str = "",
    more: str = "",
    *,
    default: Any = _OF_THE_FIELD,
    choices: Iterable[str] = (),
    **bounds: float | None,
) -> None:
    """Define a flag for a field of a dataclass, with its type, default and description.

    Args:
        flag: its name; by default that of the field.
        more: said after the description.
        default: where it is not that of the field.
        choices: what a text may be.
        bounds: `lower_bound` and `upper_bound` of a number.
    """
    (field,) = (field for field in dataclasses.fields(config) if field.name == name)
    if default is _OF_THE_FIELD:
        made = field.default_factory
        default = field.default if made is dataclasses.MISSING else made()
    text = f"{described_fields(config)[name]} {more}".strip()
    flag, kind = flag or name, typing.get_type_hints(config)[name]
    if choices:
        flags.DEFINE_enum(flag, default, list(choices), text)
    elif kind in _DEFINE:
        _DEFINE[kind](flag, default, text, **bounds)
    else:
        text_alone = kind is str or isinstance(default, str)
        define = flags.DEFINE_string if text_alone else flags.DEFINE_list
        define(flag, default, text)


def described_fields(config: type) -> dict[str, str]:
    """What the docstring of a class, or of one it inherits from, says of its attributes."""
    found = {}
    for base in reversed(config.__mro__):
        _, _, listed = inspect.cleandoc(base.__doc__ or "").partition("\nAttributes:\n")
        for entry in re.split(r"\n(?=    \w)", "\n" + listed.split("\n\n")[0]):
            names, _, text = entry.partition(": ")
            plain = " ".join(text.replace("`", "").split())
            found |= dict.fromkeys(names.strip().split(", "), plain)
    return found


def define_run() -> None:
    """`--run`, which every program has."""
    flags.DEFINE_string("run", None, "Run directory.")


def define_store() -> None:
    """`--store`, for programs that read one."""
    flags.DEFINE_string("store", None, "Window store to read, made by data_prep.build_store.")


def define_training() -> None:
    """What to train, on what, and how."""
    define_run()
    define_store()
    examples = {
        "assays": "--assays=each,all, --assays=H3K27ac,H3K27ac+DNase,pairs.",
        "cv": "--cv=chromosomes_5.",
    }
    limits = {
        "model": {"choices": REGISTRY},
        "target": {"choices": TARGETS},
        "split_seed": {"lower_bound": 0},
        "seeds": {"lower_bound": 1},
        "train_share": {"lower_bound": 0.01, "upper_bound": 1.0},
    }
    for name in _SAME[1:]:
        define_field(TrainRequest, name, more=examples.get(name, ""), **limits.get(name, {}))
    define_field(TrainRequest, "start_from", "from")
    define_field(TrainConfig, "freeze", more="--freeze=resolutions.0,head.", default=[])
    define_field(TrainRequest, "test_genes", more="A comma list, or a file.", default="")
    define_field(TrainConfig, "masked", more="--masked --assays=all.")
    define_field(TrainConfig, "task", choices=LOSSES)
    flags.DEFINE_enum(
        "schedule",
        None,
        SCHEDULES,
        "plateau: slow down, then stop, when validation stops improving; decay: a fixed number "
        "of epochs, each slower. Default: as published (chromoformer: decay, the others: plateau).",
    )
    as_published = "Default: as published for the model and schedule."
    for name, least in _PUBLISHED.items():
        define_field(TrainConfig, name, more=as_published, default=None, lower_bound=least)
    define_field(TrainConfig, "retry", more="Default: of promoter_cnn alone.", default=None)
    define_field(TrainConfig, "decay", "lr_decay", "(--schedule=decay)", default=DECAY)
    plateau = "(--schedule=plateau)"
    define_field(PlateauConfig, "factor", "plateau_factor", plateau)
    define_field(PlateauConfig, "patience", "plateau_patience", plateau)
    define_field(EarlyStopConfig, "patience", "early_stop_patience", plateau)
    define_field(WindowModelConfig, "width")
    for name in ("window_bp", "bin_bp"):
        usual = "0: as published (promoter_cnn: as the store, up to 20 kb)."
        define_field(WindowModelConfig, name, f"model_{name}", usual, default=0)
    define_field(
        ChromoformerConfig, "resolutions", more="Empty: 2000,500,100 (chromoformer).", default=[]
    )
    define_field(ChromoformerConfig, "contacts", more="(chromoformer)", lower_bound=0)
    flags.DEFINE_boolean("no_pcre", False, "Read only the promoter, no contacts (chromoformer).")
    define_field(
        TrainConfig,
        "balanced",
        "balance_contacts",
        "--nobalance_contacts: any order, a third slower (chromoformer).",
    )
    define_field(InputConfig, "transform", choices=["auto", *TRANSFORMS])
    define_field(InputConfig, "orientation", choices=ORIENTATIONS)
    define_field(InputConfig, "normalise", choices=NORMALISATIONS)
    define_field(InputConfig, "shuffle_regions", more="(chromoformer)")
    define_field(TrainConfig, "precision", choices=PRECISIONS)


def request_of_flags(*, needs_run: bool = True) -> TrainRequest:
    """What the command line asks to train.

    Raises:
        InputError: if --store or --run is missing, for flags without effect, or if a number makes
            no sense.
    """
    require("store", *(["run"] if needs_run else []))
    schedule = FLAGS.schedule or default_schedule(FLAGS.model)
    with collect() as problems:
        with problems.part():
            refuse_without_effect(_without_effect(schedule))
        for text in FLAGS.resolutions if FLAGS.model == ChromoformerConfig.NAME else ():
            if not text.strip().isdecimal():
                expected = "bins in bp, such as 2000,500,100"
                problems.add("--resolutions", repr(text), expected, "correct it")
    same: dict[str, Any] = {name: FLAGS[name].value for name in _SAME}
    same["start_from"] = FLAGS["from"].value
    if FLAGS.test_genes:
        same["test_genes"] = names_in(FLAGS.test_genes, "--test_genes")
    if FLAGS.task == "classification":
        same["target"] = LABEL
    return TrainRequest(
        **same,
        model_options=_model_options(),
        input_config=InputConfig(
            FLAGS.transform, FLAGS.orientation, FLAGS.normalise, FLAGS.shuffle_regions
        ),
        train_config=_train_config(schedule),
    )


def _without_effect(schedule: str) -> Iterator[tuple[str, str]]:
    """The flags that have no effect with the others given, and why."""
    if FLAGS.model != ChromoformerConfig.NAME:
        for name in ("resolutions", "contacts", "no_pcre", "balance_contacts", "shuffle_regions"):
            yield name, f"with --model={FLAGS.model}"
    else:
        yield "model_bin_bp", f"with --model={FLAGS.model}"
        if FLAGS.no_pcre:
            yield "contacts", "with --no_pcre"
        if FLAGS.no_pcre or not FLAGS.contacts:
            yield "shuffle_regions", "without contacts"
        if FLAGS.no_pcre or not FLAGS.contacts:
            yield "balance_contacts", "without contacts"
        elif FLAGS.train_share != 1:
            yield "balance_contacts", "with --train_share"
    if schedule == "decay":
        for name in ("plateau_factor", "plateau_patience", "early_stop_patience", "retry"):
            yield name, "with the schedule decay"
    else:
        yield "lr_decay", "with the schedule plateau"
        if FLAGS["from"].value:
            yield "retry", "with --from"
    if FLAGS.cv == "chromoformer_4" or FLAGS.cv.startswith("chromosomes_"):
        for name in ("blind", "split_seed"):
            yield name, f"with --cv={FLAGS.cv}"
    if FLAGS.task == "classification":
        yield "target", "with --task=classification"


def _model_options() -> dict[str, Any]:
    """The fields of the configuration of the model that the flags set."""
    options = {"width": FLAGS.width, "window_bp": FLAGS.model_window_bp}
    if FLAGS.model != ChromoformerConfig.NAME:
        options["bin_bp"] = FLAGS.model_bin_bp
        return {name: value for name, value in options.items() if value or name == "width"}
    options |= {"task": FLAGS.task, "resolutions": [int(text) for text in FLAGS.resolutions]}
    given = {name: value for name, value in options.items() if value or name == "width"}
    return {**given, "contacts": 0 if FLAGS.no_pcre else FLAGS.contacts}


def _train_config(schedule: str) -> TrainConfig:
    """The published training of the model, with what the flags change."""
    changes = {name: FLAGS[name].value for name in _PUBLISHED if FLAGS[name].value is not None}
    if FLAGS.retry is not None:
        changes["retry"] = FLAGS.retry
    if schedule == "decay":
        changes["decay"] = FLAGS.lr_decay
    else:
        changes["plateau"] = PlateauConfig(FLAGS.plateau_factor, FLAGS.plateau_patience)
        changes["early_stop"] = EarlyStopConfig(FLAGS.early_stop_patience)
    return published(
        FLAGS.model,
        schedule,
        task=FLAGS.task,
        balanced=FLAGS.balance_contacts,
        precision=FLAGS.precision,
        masked=FLAGS.masked,
        freeze=tuple(FLAGS.freeze),
        **changes,
    )


def refuse_without_effect(flags_and_why: Iterable[tuple[str, str]]) -> None:
    """Refuse a command line that has one of these flags, each of which would change nothing."""
    with collect() as problems:
        for name, why in flags_and_why:
            if FLAGS[name].present:
                found = f"{FLAGS[name].serialize()}, which has no effect {why}"
                problems.add(f"--{name}", found, "flags that have an effect", "omit it")


def command_line() -> str:
    """What was typed to start this program."""
    program = sys.modules["__main__"].__spec__
    name = ["python", "-m", program.name] if program else [pathlib.Path(sys.argv[0]).name]
    return shlex.join([*name, *sys.argv[1:]])
