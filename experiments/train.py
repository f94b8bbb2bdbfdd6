"""Train one model for every cell x assay set x fold x seed, many at once.

    python -m experiments.train --store=roadmap.zarr --run=runs/cnn --model=cnn
    python -m experiments.train --store=roadmap.zarr --run=runs/pairs --model=promoter_cnn \\
        --cells=E003,E123 --assays=each,H3K27ac+DNase --cv=chromosomes_5 --target=log2
    python -m experiments.train --store=distal.zarr --run=runs/distal --model=chromoformer
    python -m experiments.train --store=distal.zarr --run=runs/near --model=chromoformer --no_pcre

The same command run again resumes an interrupted training: a checkpoint is written after every
epoch. A run whose loss is no longer finite is quarantined and named; the others go on.
Next: experiments.evaluate, experiments.report.
"""

import collections
import dataclasses
import pathlib
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

from data_prep.program import start
from epi2expr_jax import checkpoint
from epi2expr_jax.dataset import Dataset, load_dataset, plan_batches
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import listing
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.population import Population
from epi2expr_jax.runs import Run, parse_assay_sets, plan_runs
from epi2expr_jax.splits import Fold, make_folds, select_folds, write_splits
from epi2expr_jax.store import WindowStore
from epi2expr_jax.training import Trainer
from experiments.flags import TrainRequest, define_training

FLAGS = flags.FLAGS

_STATE_BYTES = 4 << 30  # of the runs that train together, unless --runs_at_once is given


def train(
    request: TrainRequest,
    run_dir: pathlib.Path,
    *,
    resume: bool = True,
    runs_at_once: int = 0,
    checkpoint_every: int = 1,
) -> dict[str, Any]:
    """Train everything the request names; returns the run card.

    Raises:
        InputError: for anything wrong with the request, the store or the run directory.
    """
    started = time.time()
    store = WindowStore.open(request.store)
    runs, folds = plan(request, store)
    card = _start(request, store, run_dir, resume)
    if card["status"] == "complete":
        print(f"{run_dir} is complete: nothing to do")
        return card
    write_splits(
        run_dir / "splits.json", request.cv, request.split_seed, folds, list(store.genes.chrom)
    )
    cells = list(dict.fromkeys(run.cell for run in runs))
    assays = [a for a in store.manifest.assays if any(a in run.assays for run in runs)]
    model = _model_config(request, 1)
    dataset = load_dataset(store, model, cells, assays, request.input_config)
    config = request.train_config
    all_folds = scheme_folds(request, store)
    plans = plan_batches(store, model, all_folds, config.batch_size, config.balanced)

    history, populations = [], []
    sizes = sorted({len(run.assays) for run in runs})
    trainers = {n: Trainer(_model_config(request, n), config, plans) for n in sizes}
    groups = [group for n in sizes for group in _groups(runs, n, trainers[n], runs_at_once)]
    for number, name, group in groups:
        population = _train_group(
            trainers[number], group, dataset, folds, request, run_dir, name, checkpoint_every,
            f"{name}: {len(group)} runs",
        )  # fmt: skip
        history.append(population["history"])
        populations.append(population["card"])
    pd.concat(history).to_parquet(run_dir / "history.parquet", index=False)
    card |= {
        "status": "complete",
        "populations": populations,
        "seconds": card["seconds"] + time.time() - started,
    }
    checkpoint.write_card(run_dir, card)
    for folder in (run_dir / "checkpoints").glob("*/epoch-*"):
        shutil.rmtree(folder)  # the best weights are kept; only these were needed to resume
    return card


