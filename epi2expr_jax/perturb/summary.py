"""Effects of edits, averaged over models and genes, and how sure those means are.

Axes: `M` models (a cell and an assay set), `F` folds, `S` seeds, `G` genes, `E` edits.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import scipy
import xarray as xr
from jaxtyping import Bool, Float, Int

LEAST_GENES = 20  # that two models are compared on
BETWEEN = ["cell", "assays", "mark", "place", "change", "between", "pairs", "genes", "r", "lowest",
           "highest"]  # fmt: skip
LEAST_MODELS = 3  # folds, or seeds of one fold, for an interval
NEEDED = (
    f"{LEAST_MODELS} folds (of 2 seeds each where they test the same chromosomes: --seeds=2), or "
    f"{LEAST_MODELS} seeds that each train on a share of the genes (--seeds=3 --train_share=0.5)"
)


def summarise(effects: xr.Dataset, level: float = 0.95) -> xr.Dataset:
    """Means over the runs of a model: those of one cell and assay set, over folds and seeds.

    Args:
        effects: from `run`.
        level: of the intervals.

    Returns:
        In log2(RPKM + 1), by `model` ("E003 H3K27ac"), M of them: means `before [M G]`,
        `after [M G E]` and `effect [M G E]`; `low` to `high [M G E]`, where the effect lies on
        average over models retrained on other genes (see `_reach`), NaN where too few models
        predict the gene to say; `models [M G]`, how many do; `changed` and `outside [M G E]` if in
        any of them. It does not tell how far the model is from the cell.
    """
    parts: list[xr.Dataset] = []
    for (cell, assays), own in _by_model(effects):
        count = own.before.notnull().sum("run")
        mean = own[["before", "after", "effect"]].sum("run") / count.where(count > 0)
        reach = np.full(mean.effect.shape, np.nan)
        by_fold = _by_fold(own)
        # Which folds predict a gene; few patterns, since whole chromosomes are tested.
        patterns, of_gene = np.unique(by_fold.seeds > 0, axis=1, return_inverse=True)
        for i, used in enumerate(patterns.T):
            here = np.flatnonzero(of_gene == i)
            if used.any():
                part = by_fold.only(used, here)
                same = np.ones(part.effect.shape[:2])  # every fold predicts the gene
                share = effects.attrs["train_share"]
                reach[here] = _reach(part, part.effect, same, level, share)
        mean["low"], mean["high"] = mean.effect - reach, mean.effect + reach
        mean["models"] = count
        mean["changed"], mean["outside"] = own.changed.any("run"), own.outside.any("run")
        parts.append(mean.assign_coords(model=f"{cell} {assays}", cell=cell, assays=assays))
    return xr.concat(parts, "model", coords="different", compat="equals")


def mean_effects(effects: xr.Dataset, level: float = 0.95) -> pd.DataFrame:
    """Mean effect over genes by cell, assays, place and change.

    The interval is that of models retrained on other genes, on average over these genes: genes that
    one model predicts share its errors, so genes and chromosomes do not count as independent.

    Args:
        effects: from `run`.
        level: of the intervals.

    Returns:
        Columns cell, assays, mark (that was altered), place, distance (bp), change, factor, effect,
        low, high (log2(RPKM + 1); NaN where too few models predict to say), genes, folds, seeds,
        changed and outside (shares of genes).
    """
    rows: list[pd.DataFrame] = []
    for (cell, assays), own in _by_model(effects):
        count = own.before.notnull().sum("run").to_numpy()
        known = count > 0
        mean = own.effect.sum("run").to_numpy()[known] / count[known, None]
        predicted = own.before.notnull().to_numpy()
        of_run = np.where(predicted[..., None], own.effect.to_numpy(), 0).sum(axis=1)
        of_run /= np.maximum(1, predicted.sum(axis=1))[:, None]
        fold, share = own.fold.to_numpy(), effects.attrs["train_share"]
        reach = reach_of_mean(of_run, predicted, fold, effects.overlap, share, level)
        table = pd.DataFrame(
            {
                "cell": cell,
                "assays": assays,
                "mark": own.mark.to_numpy(),
                "place": own.place.to_numpy(),
                "distance": own.distance.to_numpy(),
                "change": own.change.to_numpy(),
                "factor": own.factor.to_numpy(),
                "effect": mean.mean(axis=0),
                "genes": int(known.sum()),
                "folds": len(set(fold[predicted.any(axis=1)])),
                "seeds": max(predicted[fold == name].sum(axis=0).max() for name in fold),
                "changed": own.changed.any("run").to_numpy()[known].mean(axis=0),
                "outside": own.outside.any("run").to_numpy()[known].mean(axis=0),
            }
        )
        table.insert(8, "low", table["effect"] - reach)
        table.insert(9, "high", table["effect"] + reach)
        rows.append(table)
    return pd.concat(rows, ignore_index=True)


def between_models(effects: xr.Dataset) -> pd.DataFrame:
    """How far models agree on which genes an edit changes most.

    Two models are compared on the genes that neither saw: those of different folds where folds test
    the same chromosomes, else the seeds of a fold. Where each gene is tested by one model there is
    nothing to compare, and the table is empty.

    Args:
        effects: from `run`.

    Returns:
        Columns cell, assays, mark, place, change; between ("folds" or "seeds"); pairs (of models);
        genes (the fewest of a pair); r, the mean over pairs of Pearson's r between effects over
        genes, and lowest and highest. Edits that leave the effect of a model the same for all genes
        are left out, and pairs of fewer than `LEAST_GENES` genes.
    """
    tables = []
    for (cell, assays), own in _by_model(effects):
        values, known = own.effect.to_numpy(), own.before.notnull().to_numpy()
        fold, seed = own.fold.to_numpy(), own.seed.to_numpy()
        every = list(itertools.combinations(range(len(known)), 2))
        kinds = {
            "folds": [(a, b) for a, b in every if fold[a] != fold[b] and seed[a] == seed[b]],
            "seeds": [(a, b) for a, b in every if fold[a] == fold[b]],
        }
        both = {
            kind: [(a, b, known[a] & known[b]) for a, b in pairs] for kind, pairs in kinds.items()
        }
        enough = {
            kind: [pair for pair in pairs if pair[2].sum() >= LEAST_GENES]
            for kind, pairs in both.items()
        }
        kind = next((kind for kind, pairs in enough.items() if pairs), "")
        if not kind:
            continue
        shared = enough[kind]
        r = np.array([_correlated(values[a][of], values[b][of]) for a, b, of in shared])
        told = ~np.isnan(r).all(axis=0)
        columns = {name: own[name].to_numpy()[told] for name in ("mark", "place", "change")}
        table = pd.DataFrame({"cell": cell, "assays": assays, **columns})
        table["between"], table["pairs"] = kind, (~np.isnan(r)).sum(axis=0)[told]
        table["genes"] = min(int(of.sum()) for *_, of in shared)
        for name, of_pairs in (("r", np.nanmean), ("lowest", np.nanmin), ("highest", np.nanmax)):
            table[name] = of_pairs(r[:, told], axis=0)
        tables.append(table)
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=BETWEEN)


def _correlated(a: Float[np.ndarray, "n E"], b: Float[np.ndarray, "n E"]) -> np.ndarray:
    """Pearson's r `[E]` over genes; NaN where either is the same for all."""
    a, b = a - a.mean(axis=0), b - b.mean(axis=0)
    size = np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0))
    return np.where(size > 0, (a * b).sum(axis=0) / np.where(size > 0, size, 1), np.nan)


