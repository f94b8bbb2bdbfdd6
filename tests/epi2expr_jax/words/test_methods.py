import pandas as pd
import pytest

from epi2expr_jax.training.splits import make_folds
from epi2expr_jax.words import methods


def card(config, **known):
    return {"populations": [{"model_config": config}], "request": {}, **known}


@pytest.mark.parametrize(
    ("config", "options", "said"),
    [
        ({"window_bp": 6000, "bin_bp": 100, "width": 0.125}, {},
         "reads 6,000 bp around the TSS in 60 bins of 100 bp and has 0.125 times the published "
         "numbers of filters and units"),
        ({"window_bp": 40_000, "resolutions": (2000, 500, 100)}, {"width": 1.0},
         "reads 40,000 bp around the TSS in bins of 2,000, 500, 100 bp and has the published "
         "numbers of filters and units"),
        ({"window_bp": 6000}, {}, "reads 6,000 bp around the TSS"),
        ({"own": 3}, {}, ""),
    ],
)  # fmt: skip
def test_network(config, options, said):
    assert methods.network(card(config, request={"model_options": options})) == said


def test_which_genes_are_tested():
    chroms = [f"chr{i}" for i in range(1, 11) for _ in range(i)]
    genes = pd.DataFrame({"chrom": chroms, "gene_id": [f"g{i}" for i in range(len(chroms))]})
    counts = genes.chrom.value_counts().to_dict()
    blind = make_folds("monte_carlo_5", counts, blind=["chr3", "chr7"])
    assert (
        methods.tested(blind, genes) == "scores will be of 10 of the 55 genes: those on chr3, chr7"
    )
    each = make_folds("chromosomes_5", counts)
    assert methods.tested(each, genes) == ""
    assert f"will be of {sum(counts[c] for c in each[0].test)} of" in methods.tested(
        each[:1], genes
    )


def test_training():
    asked = {"epochs": 20, "batch_size": 64, "learning_rate": 1e-3, "early_stop": {"patience": 12}}
    said = methods.training(card({}, request={"train_config": asked}), [8, 20, 0])
    assert said == (
        "Models were trained for at most 20 epochs, or until 12 epochs in a row brought no lower "
        "validation loss (8 to 20 epochs were taken), in batches of 64 genes, at a learning rate "
        "of 0.001."
    )
    short = methods.training(card({}, request={"train_config": asked | {"epochs": 8}}), [8, 8])
    assert short.startswith("Models were trained for at most 8 epochs (8 epochs were taken), in")
    bare = asked | {"early_stop": None, "batch_size": 0}
    said = methods.training(card({}, request={"train_config": bare}), [20, 20])
    assert said == (
        "Models were trained for at most 20 epochs (20 epochs were taken), at a learning rate of "
        "0.001."
    )
    assert methods.training(card({}), []) == ""


def test_signal():
    alike = {
        "units": {"A": "pvalue", "B": "pvalue"},
        "transforms": {"A": "arcsinh", "B": "arcsinh"},
    }
    assert methods.signal(card({}, signal=alike)) == "Signal was −log10 p, read as arcsinh(x)."
    mixed = {"units": {"A": "counts", "B": "cpm"}, "transforms": {"A": "log1p", "B": "none"}}
    assert methods.signal(card({}, signal=mixed)) == (
        "Signal was read counts, read as ln(x + 1) (A); cpm, read as they are (B)."
    )
    bare = {"units": {"A": "none"}, "transforms": {"A": "none"}}
    said = methods.signal(card({}, signal=bare))
    assert said == "Signal was values without a unit, read as they are."
    assert methods.signal(card({})) == ""


@pytest.mark.parametrize(
    ("blacklist", "said"),
    [
        (None, ""),
        ({}, "No intervals were excluded (no blacklist)."),
        ({"name": "b.bed", "sha256": "0"},
         "Bins that overlap an interval of b.bed count as bases without data."),
        ({"name": "b.bed", "genes": 1, "bins": 1200},
         "Bins that overlap an interval of b.bed (1,200 bins of 1 gene) count as bases without "
         "data."),
    ],
)  # fmt: skip
def test_excluded_intervals(blacklist, said):
    assert methods.excluded(blacklist) == said
