"""What simple models predict from the same windows, on the same folds, for the same genes.

Each says of itself what it is (`stack.explained`). Some read the model's window, the others the
store's whole window whatever the model reads, 5′ to 3′, in bins of some 100 bp. What needs no
epigenome: ridge regression on what is known of genes (`COVARIATES`), and for what the assays add to
it the same on both (`WITH_ASSAYS`); the mean of other cells.

For labels they are logistic regressions and a boosted classifier. The strength of the penalty and
the number of trees are chosen on the validation chromosomes of a fold, as for the models
themselves; test genes are only predicted. Only this module needs scikit-learn.
"""

import dataclasses
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from threadpoolctl import threadpool_limits

from epi2expr_jax.genome import WindowSpec
from epi2expr_jax.inputs.device_tracks import WindowSignal
from epi2expr_jax.inputs.pools import cells_of
from epi2expr_jax.models.config import WindowModelConfig
from epi2expr_jax.names import known_names
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.held_out import has_tracks, new_cells
from epi2expr_jax.predict.window_features import (
    Features,
    Maker,
    Places,
    gene_score,
    mean_within,
    stretches,
    strongest_bin,
)
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.targets import LABEL, TargetScale

STRETCHES = 20  # of a window; 500 bp of 10 kb
BIN_BP = 100  # of the store's whole window
PENALTIES = np.logspace(-1, 5, 25)  # of standardised features
TREES, TREE_RATE = 300, 0.05
MEAN_OF_CELLS = "mean of the training cells"
MEAN_OF_OTHERS = "mean of the other cells"
COVARIATES, WITH_ASSAYS = "covariates", "covariates and assays"
PROMOTER_BP = 1000  # to either side of the TSS
_TINY = 1e-9
# Threads that build trees otherwise wait at full speed: on a busy machine all take ten times as
# long. It is read when scikit-learn is first imported, below.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")


NOTHING = np.empty((0, 0))
# Predictions of all genes from features and targets, and which genes to learn from and choose by.
Fit = Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, bool], Float[np.ndarray, " G"]]


@dataclasses.dataclass(frozen=True)
class Baseline:
    """A simple model.

    Attributes:
        features: of each assay.
        words: what it is, for readers.
        whole: whether they are of the store's whole window, oriented by strand, and not of what the
            model reads.
        least_bp: width of window that they need.
    """

    features: Maker
    fit: Fit
    words: str
    whole: bool = True
    least_bp: int = 0


def predict_baselines(
    ensemble: Ensemble,
    store: WindowStore,
    names: str | Sequence[str],
    show: Callable[[Iterable], Iterable] = iter,
    of_genes: Features = NOTHING,
) -> pd.DataFrame:
    """Predict the held-out genes of every run of one cell by baselines trained like it.

    Args:
        ensemble: whose cells, assay sets, folds, seeds, targets and windows to take. Runs on pools
            of cells have no baseline. Baselines know no seed: all seeds get the same predictions.
        names: of `BASELINES`; those that need a wider window than the store's are left out.
        show: goes through the (cell, assay set) pairs, showing how far it is.
        of_genes: `[G, F]`, what is known of the store's genes, as from
            `covariates.gene_features`: adds the baselines `COVARIATES` and `WITH_ASSAYS`.

    Returns:
        One row a run, baseline and test gene: the columns of `scores.table.score_table`, run_id and
        `model`, the baseline's name.

    Raises:
        InputError: naming every unknown baseline.
    """
    names = known_names(names, BASELINES, "--baselines", "baseline")
    names = [name for name in names if BASELINES[name].least_bp <= store.manifest.window_bp]
    if of_genes.shape[1]:
        names = [*names, WITH_ASSAYS]
    known = store.manifest.cells
    expression, labels = store.read_expression(known), store.read_labels(known)
    tables = []
    pairs = [
        (member.model_config.window, run, scale)
        for member in ensemble.members
        for run, scale in zip(member.runs, member.scales, strict=True)
        if run.cell in known
    ]
    pairs.sort(key=lambda pair: (pair[1].cell, pair[1].assays))
    grouped = [
        (key, list(group))
        for key, group in itertools.groupby(pairs, lambda pair: (pair[1].cell, pair[1].assays))
    ]
    for (cell, assays), group in show(grouped):
        features = _features(ensemble, store, group[0][0], cell, assays, names)
        if of_genes.shape[1]:
            both = np.concatenate([features.pop(WITH_ASSAYS), of_genes], axis=1)
            features |= {COVARIATES: of_genes, WITH_ASSAYS: both}
        c = known.index(cell)
        label = None if labels is None else labels[c]
        made: dict[tuple[str, str], np.ndarray] = {}
        # Small matrices take ten times as long where threads share them.
        with threadpool_limits(1, user_api="blas"):
            for _, run, scale in group:
                masks = ensemble.folds[run.fold].masks(store.genes)
                observed = scale.observed(expression[c], label)
                for name, own in features.items():
                    if (name, run.fold) not in made:  # the same for all seeds
                        labelled = scale.kind == LABEL
                        target = observed if labelled else scale.standardise(observed)
                        made[name, run.fold] = _fitted(
                            BASELINES.get(name, _RIDGE).fit, _standardised(own, masks["train"]),
                            target, masks, labelled,
                        )  # fmt: skip
                    predicted = made[name, run.fold][masks["test"]]
                    genes = store.genes[masks["test"]]
                    tables.append(
                        _table(run, scale, genes, observed[masks["test"]], predicted).assign(
                            model=name
                        )
                    )
    if not tables:
        return pd.DataFrame({"model": []})
    return pd.concat(tables, ignore_index=True)


