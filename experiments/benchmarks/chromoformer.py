"""Chromoformer against its PyTorch original: `--what=chromoformer` of `experiments.benchmark`.

Both sides get the same weights and the same inputs, which lie in memory beforehand (the original's
data loader is slower than its network and is not counted), and their outputs are compared first.
"""

import contextlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.device_tracks import signal_of
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import to_torch
from epi2expr_jax.models.region_batch import RegionBatch, TokenLayout
from epi2expr_jax.predict.inference import predict_runs
from epi2expr_jax.training.lanes import Lanes
from epi2expr_jax.training.many_runs import Population
from experiments.benchmarks.made_up import ASSAYS, OneCell, population, region_trainer
from experiments.benchmarks.turns import matmul_mflops, rate, ratio, require_peers, take_turns

_BATCH = 64
_BEST_BATCH = 16  # the original's, on CPU
_TRAIN, _VALIDATION = 1024, 8  # genes
# Multiply-adds of one gene, forward and backward, twice; absent regions not counted.
_MFLOP_A_GENE = ChromoformerConfig.STEP_COST.gene_flops / 1e6
_CONFIG = ChromoformerConfig(assays=ASSAYS)


def _population(data: OneCell, precision: str = "float32", runs: int = 1) -> Population:
    """Runs of the engine that `experiments.train` uses, with the published training."""
    trainer = region_trainer(_CONFIG, data, _TRAIN, _BATCH, precision)
    return population(trainer, TrackCache(data), len(data.n_contacts), _TRAIN, runs)


def training_pace(precision: str, rounds: int) -> float:
    """Gene-steps/s of one chunk of the published Chromoformer; the median of some epochs.

    Where a chunk has several lanes, all take part.
    """
    runs = Lanes.default().count
    trained = _population(OneCell(_TRAIN + _VALIDATION), precision, runs)
    measure = rate(trained.train_epoch, runs * _TRAIN)
    return statistics.median(measure() for _ in range(rounds))


def batch_of(data: OneCell, size: int) -> RegionBatch:
    """The first `size` genes of made-up data."""
    plan = BatchPlan.of(size, _CONFIG.contacts, balanced=False)
    tracks = [data.track("cell", assay) for assay in data.assays]
    signal = signal_of(tracks, jax.device_put(data.regions("cell")))
    gather = jax.jit(lambda signal, genes: signal.gather(genes, plan))
    return gather(signal, jnp.arange(size))


@contextlib.contextmanager
def on_its_device() -> Iterator[str]:
    """The package calls `.cuda()` on every constant; without a GPU that must do nothing."""
    import torch  # pyright: ignore[reportMissingImports]

    if torch.cuda.is_available():
        yield "cuda"
        return
    original = torch.Tensor.cuda
    torch.Tensor.cuda = lambda self, *_, **__: self
    try:
        yield "cpu"
    finally:
        torch.Tensor.cuda = original


def torch_inputs(batch: RegionBatch, device: str) -> list[Any]:
    """A batch as the original's loader gives it, its masks of L x L included."""
    import torch  # pyright: ignore[reportMissingImports]

    layout = TokenLayout.of(batch.slots)
    most = _CONFIG.contacts
    item: list[dict[int, Any]] = [{} for _ in range(5)]
    n_contacts = np.asarray(batch.n_contacts)
    absent = np.arange(1 + most) > n_contacts[:, None]
    for i, resolution in enumerate(_CONFIG.resolutions):
        own = np.asarray(batch.promoter_valid[i])
        regions = np.asarray(layout.regions_by_gene(batch.region[i]))
        valid = np.asarray(layout.regions_by_gene(batch.region_valid[i].astype(np.float32))) > 0
        values = (
            np.asarray(batch.promoter[i]).transpose(0, 2, 1)[:, None],
            ~(own[:, :, None] & own[:, None, :])[:, None, None],
            regions.transpose(0, 1, 3, 2),
            ~(own[:, None, :, None] & valid[:, :, None, :])[:, :, None],
            (absent[:, :, None] | absent[:, None, :])[:, None],
        )
        for part, value in zip(item, values, strict=True):
            part[resolution] = torch.tensor(np.ascontiguousarray(value), device=device)
    frequency = np.zeros((len(n_contacts), 1 + most, 1 + most), np.float32)
    frequency[:, 0, 1:] = np.asarray(batch.score)
    return [*item, torch.tensor(frequency, device=device)]


