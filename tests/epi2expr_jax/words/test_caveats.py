import pandas as pd

from epi2expr_jax.words.caveats import caveats, of_width
from tests.epi2expr_jax.scores.simulated import scores, world


def blind(genes):
    """Scores of one assay on three chromosomes with so many genes."""
    table = scores(world([0.5]), K=3, folds=1).assign(cell="E003", chrom=list(genes), fold="f0")
    return table.assign(n=list(genes.values()))


def test_caveats_say_what_the_intervals_rest_on():
    once = blind({"chr3": 1047, "chr7": 894, "chr20": 539})
    both = pd.concat([once, once.assign(fold="f1")])
    notes = "\n".join(caveats(both))
    assert "this cell (E003)" in notes
    assert "rest on 3 chromosomes and 2,480 genes" in notes
    assert "same blind chromosomes (chr3, chr7, chr20)" in notes
    assert "t with 2 degrees of freedom" in notes
    assert "training noise is not in the interval" in notes
    seeds = pd.concat([both, both.assign(seed=1)])
    assert "training noise" not in "\n".join(caveats(seeds))
    # Each fold its own chromosomes: nothing to say about blind ones.
    assert "blind" not in "\n".join(caveats(once.assign(fold=["f0", "f1", "f2"])))
    lopsided = blind({"chr3": 1000, "chr7": 3, "chr20": 3})
    assert "worth 1.0 of equal size" in "\n".join(caveats(lopsided))


def test_a_narrow_model_is_told():
    assert of_width(0.25).startswith("A quick look: models have 0.25 times")
    assert of_width(1.0) == ""


def test_ties_are_told_of_each_of_several_cells():
    tied, told = world([0.6, 0.6], [0.6, 0.6]), world([0.7, 0.5], [0.7, 0.5])
    note = (
        "In 2 of 2 cells with several assays, each by itself, the best assay cannot be told apart "
        "from others, all pairs corrected together (E1, E2)."
    )
    assert note in caveats(scores(tied, own=0.0))
    for once in (scores(told), scores(world([0.6, 0.6]), own=0.0)):  # one cell: the answer says it
        assert not any("be told apart" in said for said in caveats(once))