def _features(
    ensemble: Ensemble,
    store: WindowStore,
    window: WindowSpec,
    cell: str,
    assays: Sequence[str],
    names: Sequence[str],
) -> dict[str, Features]:
    """What each baseline reads of a cell's assays; one track at a time is in memory.

    Args:
        window: of the model.
    """
    by_strand = dataclasses.replace(ensemble.input_config, orientation="strand")
    whole = WindowSpec(store.manifest.window_bp, BIN_BP).nearest_in(store.manifest.window)
    reading = {
        False: (ensemble, window),
        True: (dataclasses.replace(ensemble, input_config=by_strand), whole),
    }
    used = {name: BASELINES.get(name, _RIDGE) for name in names}
    found: dict[str, list[Features]] = {name: [] for name in names}
    for read_whole in {baseline.whole for baseline in used.values()}:
        reader, spec = reading[read_whole]
        read = WindowModelConfig(spec.window_bp, spec.bin_bp)
        data, places = reader.dataset(store, read, [cell], assays), Places.of(spec, store.genes)
        for assay in assays:
            track = data.track(cell, assay)
            assert isinstance(track, WindowSignal)
            for name, baseline in used.items():
                if baseline.whole == read_whole:
                    found[name].append(baseline.features(track.values, places))
    return {name: np.concatenate(parts, axis=1) for name, parts in found.items()}


def _fitted(
    fit: Fit,
    features: Features,
    target: np.ndarray,
    masks: Mapping[str, Bool[np.ndarray, " G"]],
    labelled: bool,
) -> Float[np.ndarray, " G"]:
    """Predictions of all genes; of one class alone nothing else can be learnt."""
    classes = np.unique(target[masks["train"]]) if labelled else ()
    if len(classes) == 1:
        return np.full(len(target), float(classes[0]))
    return fit(features, target, masks["train"], masks["validation"], labelled)


def _table(
    run: Run, scale: TargetScale, genes: pd.DataFrame, observed: np.ndarray, predicted: np.ndarray
) -> pd.DataFrame:
    # Baselines of labels give probabilities, all others the standardised target.
    raw = predicted if scale.kind == LABEL else scale.unstandardise(predicted)
    return pd.DataFrame(
        {
            "run_id": run.run_id,
            "cell": run.cell,
            "assays": run.label,
            "fold": run.fold,
            "seed": run.seed,
            "gene_id": genes.gene_id.to_numpy(),
            "chrom": genes.chrom.to_numpy(),
            "observed": scale.raw_to_log2(observed),
            "predicted": scale.raw_to_log2(raw),
            "observed_raw": observed,
            "predicted_raw": raw,
        }
    )


