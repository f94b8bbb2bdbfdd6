"""Where models with attention look, region by region, next to what emptying the region does.

Attention shows which regions a promoter's token takes from, not what follows from it: the table has
both, and `agreement` how far they go together. Neither shows a cause.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import scipy

from epi2expr_jax import perturb
from epi2expr_jax.interpret.attribution import attention_rollout
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.window_store import WindowStore

LEAST_REGIONS = 3  # of a gene, for a rank correlation within it
_MODEL = ["cell", "assays"]


def attention_table(
    ensemble: Ensemble,
    store: WindowStore,
    genes: str | Sequence[str] | None = None,
    *,
    progress: Callable[[int], object] = lambda done: None,
) -> pd.DataFrame:
    """Attention of each promoter to each of its regions, and what emptying the region does.

    Args:
        genes: as for `attribution.attention_rollout`.
        progress: told how many edited genes have been predicted since it was last told.

    Returns:
        A row a model (cell and assays), gene and region: gene_id, rank (0 the best contact), chrom,
        start, end (bp), score of the contact; attention_R by resolution R, the share of the
        promoter's last token that comes from the region, and attention, their mean; effect, the
        change in log2(x + 1) if all assays that the model reads are emptied in the region. Means
        over the runs that never saw the gene.

    Raises:
        InputError: as `attribution.attention_rollout`.
    """
    found = attention_rollout(ensemble, store, genes)
    (member,) = ensemble.members
    most, tables = member.model_config.contacts, []
    rows = pd.Index(store.genes.gene_id).get_indexer(pd.Index(found.gene.to_numpy()))
    for k, (cell, assays) in enumerate(member.by_tracks()):
        values = found.isel(model=k).to_numpy()[..., 1:]  # without the promoter itself
        regions = store.regions(cell)
        number, score = (part[rows] for part in regions.by_gene(len(store.genes), most))
        predicted = ~np.isnan(values[:, 0, 0])
        gene, rank = np.nonzero((number >= 0) & predicted[:, None])
        if not len(gene):
            continue
        of_model = ensemble.select(
            lambda run, own=(cell, assays): (run.cell, tuple(run.assays)) == own
        )
        edits = [
            tuple(perturb.scale(assay, perturb.pcre(int(k)), 0) for assay in assays)
            for k in range(int(rank.max()) + 1)
        ]
        ids = found.gene.to_numpy()[predicted].tolist()
        runs = perturb.run(of_model, store, edits, ids, must_reach=False, progress=progress)
        effect = perturb.summarise(runs).effect.isel(model=0).to_numpy()
        by_resolution = {
            f"attention_{name}": values[gene, i, rank]
            for i, name in enumerate(member.model_config.resolutions)
        }
        places = regions.table.iloc[number[gene, rank]][["chrom", "start", "end"]]
        tables.append(
            pd.DataFrame(
                {
                    "cell": cell,
                    "assays": "+".join(assays),
                    "gene_id": found.gene.to_numpy()[gene],
                    "rank": rank,
                    **{name: places[name].to_numpy() for name in places},
                    "score": score[gene, rank],
                    "attention": np.mean([*by_resolution.values()], axis=0),
                    "effect": effect[np.cumsum(predicted)[gene] - 1, rank],
                    **by_resolution,
                }
            )
        )
    columns = [*_MODEL, "gene_id", "rank", "chrom", "start", "end", "score", "attention", "effect"]
    return pd.concat(tables, ignore_index=True) if tables else pd.DataFrame(columns=columns)


def agreement(table: pd.DataFrame) -> pd.DataFrame:
    """How far attention and the size of effects go together, by model.

    Args:
        table: of `attention_table`.

    Returns:
        Columns cell, assays, regions; spearman, over all of them, which also says which genes have
        large effects; genes, those of `LEAST_REGIONS` regions or more, and within, the mean of
        their own rank correlations. NaN where there is none. No intervals: regions that genes share
        and models of overlapping folds are not independent.
    """
    rows = []
    for key, part in table.groupby(_MODEL, sort=False):
        own = [_spearman(gene) for _, gene in part.groupby("gene_id") if len(gene) >= LEAST_REGIONS]
        known = [value for value in own if np.isfinite(value)]
        rows.append(
            {
                **dict(zip(_MODEL, key, strict=True)),
                "regions": len(part),
                "spearman": _spearman(part),
                "genes": len(known),
                "within": np.mean(known) if known else np.nan,
            }
        )
    return pd.DataFrame(rows, columns=[*_MODEL, "regions", "spearman", "genes", "within"])


def _spearman(part: pd.DataFrame) -> float:
    attention, size = part["attention"].to_numpy(float), part["effect"].abs().to_numpy(float)
    if len(part) < LEAST_REGIONS or np.ptp(attention) == 0 or np.ptp(size) == 0:
        return np.nan
    return float(scipy.stats.spearmanr(attention, size).statistic)
