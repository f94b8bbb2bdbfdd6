"""What the Roadmap Epigenomics studies fixed: held-out chromosomes and fold groups.

The cells and assays themselves are data, not code: see `data_prep/formats/sheets`.
"""

# Approach 1 keeps these chromosomes blind: no model trains on or is chosen by their genes.
BLIND_CHROMOSOMES = ("chr3", "chr7", "chr20")

AUTOSOMES = tuple(f"chr{number}" for number in range(1, 23))

# The four groups of Chromoformer (Lee, Yang & Kim, Nat Commun 2022); fold f holds out group f.
CHROMOFORMER_GROUPS = (
    ("chr1", "chr6", "chr5", "chr8", "chr14", "chrY"),
    ("chr7", "chr10", "chr11", "chr12", "chr15", "chr21"),
    ("chr2", "chr3", "chr4", "chr16", "chr18", "chr20"),
    ("chr9", "chr13", "chr17", "chr19", "chr22", "chrX"),
)

# Names of the epigenomes that approaches 1 and 2 use (Roadmap Epigenomics Consortium, Nature 2015).
_CELLS = {
    "E003": "H1 stem cells", "E004": "H1 mesendoderm", "E005": "H1 trophoblast",
    "E006": "H1 mesenchymal", "E007": "H1 neuronal progenitors", "E016": "HUES64 stem cells",
    "E066": "liver", "E087": "pancreatic islets", "E114": "A549 lung carcinoma",
    "E116": "GM12878 lymphoblastoid", "E117": "HeLa-S3", "E118": "HepG2", "E119": "HMEC breast",
    "E120": "HSMM myoblasts", "E122": "HUVEC", "E123": "K562 leukaemia",
    "E127": "NHEK keratinocytes", "E128": "NHLF lung fibroblasts",
}  # fmt: skip


def cell_name(cell: str) -> str:
    """What the Roadmap calls one of these epigenomes; empty for any other."""
    return _CELLS.get(cell, "")
