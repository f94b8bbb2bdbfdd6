"""Every flag of the experiments, once, and the frozen request they become."""

import dataclasses
import os
from typing import Any

from absl import flags

from epi2expr_jax.dataset import ORIENTATIONS, TARGETS, InputConfig
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.schedules import EarlyStopConfig, PlateauConfig
from epi2expr_jax.signal import TRANSFORMS
from epi2expr_jax.training import TrainConfig

FLAGS = flags.FLAGS


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
    flags.DEFINE_list("cells", ["all"], "all, or a comma list of cells.")
    flags.DEFINE_list(
        "assays",
        ["each"],
        "each (one model an assay), all (one model of all assays), names, or sets joined by +; "
        "a comma list of these: each,H3K27ac+DNase",
    )
    flags.DEFINE_list("folds", ["all"], "all, or a comma list of fold names.")
    flags.DEFINE_string("cv", "monte_carlo_5", "monte_carlo_5, chromoformer_4 or chromosomes_K.")
    flags.DEFINE_list("blind", [], "Blind chromosomes of monte_carlo_5; empty: the store's.")
    flags.DEFINE_integer("split_seed", 0, "Seed of the draws of monte_carlo_5.")
    flags.DEFINE_enum("target", "log2", TARGETS, "minmax: RPKM scaled to 0-1; log2: log2(RPKM+1).")
    flags.DEFINE_integer("seeds", 1, "How many seeds a run is repeated with.", lower_bound=1)
    flags.DEFINE_integer("epochs", 100, "Most epochs a run may take.", lower_bound=1)
    flags.DEFINE_integer("batch_size", 0, "Genes a step; 0: the model's published one.")
    flags.DEFINE_float("learning_rate", 1e-3, "Adam's learning rate.")
    flags.DEFINE_float("plateau_factor", 0.2, "What a plateau multiplies the learning rate by.")
    flags.DEFINE_integer("plateau_patience", 3, "Epochs without improvement that make a plateau.")
    flags.DEFINE_integer("early_stop_patience", 12, "Epochs without improvement that end a run.")
    flags.DEFINE_float("width", 1.0, "Multiplies every hidden width of the model.")
    flags.DEFINE_integer("model_window_bp", 0, "Window the model reads, in bp; 0: its own.")
    flags.DEFINE_integer("model_bin_bp", 0, "Bin the model reads, in bp; 0: its own.")
    flags.DEFINE_enum(
        "transform", "auto", ["auto", *TRANSFORMS], "Of the signal; auto: by the tracks' unit."
    )
    flags.DEFINE_enum(
        "orientation", "strand", ORIENTATIONS, "strand: minus-strand genes are flipped."
    )
    flags.DEFINE_integer("runs_at_once", 256, "Runs whose state is in memory together.")
    flags.DEFINE_integer("checkpoint_every", 1, "Epochs between checkpoints.", lower_bound=1)
    flags.DEFINE_boolean("resume", True, "Go on where an interrupted training stopped.")


@dataclasses.dataclass(frozen=True)
class TrainRequest:
    """Everything that decides what `experiments.train` computes."""

    store: str
    model: str
    model_options: dict[str, Any]
    cells: list[str]
    assays: list[str]
    folds: list[str]
    cv: str
    blind: list[str]
    split_seed: int
    target: str
    seeds: int
    input_config: InputConfig
    train_config: TrainConfig

    @classmethod
    def from_flags(cls) -> "TrainRequest":
        """From the command line.

        Raises:
            InputError: if --store or --run is missing, or a number makes no sense.
        """
        require("store", "run")
        options = {
            "width": FLAGS.width,
            "window_bp": FLAGS.model_window_bp,
            "bin_bp": FLAGS.model_bin_bp,
        }
        return cls(
            store=FLAGS.store,
            model=FLAGS.model,
            model_options={name: value for name, value in options.items() if value},
            cells=FLAGS.cells,
            assays=FLAGS.assays,
            folds=FLAGS.folds,
            cv=FLAGS.cv,
            blind=FLAGS.blind,
            split_seed=FLAGS.split_seed,
            target=FLAGS.target,
            seeds=FLAGS.seeds,
            input_config=InputConfig(FLAGS.transform, FLAGS.orientation),
            train_config=TrainConfig(
                epochs=FLAGS.epochs,
                batch_size=FLAGS.batch_size or REGISTRY[FLAGS.model].DEFAULT_BATCH,
                learning_rate=FLAGS.learning_rate,
                plateau=PlateauConfig(FLAGS.plateau_factor, FLAGS.plateau_patience),
                early_stop=EarlyStopConfig(FLAGS.early_stop_patience),
            ),
        )

    def as_json(self) -> dict[str, Any]:
        """As the run card keeps it, and compares it on resuming."""
        fields = dataclasses.asdict(self)
        # A store is known by its checksum, not by where it lies today.
        return {**fields, "store": os.path.basename(os.path.normpath(self.store))}


def require(*names: str) -> None:
    """Refuse a command line that lacks one of these flags."""
    missing = [name for name in names if not getattr(FLAGS, name)]
    if missing:
        raise InputError(
            Problem("command line", f"no --{name}", "a value", "see --help for an example")
            for name in missing
        )