def plan(request: TrainRequest, store: WindowStore) -> tuple[list[Run], list[Fold]]:
    """The runs of a request and the folds of its scheme.

    Raises:
        InputError: for unknown cells, assays or folds, or tracks the store does not have.
    """
    manifest = store.manifest
    cells = manifest.cells if request.cells == ["all"] else request.cells
    unknown = [cell for cell in cells if cell not in manifest.cells]
    if unknown:
        raise InputError(
            Problem(
                "--cells",
                f"unknown cell {listing(unknown)}",
                f"all, or some of {', '.join(manifest.cells)}",
                "correct the name, or build a store that has this cell",
            )
        )
    folds = select_folds(scheme_folds(request, store), request.folds)
    there = {tuple(pair) for pair in manifest.tracks}
    sets = parse_assay_sets(request.assays, manifest.assays)
    absent = [
        f"{cell}-{assay}"
        for cell in cells
        for assay in dict.fromkeys(assay for assays in sets for assay in assays)
        if (cell, assay) not in there
    ]
    if absent:
        raise InputError(
            Problem(
                str(store.path),
                f"no track {listing(absent)}",
                "a track for every chosen cell and assay",
                "choose --cells or --assays without them, or build a store that has them",
            )
        )
    runs = [
        Run(cell, assays, fold.name, seed)
        for assays in sets
        for cell in cells
        for fold in folds
        for seed in range(request.seeds)
    ]
    return runs, folds


def scheme_folds(request: TrainRequest, store: WindowStore) -> list[Fold]:
    """All folds of the request's scheme, those not asked for included."""
    counts = collections.Counter(store.genes.chrom)
    blind = request.blind or store.manifest.blind
    return make_folds(request.cv, counts, blind=blind, seed=request.split_seed)


def _model_config(request: TrainRequest, assays: int) -> Any:
    return REGISTRY[request.model](assays=assays, **request.model_options)


