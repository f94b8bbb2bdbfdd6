"""What --where, --edits and --factors name: places, and what is done to signal there."""

import pathlib
import re
from collections.abc import Sequence

import pandas as pd

from data_prep.formats.bed import read_bed
from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError, Problem, collect, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.perturb.edits import Edit
from epi2expr_jax.perturb.places import Place
from epi2expr_jax.store.window_store import WindowStore

PRESETS = ("promoter", "distal", "pcre", "original_promoter", "original_distal")
KINDS = ("scale", "remove_peak", "set:LEVEL", "shift:BP", "swap:ASSAY", "swap:@CELL",
         "swap:ASSAY@CELL")  # fmt: skip
FACTORS = tuple(round(0.1 * i, 1) for i in range(11))
_INTERVAL = re.compile(r"([^:]+):([\d,]+)-([\d,]+)")


def named_edits(
    assay: str, places: Sequence[Place], space: str, kinds: Sequence[str], factors: Sequence[float]
) -> list[Edit]:
    """Every kind of edit at every place; `scale` by every factor.

    Raises:
        InputError: naming every kind or number that makes no sense.
    """
    edits: list[Edit] = []
    problems: list[Problem] = []
    for text in kinds:
        for place in places:
            with collect(problems):
                edits += _edits(text, assay, place, space, factors)
    if problems:
        raise InputError.of(list(dict.fromkeys(problems)))
    return edits


def _edits(
    text: str, assay: str, place: Place, space: str, factors: Sequence[float]
) -> Sequence[Edit]:
    kind, _, rest = text.partition(":")
    if text == "scale":
        return [perturb.scale(assay, place, factor, space) for factor in factors]
    if text == "remove_peak":
        return [perturb.remove_peak(assay, place, space)]
    if kind == "swap" and rest:
        other, _, cell = rest.partition("@")
        return [perturb.swap_with(assay, place, other=other, cell=cell, space=space)]
    if kind == "set":
        return [perturb.set_to(assay, place, to_number(rest, "--edits=set"), space)]
    if kind == "shift":
        return [perturb.shift(assay, place, round(to_number(rest, "--edits=shift")), space)]
    raise InputError("--edits", text, ", ".join(KINDS), nearest([kind], KINDS) or "choose some")


def to_number(text: str, flag: str) -> float:
    """The number that a flag's text is.

    Raises:
        InputError: if it is none.
    """
    try:
        return float(text)
    except ValueError:
        raise InputError(flag, text or "nothing", "a number", "such as 0.5") from None


def named_places(
    texts: Sequence[str], store: WindowStore, window_bp: int
) -> tuple[list[Place], str]:
    """What --where names, and the space that it is edited in.

    Raises:
        InputError: naming everything that is no place, or of a chromosome without genes.
    """
    places: list[Place] = []
    problems: list[Problem] = []
    spaces = {"log" if text.startswith("original_") else "raw" for text in texts}
    if len(spaces) > 1:
        problems.append(
            Problem("--where", "the original's presets and others", "one kind", "run them apart")
        )
    for text in texts:
        with collect(problems):
            places += _places(text, store, window_bp)
    if problems:
        raise InputError.of(problems)
    return places, spaces.pop()


def _places(text: str, store: WindowStore, window_bp: int) -> Sequence[Place]:
    if text == "promoter":
        return [perturb.promoter()]
    if text == "distal":
        bins = perturb.distal_bins(window_bp=window_bp)
        if not bins:
            raise InputError(
                "--where=distal",
                f"models that read {window_bp:,} bp, all of it promoter",
                "a window wider than the 6 kb of the promoter and a 2 kb bin on either side",
                "train with --model_window_bp=40000 from a store as wide",
            )
        return bins
    if text == "pcre":
        most = max(
            (len(part) and int(part["rank"].max()) + 1)
            for part in (store.regions(cell).contacts for cell in store.manifest.contacts)
        )
        return [perturb.pcre(rank) for rank in range(most)]
    if text == "original_promoter":
        return [perturb.original_promoter()]
    if text == "original_distal":
        return perturb.original_distal()
    if found := _INTERVAL.fullmatch(text):
        chrom, *ends = found.groups()
        table = pd.DataFrame([[chrom, *(int(end.replace(",", "")) for end in ends)]])
        table.columns = pd.Index(["chrom", "start", "end"])
    elif pathlib.Path(text).exists():
        table = read_bed(text, store.manifest.chrom_sizes)
        if not (table["name"] != "").all():
            table = table.drop(columns="name")
    else:
        raise InputError(
            "--where",
            text,
            f"{', '.join(PRESETS)}, chr:start-end, or a BED file",
            nearest([text], PRESETS) or "is the file there?",
        )
    strange = sorted(set(table["chrom"]) - set(store.genes.chrom))
    if len(strange) == table["chrom"].nunique():
        raise InputError(
            text,
            f"intervals on {listing(strange)} alone",
            f"chromosomes of the store's genes ({listing(store.genes.chrom.unique())})",
            f"give intervals of {store.manifest.assembly}, spelled as there",
        )
    return perturb.intervals(table.loc[~table["chrom"].isin(strange)])