@dataclasses.dataclass(frozen=True)
class _ByFold:
    """The runs of a model by fold, F of them.

    Attributes:
        effect: `[F n E]` of n genes, or of their mean, over seeds; NaN where the fold does not
            predict the gene.
        seeds: `[F G]`, how many runs of the fold predict it.
        runs: `[F]`, each `[S n E]`: the effects of its seeds.
        overlap: `[2 F F]`, see `splits.overlap`.
    """

    effect: Float[np.ndarray, "F n E"]
    seeds: Int[np.ndarray, "F G"]
    runs: tuple[Float[np.ndarray, "S n E"], ...]
    overlap: Float[np.ndarray, "2 F F"]

    @property
    def most_seeds(self) -> int:
        return int(self.seeds.max(initial=0))

    def only(self, folds: np.ndarray, genes: np.ndarray) -> "_ByFold":
        at = np.flatnonzero(folds)
        return _ByFold(
            self.effect[np.ix_(at, genes)],
            self.seeds[np.ix_(at, genes)],
            tuple(self.runs[f][:, genes] for f in at),
            self.overlap[:, at][:, :, at],
        )


def _by_model(effects: xr.Dataset) -> Iterator[tuple[tuple[str, str], xr.Dataset]]:
    """The runs of each cell and assay set."""
    names = pd.MultiIndex.from_arrays([effects.cell.to_numpy(), effects.assays.to_numpy()])
    for name in dict.fromkeys(names):
        yield name, effects.isel(run=np.flatnonzero(names == name))