class Original:
    """The PyTorch package with given weights: training steps and inference on one batch."""

    def __init__(self, state: dict[str, np.ndarray], device: str, assays: int = ASSAYS):
        import torch  # pyright: ignore[reportMissingImports]
        from chromoformer.net import (  # pyright: ignore[reportMissingImports]
            ChromoformerRegressor,
        )

        self.torch, self.device = torch, device
        self.net = ChromoformerRegressor(n_feats=assays)
        self.net.load_state_dict({name: torch.tensor(value) for name, value in state.items()})
        self.net.to(device)
        self.optimiser = torch.optim.AdamW(self.net.parameters(), lr=3e-5, weight_decay=0.01)

    def train(self, inputs: list[Any]) -> None:
        """One step of the published training."""
        target = self.torch.zeros(len(inputs[-1]), 1, device=self.device)
        self.optimiser.zero_grad()
        loss = self.torch.nn.functional.mse_loss(self.net(*inputs), target)
        loss.backward()
        self.optimiser.step()
        loss.item()

    def infer(self, inputs: list[Any]) -> np.ndarray:
        """Outputs `[B]`, without gradients."""
        with self.torch.no_grad():
            return self.net(*inputs)[:, 0].cpu().numpy()


def chromoformer(rounds: int) -> dict:
    """Training and inference genes/s of the published Chromoformer, and peak memory."""
    require_peers("torch", "chromoformer")
    # First: a child process counts the memory that its parent had, as its own peak.
    memory = {side: _peak_memory(side) for side in ("ours", "torch")}
    data = OneCell(_TRAIN + _VALIDATION)
    trained = _population(data)
    state = trained.trainer.init(trained.inputs.model_key[0])  # those training begins with
    weights = jax.tree.map(lambda x: x[None], {"params": state.params, "stats": state.stats})
    everything = np.ones((1, len(data.n_contacts)), bool)

    def infer() -> np.ndarray:
        return predict_runs(_CONFIG, weights, trained.runs, trained.cache, everything)

    with on_its_device() as device:
        original = Original(to_torch(_CONFIG, state.params), device)
        batches = {
            size: torch_inputs(batch_of(data, size), device) for size in (_BATCH, _BEST_BATCH)
        }
        largest = np.abs(infer()[0, :_BATCH] - original.infer(batches[_BATCH])).max()
        if not largest < 1e-4:
            raise RuntimeError(f"the two sides differ by {largest}: nothing to compare")
        sides = {
            "train": rate(trained.train_epoch, _TRAIN),
            "infer": rate(infer, everything.size),
            "matmul_mflops": matmul_mflops(),
        }
        for size, batch in batches.items():
            sides[f"torch_train_{size}"] = rate(_bound(original.train, batch), size)
            sides[f"torch_infer_{size}"] = rate(_bound(original.infer, batch), size)
        rates, by_round, disturbed = take_turns(sides, rounds)
    train, infer_rates = by_round["train"], by_round["infer"]
    share = ratio(train, by_round["matmul_mflops"]) * _MFLOP_A_GENE
    return {
        "what": "chromoformer",
        "train_ratio": round(ratio(train, by_round[f"torch_train_{_BATCH}"]), 1),
        "infer_ratio": round(ratio(infer_rates, by_round[f"torch_infer_{_BATCH}"]), 1),
        "memory_ratio": round(memory["ours"] / memory["torch"], 3),
        "share_of_matmul_peak": round(share, 3),
        "train_ratio_at_its_best_batch": round(
            ratio(train, by_round[f"torch_train_{_BEST_BATCH}"]), 1
        ),
        "infer_ratio_at_its_best_batch": round(
            ratio(infer_rates, by_round[f"torch_infer_{_BEST_BATCH}"]), 1
        ),
        "genes_per_s": {n: round(v, 1) for n, v in rates.items() if n != "matmul_mflops"},
        "peak_memory_mb": {side: round(value) for side, value in memory.items()},
        "matmul_gflops": round(rates["matmul_mflops"] / 1e3, 1),
        "largest_difference": float(f"{largest:.1e}"),
        "disturbed_rounds": disturbed,
    }


def _bound(function: Callable[[list[Any]], object], batch: list[Any]) -> Callable[[], object]:
    return lambda: function(batch)


def _peak_memory(side: str) -> float:
    """Peak memory in MB of a process of its own that trains two steps (an epoch) of one side."""
    program = f"from experiments.benchmarks.chromoformer import peak_memory; peak_memory({side!r})"
    output = subprocess.run(
        [sys.executable, "-c", program], check=True, capture_output=True, text=True
    ).stdout
    return json.loads(output.splitlines()[-1])


def peak_memory(side: str) -> None:
    """Train one side and print this process's peak memory in MB."""
    import resource

    if side == "ours":
        trained = _population(OneCell(_TRAIN + _VALIDATION))
        for _ in range(2):
            trained.train_epoch()
    else:
        batch = batch_of(OneCell(_BATCH), _BATCH)
        _, params = nnx.split(_CONFIG.build(rngs=nnx.Rngs(0)), nnx.Param)
        with on_its_device() as device:
            original = Original(to_torch(_CONFIG, params), device)
            inputs = torch_inputs(batch, device)
            for _ in range(2):
                original.train(inputs)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