def _groups(
    runs: Sequence[Run], number: int, trainer: Trainer, at_once: int
) -> Iterable[tuple[int, str, list[Run]]]:
    """Runs of `number` assays, a part of them at a time: (assays a run, name, runs).

    Args:
        at_once: runs a part; 0 for as many as `_STATE_BYTES` hold.
    """
    if not at_once:
        state = trainer.init(jnp.zeros(2, jnp.uint32))
        bytes_a_run = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
        at_once = max(1, _STATE_BYTES // bytes_a_run)
    same = [run for run in runs if len(run.assays) == number]
    for i in range(0, len(same), at_once):
        yield number, f"{number}-assay-{i // at_once}", same[i : i + at_once]


def _start(
    request: TrainRequest, store: WindowStore, run_dir: pathlib.Path, resume: bool
) -> dict[str, Any]:
    """The run card to go on with: a new one, or that of the same request interrupted."""
    asked = {"request": request.as_json(), "store_checksum": store.checksum()}
    if (run_dir / checkpoint.RUN_CARD).exists():
        card = checkpoint.read_card(run_dir)
        changed = [
            f"{name}={card['request'].get(name)!r}, now {value!r}"
            for name, value in asked["request"].items()
            if card["request"].get(name) != value
        ]
        if card["store_checksum"] != asked["store_checksum"]:
            changed.append("the store's contents")
        if changed or not resume:
            raise InputError(
                Problem(
                    str(run_dir),
                    f"a run of another request ({'; '.join(changed)})" if changed else "a run",
                    "the same request, to resume" if changed else "an empty run directory",
                    "give another --run, or delete this one",
                )
            )
        if card["versions"] != checkpoint.versions():
            print("note: other versions or device than at the start; see the run card")
        return card
    if run_dir.exists() and any(run_dir.iterdir()):
        raise InputError(
            Problem(
                str(run_dir),
                "files that are not a run",
                "an empty or new directory",
                "give another --run",
            )
        )
    run_dir.mkdir(parents=True, exist_ok=True)
    card = {
        **asked,
        "status": "training",
        "store": {
            "path": str(store.path),
            "cells": store.manifest.cells,
            "assays": store.manifest.assays,
            "genes": len(store.genes),
            "window_bp": store.manifest.window_bp,
            "bin_bp": store.manifest.bin_bp,
            "assembly": store.manifest.assembly,
            "left_out": store.manifest.left_out,
            "groups": store.manifest.groups,
        },
        "model": request.model,
        "target": request.target,
        "cv": request.cv,
        "input_config": dataclasses.asdict(request.input_config),
        "versions": checkpoint.versions(),
        "command": shlex.join(["python", "-m", "experiments.train", *sys.argv[1:]]),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": 0.0,
        "populations": [],
    }
    checkpoint.write_card(run_dir, card)
    return card


def _train_group(
    trainer: Trainer,
    runs: list[Run],
    dataset: Dataset,
    folds: list[Fold],
    request: TrainRequest,
    run_dir: pathlib.Path,
    name: str,
    checkpoint_every: int,
    label: str,
) -> dict[str, Any]:
    """Train one population to its end; its history, and its part of the run card."""
    folder = run_dir / "checkpoints" / name
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint.clean(folder)
    inputs, scales = plan_runs(dataset, runs, folds, request.target)
    population = Population(trainer, runs, inputs, dataset.signal)
    done = sorted(folder.glob("epoch-*"))
    if done:
        population.restore(checkpoint.restore(done[-1], population.snapshot()))
        print(f"{name}: going on after epoch {population.epochs_done}")

    epochs = trainer.config.epochs
    with tqdm(
        total=epochs, initial=population.epochs_done, desc=label, unit="epoch", disable=None
    ) as progress:
        while population.alive and population.epochs_done < epochs:
            population.train_epoch()
            progress.update()
            best = np.nanmedian(population.history.validation_loss[:, population.epochs_done - 1])
            progress.set_postfix_str(f"{population.alive} alive, median validation {best:.3f}")
            ended = not population.alive or population.epochs_done == epochs
            if ended or population.epochs_done % checkpoint_every == 0:
                checkpoint.save(
                    folder / f"epoch-{population.epochs_done:05d}", population.snapshot()
                )
                for old in done:
                    shutil.rmtree(old, ignore_errors=True)
                done = [folder / f"epoch-{population.epochs_done:05d}"]
    checkpoint.save(folder / "best", population.weights())
    for run in population.quarantined():
        print(
            f"quarantined: {run.run_id} ({run.cell} {run.label} {run.fold} seed {run.seed}): "
            "its loss was not finite",
            file=sys.stderr,
        )
    return {
        "history": _history_table(population),
        "card": {
            "name": name,
            "model_config": dataclasses.asdict(trainer.model_config),
            "weights": f"checkpoints/{name}/best",
            "runs": [
                {
                    **dataclasses.asdict(run),
                    "run_id": run.run_id,
                    "status": status,
                    "epochs": int(np.isfinite(population.history.train_loss[i]).sum()),
                    "best_validation_loss": _best(population.history.validation_loss[i]),
                    "target_scale": dataclasses.asdict(scales[i]),
                }
                for i, (run, status) in enumerate(zip(runs, population.status_names(), strict=True))
            ],
        },
    }


def _best(losses: np.ndarray) -> float | None:
    finite = losses[np.isfinite(losses)]
    return float(finite.min()) if len(finite) else None


def _history_table(population: Population) -> pd.DataFrame:
    """One row a run and epoch trained."""
    epochs = population.epochs_done
    history = dataclasses.asdict(population.history)
    table = pd.DataFrame(
        {
            "run_id": np.repeat([run.run_id for run in population.runs], epochs),
            "epoch": np.tile(np.arange(1, epochs + 1), len(population.runs)),
            **{name: values[:, :epochs].ravel() for name, values in history.items()},
        }
    )
    return table[table.learning_rate.notna()]


def main() -> None:
    card = train(
        TrainRequest.from_flags(),
        pathlib.Path(FLAGS.run),
        resume=FLAGS.resume,
        runs_at_once=FLAGS.runs_at_once,
        checkpoint_every=FLAGS.checkpoint_every,
    )
    runs = [run for population in card["populations"] for run in population["runs"]]
    print(
        f"{FLAGS.run}: {len(runs)} runs in {card['seconds']:.0f} s; "
        f"next: python -m experiments.evaluate --run={FLAGS.run}"
    )


def run() -> None:
    start(main, define_training)


if __name__ == "__main__":
    run()
