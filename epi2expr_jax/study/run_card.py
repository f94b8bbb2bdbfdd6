"""The run card: what a run directory is of, begun with the request and closed with the results."""

import dataclasses
import pathlib
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError, Problem, collect
from epi2expr_jax.files import is_partial, write_parquet
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.pools import PLUS
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.names import find_genes
from epi2expr_jax.predict.training_store import places
from epi2expr_jax.store.facts import Facts
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.lookup import Study
from epi2expr_jax.training import checkpoint, pieces
from epi2expr_jax.training.runs import FINISHED, QUARANTINED, STATUS_NAMES, Log

_EPOCHS = "train_config.epochs"
# Fields of a request that say how many runs, and how long they may take.
_GROW = ("cells", "assays", "folds", "seeds", _EPOCHS)


class Card(Facts, dict[str, Any]):
    """A run card that shows itself in a few lines."""

    def facts(self) -> tuple[str, dict[str, Any]]:
        """As `Facts.facts`."""
        return f"run card of {self['model']}: {self['status']}", {
            "models": sum(len(population["runs"]) for population in self["populations"]),
            "store": self["store"]["path"],
            "seconds": round(self["seconds"]),
            "fields": listing(self, 30),
        }


def card_of(study: Study, run_dir: pathlib.Path, resume: bool, command: str) -> dict[str, Any]:
    """The run card to go on with: a new one, that of the same request interrupted, or that of a
    finished run of which more is asked.

    Nothing is written; see `begin`.

    Args:
        resume: whether to go on with an interrupted run.
        command: what to run again to get the same, for a new card.

    Raises:
        InputError: if the directory holds a run of another request, more is asked of one that
            has not finished, or less, or the directory holds something else.
    """
    request, store = study.request, study.store
    wanted = {"request": request.as_json(), "store_checksum": store.checksum()}
    trained = TrainedSignal.of(store.manifest, request.input_config.transform)
    if (run_dir / checkpoint.RUN_CARD).exists():
        card = checkpoint.read_card(run_dir)
        same = card["store_checksum"] == wanted["store_checksum"]
        before, now = (
            _by_ids(one, store) if same else one for one in (card["request"], wanted["request"])
        )
        changed = list(_changes(before, now))
        grows = same and all(change.split("=")[0] in _GROW for change in changed)
        changed += [] if same else ["the store's contents"]
        if changed and grows and resume:
            return _grown(card, study, run_dir) | wanted | {"command": command}
        if changed or not resume:
            raise InputError(
                str(run_dir),
                f"a run of another request ({'; '.join(changed)})" if changed else "a run",
                "the same request, to resume" if changed else "an empty run directory",
                "name another run directory, or delete this one",
            )
        return {"signal": trained.as_json(), **card}  # cards of older versions lack it
    there = run_dir.iterdir() if run_dir.exists() else ()
    if not all(is_partial(path) or path.suffix == ".lock" for path in there):
        raise InputError(
            str(run_dir),
            "files that are not a run",
            "an empty or new directory",
            "name another run directory",
        )
    return {
        **wanted,
        "status": "training",
        "store": {
            **places(store.path, run_dir),
            "cells": store.manifest.cells,
            "assays": store.manifest.assays,
            "genes": len(store.genes),
            "window_bp": store.manifest.window_bp,
            "bin_bp": store.manifest.bin_bp,
            "assembly": store.manifest.assembly,
            "left_out": store.manifest.left_out,
            "blacklist": {**store.manifest.blacklist, **store.manifest.blacklisted},
            "groups": store.manifest.groups,
            "expression_unit": store.manifest.expression_unit,
        },
        "model": request.model,
        "target": request.target,
        "cv": request.cv,
        "input_config": dataclasses.asdict(request.input_config),
        "signal": trained.as_json(),
        "versions": checkpoint.versions(),
        "command": command,
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": 0.0,
        "populations": [],
    }


