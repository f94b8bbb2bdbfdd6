"""Models that silence elements, with their flags; elements lifted to another assembly."""

import dataclasses
import pathlib
from collections.abc import Sequence

import pandas as pd
from absl import flags
from pyliftover import LiftOver

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import opened
from epi2expr_jax.genome import match_chromosomes
from epi2expr_jax.perturb.elements import FLANK_BP, REPRESSIVE, Silencing, models_of, silencing_of
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.loading import load
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.units import count

FLAGS = flags.FLAGS
# Of the flags of `define_silencing`, those that say what is predicted.
NAMES = ("store", "cell", "assays", "marks", "spared", "flank_bp", "single_marks")

MOST_CHANGE = 0.1  # of an element's width, on the way to another assembly


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
    flags.DEFINE_integer(
        "flank_bp", FLANK_BP, "Bases on either side of an element that are silenced with it.", 0
    )
    flags.DEFINE_boolean("single_marks", False, "Also silence each mark by itself.")


def lift(path: pathlib.Path, elements: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """Elements on the other assembly, and in words how many are not there.

    Args:
        path: such as hg38ToHg19.over.chain.gz, packed or not.
        elements: columns chrom, start, end (bp, 0-based, half-open) of the assembly it starts from.

    Returns:
        The same rows with the places of the other assembly, only those whose first and last base
        both have one, on one chromosome and strand and about as far apart as before; and counts of
        those that are unmapped (a base has no place) and split (the rest).

    Raises:
        InputError: if the file cannot be read or is no chain file, or if no element has a place.
    """
    with opened(path, "a chain file") as file:
        try:
            chains = LiftOver(file)
        except Exception as error:  # the library raises nothing narrower for what is no chain
            found = str(error).splitlines()[0]
            raise InputError(str(path), found, "a chain file", "download it again") from None
    names = match_chromosomes(elements["chrom"].unique(), chains.chain_file.chain_index)
    rows, unmapped, split = [], 0, 0
    for row, chrom, start, end in elements[["chrom", "start", "end"]].itertuples():
        ends = [chains.convert_coordinate(names.get(chrom), at) or [] for at in (start, end - 1)]
        best = [found[0] for found in ends if found]
        if len(best) < 2:
            unmapped += 1
            continue
        (on, first, strand, _), (also, last, same, _) = best
        first, last = min(first, last), max(first, last) + 1
        width = end - start
        if (on, strand) != (also, same) or abs(last - first - width) > MOST_CHANGE * width:
            split += 1
        else:
            rows.append((row, on, first, last))
    if not rows:
        found = f"no place for any of {count(len(elements), 'element')}"
        remedy = "take the chain from the elements' assembly to that of the store"
        raise InputError(str(path), found, "a chain from the elements' assembly", remedy)
    index, chroms, starts, ends = map(list, zip(*rows, strict=True))
    of, left = count(len(elements), "element"), f"{unmapped:,} without a place, {split:,} split"
    said = f"{len(rows):,} of {of} lifted; left out: {left}"
    return elements.loc[index].assign(chrom=chroms, start=starts, end=ends), said


def lift_distinct(path: pathlib.Path, places: pd.DataFrame) -> tuple[pd.DataFrame, str]:
    """As `lift`, where many rows have the same place: each is lifted, and counted, once.

    Args:
        places: columns chrom, start, end and no others.
    """
    found, said = lift(path, places.drop_duplicates(ignore_index=True))
    number = places.groupby(list(places), sort=False).ngroup()  # of each distinct element
    return found.reindex(number).set_axis(places.index).dropna(), said


def define_chain() -> None:
    flags.DEFINE_string(
        "chain", "", "Chain file of UCSC from the elements' assembly to that of the run's tracks."
    )
