"""Models, and what is done to elements: flags of the programs that silence them."""

import dataclasses
import pathlib
from collections.abc import Sequence

from absl import flags

from epi2expr_jax.perturb.elements import FLANK_BP, REPRESSIVE, Silencing, models_of, silencing_of
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.loading import load
from epi2expr_jax.store.window_store import WindowStore

FLAGS = flags.FLAGS
# Of the flags below, those that say what is predicted.
NAMES = ("store", "cell", "assays", "marks", "spared", "flank_bp", "single_marks")


@dataclasses.dataclass(frozen=True)
class SilencingModels:
    """Models of one cell and assay set, the store they read, and what is done to elements."""

    ensemble: Ensemble
    store: WindowStore
    silencing: Silencing


def silencing_models(
    run_dir: pathlib.Path,
    *,
    store: str | None = None,
    cell: str = "",
    assays: str = "",
    marks: str = "",
    spared: Sequence[str] = REPRESSIVE,
    flank_bp: int = FLANK_BP,
    apart: bool = False,
) -> SilencingModels:
    """The models of a run that silence elements.

    Raises:
        InputError: as `elements.models_of` and `elements.silencing_of`.
    """
    ensemble = models_of(load(run_dir, store), cell, assays)
    silencing = silencing_of(ensemble, marks, spared, flank_bp, apart)
    return SilencingModels(ensemble, ensemble.open_store(store), silencing)


def silencer_of_flags() -> SilencingModels:
    return silencing_models(
        pathlib.Path(FLAGS.run),
        store=FLAGS.store,
        cell=FLAGS.cell,
        assays=FLAGS.assays,
        marks=FLAGS.marks,
        spared=FLAGS.spared,
        flank_bp=FLAGS.flank_bp,
        apart=FLAGS.single_marks,
    )


def define_silencing() -> None:
    flags.DEFINE_string("cell", "", "Whose models predict, where the run has several cells.")
    flags.DEFINE_string(
        "assays",
        "",
        "Which models: their assays joined by +, or all. Default: those that read the most.",
    )
    flags.DEFINE_string(
        "marks", "", "What is silenced, joined by +. Default: all that is read but --spared."
    )
    flags.DEFINE_list("spared", list(REPRESSIVE), "Repressive marks, which stay as they are.")
    flags.DEFINE_integer("flank_bp", FLANK_BP, "How far on either side of an element.", 0)
    flags.DEFINE_boolean("single_marks", False, "Also silence each mark by itself.")