def _grown(card: dict[str, Any], study: Study, run_dir: pathlib.Path) -> dict[str, Any]:
    """The card of a finished run that is to train more; its runs stay as they are.

    Raises:
        InputError: if it has not finished, or has runs that are not asked for now.
    """
    rows = [row for population in card["populations"] for row in population["runs"]]
    wanted = {run.run_id for run in study.runs}
    epochs = card["request"]["train_config"]["epochs"], study.request.train_config.epochs
    lost = [
        f"{row['cell']} {PLUS.join(row['assays'])} {row['fold']} seed {row['seed']}"
        for row in rows
        if row["run_id"] not in wanted
    ]
    with collect() as problems:
        if card["status"] != "complete":
            found, expected = "training of another request, not finished", "a finished run to grow"
            remedy = f"first run the command that began it: {card['command']}"
            problems.add(str(run_dir), found, expected, remedy)
        if epochs[1] < epochs[0]:
            found, expected = f"a run of {epochs[0]} epochs, now {epochs[1]}", "as many, or more"
            problems.add(str(run_dir), found, expected, "name another run directory")
        if lost:
            found = f"a run of another request: {len(lost)} of its {len(rows)} runs are not asked "
            problems.add(
                str(run_dir),
                f"{found}for now ({listing(lost, 3)})",
                "all of its cells (pools of the same cells), assay sets, folds and seeds, and more",
                "ask for these too, or name another run directory",
            )
    return {**card, "status": "training"}


def goes_on(card: dict[str, Any], epochs: int) -> str:
    """Which runs of a finished training go on where it may take so many epochs, in words."""
    rows = [row for population in card["populations"] for row in population["runs"]]
    at_limit = [row for row in rows if row["status"] == STATUS_NAMES[FINISHED]]
    on = [row for row in at_limit if row["epochs"] - row.get("restarted", 0) < epochs]
    if not on:
        return ""
    names = [f"{r['cell']} {PLUS.join(r['assays'])} {r['fold']} seed {r['seed']}" for r in on]
    rest = f"; the other {len(rows) - len(on)} stay as they ended" if len(on) < len(rows) else ""
    which = f" ({listing(names, 3)})" if rest else ""
    return f"{len(on)} runs that took all of their epochs go on to {epochs}{which}{rest}"


def _by_ids(request: dict[str, Any], store: WindowStore) -> dict[str, Any]:
    """A request whose test genes are ids in order: they may be named otherwise, in any order."""
    names = request.get("test_genes", [])
    ids = store.genes["gene_id"].iloc[find_genes(store.genes, names, "--test_genes")]
    return request | {"test_genes": sorted(set(ids))}


def _changes(before: dict[str, Any], now: dict[str, Any], within: str = "") -> Iterator[str]:
    """Each setting that is another one now, in words."""
    for name in {**before, **now}:
        old, new = before.get(name), now.get(name)
        if isinstance(old, dict) and isinstance(new, dict):
            yield from _changes(old, new, f"{within}{name}.")
        elif old != new:
            yield f"{within}{name}={old!r}, now {new!r}"


def begin(run_dir: pathlib.Path, card: dict[str, Any]) -> None:
    """Make the run directory and write its card, if it is new or more is asked than before."""
    there = (run_dir / checkpoint.RUN_CARD).exists()
    if not there or checkpoint.read_card(run_dir)["request"] != card["request"]:
        run_dir.mkdir(parents=True, exist_ok=True)
        checkpoint.write_card(run_dir, card)


