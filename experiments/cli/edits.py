"""What --where, --edits and --factors name: places, and what is done to signal there."""

import itertools
import pathlib
import re
from collections.abc import Sequence

import pandas as pd

from data_prep.formats.bed import read_bed
from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError, collect, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.pools import PLUS
from epi2expr_jax.perturb.edits import Edit, parse
from epi2expr_jax.perturb.places import PRESETS, Place
from epi2expr_jax.store.window_store import WindowStore

FACTORS = tuple(round(0.1 * i, 1) for i in range(11))
_INTERVAL = re.compile(r"([^:]+):([\d,]+)-([\d,]+)")


def named_edits(
    assay: str, places: Sequence[Place], space: str, kinds: Sequence[str], factors: Sequence[float]
) -> list[tuple[Edit, ...]]:
    """Every kind of edit at every place; `scale` without a factor by each of `factors`.

    Args:
        assay: the mark; marks joined by + are altered together.

    Raises:
        InputError: naming every text that does not name an edit.
    """
    edits: list[tuple[Edit, ...]] = []
    with collect() as problems:
        for text in kinds:
            if not text.strip():
                problems.add("--edits", "an empty edit", "a name such as scale", "leave it out")
                continue
            written = [f"scale:{float(f)!r}" for f in factors] if text == "scale" else [text]
            for place, one in itertools.product(places, written):
                with problems.part():
                    edits.append(
                        tuple(parse(one, mark, place, space) for mark in assay.split(PLUS))
                    )
    return list(dict.fromkeys(edits))


def to_number(text: str, flag: str) -> float:
    """The number that a flag's text is.

    Raises:
        InputError: if it is not a number.
    """
    try:
        return float(text)
    except ValueError:
        raise InputError(flag, text.strip() or "nothing", "a number", "such as 0.5") from None


def named_places(
    texts: Sequence[str], store: WindowStore, window_bp: int
) -> tuple[list[Place], str]:
    """What --where names, and the space that it is edited in.

    Raises:
        InputError: naming everything that is not a place, or of a chromosome without genes.
    """
    places: list[Place] = []
    spaces = {PRESETS[text].space if text in PRESETS else "raw" for text in texts}
    with collect() as problems:
        if len(spaces) != 1:
            found = "the original's presets and others" if spaces else "nothing"
            problems.add("--where", found, "one kind", "run them apart" if spaces else "name some")
        for text in texts:
            if not text.strip():
                problems.add("--where", "an empty place", "a name, or an interval", "leave it out")
                continue
            with problems.part():
                places += _places(text, store, window_bp)
    return list(dict.fromkeys(places)), spaces.pop()


def _places(text: str, store: WindowStore, window_bp: int) -> Sequence[Place]:
    if text in PRESETS:
        return PRESETS[text].places(store, window_bp)
    if found := _INTERVAL.fullmatch(text):
        chrom, *ends = found.groups()
        start, end = (int(end.replace(",", "")) for end in ends)
        length = store.manifest.chrom_sizes.get(chrom, end)
        if end > length:
            raise InputError(
                text, "an end beyond the chromosome", f"at most {length:,}", "correct it"
            )
        table = pd.DataFrame({"chrom": [chrom], "start": [start], "end": [end]})
    elif pathlib.Path(text).exists():
        table = read_bed(text, store.manifest.chrom_sizes)
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
