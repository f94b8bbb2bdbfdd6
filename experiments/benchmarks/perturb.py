"""Altered marks against the original study's way: `--what=perturb` of `experiments.benchmark`.

The distal preset (17 bins x 11 factors) on genes of a real store, four fold models of one mark,
weights as drawn: what they are does not change the cost. The original runs its PyTorch network on
one gene and edit at a time. Both sides' effects are compared first.
"""

import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import to_torch
from epi2expr_jax.models.weights import fresh_weights
from epi2expr_jax.perturb.places import original_distal
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.roadmap import CHROMOFORMER_GROUPS
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.splits import Fold
from epi2expr_jax.training.targets import TargetScale
from experiments.benchmarks.chromoformer import Original, on_its_device, torch_inputs
from experiments.benchmarks.turns import rate, ratio, require_peers, take_turns

FLAGS = flags.FLAGS

_CONFIG = ChromoformerConfig(assays=1)
_GENES = 100
_FACTORS = np.linspace(1, 0, 11)
_SAMPLED = (3, 6)  # genes and edits that the original is timed on


def _ensemble(store: WindowStore, assay: str) -> Ensemble:
    """One model for each published group of chromosomes, which holds it out."""
    every = [name for group in CHROMOFORMER_GROUPS for name in group]
    folds = [
        Fold(f"group{i}", tuple(name for name in every if name not in group), (), tuple(group))
        for i, group in enumerate(CHROMOFORMER_GROUPS, 1)
    ]
    runs = tuple(Run(store.manifest.cells[0], (assay,), fold.name, 0) for fold in folds)
    drawn = [fresh_weights(_CONFIG, jax.random.key(i)) for i in range(len(runs))]
    params, stats = jax.tree.map(lambda *parts: np.stack(parts), *drawn)
    weights = {"params": params, "stats": stats}
    scales = (TargetScale("log2", 0.0, 1.0, 0.0, 1.0),) * len(runs)
    member = Member(_CONFIG, runs, scales, weights)
    signal = TrainedSignal.of(store.manifest, InputConfig().transform)
    return Ensemble({}, InputConfig(), "log2", {f.name: f for f in folds}, (member,), signal)


class _OneAtATime:
    """The original: every edit of every gene by every model, alone."""

    def __init__(self, ensemble: Ensemble, store: WindowStore, assay: str, rows: np.ndarray):
        import torch  # pyright: ignore[reportMissingImports]

        self.torch, (member,) = torch, ensemble.members
        cell = member.runs[0].cell
        signal = load_dataset(store, _CONFIG, [cell], [assay]).signal(cell, [assay])
        gather = jax.jit(lambda rows: signal.gather(rows, BatchPlan(1, (_CONFIG.contacts,))))
        with on_its_device() as device:
            self.inputs = [torch_inputs(gather(jnp.array([row])), device) for row in rows]
            self.nets = [
                Original(
                    to_torch(_CONFIG, jax.tree.map(lambda x, i=i: x[i], member.weights["params"])),
                    device,
                    assays=1,
                )
                for i in range(len(member.runs))
            ]

    def after(self, edits: list[tuple[int, float]]) -> np.ndarray:
        """Predictions `[R G E]` with the 2 kb bin at `start` of the window times a factor."""
        out = np.empty((len(self.nets), len(self.inputs), len(edits)))
        with on_its_device():
            for (g, inputs), (e, (start, factor)) in itertools.product(
                enumerate(self.inputs), enumerate(edits)
            ):
                promoter = {b: x.clone() for b, x in inputs[0].items()}
                for b, x in promoter.items():
                    x[:, :, start // b : (start + 2000) // b] *= factor
                for r, net in enumerate(self.nets):
                    out[r, g, e] = net.infer([promoter, *inputs[1:]])[0]
        return out


def perturbation(rounds: int) -> dict:
    """Gene-edits/s of the original study's distal preset, ours and one at a time."""
    require_peers("torch", "chromoformer")
    if not FLAGS.store:
        raise InputError(
            "--store",
            "none",
            "a store with contacts, such as data_prep.import_chromoformer makes of its demo",
            "give --store=demo.zarr",
        )
    store = WindowStore.open(FLAGS.store)
    assay = store.manifest.assays[0]
    ensemble = _ensemble(store, assay)
    genes = store.genes.gene_id.to_list()[:_GENES]
    places = original_distal()
    edits = [
        perturb.scale(assay, place, float(factor), space="log")
        for place in places
        for factor in _FACTORS
    ]
    rows, picked = np.arange(_SAMPLED[0]), np.arange(2, len(edits), len(edits) // _SAMPLED[1])
    sample = [(places[e // len(_FACTORS)].start + 20_000, edits[e].factor) for e in picked]
    original = _OneAtATime(ensemble, store, assay, rows)
    theirs = original.after(sample)

    def ours(include_seen: bool) -> Any:
        return perturb.run(ensemble, store, edits, genes, include_seen=include_seen)

    largest = np.abs(ours(True).after.to_numpy()[:, rows][:, :, picked] - theirs).max()
    if not largest < 1e-4:
        raise RuntimeError(f"the two sides differ by {largest}: nothing to compare")
    sides = {
        "unseen_models": rate(lambda: ours(False), len(genes) * len(edits)),
        "every_model": rate(lambda: ours(True), len(genes) * len(edits)),
        "torch": rate(lambda: original.after(sample), len(rows) * len(sample)),
    }
    rates, by_round, disturbed = take_turns(sides, rounds)
    return {
        "what": "perturb",
        # The question as each side answers it: the original averages over models that trained on
        # the gene; here those alone that never saw it.
        "ratio_vs_reference": round(ratio(by_round["unseen_models"], by_round["torch"]), 1),
        "ratio_same_models": round(ratio(by_round["every_model"], by_round["torch"]), 1),
        "gene_edits_per_s": {name: round(value, 1) for name, value in rates.items()},
        "genes": len(genes),
        "edits": len(edits),
        "models": len(ensemble.runs),
        "largest_difference": float(f"{largest:.1e}"),
        "disturbed_rounds": disturbed,
    }
