"""Every flag of the experiments, once, and the frozen request they become."""

import dataclasses
import os
import sys
from typing import Any

import jax
from absl import flags

from epi2expr_jax.errors import InputError, Problem, collect
from epi2expr_jax.inputs.dataset import NORMALISATIONS, ORIENTATIONS, InputConfig
from epi2expr_jax.inputs.transforms import TRANSFORMS
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.training.losses import LOSSES
from epi2expr_jax.training.one_run import PRECISIONS, TrainConfig
from epi2expr_jax.training.schedules import EarlyStopConfig, PlateauConfig
from epi2expr_jax.training.targets import LABEL, TARGETS
from experiments.cli.progress import TRACKERS
from experiments.cli.shares import Share

FLAGS = flags.FLAGS

SCHEDULES = ("plateau", "decay")


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
    flags.DEFINE_enum("model", "cnn", list(REGISTRY), "Which model.")
    flags.DEFINE_list(
        "cells",
        ["all"],
        "all (a model for each cell), names, pools of cells joined by + (one model trained on all "
        "of them), pool (of all cells), leave_one_out (for each cell a pool of the others): a "
        "comma list of these, such as E003,E004+E005.",
    )
    flags.DEFINE_list(
        "assays",
        ["each"],
        "What a model reads. each: one model an assay; all: one model of all assays; pairs: one of "
        "every two; leave_one_out: one of all but one, for every assay; names; sets joined by +; "
        "or a comma list of these: --assays=each,all, --assays=pairs, "
        "--assays=H3K27ac,H3K27ac+DNase,leave_one_out. With --cells=all, cells that lack a track "
        "are left out, unless an assay is named.",
    )
    flags.DEFINE_boolean(
        "masked",
        False,
        "Masked-mark models: each learns to predict from every subset of its assays, as "
        "experiments.combinations asks of it: --masked --assays=all. They need more epochs.",
    )
    flags.DEFINE_list("folds", ["all"], "all, or a comma list of fold names: --folds=fold1,fold2.")
    flags.DEFINE_string(
        "cv",
        "monte_carlo_5",
        "Which chromosomes are held out. monte_carlo_5: the --blind ones are tested, five draws of "
        "others validate; chromoformer_4: four published groups, halves of which validate and "
        "test, swapped; chromosomes_K: K groups of equal size, each tested once "
        "(--cv=chromosomes_5).",
    )
    flags.DEFINE_list("blind", [], "Blind chromosomes of monte_carlo_5; empty: the store's.")
    flags.DEFINE_integer("split_seed", 0, "Seed of the draws of monte_carlo_5.")
    flags.DEFINE_enum(
        "task", "regression", list(LOSSES), "classification: expressed or not, by the median."
    )
    flags.DEFINE_enum("target", "log2", TARGETS, "minmax: RPKM scaled to 0-1; log2: log2(RPKM+1).")
    flags.DEFINE_integer("seeds", 1, "How many seeds a run is repeated with.", lower_bound=1)
    flags.DEFINE_float(
        "train_share",
        1.0,
        "Share of its fold's training genes that a run trains on, drawn anew for every seed. With "
        "--train_share=0.5 and several seeds, their spread also tells what other genes would have "
        "taught: intervals of altered marks then hold (see experiments.perturb).",
        lower_bound=0.01,
        upper_bound=1.0,
    )
    flags.DEFINE_enum(
        "schedule",
        None,
        SCHEDULES,
        "plateau: slow down, then stop, when validation no longer improves; decay: a fixed number "
        "of epochs, each slower. Default: as published (chromoformer: decay, the others: plateau).",
    )
    published = "Default: as published for the model and schedule."
    flags.DEFINE_integer("epochs", None, f"Most epochs a run may take. {published}", lower_bound=1)
    flags.DEFINE_integer("batch_size", None, f"Genes a step. {published}", lower_bound=1)
    flags.DEFINE_float("learning_rate", None, f"Adam's learning rate. {published}")
    flags.DEFINE_float("weight_decay", None, f"AdamW's weight decay. {published}")
    flags.DEFINE_float("lr_decay", 0.87, "decay: what each epoch multiplies the learning rate by.")
    flags.DEFINE_float("plateau_factor", 0.2, "What a plateau multiplies the learning rate by.")
    flags.DEFINE_integer("plateau_patience", 3, "Epochs without improvement that make a plateau.")
    flags.DEFINE_integer("early_stop_patience", 12, "Epochs without improvement that end a run.")
    flags.DEFINE_float("width", 1.0, "Multiplies every hidden width of the model.")
    flags.DEFINE_integer("model_window_bp", 0, "Window the model reads, in bp; 0: its own.")
    flags.DEFINE_integer("model_bin_bp", 0, "Bin the model reads, in bp; 0: its own.")
    flags.DEFINE_list("resolutions", [], "chromoformer: bins it reads, in bp; empty: 2000,500,100.")
    flags.DEFINE_integer(
        "contacts", 8, "chromoformer: most regions a gene, best first.", lower_bound=0
    )
    flags.DEFINE_boolean("no_pcre", False, "chromoformer: the promoter alone, no contacts.")
    flags.DEFINE_boolean(
        "balance_contacts",
        True,
        "Deal genes into batches by their number of contacts; --nobalance_contacts: any order, "
        "a third slower.",
    )
    flags.DEFINE_enum(
        "transform", "auto", ["auto", *TRANSFORMS], "Of the signal; auto: by the tracks' unit."
    )
    flags.DEFINE_enum(
        "orientation", "strand", ORIENTATIONS, "strand: minus-strand genes are flipped."
    )
    flags.DEFINE_enum(
        "normalise",
        "none",
        NORMALISATIONS,
        "depth: divide every track by its mean over the genes' windows, for models that are used "
        "in other cells than they were trained on.",
    )
    flags.DEFINE_enum(
        "precision",
        "float32",
        list(PRECISIONS),
        "Of matrix products; weights, sums, statistics and losses are float32. tf32 and bfloat16 "
        "are faster on GPU and TPU.",
    )


