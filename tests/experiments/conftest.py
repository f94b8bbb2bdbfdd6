"""Every run that is trained here must prove itself; and a made-up one, for what reads one."""

import collections
import dataclasses

import numpy as np
import pandas as pd
import pytest
from absl import flags

from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.splits import make_folds, select_folds, write_splits

MARKS = {  # how well each predicts, roughly as in Roadmap
    "H3K27ac": 0.78, "H3K9ac": 0.77, "H3K4me3": 0.74, "H3K79me2": 0.7, "DNase": 0.68,
    "H3K4me2": 0.66, "H2A.Z": 0.6, "H3K36me3": 0.55, "H4K20me1": 0.42, "H3K4me1": 0.4,
    "H3K27me3": 0.35, "H3K9me3": 0.0,
}  # fmt: skip


@dataclasses.dataclass
class FakeRun:
    """A run directory as train and evaluate leave it, of made-up predictions."""

    cells: tuple = ("E003", "E116", "E123")
    assays: dict = dataclasses.field(default_factory=lambda: MARKS)
    chromosomes: int = 14
    genes: int = 1400
    cv: str = "chromosomes_5"
    folds: tuple = ("all",)
    target: str = "log2"
    seeds: int = 1
    epochs: int = 14
    quarantined: tuple = ()  # (cell, assay) pairs

    def write(self, folder):
        folder.mkdir()
        random = np.random.default_rng(0)
        names = [f"chr{i + 1}" for i in range(self.chromosomes)]
        share = np.linspace(2, 0.7, self.chromosomes)
        chrom = np.repeat(names, np.floor(self.genes * share / share.sum()).astype(int))
        counts = collections.Counter(chrom.tolist())
        folds = select_folds(make_folds(self.cv, counts, blind=names[1:4]), list(self.folds))
        write_splits(folder / "splits.json", self.cv, 0, folds, list(chrom))
        runs, history, predictions = [], [], []
        for cell in self.cells:
            level = np.minimum(random.gamma(1.2, 2, len(chrom)), 13)  # log2(RPKM + 1)
            for assay, skill in self.assays.items():
                for fold in folds:
                    for seed in range(self.seeds):
                        run = {"cell": cell, "assays": assay.split("+"), "fold": fold.name}
                        run |= {"seed": seed, "run_id": f"{cell}-{assay}-{fold.name}-{seed}"}
                        failed = (cell, assay) in self.quarantined
                        epochs = 2 if failed else int(random.integers(8, self.epochs + 1))
                        early = "stopped early" if epochs < self.epochs else "finished"
                        run |= {"status": "quarantined" if failed else early, "epochs": epochs}
                        run["quarantined"] = {"epoch": 1, "step": 4} if failed else None
                        runs.append(run)
                        history.append(_history(run, skill, failed, random))
                        if not failed:
                            held_out = fold.masks(chrom)["test"]
                            observed = level[held_out]
                            predictions.append(
                                _predictions(run, assay, chrom, held_out, observed, skill, random)
                            )
        pd.concat(history).to_parquet(folder / "history.parquet", index=False)
        table = pd.concat(predictions)
        if self.target == "minmax":
            for name in ("observed", "predicted"):
                table[name + "_raw"] = (2 ** table[name] - 1) / 1000
        table.to_parquet(folder / "predictions.parquet", index=False)
        scores = scoring.score_table(table)
        scores.to_parquet(folder / "metrics.parquet", index=False)
        ranked = ranking.rank_assays(scores)
        ranked.to_csv(folder / "ranking.csv", index=False)
        checkpoint.write_card(folder, self._card(runs, len(chrom)))
        return ranked

    def _card(self, runs, genes):
        config = {"window_bp": 10000, "bin_bp": 25, "assays": 1, "width": 1.0}
        return {
            "status": "complete",
            "request": {"model": "cnn", "cells": ["all"], "cv": self.cv, "target": self.target},
            "store_checksum": "0123456789abcdef",
            "store": {
                "path": "roadmap.zarr", "cells": self.cells, "assays": list(self.assays),
                "genes": genes, "window_bp": 10000, "bin_bp": 25, "assembly": "hg19",
                "left_out": {"not on the chosen chromosomes": 868, "no expression": 12},
                "groups": {
                    assay: "accessibility" if assay == "DNase" else "histone"
                    for label in self.assays
                    for assay in label.split("+")
                },
            },
            "model": "cnn", "target": self.target, "cv": self.cv,
            "input_config": {"transform": "auto", "orientation": "strand"},
            "versions": checkpoint.versions(),
            "command": "experiments/train.py --store=roadmap.zarr --run=runs/cnn --model=cnn",
            "started": "2026-03-01 10:00:00", "seconds": 3730.0,
            "populations": [{"name": "1-assay-0", "model_config": config, "runs": runs}],
        }  # fmt: skip


def _history(run, skill, failed, random):
    epoch = np.arange(1, run["epochs"] + 1)
    floor = 1 - skill**2
    train = floor * 0.8 + (1.1 - floor) * np.exp(-epoch / 3) + random.normal(0, 0.01, len(epoch))
    validation = floor + (1.2 - floor) * np.exp(-epoch / 2) + random.normal(0, 0.03, len(epoch))
    if failed:
        train[-1] = validation[-1] = np.nan
    return pd.DataFrame(
        {
            "run_id": run["run_id"],
            "epoch": epoch,
            "train_loss": train.astype(np.float32),
            "validation_loss": validation.astype(np.float32),
            "learning_rate": 1e-3,
        }
    )


def _predictions(run, assay, chrom, held_out, observed, skill, random):
    noise = random.normal(0, observed.std(), len(observed))
    predicted = 2 + skill * (skill * (observed - 2) + np.sqrt(1 - skill**2) * noise)
    if skill == 0:
        predicted = 2 + 0.1 * noise
    return pd.DataFrame(
        {
            **{name: run[name] for name in ("run_id", "cell", "fold", "seed")},
            "assays": assay,
            "gene_id": [f"ENSG{i:011d}" for i in np.flatnonzero(held_out)],
            "chrom": chrom[held_out],
            "observed": observed,
            "predicted": predicted,
            "observed_raw": observed,
            "predicted_raw": predicted,
        }
    )


@pytest.fixture(scope="session", autouse=True)
def every_run_is_verified(verified_runs):
    """As soon as a training ends."""


@pytest.fixture(scope="session")
def fake_run():
    """`fake_run(cells, assays=..., ...).write(folder)`."""
    return FakeRun


@pytest.fixture
def parse_flags():
    """`parse_flags(definitions, *arguments)`: a command line as a program reads it; then undone."""
    known = set(flags.FLAGS)

    def forget():
        for name in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, name)

    def parse(definitions, *arguments):
        forget()
        for define in definitions:
            define()
        flags.FLAGS(["program", *arguments])

    yield parse
    forget()
