"""Load a trained run.

from epi2expr_jax.predict import load
ensemble = load("RUN")
ensemble.predict(store, genes=["ENSG00000116213"])   # only by models that never saw the gene
ensemble.predict(store, present=["DNase"])   # masked-mark models: from a subset of their assays
"""

import dataclasses
import os
import pathlib
import warnings
from typing import Any

import jax
import numpy as np

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.dataset import InputConfig
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.models import model_named
from epi2expr_jax.models.weights import parts_of
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.predict.training_store import find_store, other_store
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.pieces import Piece
from epi2expr_jax.training.runs import Run, seen_words
from epi2expr_jax.training.splits import read_splits
from epi2expr_jax.training.targets import TargetScale


def load(run_dir: str | os.PathLike, store: str | os.PathLike | None = None) -> Ensemble:
    """Load the trained models of a run directory.

    Quarantined runs are left out; the run card names them. The card of a run of an older version
    does not say what its signal was: that is taken from its own store, kept in the card, and a
    warning says so.

    Args:
        store: for a run of an older version, where its own store lies now; by default where
            training read it. Not looked at where the card says what the signal was.

    Raises:
        InputError: if training has not finished, the directory is not a run, what is in it has
            changed since, or its card does not say what its signal was and `store` is not the store
            it was trained on.
    """
    run_dir = pathlib.Path(run_dir)
    card = checkpoint.read_finished(run_dir)
    with checkpoint.fields_named(run_dir):
        return _loaded(run_dir, card, store)


def _loaded(
    run_dir: pathlib.Path, card: dict[str, Any], store: str | os.PathLike | None
) -> Ensemble:
    model = model_named(card["model"], str(run_dir))
    signal = _trained_signal(run_dir, card, store)
    parts: dict[Any, list[Member]] = {}
    for population in card["populations"]:
        model_config = model(**population["model_config"])
        runs = [
            Run(row["cell"], tuple(row["assays"]), row["fold"], row["seed"])
            for row in population["runs"]
        ]
        rows = population["runs"]
        piece = Piece(run_dir / population["weights"], rows)
        checkpoint.require_unchanged(piece.path, population.get("weights_sha256"))
        _, params, stats = parts_of(model_config)
        weights = piece.restore({"params": params, "stats": stats})
        keep = [i for i, row in enumerate(population["runs"]) if row["status"] != "quarantined"]
        if keep:
            scales = [TargetScale(**row["target_scale"]) for row in population["runs"]]
            every = Member(model_config, tuple(runs), tuple(scales), weights)
            parts.setdefault(model_config, []).append(every.only(keep))
    if not parts:
        runs = sum(len(population["runs"]) for population in card["populations"])
        raise InputError(
            str(run_dir),
            f"{runs} runs, all quarantined: their loss was not finite",
            "a run that was trained to its end",
            "train again with a smaller --learning_rate",
        )
    members = [_joined(own) for own in parts.values()]
    splits = run_dir / "splits.json"
    checkpoint.require_unchanged(splits, card.get("splits_sha256"))
    folds = {fold.name: fold for fold in read_splits(splits, "converted" not in card)}
    if lost := {run.fold for member in members for run in member.runs} - folds.keys():
        found, expected = f"no fold {listing(sorted(lost))}", "the folds of all runs"
        raise InputError(str(splits), found, expected, "copy it from where the run was trained")
    made = Ensemble(
        card,
        InputConfig(**card["input_config"]),
        card["target"],
        folds,
        tuple(members),
        signal,
        run_dir,
    )
    for said in seen_words([run["started"] for run in made.trained if "started" in run]):
        warnings.warn(f"{run_dir}: {said}", stacklevel=3)
    return made


def _trained_signal(
    run_dir: pathlib.Path, card: dict[str, Any], store: str | os.PathLike | None
) -> TrainedSignal | None:
    """What a run was trained on, from its card; of an older run once from its own store."""
    if card.get("signal") is not None:
        return TrainedSignal.from_json(card["signal"], str(run_dir / checkpoint.RUN_CARD))
    if "converted" in card:
        return TrainedSignal.of_depth(card["store"]["assays"])
    try:
        path = find_store(run_dir, card, store)
        own = WindowStore.open(path)
        if own.checksum() != card["store_checksum"]:
            raise other_store(own, card)
    except (InputError, OSError, ValueError, KeyError, TypeError):
        if store is not None:
            raise
        return None  # moved or damaged; a store to predict from may yet turn out to be it
    signal = TrainedSignal.of(own.manifest, card["input_config"]["transform"])
    said = f"{run_dir}: its card did not say what its signal was; taken from its own store {path}"
    try:
        checkpoint.write_card(run_dir, {**card, "signal": signal.as_json()})
        said += " and kept in the card"
    except OSError as error:
        said += f", and not kept in the card ({error.strerror})"
    warnings.warn(said, stacklevel=4)
    return signal


def _joined(parts: list[Member]) -> Member:
    """The runs of one model shape, wherever their weights were kept, in the order of cells."""
    runs = [run for part in parts for run in part.runs]
    scales = [scale for part in parts for scale in part.scales]
    weights = jax.tree.map(lambda *x: np.concatenate(x), *(part.weights for part in parts))
    # Runs of one cell read the same tracks; which of them ended first means nothing.
    order = sorted(range(len(runs)), key=lambda i: dataclasses.astuple(runs[i]))
    return Member(parts[0].model_config, tuple(runs), tuple(scales), weights).only(order)