def define_machine() -> None:
    """Where and how to train, which changes no result."""
    flags.DEFINE_integer("devices", 0, "Use the first so many devices; 0: all.", lower_bound=0)
    flags.DEFINE_integer(
        "runs_at_once",
        0,
        "Runs whose state is on the devices together, the others wait; 0: as many as fit.",
        lower_bound=0,
    )
    flags.DEFINE_float(
        "data_gib",
        0,
        "Signal on each device at a time, in GiB, the rest is streamed from the store; 0: as much "
        "as fits.",
        lower_bound=0,
    )
    flags.DEFINE_integer("checkpoint_every", 1, "Epochs between checkpoints.", lower_bound=1)
    flags.DEFINE_boolean("resume", True, "Go on where an interrupted training stopped.")
    flags.DEFINE_string("share", "0/1", "I/N: train the I-th (from 0) of N parts of the runs.")
    flags.DEFINE_string(
        "distributed", "", "auto (SLURM, TPU pods) or HOST:PORT: processes that share the runs."
    )
    flags.DEFINE_string("process", "", "I/N: this process, for --distributed=HOST:PORT.")
    flags.DEFINE_list("track", [], f"Also show losses in: {', '.join(TRACKERS)}.")


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where and how a training runs, which changes no result; see the flags of these names."""

    devices: int = 0
    runs_at_once: int = 0
    data_limit: int | None = None
    checkpoint_every: int = 1
    track: tuple[str, ...] = ()
    share: Share = Share()
    distributed: str = ""
    process: Share | None = None

    @classmethod
    def from_flags(cls) -> "Machine":
        """From the command line.

        Raises:
            InputError: naming every flag that makes no sense.
        """
        problems: list[Problem] = []
        unknown = [name for name in FLAGS.track if name not in TRACKERS]
        if unknown:
            problems.append(
                Problem("--track", ", ".join(unknown), " or ".join(TRACKERS), "correct it")
            )
        by_hand = FLAGS.distributed not in ("", "auto")
        if by_hand != bool(FLAGS.process):
            problems.append(
                Problem(
                    "--process",
                    FLAGS.process or "nothing",
                    "I/N with --distributed=HOST:PORT, nothing otherwise",
                    "give both or neither",
                )
            )
        shares: dict[str, Share] = {}
        for name in ("share", "process"):
            with collect(problems):
                shares[name] = _share(name, FLAGS[name].value or "0/1")
        if FLAGS.distributed and shares.get("share", Share()).count > 1:
            problems.append(
                Problem("--share", FLAGS.share, "no --distributed beside it", "give one of them")
            )
        if problems:
            raise InputError.of(problems)
        return cls(
            devices=FLAGS.devices,
            runs_at_once=FLAGS.runs_at_once,
            data_limit=int(FLAGS.data_gib * 2**30) or None,
            checkpoint_every=FLAGS.checkpoint_every,
            track=tuple(FLAGS.track),
            share=shares["share"],
            distributed=FLAGS.distributed,
            process=shares["process"] if by_hand else None,
        )

    def join(self) -> Share:
        """Meet the other processes, if there are any; which share of the runs is this one's."""
        cache_compiled_programs()
        if not self.distributed:
            return self.share
        if self.process is None:
            jax.distributed.initialize()
        else:
            jax.distributed.initialize(self.distributed, self.process.count, self.process.index)
        return Share(jax.process_index(), jax.process_count())


def _share(flag: str, text: str) -> Share:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise InputError(
            f"--{flag}", repr(text), "I/N with I from 0 to N-1, such as 0/4", "correct it"
        )
    return Share(int(index), int(count))


