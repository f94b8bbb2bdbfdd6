"""What may be said of an element and a gene without a trained model.

Nothing here is fitted: the exponent is published. `N` pairs.
"""

import re
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import numbers
from epi2expr_jax.names import known_names

NEAREST_BP = 1000  # distances are at least this in a power
# How contact falls with distance in Hi-C of K562; Fulco et al. 2019, as in the ABC model's code.
GAMMA = 1.024
DISTANCE = "distance"

_SIGNAL = re.compile(r"^(.+?)\.RPM(\..+)?$")


def signal_columns(table: pd.DataFrame) -> dict[str, str]:
    """The columns of reads per million in the element, by the mark they count; where a mark has
    several, the one of the shortest name by the mark, the others by their own names."""
    found: dict[str, str] = {}
    for name in sorted(map(str, table), key=len):
        if match := _SIGNAL.match(name):
            found[match[1] if match[1] not in found else name] = name
    order = list(map(str, table))
    return dict(sorted(found.items(), key=lambda item: order.index(item[1])))


def rivals(
    table: pd.DataFrame,
    *,
    activity: Sequence[str] = (),
    contact: str = "",
    others: Sequence[str] = (),
    gamma: float = GAMMA,
) -> tuple[dict[str, Float[np.ndarray, " N"]], list[str]]:
    """Scores `[N]` of every pair by name, larger where the gene is thought to depend on it more.

    Args:
        table: of `Pairs`.
        activity: columns whose geometric mean is the activity of an element; H3K27ac and DNase
            where the table has them.
        contact: a column that says how often element and gene touch.
        others: columns that are scores themselves.
        gamma: exponent of distance in "activity × distance". That is not the ABC score, which
            divides by the sum over all elements of the gene, its promoter among them.

    Returns:
        The scores, and what was filled in, in sentences: a value that is missing counts as the
        lowest of its column.

    Raises:
        InputError: for columns the table lacks, or that are not numbers.
    """
    notes: list[str] = []
    if not (np.isfinite(gamma) and gamma >= 0):
        raise InputError("--gamma", f"{gamma}", "0 or more, finite", "correct it")
    marks = signal_columns(table)
    if not activity:
        wanted = (("H3K27ac",), ("DHS", "DNase"))
        activity = [marks[name] for names in wanted for name in names if name in marks]
    given = [*activity, *([contact] if contact else []), *others]
    known_names(given, table.columns, "columns of the pairs", "column")

    def values_of(column: str) -> Float[np.ndarray, " N"]:
        values = numbers(table[column]).to_numpy(float)
        missing = ~np.isfinite(values)
        if (strange := missing & table[column].notna().to_numpy()).any():
            found = f"{table[column].iloc[strange.argmax()]!r} in column {column}"
            raise InputError("pairs", found, "numbers", "name another column")
        if missing.all():
            raise InputError("pairs", f"no number in column {column}", "a score", "name another")
        lowest = values[~missing].min()
        if missing.any():
            notes.append(f"{missing.sum():,} pairs lack {column}: they count as {lowest:g}")
        return np.where(missing, lowest, values)

    distance = table["distance"].to_numpy(float)
    made = {DISTANCE: -distance}
    for mark, column in marks.items():
        made[mark] = values_of(column)
    if "H3K27ac" in marks:
        made["H3K27ac / distance"] = made["H3K27ac"] / np.maximum(distance, 1)
    if activity:
        signal = np.prod([np.maximum(values_of(name), 0) for name in activity], axis=0)
        signal = signal ** (1 / len(activity))
        named = " and ".join(_mark(name) for name in activity)
        made["activity"] = signal
        made["activity × distance"] = signal * np.maximum(distance, NEAREST_BP) ** -gamma
        notes.append(
            f"activity: geometric mean of {named}; activity × distance: times distance^−{gamma:g}, "
            f"distance at least {NEAREST_BP} bp"
        )
    if contact:
        made["contact"] = values_of(contact)
        if activity:
            made["activity × contact"] = made["activity"] * np.maximum(made["contact"], 0)
    if taken := sorted(set(others) & set(made)):
        found = f"columns that have the name of another score ({', '.join(taken)})"
        raise InputError("--scores", found, "names of their own", "rename them in the table")
    made.update({name: values_of(name) for name in others})
    return made, list(dict.fromkeys(notes))


def _mark(column: str) -> str:
    match = _SIGNAL.match(column)
    return match[1] if match else column


def reference_score(scores: Mapping[str, object]) -> str:
    """The simple score that others are compared with: activity × distance, or distance."""
    return next(name for name in ("activity × distance", DISTANCE) if name in scores)
