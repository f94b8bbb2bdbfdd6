import jax
import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.dataset import InputConfig, load_dataset
from epi2expr_jax.errors import InputError
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.runs import Run, TargetScale, parse_assay_sets, plan_runs
from epi2expr_jax.splits import make_folds
from epi2expr_jax.store import WindowStore


def test_windows_are_cropped_merged_transformed_and_oriented(small_store):
    cell, assay = small_store.manifest.cells[1], small_store.manifest.assays[2]
    data = load_dataset(small_store, PromoterCnnConfig(4000, 100), [cell], [assay])
    raw = small_store.read_signal([cell], [assay])[0, 0]  # 6000 bp in bins of 50
    for gene in (0, 1, 2, 3, 50, 51):
        window = np.arcsinh(raw[gene, 20:100].reshape(40, 2).mean(1))
        if small_store.genes.strand[gene] == "-":
            window = window[::-1]
        np.testing.assert_allclose(data.signal.values[0, 0, gene], window, rtol=1e-6)
    genomic = load_dataset(
        small_store, PromoterCnnConfig(4000, 100), [cell], [assay], InputConfig("log1p", "genomic")
    )
    np.testing.assert_allclose(
        genomic.signal.values[0, 0, 3], np.log1p(raw[3, 20:100].reshape(40, 2).mean(1)), rtol=1e-6
    )


def test_windows_the_store_cannot_serve_are_refused(small_store):
    cells, assays = small_store.manifest.cells, small_store.manifest.assays
    with pytest.raises(InputError, match="at least as wide"):
        load_dataset(small_store, CnnConfig(10_000, 50), cells, assays)


def test_negative_signal_under_a_logarithm_is_refused(small_store, tmp_path):
    store = WindowStore.create(
        tmp_path / "s",
        small_store.manifest,
        small_store.genes,
        small_store.read_expression(small_store.manifest.cells),
    )
    genes = len(store.genes)
    for cell, assay in store.manifest.tracks:
        store.write_slab(cell, assay, np.full((genes, 120), -0.5), np.ones(genes), [])
    arguments = store, PromoterCnnConfig(6000, 50), store.manifest.cells, store.manifest.assays
    with pytest.raises(InputError, match="negative signal") as caught:
        load_dataset(*arguments, InputConfig("log1p"))
    assert len(caught.value.problems) == len(store.manifest.tracks)
    assert (load_dataset(*arguments).signal.values < 0).all()  # arcsinh takes any sign


def test_target_statistics_come_from_training_genes_alone():
    rpkm = np.array([0.0, 1, 3, 7, 15, 1000])
    for kind, low, high in (("minmax", 0, 1), ("log2", 0, 4)):
        scale = TargetScale.fit(kind, rpkm[:5], "here")
        raw = scale.to_raw(rpkm)
        assert (raw[0], raw[4]) == (low, high)
        assert raw[5] > high  # a test gene may lie beyond; it changes nothing
        standard = scale.standardise(scale.to_raw(rpkm))
        np.testing.assert_allclose([standard[:5].mean(), standard[:5].std()], [0, 1], atol=1e-12)
        np.testing.assert_allclose(scale.raw_to_log2(scale.unstandardise(standard)),
                                   np.log2(rpkm + 1), atol=1e-9)  # fmt: skip
    with pytest.raises(InputError, match="the same expression"):
        TargetScale.fit("log2", np.ones(4), "cell E003")
    with pytest.raises(InputError, match="minmax or log2"):
        TargetScale.fit("zscore", rpkm, "here")


def test_predictions_below_zero_expression_count_as_zero():
    scale = TargetScale.fit("minmax", np.array([0.0, 10.0]), "here")
    np.testing.assert_allclose(scale.raw_to_log2(np.array([-0.5, 0.1])), [0, 1])


def test_runs_are_named_by_what_they_are():
    run = Run("E003", ("a", "b"), "fold1", 0)
    assert run.label == "a+b"
    assert run.run_id == Run("E003", ("a", "b"), "fold1", 0).run_id
    others = [
        Run("E004", ("a", "b"), "fold1", 0),
        Run("E003", ("a",), "fold1", 0),
        Run("E003", ("a", "b"), "fold2", 0),
        Run("E003", ("a", "b"), "fold1", 1),
    ]
    assert len({r.run_id for r in [run, *others]}) == 5


def test_runs_that_differ_only_in_assays_share_their_order(small_store):
    cells, assays = small_store.manifest.cells, small_store.manifest.assays
    data = load_dataset(small_store, PromoterCnnConfig(6000, 100), cells, assays)
    folds = make_folds("chromosomes_3", small_store.genes.chrom.value_counts().to_dict())
    runs = [Run(c, (a,), f.name, 0) for c in cells for a in assays for f in folds]
    inputs, scales = plan_runs(data, runs, folds, "log2")
    order, model = np.asarray(inputs.order_key), np.asarray(inputs.model_key)
    assert len(np.unique(model, axis=0)) == len(runs)
    assert len(np.unique(order, axis=0)) == len(cells) * len(folds)
    for i, run in enumerate(runs):
        assert data.cells[inputs.cell[i]] == run.cell
        assert data.assays[inputs.assays[i, 0]] == run.assays[0]
        y = np.asarray(inputs.target[i])[np.asarray(inputs.train[i])]
        np.testing.assert_allclose([y.mean(), y.std()], [0, 1], atol=1e-5)
        assert scales[i].kind == "log2"
    assert not (np.asarray(inputs.train) & np.asarray(inputs.validation)).any()
    assert all(leaf.shape[0] == len(runs) for leaf in jax.tree.leaves(inputs))


def test_assay_sets_from_the_command_line():
    available = ["H3K4me3", "H3K27ac", "DNase"]
    assert parse_assay_sets(["each", "all"], available) == [
        ("H3K4me3",), ("H3K27ac",), ("DNase",), ("H3K4me3", "H3K27ac", "DNase"),
    ]  # fmt: skip
    assert parse_assay_sets(["DNase+H3K27ac", "H3K27ac+DNase", "DNase"], available) == [
        ("H3K27ac", "DNase"), ("DNase",),
    ]  # fmt: skip
    with pytest.raises(InputError, match="unknown assay CTCF, H3K4me4"):
        parse_assay_sets(["CTCF", "H3K4me4+DNase"], available)


def test_unknown_choices_are_refused():
    with pytest.raises(InputError, match="--transform"):
        InputConfig("sqrt")
    with pytest.raises(InputError, match="--orientation"):
        InputConfig("auto", "upstream")


def test_gene_table_stays_in_store_order(small_store):
    data = load_dataset(small_store, PromoterCnnConfig(6000, 100), small_store.manifest.cells[:1],
                        small_store.manifest.assays[:1])  # fmt: skip
    pd.testing.assert_frame_equal(data.genes, small_store.genes)
