"""What signal and expression measure, the transform that suits a track; shares in percent.

Needs no JAX.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import SupportsFloat, SupportsInt

# The unit of a track decides its transform: -log10 p and fold change have long tails and may be
# treated alike; depth and counts are read as ln(x + 1), Chromoformer's choice. The last are of
# deepTools: coverage scaled by its sequencing depth is read like depth, a log2 ratio as it is.
UNIT_TRANSFORM: Mapping[str, str] = MappingProxyType(
    {
        "pvalue": "arcsinh",
        "fold_change": "arcsinh",
        "depth": "log1p",
        "counts": "log1p",
        "none": "none",
        **dict.fromkeys(("cpm", "rpgc", "bpm", "rpkm"), "log1p"),
        "log2_ratio": "none",
    }
)


def transform_of(asked: str, unit: str) -> str:
    """The name of a transform: as asked for, or for `auto` that of the unit."""
    return UNIT_TRANSFORM[unit] if asked == "auto" else asked


# `none`: any other, which pages call "expression".
EXPRESSION_UNITS = ("RPKM", "FPKM", "TPM", "CPM", "none")
DEFAULT_UNIT = "RPKM"  # of stores and runs from before they said it


def unit_words(unit: str) -> str:
    """A unit of expression in words: itself, or "expression" where none is known."""
    return unit if unit in EXPRESSION_UNITS[:-1] else "expression"


PROBABILITY = "probability of being expressed"  # what models of labels predict, in words
_MOST_DIGITS = 20  # of a share in percent


def log2_of(unit: str) -> str:
    """What models of the default target predict, in words: log2(RPKM + 1)."""
    return f"log2({unit_words(unit)} + 1)"


def count(n: SupportsInt, noun: str) -> str:
    """So many of something: 1 gene, 1,200 genes."""
    return f"{int(n):,} {noun}{'' if int(n) == 1 else 's'}"


def percent(share: SupportsFloat, digits: int = 0) -> str:
    """A share between 0 and 1 in percent; with more digits rather than as a whole, or as nothing,
    where it is neither: 99.9%, 0.02%, 1e-298%."""
    share = float(share)
    text = f"{share:.{digits}%}"
    while 0 < share < 1 and float(text[:-1]) in (0, 100):
        if digits == _MOST_DIGITS:
            return f"{100 * share:.1g}%"
        digits += 1
        text = f"{share:.{digits}%}"
    return text
