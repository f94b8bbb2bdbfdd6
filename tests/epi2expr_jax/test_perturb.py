"""Altered marks: what an edit does to the input, to a model's output, and what is refused."""

import jax
import numpy as np

from epi2expr_jax import perturb
from epi2expr_jax.dataset import InputConfig
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.models.weights import draw
from epi2expr_jax.predict import Ensemble, Member
from epi2expr_jax.runs import Run, TargetScale
from epi2expr_jax.splits import make_folds
from epi2expr_jax.training import parts_of

SMALL = ChromoformerConfig(
    resolutions=(2000, 500, 100), embedding=8, embed_ff=8, pairwise_layers=2, pairwise_ff=8,
    regulation_layers=2, regulation_heads=2, regulation_width=8, regulation_ff=8, head=8,
)  # fmt: skip
WINDOW = PromoterCnnConfig(width=0.02)


def ensemble_of(store, config, assays, folds=("fold1", "fold2"), seeds=1, **inputs):
    """Untrained models, whose outputs differ enough for what is tested here."""
    every = make_folds("chromosomes_3", store.genes.chrom.value_counts().to_dict())
    every = {fold.name: fold for fold in every}
    cell = store.manifest.cells[0]
    runs = tuple(Run(cell, tuple(assays), fold, seed) for fold in folds for seed in range(seeds))
    _, params, stats = parts_of(config)
    drawn = [
        {"params": draw(params, jax.random.key(i)), "stats": draw(stats, jax.random.key(i))}
        for i in range(len(runs))
    ]
    weights = jax.tree.map(lambda *parts: np.stack(parts), *drawn)
    member = Member(config, runs, (TargetScale("log2", 0.0, 1.0, 0.0, 1.0),) * len(runs), weights)
    return Ensemble({}, InputConfig(**inputs), "log2", every, (member,))


def test_edits_of_a_promoter_change_what_is_predicted(distal_store):
    e = ensemble_of(distal_store, SMALL, distal_store.manifest.assays[:1])
    a = distal_store.manifest.assays[0]
    edits = [perturb.scale(a, perturb.promoter(), f) for f in (0.0, 1.0, 2.0)]
    out = perturb.run(e, distal_store, edits)
    assert (out.effect.sel(edit=out.edit[1]).fillna(0) == 0).all()
    assert perturb.summarise(out).changed.any()
