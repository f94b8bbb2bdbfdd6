"""Worlds in which it is known what expression is made of, one a cell of a window store.

Five marks around each TSS: a promoter, a gene body, a broad repressive mark that also silences
distal elements, those elements, and a weak copy of the promoter. Counts are Poisson, 80 % of the
variance of expression is planted.
"""

from pathlib import Path

import numpy as np
import pandas as pd

from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.window_store import WindowStore

MARKS = ["promoter", "body", "repressive", "distal", "copy"]
BINS, BIN_BP, CHROMOSOMES = 200, 100, 15
DEPTH, PLANTED = 6.0, 0.8
NEXT_BP = 30_000
_CENTRES = (np.arange(BINS) - BINS / 2 + 0.5) * BIN_BP  # of bins, from the TSS, along the strand

# Expression of promoter, gene body, repressive mark and the elements that are not silenced.
WORLDS = {
    "linear": lambda a, b, c, d: a + 0.8 * b - 0.8 * c,
    "saturating": lambda a, b, c, d: np.tanh(1.5 * (a + 0.8 * b - 0.8 * c)),
    "combinatorial": lambda a, b, c, d: a * (c < 0.3) + 1.5 * b * (a > 0.7),
    "distal": lambda a, b, c, d: 0.5 * a + d,
}


def make(path: Path, genes: int, seed: int = 0) -> WindowStore:
    """A store of all worlds: their genes have the same places, and nothing else in common."""
    chromosomes = [f"chr{k + 1}" for k in range(CHROMOSOMES)]
    chrom = np.arange(genes) % CHROMOSOMES
    names = [f"ENSG{i:05d}" for i in range(genes)]
    table = pd.DataFrame(
        {
            "gene_id": names,
            "gene_name": names,
            "chrom": np.array(chromosomes)[chrom],
            "tss": NEXT_BP * (1 + np.arange(genes) // CHROMOSOMES),
            "strand": "+",
        }
    )
    table = table.sort_values(["chrom", "tss"], key=_by_number).reset_index(drop=True)
    manifest = Manifest(
        window_bp=BINS * BIN_BP,
        bin_bp=BIN_BP,
        assembly="made up",
        chrom_sizes=dict.fromkeys(chromosomes, NEXT_BP * (2 + genes // CHROMOSOMES)),
        chromosomes=chromosomes,
        blind=[],
        cells=list(WORLDS),
        assays=MARKS,
        tracks=[[cell, mark] for cell in WORLDS for mark in MARKS],
        units=dict.fromkeys(MARKS, "counts"),
        groups=dict.fromkeys(MARKS, "histone"),
        min_covered=0.0,
        tss="gene_5p",
        candidates_sha256="0",
    )
    made = {
        world: _world(np.random.default_rng([seed, i]), genes, world)
        for i, world in enumerate(WORLDS)
    }
    store = WindowStore.create(path, manifest, table, np.stack([own[1] for own in made.values()]))
    for world, (counts, _) in made.items():
        for mark, values in zip(MARKS, counts, strict=True):
            _write(store, world, mark, values)
    return WindowStore.open(path)


def alone(store: WindowStore, mark: str, path: Path) -> WindowStore:
    """The same store without signal in all other marks."""
    own = store.manifest
    made = WindowStore.create(path, own, store.genes, store.read_expression(own.cells))
    for cell, assay in own.tracks:
        values = store.read_signal([cell], [assay])[0, 0]
        _write(made, cell, assay, values if assay == mark else np.zeros_like(values))
    return WindowStore.open(path)


def _by_number(column: pd.Series) -> pd.Series:
    return column.str.removeprefix("chr").astype(int) if column.dtype == object else column


def _write(store: WindowStore, cell: str, mark: str, values: np.ndarray) -> None:
    source = [{"name": "made up", "bytes": 0, "sha256": "0"}]
    covered = np.ones(len(values), np.float32)
    store.write_slab(cell, mark, np.ascontiguousarray(values, np.float32), covered, source)


def _world(rng: np.random.Generator, genes: int, world: str) -> tuple[np.ndarray, np.ndarray]:
    """Counts `[A G W]` and RPKM `[G]`."""

    def strength(share: float) -> np.ndarray:
        return rng.gamma(1.0, 1.0, genes) * (rng.random(genes) < share)

    promoter, body, repressive = strength(0.7), strength(0.6), strength(0.4)
    length = np.clip(rng.lognormal(8.6, 0.8, (genes, 1)), 1000, 10_000)
    near = np.exp(-0.5 * (_CENTRES / 700) ** 2)
    inside = (_CENTRES > 500) & (length > _CENTRES)
    broad = np.exp(-0.5 * (_CENTRES / 4000) ** 2)
    # Up to 3 elements 4 to 9.3 kb away, of which half are silenced at the same place.
    there = rng.integers(0, 4, (genes, 1)) > np.arange(3)
    place = rng.choice([-1, 1], there.shape) * rng.uniform(4000, 9300, there.shape)
    height = rng.gamma(2.0, 0.7, there.shape) * there
    silenced = there & (rng.random(there.shape) < 0.5)
    peaks = np.exp(-0.5 * ((_CENTRES - place[..., None]) / 300) ** 2)  # [G 3 W]
    elements = (height[..., None] * peaks).sum(1)
    rates = [
        0.3 + promoter[:, None] * near + 0.15 * elements,
        0.3 + 0.5 * body[:, None] * inside,
        0.3 + 0.5 * repressive[:, None] * broad + 1.5 * (silenced[..., None] * peaks).sum(1),
        0.3 + elements + 0.3 * promoter[:, None] * near,
        0.5 + 0.2 * np.sqrt(promoter)[:, None] * near + rng.gamma(2, 0.15, (genes, 1)),
    ]
    counts = [rng.poisson(DEPTH * rate * rng.lognormal(0, 0.15, (genes, 1))) for rate in rates]
    truth = WORLDS[world](promoter, body, repressive, (height * ~silenced).sum(1))
    truth = (truth - truth.mean()) / truth.std()
    level = np.sqrt(PLANTED) * truth + np.sqrt(1 - PLANTED) * rng.normal(size=genes)
    return np.stack(counts), 2 ** np.maximum(0, 5 + level) - 1
