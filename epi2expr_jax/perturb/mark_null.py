"""What altering a mark would show if the mark told nothing beyond the other marks.

The mark's rows are permuted over genes within strata of what the other marks' promoter signal says
of it; expression and the other marks stay as they are (conditional randomisation, Candès et al.
2018). On each permutation models are trained as those of the run were, all in one population, and
altered alike: p = (1 + permutations whose mean effect is as far from the middle) / (1 +
permutations), two-sided. The middle is the mean of the mark's effect and those of its permutations,
not 0: an edit that takes a mark out of the range that models trained on moves their predictions
even where the mark tells nothing (in the demo, models of H3K27ac + H3K9ac + H3K79me2 in E003: the
idle H3K27ac removed from promoters, permuted or not, by +0.76 to +1.21 log2(RPKM + 1)).
It holds as far as strata hold: a mark that follows the others in ways that their promoter signal
does not show is not permuted among its like.

Axes: `C` cells, `A` other marks, `G` genes, `W` bins.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Float, Int

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.pools import PLUS
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.window_store import WindowStore

STRATUM = 10  # genes, among which rows are permuted
KEY = ["cell", "assays", "mark", "place", "change"]


def permuted(
    mark: Float[np.ndarray, "G"], others: Float[np.ndarray, "A G"], rng: np.random.Generator
) -> Int[np.ndarray, "G"]:
    """Whose row of the mark each gene is given.

    Args:
        mark, others: mean signal at promoters, 0 or more.
    """
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    expected = np.zeros(mark.size)
    if len(others):
        # Squares alone leave P(p <= 0.05) at .07 to .10 where the mark follows others in bends.
        cubic = make_pipeline(StandardScaler(), PolynomialFeatures(3), Ridge(1.0))
        logs = np.log1p(np.abs(others)).T
        expected = cubic.fit(logs, np.log1p(np.abs(mark))).predict(logs)
    order, given = np.argsort(expected, kind="stable"), np.empty(mark.size, int)
    for first in range(0, mark.size, STRATUM):
        among = order[first : first + STRATUM]
        given[among] = rng.permutation(among)
    return given


def names_of(mark: str, count: int) -> list[str]:
    """The permuted marks, as assays of the store that holds them."""
    return [f"{mark}~{i}" for i in range(1, count + 1)]


def permutable(means: pd.DataFrame, card: Mapping[str, Any]) -> bool:
    """Whether `--null` can be asked of these effects: of one mark, read in windows of one cell.

    Args:
        means: from `perturb.mean_effects`. card: of the run.
    """
    alone = not means["mark"].str.contains(PLUS, regex=False).any()
    own = not means["change"].str.startswith("from ").any()  # not of another mark or cell
    read = {*means["assays"]}
    for population in card["populations"]:
        runs = [run for run in population["runs"] if PLUS.join(run["assays"]) in read]
        if runs and population["model_config"].get("contacts"):
            return False
        if not {run["cell"] for run in runs} <= {*card["store"]["cells"]}:  # a pool
            return False
    return alone and own


def permute(
    ensemble: Ensemble, store: WindowStore, mark: str, count: int, path: pathlib.Path
) -> None:
    """Write a store of the cells whose models read a mark: permutations of it, in its place.

    Raises:
        InputError: if models read regions or pools of cells, whose signal is not of one gene.
    """
    readers = ensemble.select(lambda run: mark in run.assays)
    cells = [cell for cell in store.manifest.cells if cell in {run.cell for run in readers.runs}]
    if len(cells) < len({run.cell for run in readers.runs}) or any(
        member.model_config.contacts for member in readers.members
    ):
        raise InputError(
            "--null",
            "models of regions or of pools of cells",
            "models of one window and one cell: rows are permuted over genes",
            "train some (--no_pcre leaves regions out), or leave --null out",
        )
    old, names = store.manifest, names_of(mark, count)
    tracks = [(c, a) for c, a in old.tracks if c in cells and a != mark]
    others = [assay for assay in old.assays if any(assay == a for _, a in tracks)]
    manifest = dataclasses.replace(
        old,
        cells=cells,
        assays=[*others, *names],
        tracks=[[c, a] for c, a in tracks] + [[c, name] for c in cells for name in names],
        **{
            field: {a: of[a.split("~")[0]] for a in [*others, *names] if a.split("~")[0] in of}
            for field, of in (("units", old.units), ("groups", old.groups))
        },
        contacts={},
    )
    expression = store.read_expression(cells) if old.expression_unit else None
    labels = store.read_labels(cells)
    made = WindowStore.declare(path, manifest, store.genes, expression, {}, labels)
    minus = (store.genes.strand == "-").to_numpy()
    for c, cell in enumerate(cells):
        here = [assay for assay in others if (cell, assay) in tracks]
        for assay in here:
            made.write_slab(cell, assay, *_slab(store, cell, assay))
        rows, covered, sources = _slab(store, cell, mark)
        near = np.array([_at_promoter(store, cell, assay) for assay in here])
        near = near.reshape(len(here), len(rows))
        for i, name in enumerate(names):
            rng = np.random.default_rng([c, i])
            given = permuted(_at_promoter(store, cell, mark), near, rng)
            drawn = rows[given]
            turned = minus != minus[given]  # windows are stored in genomic order
            drawn[turned] = drawn[turned, ::-1]
            made.write_slab(cell, name, drawn, covered[given], sources)


def _slab(store: WindowStore, cell: str, assay: str) -> tuple[np.ndarray, np.ndarray, list]:
    means = store.read_signal([cell], [assay])[0, 0]
    record = store.slab_record(cell, assay) or {}
    return means, store.slabs.array("coverage", cell, assay), record.get("sources", [])


def _at_promoter(store: WindowStore, cell: str, assay: str) -> Float[np.ndarray, "G"]:
    """Mean signal within 1 kb of the TSS."""
    window = store.manifest.window
    half = max(1, min(window.bins, 2000 // window.bin_bp) // 2)
    bins = slice(window.bins // 2 - half, window.bins // 2 + half)
    return store.read_signal([cell], [assay], bins)[0, 0].mean(axis=1).astype(float)


def effects_of(draws: Sequence[pd.DataFrame], means: pd.DataFrame, mark: str) -> pd.DataFrame:
    """Mean effects of each permuted mark, under the names of the mark and its models.

    Args:
        draws: from `perturb.mean_effects`, of one permuted mark each.
        means: of the mark.

    Returns:
        Columns of `KEY`, permutation (from 1) and effect (log2(RPKM + 1)).
    """
    names = {_plain(label): label for label in means["assays"]}
    tables = [table.assign(mark=mark, permutation=i) for i, table in enumerate(draws, 1)]
    table = pd.concat(tables, ignore_index=True)
    table["assays"] = [names[_plain(label)] for label in table["assays"]]
    return table[[*KEY, "permutation", "effect"]]


def compare(means: pd.DataFrame, draws: pd.DataFrame) -> pd.DataFrame:
    """Mean effects of a mark, where its permutations lie, and a two-sided p.

    Args:
        means: from `perturb.mean_effects`; those that change nothing are left out.
        draws: from `effects_of`.

    Returns:
        Columns of `KEY`, effect, null_low and null_high (the lowest and highest of permutations),
        permutations (how many) and p.
    """
    means = means[means["factor"] != 1]
    both = draws.merge(means[[*KEY, "effect"]], on=KEY, suffixes=("_null", "")).dropna()
    number = both.groupby(KEY)["effect_null"].transform("size")
    middle = both.groupby(KEY)["effect_null"].transform("sum") + both["effect"]
    middle /= number + 1
    far = (both["effect"] - middle).abs()
    both["reached"] = (both["effect_null"] - middle).abs() >= far - 1e-12
    groups = both.groupby([*KEY, "effect"], sort=False)
    table = groups.agg(
        null_low=("effect_null", "min"),
        null_high=("effect_null", "max"),
        permutations=("effect_null", "size"),
        p=("reached", "sum"),
    ).reset_index()
    return table.assign(p=(1 + table["p"]) / (1 + table["permutations"]))


def _plain(label: str) -> tuple[str, ...]:
    """The assays of a set, permuted ones under the name of their mark, in one order."""
    return tuple(sorted(name.split("~")[0] for name in label.split("+")))