def cache_compiled_programs() -> None:
    """Keep compiled programs for the next start, in a folder of the user's own.

    Who can write there can run code, so nobody else may. JAX's own variable goes first.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(home, "epi2expr_jax", "programs")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)
    except OSError as error:
        print(f"note: compiled programs are not kept ({error})", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", folder)


@dataclasses.dataclass(frozen=True)
class TrainRequest:
    """Everything that decides what `experiments.train` computes: its flags, with their defaults."""

    store: str
    model: str = "cnn"
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    cells: list[str] = dataclasses.field(default_factory=lambda: ["all"])
    assays: list[str] = dataclasses.field(default_factory=lambda: ["each"])
    folds: list[str] = dataclasses.field(default_factory=lambda: ["all"])
    cv: str = "monte_carlo_5"
    blind: list[str] = dataclasses.field(default_factory=list)
    split_seed: int = 0
    target: str = "log2"
    seeds: int = 1
    train_share: float = 1.0
    input_config: InputConfig = InputConfig()
    train_config: TrainConfig = TrainConfig()

    @classmethod
    def from_flags(cls, *, needs_run: bool = True) -> "TrainRequest":
        """From the command line.

        Raises:
            InputError: if --store or --run is missing, or a number makes no sense.
        """
        require("store", *(["run"] if needs_run else []))
        return cls(
            store=FLAGS.store,
            model=FLAGS.model,
            model_options=_model_options(),
            cells=FLAGS.cells,
            assays=FLAGS.assays,
            folds=FLAGS.folds,
            cv=FLAGS.cv,
            blind=FLAGS.blind,
            split_seed=FLAGS.split_seed,
            target=LABEL if FLAGS.task == "classification" else FLAGS.target,
            seeds=FLAGS.seeds,
            train_share=FLAGS.train_share,
            input_config=InputConfig(FLAGS.transform, FLAGS.orientation, FLAGS.normalise),
            train_config=_train_config(),
        )

    def as_json(self) -> dict[str, Any]:
        """As the run card keeps it, and compares it on resuming."""
        fields = dataclasses.asdict(self)
        # A store is known by its checksum, not by where it lies today.
        return {**fields, "store": os.path.basename(os.path.normpath(self.store))}


def _model_options() -> dict[str, Any]:
    """The fields of the model's configuration that the flags set.

    Raises:
        InputError: naming every flag that the model does not have.
    """
    options = {"width": FLAGS.width, "window_bp": FLAGS.model_window_bp}
    if FLAGS.model == "chromoformer":
        options["task"] = FLAGS.task
        options["resolutions"] = [int(text) for text in FLAGS.resolutions if _is_number(text)]
        foreign = ["model_bin_bp"]
    else:
        options["bin_bp"] = FLAGS.model_bin_bp
        foreign = ["resolutions", "contacts", "no_pcre"]
    problems = [
        Problem(f"--{name}", f"{FLAGS[name].value}", f"no such flag for {FLAGS.model}", "omit it")
        for name in foreign
        if FLAGS[name].value != FLAGS[name].default
    ]
    problems += [
        Problem("--resolutions", repr(text), "bins in bp, such as 2000,500,100", "correct it")
        for text in FLAGS.resolutions
        if not _is_number(text)
    ]
    if problems:
        raise InputError.of(problems)
    given = {name: value for name, value in options.items() if value}
    if FLAGS.model == "chromoformer":
        given["contacts"] = 0 if FLAGS.no_pcre else FLAGS.contacts
    return given


def _is_number(text: str) -> bool:
    return text.strip().isdecimal()


def _train_config() -> TrainConfig:
    """The published training of the model, with what the flags change."""
    published = REGISTRY[FLAGS.model].TRAINING
    schedule = FLAGS.schedule or next(iter(published))
    fields = dict(published.get(schedule) or next(iter(published.values())))
    fields |= {
        name: FLAGS[name].value
        for name in ("epochs", "batch_size", "learning_rate", "weight_decay")
        if FLAGS[name].value is not None
    }
    if schedule == "decay":
        fields |= {"decay": FLAGS.lr_decay, "plateau": None, "early_stop": None}
    else:
        fields |= {
            "plateau": PlateauConfig(FLAGS.plateau_factor, FLAGS.plateau_patience),
            "early_stop": EarlyStopConfig(FLAGS.early_stop_patience),
        }
    return TrainConfig(
        task=FLAGS.task,
        balanced=FLAGS.balance_contacts,
        precision=FLAGS.precision,
        masked=FLAGS.masked,
        **fields,
    )


def require(*names: str) -> None:
    """Refuse a command line that lacks one of these flags."""
    missing = [name for name in names if not getattr(FLAGS, name)]
    if missing:
        raise InputError.of(
            Problem("command line", f"no --{name}", "a value", "see --help for an example")
            for name in missing
        )
