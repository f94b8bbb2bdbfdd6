"""The evaluation of a run: predict held-out genes, score, rank, and write the tables."""

import os
import pathlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_csv, write_parquet
from epi2expr_jax.inputs.covariates import covariates_of, gene_features, read_covariates
from epi2expr_jax.inputs.gene_groups import read_groups, signal_copies
from epi2expr_jax.names import as_names
from epi2expr_jax.predict.baselines import (
    COVARIATES,
    MEAN_OF_OTHERS,
    WITH_ASSAYS,
    mean_of_other_cells,
    mean_of_seeds,
    predict_baselines,
)
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.predict.loading import load
from epi2expr_jax.predict.stack import STACK, stacked
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.across_cells import score_deviations
from epi2expr_jax.scores.agreement import score_against_quality, track_quality
from epi2expr_jax.scores.comparison import added_value, calls, compare_models
from epi2expr_jax.scores.intervals import require_usable, usable
from epi2expr_jax.scores.universal import MARGIN, require_claim
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, tables
from epi2expr_jax.training.splits import Fold

NO_TABLE = pd.DataFrame()
_LEADS = ["lead_low", "lead_high"]
_INTERVALS = [
    *("low", "high", "simultaneous_low", "simultaneous_high", "spearman_low", "spearman_high"),
    *("rank_low", "rank_high", "p", "q", "called"),
]


def evaluate(
    run_dir: str | os.PathLike,
    store_path: str | os.PathLike | None = None,
    baselines: str | Sequence[str] = (),
    groups: str | None = None,
    margin: float = MARGIN,
    claim: str | None = None,
    show: Callable[[Iterable], Iterable] = iter,
    gene_groups: str | os.PathLike = "",
    covariates: str | os.PathLike = "",
) -> pd.DataFrame:
    """Write predictions, scores and the ranking of a finished run into its directory, as one.

    Args:
        store_path: where the store lies now; by default where training read it.
        baselines: simple models to compare with (see `epi2expr_jax.predict.baselines`; they need
            scikit-learn).
        groups: column of the gene table, or of `covariates`, to rank within; by default expressed
            and silent genes, and the classes that these tables have, such as biotypes.
        margin, claim: of the statement on a universal mark (see `scores.universal.verdict`); they
            are kept for the report.
        gene_groups: a table of genes that are alike (see `inputs.gene_groups.read_groups`), besides
            the copies that are seen in the signal. If a model was trained on genes that are like
            its test genes, all is scored without these, too.
        covariates: a table of what is known of genes without any epigenome (see
            `inputs.covariates.read_covariates`), besides their length. With it, or with baselines,
            models are compared with what that predicts alone, and what assays add to it.
        show: goes through the fits of the baselines, showing how far it is.

    Returns:
        The ranking, as in ranking.csv (see `scores.ranking.rank_assays`).

    Raises:
        InputError: if training has not finished, the store is not the one trained on, another
            process is evaluating the run, or there are too few genes for a single score.
    """
    run_dir = pathlib.Path(run_dir)
    ensemble = load(run_dir, store_path)
    if not any(ensemble.folds[run.fold].test for run in ensemble.runs):
        raise InputError(
            str(run_dir),
            "models without a single test chromosome (imported weights have none)",
            "genes that no model saw in training or validation",
            "predict with load(RUN).predict(store, include_seen=True); that is not a test",
        )
    require_claim(margin, claim, dict.fromkeys(run.label for run in ensemble.runs))
    store = ensemble.open_store(store_path)
    asked = {"baselines": as_names(baselines), "groups": groups, "margin": margin, "claim": claim}
    asked |= {"runs": len(ensemble.runs), "gene_groups": str(gene_groups)}
    asked |= {"epochs": tables.epochs_of(ensemble.card)}
    asked |= {"covariates": str(covariates)}
    given = read_covariates(covariates, store.genes) if covariates else NO_TABLE
    known = covariates_of(store.genes, given)
    named = read_groups(gene_groups, store.genes) if gene_groups else pd.DataFrame()
    with results.written(run_dir, "evaluate", **asked) as place:
        predictions = predict_held_out(ensemble, store)
        require_usable(scoring.score_table(predictions))  # before minutes of baselines
        made = [mean_of_other_cells(ensemble, store, predictions)]
        if baselines or covariates:
            features = gene_features(known)
            simple = predict_baselines(ensemble, store, baselines, show, features)
            made = [simple, *made, stacked(predictions, simple)]
        made = pd.concat([part for part in made if len(part)] or made, ignore_index=True)
        alike = alike_genes(store, ensemble.folds.values(), named)
        leaked = leaked_genes(ensemble.folds.values(), store.genes, alike)
        found = score(ensemble.card["model"], predictions, made, store.genes, groups, leaked, known)
        if len(alike):
            found[tables.COPIES] = alike
        found[tables.QUALITY] = quality(store, found[tables.SCORES])
        found[tables.PREDICTIONS] = predictions
        if len(made):
            found[tables.OF_BASELINES] = made
        for table, content in found.items():
            write = write_csv if table.path.endswith(".csv") else write_parquet
            write(place / table.path, content)
    return found[tables.RANKING]