def reopen_damaged(run_dir: pathlib.Path, card: dict[str, Any]) -> list[Problem]:
    """What of a finished run has changed since: such weights go, and the run is no longer finished.

    Returns:
        What has changed; of nothing, nothing is done.
    """
    written = {one["weights"]: one.get("weights_sha256") for one in card["populations"]}
    written |= {
        "splits.json": card.get("splits_sha256"),
        "history.parquet": card.get("history_sha256"),  # cards of older versions lack it
    }
    problems = collect()
    for name, checksum in written.items():
        with problems.part():
            checkpoint.require_unchanged(run_dir / name, checksum)
    changed = [problem.where for problem in problems.found]
    for piece in run_dir.glob("checkpoints/*/*/best-*/"):
        if str(piece) in changed:
            pieces.remove_piece(piece)
    if changed:
        card["status"] = "training"
        checkpoint.write_card(run_dir, card)
    return problems.found


def finish(study: Study, run_dir: pathlib.Path, card: dict[str, Any], seconds: float) -> int:
    """Close the run and its card, if the runs of every process are there.

    Args:
        seconds: how long this process has trained.

    Returns:
        How many runs are not there yet, of other processes or damaged.
    """
    folder = run_dir / "checkpoints"
    found: dict[str, dict[str, Any]] = {}
    populations = []
    for group in sorted(path for path in folder.iterdir() if path.is_dir()):
        for piece in pieces.read_pieces(group, "best")[0]:
            if piece.short_of(study.request.train_config.epochs):
                continue  # its runs went on
            rows = [record for record in piece.records if record["run_id"] not in found]
            if len(rows) < len(piece.records):
                continue  # the same runs, trained twice by processes that did not know it
            found |= {record["run_id"]: record for record in rows}
            populations.append(
                {
                    "name": group.name,
                    "model_config": rows[0]["model_config"],
                    "weights": str(piece.path.relative_to(run_dir)),
                    "weights_sha256": checkpoint.files_sha256(piece.path),
                    "runs": [_as_card(record) for record in rows],
                }
            )
    missing = [run for run in study.runs if run.run_id not in found]
    if missing:
        return len(missing)
    history = [_history(found[run.run_id]) for run in study.runs]
    write_parquet(run_dir / "history.parquet", pd.concat(history))
    card |= {
        "status": "complete",
        "splits_sha256": checkpoint.files_sha256(run_dir / "splits.json"),
        "history_sha256": checkpoint.files_sha256(run_dir / "history.parquet"),
        **(
            {"gene_groups_sha256": checkpoint.files_sha256(run_dir / "gene_groups.csv")}
            if len(study.gene_groups)
            else {}
        ),
        "populations": populations,
        "seconds": card["seconds"] + seconds,
    }
    checkpoint.write_card(run_dir, card)
    for group in folder.iterdir():
        pieces.remove_states(group, study.request.train_config.epochs)
    return 0


def _as_card(record: dict[str, Any]) -> dict[str, Any]:
    log = Log(**record["log"])
    quarantined = {"epoch": log.epochs, "step": log.bad_step + 1 if log.bad_step >= 0 else None}
    return {
        **{name: record[name] for name in ("cell", "assays", "fold", "seed", "run_id")},
        "status": log.status_name,
        "epochs": log.epochs,
        **({"restarted": log.restarted} if log.restarted else {}),
        "best_validation_loss": log.best,
        "quarantined": quarantined if log.status == QUARANTINED else None,
        "read": record["read"],
        **({"started": record["started"]} if "started" in record else {}),
        "target_scale": record["target_scale"],
    }


def _history(record: dict[str, Any]) -> pd.DataFrame:
    """One row an epoch of a run."""
    log = Log(**record["log"])
    bad_step = np.full(log.epochs, -1)
    if log.epochs:
        bad_step[-1] = log.bad_step
    return pd.DataFrame(
        {
            "run_id": record["run_id"],
            "epoch": np.arange(1, log.epochs + 1),
            "train_loss": np.array(log.train_loss, np.float32),
            "validation_loss": np.array(log.validation_loss, np.float32),
            "learning_rate": np.array(log.learning_rate, np.float32),
            "bad_step": bad_step,
            "attempt": 1 + (np.arange(log.epochs) >= (log.restarted or log.epochs)),
        }
    )
