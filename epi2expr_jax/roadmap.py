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
