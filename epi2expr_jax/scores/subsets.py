"""What masked-mark models score from subsets of their assays, and what a further assay adds.

Of every subset: a batch of held-out genes is gathered once and predicted from one subset after the
other, several runs at once as in `predict`; of the predictions only the scores are kept.

Axes: `R` runs, `L` lanes, `K` chromosomes, `S` subsets, `A` assays, `G` genes, `N` genes of a
chromosome, `B` genes a batch.
"""

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import scipy
import xarray as xr
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from epi2expr_jax.errors import collect
from epi2expr_jax.genome import listing, sort_chromosomes
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import Signal, over_batches
from epi2expr_jax.inputs.masking import every_subset, masked
from epi2expr_jax.inputs.pools import PLUS
from epi2expr_jax.models.weights import parts_of
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.predict.inference import chunks_of, on_scale, plan_of
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.intervals import LEAST_SCORED, too_few, usable
from epi2expr_jax.scores.metrics import Moments
from epi2expr_jax.scores.ranking import LEAST_CELLS
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.lanes import Lanes

MOST_ASSAYS = 12  # 4,096 subsets
ALL_GENES, ON, LEVEL = "all genes", "on or off", "level of genes that are on"
_UNIT = ["cell", "fold", "seed", "chrom"]
_BLOCK_BYTES = 1 << 28  # of predictions on a device at a time


def subset_scores(
    ensemble: Ensemble, store: WindowStore, progress: Callable[[int], object] = lambda scored: None
) -> xr.Dataset:
    """Score every subset of the assays of masked-mark models, on the genes they never saw.

    Args:
        ensemble: models of one assay set, in any cells.
        store: the one they were trained on.
        progress: told how many subsets of a run have been scored since it was last told; in the
            end `2^A - 1` for each run.

    Returns:
        `pearson [run, chrom, subset]`, Pearson r of log2(RPKM + 1) within run and chromosome, and
        `genes [run, chrom]`; both NaN where the run was not tested or no correlation carries
        weight. `subset` numbers the rows of `masking.every_subset`; that of no assay scores 0 by
        rule, as every constant prediction. `cell`, `fold` and `seed` are coordinates on `run`, and
        the attribute `assays` names what the bits of a subset stand for.

    Raises:
        InputError: if these are not masked-mark models, or of several assay sets, or of more than
            `MOST_ASSAYS` assays, or if there are too few genes for a single score.
    """
    require_masked(ensemble, MOST_ASSAYS)
    (member,) = ensemble.members
    runs, assays = member.runs, member.runs[0].assays
    chrom = store.genes.chrom.to_numpy()
    wanted = np.stack([ensemble.folds[run.fold].masks(store.genes)["test"] for run in runs])
    if not wanted.any(1).all():
        raise too_few(0)
    tested = sort_chromosomes(np.unique(chrom[wanted.any(0)]))
    subsets = every_subset(len(assays))
    pearson = np.full((len(runs), len(tested), len(subsets)), np.nan)
    genes = np.full((len(runs), len(tested)), np.nan)
    observed = _observed(member, store)
    places = {run.fold: _places(chrom[wanted[r]]) for r, run in enumerate(runs)}
    for r, block, predicted in _predictions(ensemble, member, store, wanted, subsets):
        run, scale = runs[r], member.scales[r]
        names, index, there = places[run.fold]
        values = on_scale(scale, predicted[:, wanted[r]], "log2").astype(np.float32)
        scored = np.asarray(_pearson(observed[r, wanted[r]], values, index, there))
        rows = np.array([tested.index(name) for name in names])
        kept = (there.sum(1) >= LEAST_SCORED) & ~np.isnan(scored[0])
        genes[r, rows] = np.where(kept, there.sum(1), np.nan)
        pearson[r, rows, 0] = np.where(kept, 0, np.nan)
        pearson[r, rows[:, None], block] = np.where(kept[:, None], scored.T, np.nan)
        progress(len(predicted))
    if np.isnan(genes).all():
        raise too_few(max(int(there.sum(1).max()) for _, _, there in places.values()))
    return xr.Dataset(
        {
            "pearson": (("run", "chrom", "subset"), pearson),
            "genes": (("run", "chrom"), genes),
        },
        coords={
            "run": [run.run_id for run in runs],
            "cell": ("run", [run.cell for run in runs]),
            "fold": ("run", [run.fold for run in runs]),
            "seed": ("run", [run.seed for run in runs]),
            "chrom": tested,
            "subset": np.arange(len(subsets)),
        },
        attrs={"assays": assays},
    )


