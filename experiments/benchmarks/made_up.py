"""Made-up genes of the right shapes, and runs of the real engine that train on them."""

import dataclasses
from typing import Any

import numpy as np

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import CellRegions, RegionTrack, WindowSignal, region_places
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.training.many_runs import Lanes, Population
from epi2expr_jax.training.one_run import TrainConfig, Trainer
from epi2expr_jax.training.runs import Run, RunInputs
from epi2expr_jax.training.schedules import EarlyStopConfig

ASSAYS = 7  # of a Chromoformer
# Genes of chromoformer's demo by their number of contacts, 0 to 8: mean 5.8.
_DEMO_GENES = (11, 8, 3, 3, 4, 5, 4, 4, 58)
_EPOCHS = 10_000  # more than any benchmark takes


class OneTrack:
    """A cell and an assay of windows: a dataset of as many genes as asked."""

    cells, assays = ("cell",), ("assay",)

    def __init__(self, genes: int, bins: int = 400):
        values = np.random.default_rng(0).gamma(0.5, 4, (genes, bins))
        self._track = WindowSignal(np.arcsinh(values).astype(np.float32))

    def track(self, *_: str) -> WindowSignal:
        return self._track

    def regions(self, _: str) -> None:
        return None


class OneCell:
    """Random signal of promoters and regions as wide as real ones: a dataset of one cell."""

    cells = ("cell",)
    assays = tuple(map(str, range(ASSAYS)))

    def __init__(self, genes: int):
        random, config = np.random.default_rng(0), ChromoformerConfig(assays=ASSAYS)
        most, positions = config.contacts, config.positions
        count = np.resize(random.permutation(np.repeat(np.arange(9), _DEMO_GENES)), genes)
        there = np.arange(most) < count[:, None]
        region = np.where(there, np.cumsum(there).reshape(there.shape) - 1, -1)
        score = np.where(there, random.exponential(2, there.shape), 0)
        width = random.lognormal(np.log(5300), 0.5, there.sum())
        width = np.clip(width, 1000, 40_000).astype(int)

        def signal(*shape: int) -> np.ndarray:
            return np.log1p(random.gamma(0.5, 4, shape)).astype(np.float32)

        bins = [-(-width // resolution) for resolution in config.resolutions]
        places = [region_places(b, n) for b, n in zip(bins, positions, strict=True)]
        begin, bins = zip(*places, strict=True)
        self.n_contacts = count
        self._regions = CellRegions(
            own=tuple(np.ones((2, n), bool) for n in positions),
            minus=np.zeros(genes, bool),
            begin=begin,
            bins=bins,
            region=region.astype(np.int32),
            score=score.astype(np.float32),
        )
        self._tracks = {
            assay: RegionTrack(
                promoter=tuple(signal(genes, n) for n in positions),
                regions=tuple(
                    signal(int(b.sum()) + 2 * n) for b, n in zip(bins, positions, strict=True)
                ),
            )
            for assay in self.assays
        }

    def track(self, _: str, assay: str) -> RegionTrack:
        return self._tracks[assay]

    def regions(self, _: str) -> CellRegions:
        return self._regions


def window_trainer(
    config: Any, batch: int, precision: str = "float32", most: tuple[int, int] | None = None
) -> Trainer:
    """Trains a model of windows as published, but never stops.

    Args:
        most: the most genes that train, and that validate, if known.
    """
    fields = {"epochs": _EPOCHS, "early_stop": EarlyStopConfig(_EPOCHS), "batch_size": batch}
    plans = tuple(BatchPlan(batch, most_genes=genes) for genes in most or (None, None))
    return Trainer(config, TrainConfig(precision=precision, **fields), (plans[0], plans[1]))


def region_trainer(
    config: ChromoformerConfig, data: OneCell, train: int, batch: int, precision: str = "float32"
) -> Trainer:
    """Trains a Chromoformer as published, but never stops; the first `train` genes train."""
    fields = {**config.TRAINING["decay"], "epochs": _EPOCHS, "batch_size": batch}
    parts = data.n_contacts[:train], data.n_contacts[train:]
    plans = [
        dataclasses.replace(
            BatchPlan.of(batch, config.contacts, [part], balanced=True), most_genes=len(part)
        )
        for part in parts
    ]
    published = TrainConfig(plateau=None, early_stop=None, precision=precision, **fields)
    return Trainer(config, published, (plans[0], plans[1]))


def population(
    trainer: Trainer,
    cache: TrackCache,
    genes: int,
    train: int,
    runs: int = 1,
    lanes: Lanes | None = None,
    broken: int = 0,
) -> Population:
    """Runs over `genes`, the first `train` of which train and the others validate.

    The last `broken` runs leave after an epoch.
    """
    random = np.random.default_rng(1)
    trains = np.arange(genes) < train
    keys = random.integers(0, 2**32, (2, runs, 2), np.uint32)
    target = np.tile(random.standard_normal(genes).astype(np.float32), (runs, 1))
    target[runs - broken :] = np.nan
    inputs = RunInputs(
        target=target,
        train=np.tile(trains, (runs, 1)),
        validation=np.tile(~trains, (runs, 1)),
        order_key=keys[0],
        model_key=keys[1],
    )
    named = [Run("cell", cache.data.assays, "fold", seed) for seed in range(runs)]
    return Population(trainer, named, inputs, cache, lanes)
