import pytest

from epi2expr_jax.roadmap import AUTOSOMES, BLIND_CHROMOSOMES, CHROMOFORMER_GROUPS, cell_name

# Protein-coding genes of hg19 per chromosome, roughly: 1 … 22, X, Y.
CODING_GENES = dict(
    zip(
        [*map(str, range(1, 23)), "X", "Y"],
        [1950, 1190, 1030, 720, 830, 990, 860, 650, 740, 720, 1240, 1000, 310, 590, 560, 810,
         1130, 260, 1350, 520, 220, 420, 800, 50],
        strict=True,
    )
)  # fmt: skip


def test_autosomes_are_chr1_to_chr22_in_order():
    assert len(AUTOSOMES) == 22
    assert [int(name.removeprefix("chr")) for name in AUTOSOMES] == list(range(1, 23))
    assert AUTOSOMES[0] == "chr1"


def test_blind_chromosomes_are_those_of_approach_1():
    assert BLIND_CHROMOSOMES == ("chr3", "chr7", "chr20")
    assert set(BLIND_CHROMOSOMES) < set(AUTOSOMES)


def test_the_groups_of_chromoformer_share_out_every_chromosome_once():
    shared_out = sorted(name for group in CHROMOFORMER_GROUPS for name in group)
    assert shared_out == sorted([*AUTOSOMES, "chrX", "chrY"])


@pytest.mark.parametrize("group", CHROMOFORMER_GROUPS)
def test_each_group_of_chromoformer_has_about_a_quarter_of_the_genes(group):
    """The published groups are six chromosomes of about 4,700 genes each."""
    assert len(group) == 6
    genes = sum(CODING_GENES[name.removeprefix("chr")] for name in group)
    assert genes / sum(CODING_GENES.values()) == pytest.approx(0.25, abs=0.02)


def test_cells_have_names():
    assert (cell_name("E003"), cell_name("E123"), cell_name("mine")) == (
        "H1 stem cells", "K562 leukaemia", ""
    )  # fmt: skip
