"""What trained models predict for the pairs of a screen, and pairs that they do not reach.

A predicted loss is the fraction of expression (x + 1, in the unit trained on) that a gene would
lose if the element were silenced, by models that never saw the gene. `N` pairs.
"""

import dataclasses
from collections.abc import Callable

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Bool, Float

from epi2expr_jax.genome import find_chromosomes, strip_version
from epi2expr_jax.perturb.elements import (
    Silencing,
    batches,
    in_reach,
    predict_silenced,
    predictable,
)
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.window_store import WindowStore

LOSS = "predicted loss"
FILLED, COMPLETED = f"{LOSS}, filled", f"{LOSS}, completed"  # of all pairs
_PLACE = ["chrom", "start", "end"]


@dataclasses.dataclass(frozen=True)
class Predicted:
    """Predictions for the pairs of a screen.

    Attributes:
        table: a row a pair, as given: reach (whether it was predicted), and as of
            `elements.predict_silenced` before, effect, low, high, change, models, changed, outside,
            and effect_MARK of single marks; NaN where not predicted.
        notes: how many pairs there are predictions for, and why not for others, in sentences.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]

    @property
    def reach(self) -> Bool[np.ndarray, " N"]:
        return self.table["reach"].to_numpy(bool)

    def losses(self) -> dict[str, Float[np.ndarray, " N"]]:
        """Predicted losses of all marks together, and of single ones where they were asked for."""
        marks = [name for name in self.table if str(name).startswith("effect_")]
        named = {LOSS: "effect"} | {f"{LOSS}, {str(n)[7:]} alone": str(n) for n in marks}
        return {
            name: 1 - np.exp2(self.table[column].to_numpy(float)) for name, column in named.items()
        }


def predict_pairs(
    ensemble: Ensemble,
    store: WindowStore,
    pairs: pd.DataFrame,
    places: pd.DataFrame,
    silencing: Silencing,
    progress: Callable[[int], object] = lambda done: None,
) -> Predicted:
    """Predicted change of each gene if the element of its pair were silenced.

    Args:
        ensemble: models of one cell and assay set, see `elements.models_of`.
        pairs: of `Pairs`; genes are joined by Ensembl id without its version.
        places: chrom, start and end of the elements on the store's assembly, by row of `pairs`;
            rows that are not there are not predicted.
        progress: told how many pairs have been predicted since it was last told.

    Returns:
        Predictions, in the order of `pairs`.
    """
    ids = pd.Index([strip_version(name) for name in store.genes.gene_id])
    gene = ids.get_indexer(pd.Index(pairs["gene_id"]))
    spelled = find_chromosomes(set(places["chrom"]), store.manifest.chrom_sizes)
    on = places["chrom"].map(spelled)
    asked = places.loc[on.notna(), _PLACE].assign(chrom=on.dropna(), row=lambda t: t.index)
    asked[["start", "end"]] = asked[["start", "end"]].astype(np.int64)
    elements = asked[_PLACE].drop_duplicates(ignore_index=True)
    asked["gene"] = gene[asked["row"].to_numpy()]
    asked = asked.merge(elements.assign(element=elements.index), on=_PLACE)
    model, cell = ensemble.members[0].model_config, ensemble.runs[0].cell
    known = in_reach(store, model, cell, elements)
    wanted = known.merge(asked[["gene", "element"]].drop_duplicates())
    wanted = predictable(ensemble, store, wanted.sort_values(["gene", "element"]))
    parts = batches(wanted, len(silencing.ways))
    most = max((int(part["rank"].max()) + 1 for part in parts), default=0)
    made = [pd.DataFrame(columns=["gene", "element", "effect", "change"], dtype=float)]
    for part in parts:
        made.append(predict_silenced(ensemble, store, elements, part, silencing, most))
        progress(len(part))
    found = pd.concat(made[1:] or made).drop(columns="rank", errors="ignore")
    joined = asked[["row", "gene", "element"]].merge(found, on=["gene", "element"])
    table = joined.set_index("row").drop(columns=["gene", "element"]).reindex(range(len(pairs)))
    table.insert(0, "reach", table["effect"].notna())
    regulated = pairs["regulated"].to_numpy(bool)
    reach = table["reach"].to_numpy(bool)
    notes = (
        f"in reach of the models of {ensemble.runs[0].label} in {cell}: {reach.sum():,} of "
        f"{len(pairs):,} pairs, {(reach & regulated).sum():,} of {regulated.sum():,} regulated; "
        f"{(gene < 0).sum():,} pairs have a gene, {on.isna().sum():,} a chromosome that the store "
        "lacks",
        f"silenced: {', '.join(silencing.marks)}, from {silencing.flank_bp} bp before an element "
        f"to {silencing.flank_bp} bp behind it, down to the lower quartile of the window or region",
    )
    return Predicted(table.reset_index(drop=True), notes)


def filled(
    loss: Float[np.ndarray, " N"], reach: Bool[np.ndarray, " N"], value: float = 0.0
) -> Float[np.ndarray, " N"]:
    """Losses, and one declared value where nothing is predicted."""
    return np.where(reach, loss, value)


def completed(
    loss: Float[np.ndarray, " N"],
    reach: Bool[np.ndarray, " N"],
    other: Float[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
    """Another score, whose values in reach change places so that their order is that of losses.

    So both have one scale, and nothing is fitted. Losses that tie have the mean of their places.
    """
    out = other.astype(float)
    if reach.any():
        place = scipy.stats.rankdata(loss[reach]) - 1
        out[reach] = np.interp(place, np.arange(reach.sum()), np.sort(other[reach]))
    return out
