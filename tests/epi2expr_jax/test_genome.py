import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import (
    WindowSpec,
    check_gene_table,
    find_chromosomes,
    gene_order,
    match_chromosomes,
    sort_chromosomes,
    strip_version,
    use_aliases,
    window_bounds,
    with_aliases,
)


def test_window_is_centred_on_the_tss():
    start, end = window_bounds(np.array([5000, 100]), 10_000)
    assert start.tolist() == [0, -4900]
    assert end.tolist() == [10_000, 5100]


@pytest.mark.parametrize(("window_bp", "bin_bp"), [(10_000, 30), (10_001, 1), (0, 25), (100, 0)])
def test_windows_that_cannot_be_cut_are_refused(window_bp, bin_bp):
    with pytest.raises(InputError):
        WindowSpec(window_bp, bin_bp)


def test_refused_window_names_one_that_fits():
    with pytest.raises(InputError, match="window_bp=10020"):
        WindowSpec(10_000, 30)


@pytest.mark.parametrize(
    ("stored", "window_bp", "bin_bp"),
    [((10_000, 100), 10_000, 100), ((39_800, 200), 9_800, 200), ((6_000, 50), 6_000, 50),
     ((10_200, 150), 9_900, 150), ((2_000, 2_000), 2_000, 2_000)],
)  # fmt: skip
def test_the_nearest_window_that_a_stored_one_can_be_read_as(stored, window_bp, bin_bp):
    nearest = WindowSpec(10_000, 25).nearest_in(WindowSpec(*stored))
    assert nearest == WindowSpec(window_bp, bin_bp)
    nearest.crop_and_merge(WindowSpec(*stored))


def test_crop_and_merge():
    stored = WindowSpec(40_000, 25)
    assert WindowSpec(40_000, 25).crop_and_merge(stored) == (slice(0, 1600), 1)
    assert WindowSpec(6_000, 100).crop_and_merge(stored) == (slice(680, 920), 4)


@pytest.mark.parametrize(
    ("wanted", "stored", "why"),
    [
        (WindowSpec(40_000, 100), WindowSpec(10_000, 25), "at least as wide"),
        (WindowSpec(6_000, 100), WindowSpec(10_000, 250), "divide"),
        (WindowSpec(6_000, 100), WindowSpec(10_200, 150), "divide"),
        (WindowSpec(600, 100), WindowSpec(1_000, 50), None),
        (WindowSpec(100, 100), WindowSpec(300, 100), None),
        (WindowSpec(200, 100), WindowSpec(300, 50), "edge of a stored bin"),
    ],
)
def test_stores_that_do_not_serve_are_refused(wanted, stored, why):
    if why is None:
        wanted.crop_and_merge(stored)
        return
    if why == "edge of a stored bin":
        stored = WindowSpec(300, 100)
    with pytest.raises(InputError, match=why):
        wanted.crop_and_merge(stored)


def test_chromosome_names_and_order():
    assert sort_chromosomes(["chrX", "chr10", "chr2", "chr1", "chr2"]) == [
        "chr1", "chr2", "chr10", "chrX",
    ]  # fmt: skip
    assert match_chromosomes(["chr1", "2", "MT", "chr9"], ["1", "chr2", "chrM"]) == {
        "chr1": "1", "2": "chr2", "MT": "chrM",
    }  # fmt: skip


def test_accessions_of_ncbi_are_of_one_assembly():
    hg19 = {"chr1": 249_250_621, "2": 243_199_373, "chrX": 155_270_560}
    names = ["NC_000001.10", "NC_000002.11", "NC_000023.10", "CM000663.1"]
    assert find_chromosomes(names, hg19) == dict(
        zip(names, ["chr1", "2", "chrX", "chr1"], strict=True)
    )
    others = ["NC_000001.11", "CM000663.2", "NC_060925.1", "NC_000067.7", "NC_000001.9"]
    assert find_chromosomes(others, hg19) == {}
    assert find_chromosomes(["NC_060946.1"], {"22": 51_324_926}) == {"NC_060946.1": "22"}  # hs1
    assert match_chromosomes(["chr19", "X"], ["NC_000085.7", "NC_000086.8"]) == {
        "chr19": "NC_000085.7", "X": "NC_000086.8",
    }  # fmt: skip


def test_names_stand_for_others_when_told_so():
    seen = with_aliases({"lg1": "chr1"}, match_chromosomes, ["lg1", "lg2"], available=["1", "2"])
    assert seen == {"lg1": "1"}
    use_aliases({})
    assert match_chromosomes(["lg1"], ["1"]) == {}


def test_only_ensembl_ids_lose_their_version():
    assert strip_version("ENSG00000116213.10") == "ENSG00000116213"
    assert strip_version("ENSMUSG00000000001.4") == "ENSMUSG00000000001"
    assert strip_version("ENSG00000182378.8_PAR_Y") == "ENSG00000182378_PAR_Y"
    assert strip_version("AC005895.4") == "AC005895.4"


def gene_table(**changes):
    columns = {
        "gene_id": ["a", "b"],
        "name": ["A", "B"],
        "chrom": ["chr1", "chr2"],
        "tss": [10, 20],
        "strand": ["+", "-"],
    }
    return pd.DataFrame({**columns, **changes})


def test_gene_table_lists_all_its_problems():
    sizes = {"chr1": 100, "chr2": 20}
    check_gene_table(gene_table(tss=[0, 19]), sizes, "genes")
    with pytest.raises(InputError) as caught:
        check_gene_table(gene_table(gene_id=["a", "a"], strand=["+", "."]), sizes, "genes")
    assert len(caught.value.problems) == 3  # twice, strand, and chr2:20 is off its end
    with pytest.raises(InputError, match="strand"):
        check_gene_table(gene_table().drop(columns="strand"), sizes, "genes")


def test_gene_order_is_stable():
    order = gene_order(["chr10", "chr2", "chr2", "chr2"], [5, 9, 1, 9])
    assert order.tolist() == [2, 1, 3, 0]