def require_masked(ensemble: Ensemble, most_assays: int | None = None) -> None:
    """Check that models are masked-mark ones of one assay set.

    Raises:
        InputError: if they are not, or of more assays than `most_assays`.
    """
    sets = dict.fromkeys(run.label for run in ensemble.runs)
    most = max((len(run.assays) for run in ensemble.runs), default=0)
    with collect() as problems:
        if not sets:
            problems.add(
                "the run",
                "not one model",
                "trained models",
                "see the run card: all were quarantined; give a lower --learning_rate",
            )
        if not ensemble.masked:
            problems.add(
                "the run",
                "models that always read all of their assays",
                "masked-mark models, which predict from any subset",
                "train with --masked --assays=all",
            )
        if len(sets) > 1:
            problems.add(
                "the run",
                f"{len(sets)} assay sets ({listing(sets)})",
                "models of one assay set, whose subsets are scored",
                "train with --masked --assays=all, or =A+B+C (in Python: Ensemble.only)",
            )
        if most_assays is not None and most > most_assays:
            problems.add(
                "the run",
                f"{most} assays, which have {2**most:,} subsets",
                f"at most {most_assays} assays ({2**most_assays:,} subsets)",
                "train a masked-mark model of fewer: --masked --assays=A+B+C",
            )


def _observed(member: Member, store: WindowStore) -> Float[np.ndarray, "R G"]:
    """Observed log2(RPKM + 1) (or labels) of every gene in each run's cell."""
    cells = list(dict.fromkeys(run.cell for run in member.runs))
    expression, labels = store.read_expression(cells), store.read_labels(cells)
    rows = []
    for run, scale in zip(member.runs, member.scales, strict=True):
        cell = cells.index(run.cell)
        label = None if labels is None else labels[cell]
        rows.append(scale.raw_to_log2(scale.observed(expression[cell], label)))
    return np.stack(rows).astype(np.float32)


def _places(
    chrom: np.ndarray,
) -> tuple[list[str], Int[np.ndarray, "K N"], Bool[np.ndarray, "K N"]]:
    """The chromosomes of some genes, and where each one's genes stand among them, padded."""
    names = sort_chromosomes(np.unique(chrom))
    rows = [np.flatnonzero(chrom == name) for name in names]
    most = max(map(len, rows))
    index = np.stack([np.pad(own, (0, most - len(own))) for own in rows])
    return names, index, np.arange(most) < np.array([[len(own)] for own in rows])


