"""What the signal of a track measures, and the transform that suits it. Needs no JAX."""

from collections.abc import Mapping
from types import MappingProxyType

# The unit of a track decides its transform: -log10 p and fold change have long tails and may be
# treated alike; depth and counts are read as ln(x + 1), Chromoformer's choice.
UNIT_TRANSFORM: Mapping[str, str] = MappingProxyType(
    {
        "pvalue": "arcsinh",
        "fold_change": "arcsinh",
        "depth": "log1p",
        "counts": "log1p",
        "none": "none",
    }
)


def transform_of(asked: str, unit: str) -> str:
    """The name of a transform: as asked for, or for `auto` that of the unit."""
    return UNIT_TRANSFORM[unit] if asked == "auto" else asked
