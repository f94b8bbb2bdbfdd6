"""A made-up store: what it holds, for tests of its parts."""

import json

import numpy as np
import pandas as pd

from epi2expr_jax.store.manifest import Manifest

EXPRESSION = np.arange(1400, dtype=np.float32).reshape(2, 700)
GENES = pd.DataFrame(
    {
        "gene_id": [f"g{i}" for i in range(700)],
        "name": "",
        "chrom": "chr1",
        "tss": np.arange(700) * 100 + 20_000,
        "strand": "+",
    }
)
MANIFEST = Manifest(
    window_bp=1000,
    bin_bp=25,
    assembly="toy",
    chrom_sizes={"chr1": 1_000_000},
    chromosomes=["chr1"],
    blind=[],
    cells=["c1", "c2"],
    assays=["m1", "m2"],
    tracks=[["c1", "m1"], ["c2", "m1"], ["c2", "m2"]],
    units={"m1": "pvalue", "m2": "depth"},
    groups={"m1": "histone", "m2": "histone"},
    min_covered=0.0,
    tss="gene_5p",
    candidates_sha256="0",
)
# Two genes of c2 touch three regions, one of them both; c1 has no contacts.
CONTACTS = pd.DataFrame(
    [
        ("g3", "chr1", 5_000, 5_250, 4.0),
        ("g3", "chr1", 1_000, 1_100, 2.0),
        ("g8", "chr1", 5_000, 5_250, 3.0),
        ("g8", "chr1", 9_000, 9_999, 3.0),
        ("dropped", "chr1", 20_000, 20_100, 9.0),
    ],
    columns=["gene_id", "chrom", "start", "end", "score"],
)


def as_version_2(path):
    """A store as version 2 recorded it: without sums but those of values. Its chunks have theirs,
    which a fault that goes through TensorStore keeps right."""
    manifest = json.loads((path / "manifest.json").read_text())
    for name in ("sha256", "tables_sha256"):
        del manifest[name]
    (path / "manifest.json").write_text(json.dumps(manifest | {"version": 2}))
    for marker in (path / "slabs").rglob("*.json"):
        record = json.loads(marker.read_text())
        marker.write_text(json.dumps({name: record[name] for name in ("sources", "sha256")}))
    return path


def slab(i):
    """What `write_slab` takes of a track: the first has no regions."""
    random = np.random.default_rng(i)
    depth = random.random(14, np.float32) if i else None
    return random.random((700, 40), np.float32), random.random(700, np.float32), [], depth
