"""Small models with drawn weights, for tests of what is done with an ensemble."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from epi2expr_jax.inputs.dataset import InputConfig
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.models.weights import draw, fresh_weights
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.splits import make_folds
from epi2expr_jax.training.targets import TargetScale

SMALL = ChromoformerConfig(
    resolutions=(2000, 500), embedding=8, embed_ff=8, pairwise_layers=1, pairwise_ff=8,
    regulation_layers=1, regulation_heads=2, regulation_width=8, regulation_ff=8, head=8,
)  # fmt: skip
WINDOW = PromoterCnnConfig(width=0.1)  # wide enough that what is drawn is never all dead


def ensemble_of(store, config, assays, folds=("fold1", "fold2"), seeds=1, **inputs):
    """Untrained models, whose outputs differ enough for what is tested here."""
    every = make_folds("chromosomes_3", store.genes.chrom.value_counts().to_dict())
    config = dataclasses.replace(config, assays=len(assays))
    runs = tuple(
        Run(store.manifest.cells[0], tuple(assays), fold, seed)
        for fold in folds
        for seed in range(seeds)
    )
    drawn = [fresh_weights(config, jax.random.key(i)) for i in range(len(runs))]
    params, stats = jax.tree.map(lambda *parts: np.stack(parts), *drawn)
    weights = {"params": params, "stats": stats}
    scales = (TargetScale("log2", 0.0, 1.0, 0.0, 1.0),) * len(runs)
    member = Member(config, runs, scales, weights)
    read, folds = InputConfig(**inputs), {fold.name: fold for fold in every}
    signal = TrainedSignal.of(store.manifest, read.transform)
    return Ensemble({}, read, "log2", folds, (member,), signal)


def built(config, seed=0):
    """One model, drawn as training draws it: its own making compiles a program an array."""

    def made():
        return config.build(rngs=nnx.Rngs(seed))

    graph, state = nnx.split(nnx.eval_shape(made))
    drawn = draw(state, jax.random.key(seed), lambda: nnx.state(made()))
    return nnx.merge(graph, jax.tree.map(jnp.asarray, drawn))
