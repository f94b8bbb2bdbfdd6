"""Make chromoformer.npz: what the published PyTorch package computes, for the tests of our model.

Weights are drawn by their published names and inputs from a seed, here and in the tests, by the
functions below; only the package's outputs and samples of its gradients are stored. Needs PyTorch
and `pip install --no-deps chromoformer==1.1.3` (as `make parity` does):

    python tests/golden/make_chromoformer_golden.py [FOLDER]
"""

import functools
import pathlib
import sys
import zlib
from unittest import mock

import numpy as np

GENES = 9
REGION_BP = 40_000
ENTRIES, PROJECTIONS = 24, 4  # what is stored of each gradient

# Fields of our ChromoformerConfig, which the package has under other names.
PUBLISHED = {
    "assays": 7,
    "contacts": 8,
    "window_bp": 40_000,
    "resolutions": (2000, 500, 100),
    "task": "regression",
    "embedding": 128,
    "embed_layers": 1,
    "embed_heads": 2,
    "embed_ff": 128,
    "pairwise_layers": 2,
    "pairwise_heads": 2,
    "pairwise_ff": 256,
    "regulation_layers": 6,
    "regulation_heads": 8,
    "regulation_width": 256,
    "regulation_ff": 256,
    "head": 128,
}
SMALL = PUBLISHED | {
    "resolutions": (500,),
    "embedding": 16,
    "embed_ff": 12,
    "pairwise_layers": 1,
    "pairwise_ff": 20,
    "regulation_layers": 1,
    "regulation_heads": 4,
    "regulation_width": 24,
    "regulation_ff": 20,
    "head": 10,
}
CONFIGS = {
    "published": PUBLISHED,
    "narrow_window": PUBLISHED | {"window_bp": 9_000},
    "one_mark": SMALL | {"assays": 1, "contacts": 3},
    "five_marks": SMALL | {"assays": 5, "embedding": 64, "resolutions": (1000, 500)},
    "two_embedding_layers": SMALL | {"assays": 2, "embed_layers": 2},
    "classification": SMALL
    | {"task": "classification", "pairwise_layers": 2, "regulation_layers": 2},
}


def draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    """The weights of this published name: by the name alone, so their order does not matter."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    if name.endswith("gamma_f"):
        return random.normal(1, 0.5, shape).astype(np.float32)
    if ".ln." in name:
        return (name.endswith("weight") + 0.2 * random.normal(size=shape)).astype(np.float32)
    bound = 1 / np.sqrt(shape[-1])
    return random.uniform(-bound, bound, shape).astype(np.float32)


def inputs(config: dict) -> dict:
    """Genes of 0 to 8 contacts: `[G F L]` and `[G N F L]` a resolution, which positions are real.

    A quarter of the bins have no signal. Half the promoters are flipped, so that their padding is.
    """
    random = np.random.RandomState(20261123)
    most, assays = config["contacts"], config["assays"]
    contacts = np.minimum(random.permutation(GENES), most)
    there = np.arange(most) < contacts[:, None]
    score = np.where(there, 1.5 + random.exponential(1.0, (GENES, most)), 0)
    width = random.randint(300, REGION_BP + 1, (GENES, most))
    minus = random.uniform(size=GENES) < 0.5
    genes = {
        "contacts": contacts,
        "score": score.astype(np.float32),
        "target": random.normal(3, 2, GENES),
        "label": random.randint(0, 2, GENES),
        "promoter": [], "promoter_valid": [], "region": [], "region_valid": [],
    }  # fmt: skip
    for resolution in config["resolutions"]:
        length = REGION_BP // resolution
        place = np.arange(length)

        def own(bins, length=length, place=place):
            left = -((bins - length) // 2)
            return (place >= left[..., None]) & (place < (left + bins)[..., None])

        valid = own(np.full(GENES, -(-config["window_bp"] // resolution)))
        valid[minus] = valid[minus, ::-1]
        region_valid = own(-(-width // resolution)) & there[..., None]
        for part, real in (("promoter", valid), ("region", region_valid)):
            shape = (*real.shape[:-1], assays, length)
            depth = random.gamma(0.5, 3.0, shape) * (random.uniform(size=shape) < 0.75)
            signal = np.where(real[..., None, :], np.log1p(depth), 0)
            genes[part].append(signal.astype(np.float32))
            genes[f"{part}_valid"].append(real)
    return genes


@functools.cache
def directions(size: int) -> np.ndarray:
    """Unit directions `[PROJECTIONS, size]`."""
    return np.random.RandomState(size).standard_normal((PROJECTIONS, size)) / np.sqrt(size)


def sample(name: str, gradient: np.ndarray) -> np.ndarray:
    """`[ENTRIES + PROJECTIONS]` numbers that stand for a gradient: entries, and sums of all."""
    random = np.random.RandomState(zlib.crc32(name.encode()))
    flat = gradient.reshape(-1)
    entries = flat[random.randint(0, flat.size, ENTRIES)]
    return np.concatenate([entries, directions(flat.size) @ flat])


def network(config: dict):
    """The package's network, at its own initial weights."""
    import torch
    from chromoformer.net import ChromoformerClassifier, ChromoformerRegressor

    def stage(name, d_model):
        sizes = {"n_layers": "layers", "n_heads": "heads", "d_ff": "ff"}
        return {"d_model": d_model} | {k: config[f"{name}_{v}"] for k, v in sizes.items()}

    classifies = config["task"] == "classification"
    net = (ChromoformerClassifier if classifies else ChromoformerRegressor)(
        n_feats=config["assays"],
        d_emb=config["embedding"],
        d_head=config["head"],
        embed_kws=stage("embed", config["embedding"]),
        pairwise_interaction_kws=stage("pairwise", config["embedding"]),
        regulation_kws=stage("regulation", config["regulation_width"]),
        binsizes=list(config["resolutions"]),
    )
    # The package lets one choose the resolutions, but its head is always as wide as three.
    width = config["embedding"] * len(config["resolutions"])
    net.fc_head[0] = torch.nn.Linear(width, config["head"])
    return net