def _by_fold(own: xr.Dataset) -> _ByFold:
    fold, known = own.fold.to_numpy(), own.before.notnull().to_numpy()
    names = list(dict.fromkeys(fold.tolist()))
    runs = tuple(own.effect.to_numpy()[fold == name] for name in names)
    seeds = np.array([known[fold == name].sum(axis=0) for name in names])
    total = np.array([np.nansum(each, axis=0) for each in runs])
    effect = np.where(seeds[..., None] > 0, total / np.maximum(1, seeds)[..., None], np.nan)
    overlap = own.overlap.sel(trained=names, also=names).to_numpy()
    return _ByFold(effect, seeds, runs, overlap)


def reach_of_mean(
    of_run: Float[np.ndarray, "R E"],
    predicted: Bool[np.ndarray, "R G"],
    fold: np.ndarray,
    overlap: xr.DataArray,
    share: float,
    level: float = 0.95,
) -> Float[np.ndarray, "E"]:
    """Half the width of the interval of a mean over genes, for models retrained on other genes.

    Args:
        of_run: mean over the genes that a run predicts; 0 where it predicts none.
        predicted: which genes a run predicts.
        fold: of each run, its name.
        overlap: see `splits.overlap`.
        share: of the training genes that each run was given.

    Returns:
        `[E]`, in the unit of the means; NaN for too few models.
    """
    names = [n for n in dict.fromkeys(fold.tolist()) if predicted[fold == n].any()]
    runs = [np.flatnonzero((fold == name) & predicted.any(axis=1)) for name in names]
    of_fold = np.array([of_run[own].mean(axis=0) for own in runs])
    seeds = np.array([predicted[own].sum(axis=0) for own in runs])
    common = overlap.sel(trained=names, also=names).to_numpy()
    part = _ByFold(of_fold[:, None], seeds, tuple(of_run[own][:, None] for own in runs), common)
    weights = (seeds > 0).sum(axis=1).astype(float)[:, None]
    return _reach(part, of_fold[:, None], weights, level, share)[0]


def _reach(
    part: _ByFold, values: np.ndarray, weights: np.ndarray, level: float, share: float
) -> np.ndarray:
    """Half the width of the interval of a mean over folds, `[n E]`; NaN for too few models.

    Models of different folds share training genes, and err together as far as they do: with a share
    r in common, the variance of the mean of J is (1/J + r / (1 - r)) times that between them. With
    r = n_train / (n_train + n_test) this is the corrected resampled t (Nadeau & Bengio 2003); here
    r is the overlap of training genes, which simulations of linear models bear out for effects
    (tests/epi2expr_jax/perturb/test_summary.py). Of folds that weigh differently, the sum of
    squared weights stands for 1/J; where one or two weigh nearly all, there is no interval. Where
    one fold alone predicts, its seeds take the place of folds if each trained on a share of the
    genes of its own; seeds on the same genes show nothing of other genes.

    Args:
        values: `[J n E]` by fold, of n genes or means.
        weights: `[J n]`, of the folds in the mean.
    """
    nothing = np.full(values.shape[1:], np.nan)
    if len(values) >= LEAST_MODELS:
        tested_alone = (part.seeds > 0).sum(axis=0).max(initial=0) == 1
        if part.most_seeds < 2 and share == 1 and not tested_alone:
            return nothing  # one seed on the same test genes: noise of training looks like overlap
        off = ~np.eye(len(values), dtype=bool)
        common = max(one[off].mean() / np.diag(one).mean() for one in part.overlap)
    elif len(values) == 1 and share < 1 and len(part.runs[0]) >= LEAST_MODELS:
        values = part.runs[0]
        weights, common = np.ones(values.shape[:2]), share
    else:
        return nothing
    if common >= 1:
        return nothing
    J = len(values)
    weights = (weights / weights.sum(axis=0))[..., None]
    mean = (weights * values).sum(axis=0)
    uneven = (weights**2).sum(axis=0)  # 1 / J where all folds weigh the same
    spread = (weights * (values - mean) ** 2).sum(axis=0) / (1 - uneven)
    reach = scipy.stats.t.isf((1 - level) / 2, J - 1) * np.sqrt(
        spread * (uneven + common / (1 - common))
    )
    return np.where(uneven <= 1 / (LEAST_MODELS - 1), reach, np.nan)


def to_frame(summary: xr.Dataset) -> pd.DataFrame:
    """`summarise`'s result as a table, a row for each model, gene and edit that was predicted.

    Effects are in log2(RPKM + 1), `distance` is in bp.
    """
    table = summary.to_dataframe().reset_index().drop(columns="model", errors="ignore")
    return table[table.after.notna()].reset_index(drop=True)