def _standardised(features: Features, train: Bool[np.ndarray, " G"]) -> Features:
    """By the training genes' mean and deviation."""
    deviation = features[train].std(axis=0)
    return (features - features[train].mean(axis=0)) / np.where(deviation > _TINY, deviation, 1)


def _linear(features, target, train, validation, labelled):
    if labelled:
        return _logistic(features, target, train, [1e6])[:, 0]
    return _ridge(features, target, train, np.array([_TINY]))[:, 0]


def _penalised(features, target, train, validation, labelled):
    fit = _logistic if labelled else _ridge
    grid = 1 / PENALTIES[::4] if labelled else PENALTIES
    predicted = fit(features, target, train, grid)
    return predicted[:, _best(predicted[validation], target[validation], labelled)]


def _ridge(features, target, train, penalties) -> Float[np.ndarray, "G P"]:
    """Predictions by ridge regression with each of some penalties; one decomposition for all."""
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=penalties, solver="svd")
    model.fit(features[train], np.tile(target[train, None], len(penalties)))
    return model.predict(features).reshape(len(features), len(penalties))


def _logistic(features, label, train, strengths) -> Float[np.ndarray, "G P"]:
    """Probabilities by logistic regression with each of some inverse penalties."""
    from sklearn.linear_model import LogisticRegression

    models = [LogisticRegression(C=strength, max_iter=1000) for strength in strengths]
    for model in models:
        model.fit(features[train], label[train] > 0)
    return np.stack([model.predict_proba(features)[:, 1] for model in models], axis=1)


def _boosting(features, target, train, validation, labelled):
    from sklearn import ensemble as trees

    kind: Any = trees.HistGradientBoostingClassifier
    if not labelled:
        kind = trees.HistGradientBoostingRegressor
    model = kind(learning_rate=TREE_RATE, max_iter=TREES, early_stopping=False, random_state=0)
    model.fit(features[train], target[train] > 0 if labelled else target[train])
    if labelled:
        stages = [stage[:, 1] for stage in model.staged_predict_proba(features)]
    else:
        stages = list(model.staged_predict(features))
    predicted = np.stack(stages, axis=1)
    return predicted[:, _best(predicted[validation], target[validation], labelled)]


def _best(predicted: Float[np.ndarray, "G P"], target: np.ndarray, labelled: bool) -> int:
    """Which predictions have the lowest loss."""
    if labelled:
        certain = np.where(target[:, None] > 0, predicted, 1 - predicted)
        return int((-np.log(np.maximum(certain, _TINY))).mean(axis=0).argmin())
    return int(((predicted - target[:, None]) ** 2).mean(axis=0).argmin())


_OF_STRETCHES = f"on the model's window cut into {STRETCHES} stretches"
_WHOLE = "the store's whole window"
_RIDGE = Baseline(
    stretches(STRETCHES), _penalised, f"ridge regression {_OF_STRETCHES}", whole=False
)
BASELINES: dict[str, Baseline] = {
    "linear": Baseline(
        stretches(1), _linear, "least squares on an assay's mean signal in the model's window",
        whole=False,
    ),
    "ridge": _RIDGE,
    "boosting": Baseline(
        stretches(STRETCHES), _boosting, f"gradient-boosted trees {_OF_STRETCHES}", whole=False
    ),
    "whole_ridge": Baseline(stretches(STRETCHES), _penalised, f"as ridge, on {_WHOLE}"),
    "strongest_bin": Baseline(
        strongest_bin, _penalised,
        f"ridge regression on the height and place of an assay's strongest bin in {_WHOLE}",
    ),
    "gene_score": Baseline(
        gene_score, _linear,
        f"least squares on an assay's signal in {_WHOLE}, weighted by distance from the gene",
    ),
} | {
    f"mean_{bp / 1000:g}kb": Baseline(
        mean_within(bp), _linear,
        f"least squares on an assay's mean signal in {bp / 1000:g} kb around the TSS", least_bp=bp,
    )
    for bp in (1_500, 3_000, 6_000, 40_000)
}  # fmt: skip