def load_drawn(net) -> None:
    """Replace the network's weights by drawn ones."""
    import torch

    with torch.no_grad():
        for name, parameter in net.named_parameters():
            parameter.copy_(torch.as_tensor(draw(name, tuple(parameter.shape))))


def arguments(config: dict, genes: dict, chosen=slice(None)) -> tuple:
    """What the package's networks are called with, for the chosen genes."""
    import torch

    real = torch.get_default_dtype()
    most = config["contacts"]
    tokens = np.arange(most + 1) <= genes["contacts"][chosen][:, None]
    frequency = np.zeros((len(tokens), most + 1, most + 1))
    frequency[:, 0, 1:] = genes["score"][chosen]
    parts: tuple[dict, ...] = ({}, {}, {}, {}, {})
    for i, resolution in enumerate(config["resolutions"]):
        promoter, region = (genes[part][i][chosen] for part in ("promoter", "region"))
        own, regions_own = (genes[f"{part}_valid"][i][chosen] for part in ("promoter", "region"))
        arrays = (
            torch.as_tensor(promoter.swapaxes(1, 2)[:, None], dtype=real),
            torch.as_tensor(~(own[:, :, None] & own[:, None, :]))[:, None, None],
            torch.as_tensor(region.swapaxes(2, 3).copy(), dtype=real),
            torch.as_tensor(~(own[:, None, :, None] & regions_own[:, :, None, :]))[:, :, None],
            torch.as_tensor(~(tokens[:, :, None] & tokens[:, None, :]))[:, None],
        )
        for part, array in zip(parts, arrays, strict=True):
            part[resolution] = array
    return (*parts, torch.as_tensor(frequency, dtype=real))


def loss_of(config: dict, outputs, genes: dict, chosen=slice(None)):
    """The package's training loss."""
    import torch

    if config["task"] == "classification":
        label = torch.as_tensor(genes["label"][chosen])
        return torch.nn.functional.cross_entropy(outputs, label)
    target = torch.as_tensor(genes["target"][chosen], dtype=outputs.dtype)
    return torch.nn.functional.mse_loss(outputs[:, 0], target)


def without_gpu():
    """The package moves tensors to a GPU; inside this they stay where they are."""
    import torch

    return mock.patch.object(torch.Tensor, "cuda", lambda self, *_, **__: self)


def reference(config: dict, dtype: str) -> tuple[np.ndarray, float, dict[str, np.ndarray]]:
    """Outputs `[G O]`, loss, and the gradients of all weights that are used, by name."""
    import torch

    before = torch.get_default_dtype()
    torch.set_default_dtype(getattr(torch, dtype))
    try:
        with without_gpu():
            net = network(config)
            load_drawn(net)
            genes = inputs(config)
            outputs = net(*arguments(config, genes))
            loss = loss_of(config, outputs, genes)
            loss.backward()
    finally:
        torch.set_default_dtype(before)
    used = {name: p.grad.numpy() for name, p in net.named_parameters() if p.grad is not None}
    return outputs.detach().numpy(), loss.item(), used


def make() -> dict[str, np.ndarray]:
    """All arrays of the golden file; gradients in the order of their names."""
    golden = {}
    for title, config in CONFIGS.items():
        outputs, _, _ = reference(config, "float32")
        _, loss, gradients = reference(config, "float64")
        names = sorted(gradients)
        samples = [sample(name, gradients[name]) for name in names]
        golden[f"{title}/outputs"] = outputs
        golden[f"{title}/loss"] = np.asarray(loss)
        golden[f"{title}/gradients"] = np.stack(samples).astype(np.float32)
        golden[f"{title}/largest"] = np.asarray([abs(gradients[name]).max() for name in names])
    return golden


if __name__ == "__main__":
    here = pathlib.Path(__file__).resolve().parent
    folder = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else here
    np.savez_compressed(folder / "chromoformer.npz", **make())