def _predictions(
    ensemble: Ensemble,
    member: Member,
    store: WindowStore,
    wanted: Bool[np.ndarray, "R G"],
    subsets: Bool[np.ndarray, "S A"],
) -> Iterator[tuple[int, Int[np.ndarray, " s"], Float[np.ndarray, "s G"]]]:
    """A run, some subsets by number, and its standardised predictions from them; and so on.

    From the empty subset nothing is predicted.
    """
    lanes, graph = Lanes.default(), parts_of(member.model_config)[0]
    cache = ensemble.tracks(member.model_config, member.runs, store)
    plan = plan_of(member.model_config, member.runs, cache, wanted)
    most = max(1, _BLOCK_BYTES // (4 * wanted.shape[1] * lanes.width))
    blocks = np.array_split(np.arange(1, len(subsets)), -(-(len(subsets) - 1) // most))
    size = max(map(len, blocks))
    own = member.weights["params"], member.weights["stats"], wanted
    for rows, stacked, tracks in chunks_of(own, member.runs, cache, lanes):
        for block in blocks:
            padded = subsets[np.resize(block, size)]  # of one size: one program
            shown = lanes.place(np.broadcast_to(padded, (lanes.count, *padded.shape)))
            predicted = np.asarray(_predict(graph, plan, lanes, (*stacked, shown), tracks))
            for lane, r in enumerate(rows):
                yield int(r), block, predicted[lane, : len(block)]


# Compiled once for a model, plan, lanes and size of block.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _predict(
    graph: Any, plan: BatchPlan, lanes: Lanes, stacked: Any, tracks: tuple[tuple, ...]
) -> Float[Array, "L S G"]:
    def one(params, stats, wanted, subsets, signal):
        return predict_subsets(graph, params, stats, signal, wanted, plan, subsets)

    return lanes.map(one, stacked, tracks)


def predict_subsets(
    graph: Any,
    params: Any,
    stats: Any,
    signal: Signal,
    wanted: Bool[Array, " G"],
    plan: BatchPlan,
    subsets: Bool[Array, "S A"],
) -> Float[Array, "S G"]:
    """One masked-mark run's outputs `[S G]`, standardised, 0 for genes that are not wanted.

    Args:
        wanted: `[G]` which genes to predict.
        subsets: `[S A]` which assays each subset shows.
    """

    def outputs(model, x, index, mask):
        def of(subset):
            present = jnp.broadcast_to(subset, (plan.size, subset.size))
            return model(masked(x, present), mask=mask, key=None)

        return lax.map(of, subsets)

    empty = jnp.zeros((len(subsets), wanted.size))
    return over_batches(graph, params, stats, signal, wanted, plan, outputs, empty)


@jax.jit
def _pearson(
    observed: Float[Array, " G"],
    predicted: Float[Array, "S G"],
    index: Int[Array, "K N"],
    there: Bool[Array, "K N"],
) -> Float[Array, "S K"]:
    """Pearson r on each chromosome; NaN where the observation is constant."""
    shape = len(predicted), *index.shape
    moments = Moments.of(
        jnp.broadcast_to(observed[index], shape),
        predicted[:, index],
        jnp.broadcast_to(there, shape),
    )
    return jnp.where(moments.constant_observed(), jnp.nan, moments.pearson())


def gains_by_cell(
    ensemble: Ensemble,
    store: WindowStore,
    have: Sequence[str],
    known: pd.DataFrame,
    show: Callable[[Iterable], Iterable] = iter,
) -> pd.DataFrame:
    """What each assay that is not measured adds to those that are, in each tested cell.

    Genes and, of models of a pool, cells are tested where `predict_held_out` tests them.

    Args:
        have: the assays that are measured.
        known: of genes, as from `inputs.covariates.covariates_of`; its classes are scored apart.
        show: goes through the assays, showing how far it is.

    Returns:
        One row a kind of genes, assay and cell: `genes` (`ALL_GENES`, `ON`, `LEVEL`, or a class),
        `score` (pearson, auc or spearman), assay, cell, `have` (the score from what is measured)
        and `gain`, paired by run and chromosome, which are weighted by their genes.

    Raises:
        InputError: if these are not masked-mark models of one assay set, or as `Ensemble.predict`.
    """
    require_masked(ensemble)
    others = [assay for assay in ensemble.runs[0].assays if assay not in have]
    columns = ["genes", "score", "assay", "cell", "have", "gain"]
    if not others:
        return pd.DataFrame(columns=columns)
    before = _scores(ensemble, store, have, known).rename("have")
    parts = []
    for assay in show(others):
        after = _scores(ensemble, store, [*have, assay], known).rename("after")
        both = pd.concat([before, after], axis=1, join="inner").reset_index()
        both["gain"] = both["after"] - both["have"]
        both["cell"] = both["cell"].str.partition(" by ")[0]  # one that several pools are tested in
        weighted = both[["have", "gain"]].mul(both["n"], axis=0).assign(n=both["n"])
        sums = weighted.groupby([both["genes"], both["score"], both["cell"]], sort=False).sum()
        means = sums[["have", "gain"]].div(sums["n"], axis=0).reset_index()
        parts.append(means.assign(assay=assay))
    return pd.concat(parts, ignore_index=True)[columns]


def _scores(
    ensemble: Ensemble, store: WindowStore, present: Sequence[str], known: pd.DataFrame
) -> pd.Series:
    """Scores by kind of genes, run, cell and chromosome, with `n`, the genes, in the index."""
    predictions = predict_held_out(ensemble, store, present).assign(assays=PLUS.join(present))
    parts = [scoring.score_table(predictions).assign(genes=ALL_GENES, score="pearson")]
    asked = scoring.score_questions(predictions, scoring.ON[:1])
    for name, (question, score) in zip((ON, LEVEL), scoring.QUESTIONS.items(), strict=True):
        if len(asked):
            parts.append(asked[asked["question"] == question].assign(genes=name, score=score))
    for column in scoring.class_columns(known):
        classes = f"{column}: " + scoring.gene_groups(predictions, known, column)
        of_class = scoring.score_groups(predictions, classes)
        parts.append(of_class.rename(columns={"group": "genes"}).assign(score="pearson"))
    table = pd.concat(parts, ignore_index=True)
    table = table[usable(table)]
    asked_for = [table["score"] == name for name in scoring.METRICS]
    value = np.select(asked_for, [table[name] for name in scoring.METRICS])
    table = table.assign(value=value).dropna(subset="value")
    return table.set_index(["genes", "score", *_UNIT, "n"])["value"]


def gains_over_cells(by_cell: pd.DataFrame, confidence: float = 0.95) -> pd.DataFrame:
    """What each assay adds on average over cells, and where the gain in one more cell may lie.

    Returns:
        One row a kind of genes and assay, the largest gain first: genes, score, assay, `have`,
        `gain`, `low` and `high` (Student's t for one more cell like these: Hahn & Meeker,
        Statistical Intervals, section 3.4), `cells`, and `note`: why there is no interval.
    """
    groups = by_cell.groupby(["genes", "score", "assay"], sort=False)
    table = groups.agg(
        have=("have", "mean"), gain=("gain", "mean"), sd=("gain", "std"), cells=("gain", "size")
    ).reset_index()
    C = table["cells"]
    reach = scipy.stats.t.isf((1 - confidence) / 2, np.maximum(C - 1, 1))
    reach = (reach * table.pop("sd") * np.sqrt(1 + 1 / C)).where(C >= LEAST_CELLS)
    table.insert(5, "low", table["gain"] - reach)
    table.insert(6, "high", table["gain"] + reach)
    table["note"] = np.where(C >= LEAST_CELLS, "", f"fewer than {LEAST_CELLS} cells")
    order = table.groupby("genes", sort=False)["gain"].rank(ascending=False, method="first")
    kind = pd.factorize(table["genes"])[0]
    return table.iloc[np.lexsort((order, kind))].reset_index(drop=True)