def score(
    model: str,
    predictions: pd.DataFrame,
    made: pd.DataFrame,
    genes: pd.DataFrame,
    groups: str | None = None,
    leaked: Mapping[str, Collection[str]] | None = None,
    known: pd.DataFrame = NO_TABLE,
) -> dict[tables.Table, pd.DataFrame]:
    """Every table that follows from predictions, which `experiments.verify` makes again.

    Args:
        model: its name.
        made: predictions of baselines; may be empty.
        genes, groups: the gene table, and the column of it or of `known` to rank within.
        leaked: by fold, the test genes that are like a gene trained on.
        known: of genes without any epigenome, as from `covariates_of`; may be empty.
    """
    scores = scoring.score_table(predictions)
    found = {tables.SCORES: scores, tables.RANKING: ranking.rank_assays(scores)}
    found[tables.CALLS] = calls(scores)
    named = genes
    if len(known):
        named = genes.drop(columns=known.columns.drop("gene_id"), errors="ignore")
        named = named.merge(known, on="gene_id", how="left")
    by_group = scoring.score_groups(predictions, scoring.gene_groups(predictions, named, groups))
    for name in scoring.class_columns(known) if groups is None else ():
        of_class = f"{name}: " + scoring.gene_groups(predictions, named, name)
        by_group = pd.concat([by_group, scoring.score_groups(predictions, of_class)])
    parts = [
        ranking.rank_assays(part.drop(columns="group")).assign(group=name)
        for name, part in by_group.groupby("group")
    ]
    found[tables.GROUPS] = pd.concat(parts, ignore_index=True)
    if len(by_question := ranking.rank_questions(scoring.score_questions(predictions))):
        found[tables.QUESTIONS] = by_question
    if ranking.cells_in_common(scores) >= ranking.LEAST_CELLS:
        ranked = ranking.rank_assays(scores, target="a new cell")
        found[tables.NEW_CELL] = ranked[ranked["cell"] == scoring.ALL]
    models = _models(model, scores, predictions, made)
    with_assays = models.pop(WITH_ASSAYS, None)
    if with_assays is not None:
        found[tables.ADDED] = added_value(models[COVARIATES], with_assays)
    if len(known.columns) > 1:
        found[tables.COVARIATES] = covariates_of(genes, known)
    if len(models) > 1:
        found[tables.BASELINES] = compare_models(models)
    if STACK in models:
        found[tables.STACK] = ranking.rank_assays(models[STACK])
    if MEAN_OF_OTHERS in models and len(own := score_deviations(predictions)):
        found[tables.OWN] = ranking.rank_assays(own)
    kept = _kept(predictions, leaked or {})
    if not kept.all() and usable(part := scoring.score_table(predictions[kept])).any():
        found[tables.WITHOUT] = ranking.rank_assays(part)
        if len(models) > 1:
            made = made[_kept(made, leaked or {})] if len(made) else made
            models = _models(model, part, predictions[kept], made)
            models.pop(WITH_ASSAYS, None)
            found[tables.BASELINES_WITHOUT] = compare_models(models)
    return found