def mean_of_other_cells(
    ensemble: Ensemble, store: WindowStore, predictions: pd.DataFrame
) -> pd.DataFrame:
    """What genes express on average in cells other than the tested one, which needs no epigenome
    (Schreiber et al., Genome Biol 2020): those that a model of a pool was trained on, or all others
    where each model is of one cell.

    Args:
        predictions: of the models, as from `held_out.predict_held_out`.

    Returns:
        The same rows with this prediction, and `model`; none where there is no other cell, or where
        pools were tested in their own cells.
    """
    known = store.manifest.cells
    tested_in = {run.cell for run in ensemble.runs}
    if tested_in <= set(known) and len(known) > 1:
        model = MEAN_OF_OTHERS
    elif new_cells(tested_in, known) >= set(predictions["cell"]):
        model = MEAN_OF_CELLS
    else:
        return pd.DataFrame()
    expression, labels = store.read_expression(known), store.read_labels(known)
    scales = [scale for member in ensemble.members for scale in member.scales]
    rows = pd.Index(store.genes.gene_id).get_indexer(pd.Index(predictions["gene_id"]))
    means = np.empty((2, len(predictions)))
    places = predictions.groupby("run_id").indices
    for run, scale in zip(ensemble.runs, scales, strict=True):
        own = cells_of(run.cell, known)
        cells = [c for c, cell in enumerate(known) if (cell in own) == (model == MEAN_OF_CELLS)]
        given = [None if labels is None else labels[c] for c in cells]
        raw = [scale.observed(expression[c], label) for c, label in zip(cells, given, strict=True)]
        at = places.get(run.run_id, [])
        for mean, values in zip(means, (raw, map(scale.raw_to_log2, raw)), strict=True):
            mean[at] = np.mean([*values], axis=0)[rows[at]]
    return predictions.assign(predicted_raw=means[0], predicted=means[1], model=model)


def difference_of_promoters(
    ensemble: Ensemble, store: WindowStore, between: Sequence[str]
) -> pd.DataFrame:
    """What the difference in mean signal within 1 kb of the TSS tells of that in expression between
    two cells: least squares on every assay of a run, on its fold's training genes in both cells.

    Args:
        between: the two cells; a difference is the first less the second.

    Returns:
        run_id, gene_id and `promoter` (in log2(RPKM + 1)), one row a run that reads tracks of both
        cells and test gene.
    """
    one, other = (np.log2(1 + store.read_expression([cell])[0]) for cell in between)
    window, genes, tables = store.manifest.window, store.genes, []
    # As models read it, but of this window.
    half = max(1, min(window.bins, 2 * PROMOTER_BP // window.bin_bp) // 2)
    read = WindowModelConfig(2 * half * window.bin_bp, window.bin_bp)
    runs = [run for run in ensemble.runs if all(has_tracks(store, c, run) for c in between)]
    runs.sort(key=lambda run: run.assays)
    for assays, of_assays in itertools.groupby(runs, lambda run: run.assays):
        data = ensemble.dataset(store, read, between, assays)
        tracks = [data.track(cell, assay) for cell in between for assay in assays]
        means = [track.values.mean(axis=1) for track in tracks if isinstance(track, WindowSignal)]
        means = np.reshape(means, (2, len(assays), -1))
        features = np.stack([np.ones(len(genes)), *(means[0] - means[1])], axis=1)
        for run in of_assays:
            masks = ensemble.folds[run.fold].masks(genes)
            train, test = masks["train"], masks["test"]
            weights = np.linalg.lstsq(features[train], (one - other)[train])[0]
            made = {"run_id": run.run_id, "gene_id": genes.gene_id[test].to_numpy()}
            tables.append(pd.DataFrame(made | {"promoter": features[test] @ weights}))
    return pd.concat(tables) if tables else pd.DataFrame(columns=["run_id", "gene_id", "promoter"])


def mean_of_seeds(predictions: pd.DataFrame) -> pd.DataFrame:
    """The same predictions, each replaced by the mean over the seeds of its run: an ensemble."""
    same = ["cell", "assays", "fold", "gene_id"]
    means = predictions.groupby(same)[["predicted", "predicted_raw"]].transform("mean")
    return predictions.assign(predicted=means["predicted"], predicted_raw=means["predicted_raw"])
