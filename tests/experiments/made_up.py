"""A run of made-up losses and predictions: train and evaluate write it, as they write any run."""

import dataclasses
import pathlib

import jax
import numpy as np
import pandas as pd
import pytest
import scipy
import xarray as xr

from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import _Training, train
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.one_run import TrainConfig
from epi2expr_jax.training.pieces import Pieces
from epi2expr_jax.training.runs import FINISHED, QUARANTINED, STOPPED, Log
from epi2expr_jax.training.targets import LABEL

MARKS = {  # how well each predicts, roughly as in Roadmap
    "H3K27ac": 0.78, "H3K9ac": 0.77, "H3K4me3": 0.74, "H3K79me2": 0.7, "DNase": 0.68,
    "H3K4me2": 0.66, "H2A.Z": 0.6, "H3K36me3": 0.55, "H4K20me1": 0.42, "H3K4me1": 0.4,
    "H3K27me3": 0.35, "H3K9me3": 0.0,
}  # fmt: skip
COMMAND = "python -m experiments.train --store=roadmap.zarr --run=runs/cnn --model=promoter_cnn"


@dataclasses.dataclass
class MadeUpRun:
    """What is made up: how well each assay (set) predicts, how trainings end, the store."""

    cells: tuple = ("E003", "E116", "E123")
    assays: dict = dataclasses.field(default_factory=lambda: MARKS)
    chromosomes: int = 14
    genes: int = 1400
    cv: str = "chromosomes_5"
    folds: tuple = ("all",)
    target: str = "log2"
    epochs: int = 14
    quarantined: tuple = ()  # (cell, assay) pairs
    asked: tuple = ("all",)  # of --cells
    copied: int = 0  # genes that have a copy on another chromosome, which models know from it
    gene_groups: str = ""
    baselines: tuple = ()
    symbol: str = ""  # of the gene in row 7

    def write(self, folder: pathlib.Path) -> pd.DataFrame:
        """Train and evaluate; the ranking. Nothing is learned, and nothing predicted."""
        store = self._store(folder.with_name(f"{folder.name}.zarr"))
        request = TrainRequest(
            store=str(store.path), model="promoter_cnn", model_options={"width": 0.02},
            cells=list(self.asked), assays=list(self.assays), cv=self.cv, folds=list(self.folds),
            target=self.target, gene_groups=self.gene_groups,
            train_config=TrainConfig(
                epochs=self.epochs,
                task="classification" if self.target == LABEL else "regression",
            ),
        )  # fmt: skip
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_Training, "run", lambda own: self._train(own))
            patch.setattr(
                Ensemble, "predict",
                lambda own, store, genes, cell=None, **_: self._predict(own, store, genes, cell),
            )  # fmt: skip
            card = train(request, folder, command=COMMAND)
            checkpoint.write_card(folder, card | {"seconds": 3730.0})
            return evaluate(folder, baselines=self.baselines)

    def _store(self, path: pathlib.Path) -> WindowStore:
        """Expression as in nature; signal that says nothing."""
        random = np.random.default_rng(0)
        names = [f"chr{i + 1}" for i in range(self.chromosomes)]
        share = np.linspace(2, 0.7, self.chromosomes)
        chrom = np.repeat(names, np.floor(self.genes * share / share.sum()).astype(int))
        genes = pd.DataFrame(
            {
                "gene_id": [f"ENSG{i:011d}" for i in range(len(chrom))],
                "name": ["" if i != 7 else self.symbol for i in range(len(chrom))],
                "chrom": chrom,
                "tss": np.arange(len(chrom)) * 10_000 + 20_000,
                "strand": "+",
            }
        )
        assays = list(dict.fromkeys(name for label in self.assays for name in label.split("+")))
        tracks = [[cell, assay] for cell in self.cells for assay in assays]
        manifest = Manifest(
            window_bp=6000, bin_bp=100, assembly="hg19",
            chrom_sizes=dict.fromkeys(names, 250_000_000), chromosomes=names, blind=names[1:4],
            cells=list(self.cells), assays=assays, tracks=tracks,
            units=dict.fromkeys(assays, "pvalue"),
            groups={name: "accessibility" if name == "DNase" else "histone" for name in assays},
            min_covered=0.0, tss="gene_5p", candidates_sha256="0",
            left_out={"not on the chosen chromosomes": 868, "no expression": 12},
        )  # fmt: skip
        level = np.minimum(random.gamma(1.2, 2, (len(self.cells), len(chrom))), 13)
        own, copies = self._copies(len(chrom))
        level[:, copies] = level[:, own]
        store = WindowStore.create(path, manifest, genes, 2**level - 1)
        signal = random.random((len(chrom), 60), np.float32)
        signal[copies] = signal[own]
        for cell, assay in tracks:
            store.write_slab(cell, assay, signal, np.ones(len(chrom)), [])
        return store

    def _copies(self, genes: int) -> tuple[np.ndarray, np.ndarray]:
        """Genes, and their copies: half of all genes away, which is another chromosome."""
        own = np.arange(self.copied) * (genes // 2 // max(1, self.copied))
        return own, own + genes // 2

    def _train(self, training) -> None:
        """Stands for a population's training: it leaves logs, and weights of zeros."""
        random = np.random.default_rng(0)
        group, runs = training.group, training.group.runs
        shapes = group.trainer.state_shapes()
        logs = [self._log(run, random) for run in runs]
        weights = jax.tree.map(
            lambda x: np.zeros((len(runs), *x.shape), x.dtype),
            {"params": shapes.best_params, "stats": shapes.best_stats},
        )
        training.pieces = Pieces(training.folder / training.machine.share.name)
        training.pieces.save(("best", training._records([*range(len(runs))], logs), weights))
        training.pieces.close()

    def _log(self, run, random) -> Log:
        failed = (run.cell, run.label) in self.quarantined
        epochs = 1 if failed else int(random.integers(8, self.epochs + 1))
        epoch = np.arange(1, epochs + 1)
        floor = 1 - self.assays[run.label] ** 2
        train = floor * 0.8 + (1.1 - floor) * np.exp(-epoch / 3) + random.normal(0, 0.01, epochs)
        validation = floor + (1.2 - floor) * np.exp(-epoch / 2) + random.normal(0, 0.03, epochs)
        if failed:
            train[-1] = validation[-1] = np.nan
        status = FINISHED if epochs == self.epochs else STOPPED
        return Log(
            train.tolist(), validation.tolist(), [1e-3] * epochs,
            QUARANTINED if failed else status, 3 if failed else -1,
        )  # fmt: skip

    def _predict(self, ensemble, store, genes, cell) -> xr.DataArray:
        """Stands for `Ensemble.predict`, on the target's own scale."""
        random = np.random.default_rng(1)
        rows = store.genes.gene_id.isin(genes).to_numpy()
        scales = [scale for member in ensemble.members for scale in member.scales]
        found = []
        for run, scale in zip(ensemble.runs, scales, strict=True):
            skill = self.assays[run.label]
            level = np.log2(store.read_expression([cell or run.cell])[0, rows] + 1)
            noise = random.normal(0, level.std(), len(level))
            predicted = skill * (skill * (level - 2) + np.sqrt(1 - skill**2) * noise)
            predicted = 2 + (predicted if skill else 0.1 * noise)
            seen = ensemble.folds[run.fold].masks(store.genes)["train"]
            for one, other in zip(*self._copies(len(rows)), strict=True):
                for gene, copy in ((one, other), (other, one)):
                    if seen[copy] and rows[gene]:
                        at = rows[:gene].sum()
                        predicted[at] = level[at]
            if scale.kind == LABEL:
                found.append(scipy.special.expit(predicted - np.log2(scale.low + 1)))
            else:
                found.append(scale.to_raw(2**predicted - 1))
        return xr.DataArray(np.array(found), dims=["run", "gene"])