def of_older_rules(
    made: dict[tables.Table, pd.DataFrame], ranked: pd.DataFrame
) -> tuple[dict[tables.Table, pd.DataFrame], str]:
    """Tables made again, without the columns whose rule has changed since version 0.1.

    Args:
        made: from `score`.
        ranked: the ranking as it was written then.

    Returns:
        The tables, and which intervals were left out of them: "leads and of groups"; or "all", with
        several seeds, where scores no longer get an interval (see the note), or where old intervals
        reached beyond −1 or 1.
    """
    now = made[tables.RANKING]
    notes = [set(table["note"].dropna()) - {""} for table in (ranked, now)]
    # They were not cut where no correlation can be; those of a group reach further than the whole.
    several = now["training_sd"].notna().any()
    which = "all" if several or _uncut(ranked) or notes[0] != notes[1] else "leads and of groups"
    gone = [*_LEADS, *(("note", *_INTERVALS) if which == "all" else ())]
    kept = {table: content.drop(columns=content.columns.intersection(
                [*gone, *_INTERVALS[:6]] if table == tables.GROUPS else gone))
            for table, content in made.items()}  # fmt: skip
    return kept, which


def _uncut(ranked: pd.DataFrame) -> bool:
    """Whether some interval, about its score, reaches beyond what a correlation can be."""
    for name, score in (("", "pearson"), ("simultaneous_", "pearson"), ("spearman_", "spearman")):
        ends = ranked.reindex(columns=[f"{name}low", f"{name}high"])
        about = (ends.mean(axis=1) - ranked[score]).abs() < tables.TOLERANCE
        if bool(((ends.abs() > 1).any(axis=1) & about).any()):
            return True
    return False


def alike_genes(store: WindowStore, folds: Iterable[Fold], named: pd.DataFrame) -> pd.DataFrame:
    """Genes that a model may know from others.

    Args:
        named: columns gene and group, besides what is seen in the signal; may be empty.

    Returns:
        Columns `gene_groups.COLUMNS` (nearest is empty, r NaN for the named ones) and `leaked`: of
        how many folds it is a test gene that is like a training or validation gene.
    """
    seen = signal_copies(store)
    if len(named):
        chrom = named["gene"].map(store.genes.set_index("gene_id")["chrom"])
        named = named.assign(chrom=chrom, nearest="", r=np.nan)
        seen = pd.concat([seen, named], ignore_index=True) if len(seen) else named
    times = np.zeros(len(seen), int)
    for genes in leaked_genes(folds, store.genes, seen).values():
        times += seen["gene"].isin(genes).to_numpy()
    return seen.assign(leaked=times)


def leaked_genes(
    folds: Iterable[Fold], genes: pd.DataFrame, alike: pd.DataFrame
) -> dict[str, set[str]]:
    """By fold, the test genes that are like a gene it trains on or validates by.

    Args:
        genes: the gene table of the store.
        alike: columns gene and group; may be empty.
    """
    return {} if alike.empty else {fold.name: fold.leaked(genes, alike) for fold in folds}


def _kept(predictions: pd.DataFrame, leaked: Mapping[str, Collection[str]]) -> np.ndarray:
    """Which predictions are of genes unlike all that were trained on."""
    kept = np.ones(len(predictions), bool)
    for fold, genes in leaked.items():
        kept &= ~((predictions["fold"] == fold) & predictions["gene_id"].isin(genes)).to_numpy()
    return kept


def _models(
    model: str, scores: pd.DataFrame, predictions: pd.DataFrame, made: pd.DataFrame
) -> dict[str, pd.DataFrame]:
    """Scores of the model, of the mean of its seeds, and of the baselines."""
    models = {model: scores}
    if scores["seed"].nunique() > 1:
        name = f"{model}, mean of {scores['seed'].nunique()} seeds"
        models[name] = scoring.score_table(mean_of_seeds(predictions))
    if len(made):
        for name, part in made.groupby("model", sort=False):
            models[str(name)] = scoring.score_table(part)
    return models


def quality(store: WindowStore, scores: pd.DataFrame) -> pd.DataFrame:
    """Scores of single assays, with mean signal and signal-to-noise of their tracks."""
    used = set(zip(scores["cell"], scores["assays"], strict=True))
    tracks = [(cell, assay) for cell, assay in store.manifest.tracks if (cell, assay) in used]
    return score_against_quality(scores, track_quality(store, tracks))
