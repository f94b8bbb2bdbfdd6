"""What a request asks for: kinds of assay sets, holes in the store, nonsense."""

import dataclasses

import numpy as np
import pytest

from epi2expr_jax.errors import InputError, nearest
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.lookup import Share, Study, fitted
from epi2expr_jax.study.request import TrainRequest, published
from epi2expr_jax.training.one_run import TrainConfig
from epi2expr_jax.training.runs import Run, parse_assay_sets
from epi2expr_jax.training.splits import make_folds, select_folds
from tests.epi2expr_jax.store.toy import EXPRESSION, GENES, MANIFEST

RUNS = [Run("E003", ("DNase",), "fold1", seed) for seed in range(11)]
FOUR = ["H3K4me3", "H3K27ac", "DNase", "H3K9me3"]


def study(store, cells=("all",), assays=("each",), **training):
    return Study(
        TrainRequest(
            store=str(store.path),
            model="promoter_cnn",
            model_options={"width": 0.02},
            cells=list(cells),
            assays=list(assays),
            cv="chromosomes_3",
            train_config=TrainConfig(epochs=1, batch_size=32, **training),
        )
    )


def test_kinds_of_assay_sets():
    pairs = parse_assay_sets(["pairs"], FOUR)
    assert len(pairs) == 6
    assert ("H3K4me3", "DNase") in pairs
    all_but_one = parse_assay_sets(["leave_one_out"], FOUR)
    assert set(all_but_one) == {tuple(a for a in FOUR if a != left_out) for left_out in FOUR}
    every = parse_assay_sets(["each", "DNase+H3K4me3", "pairs", "all"], FOUR)
    assert len(every) == 4 + 6 + 1  # the named pair is one of the pairs
    assert every[4] == ("H3K4me3", "DNase")
    assert parse_assay_sets(["pairs", "leave_one_out", "each"], FOUR[:2]) == [
        ("H3K4me3", "H3K27ac"), ("H3K4me3",), ("H3K27ac",),
    ]  # fmt: skip


def test_nonsense_is_refused_with_the_nearest_choice():
    for text, message in (
        (["h3k27AC"], "did you mean H3K27ac"),
        (["H3K4me3+DNAse"], "did you mean DNase"),
        (["leave-one-out"], "did you mean leave_one_out"),
        (["pair", "al"], "did you mean pairs, all"),
        (["CTCF"], "unknown assay CTCF"),
        ([], "nothing"),
    ):
        with pytest.raises(InputError, match=message):
            parse_assay_sets(text, FOUR)
    with pytest.raises(InputError, match="at least 2"):
        parse_assay_sets(["pairs"], FOUR[:1])
    counts = {f"chr{i}": 10 for i in range(1, 8)}
    for scheme, message in (
        ("chromosome_5", "did you mean chromosomes_5"),
        ("montecarlo5", "did you mean monte_carlo_5"),
        ("Chromoformer_8", "did you mean chromoformer_4"),
        ("chromosomes_2", "nearest is --cv=chromosomes_3"),
        ("chromosomes_40", "nearest is --cv=chromosomes_7"),
    ):
        with pytest.raises(InputError, match=message):
            make_folds(scheme, counts)
    with pytest.raises(InputError, match="at least 3 chromosomes"):
        make_folds("chromosomes_3", {"chr1": 5, "chr2": 5})
    folds = make_folds("chromosomes_3", counts)
    with pytest.raises(InputError, match="did you mean fold1"):
        select_folds(folds, ["flod1"])
    assert nearest("zzz", FOUR) == ""


def test_an_unknown_cell_is_refused_with_the_nearest(holed):
    store, cell, _ = holed
    with pytest.raises(InputError, match=f"did you mean {cell}"):
        study(store, cells=[cell.lower()])


def test_a_blind_chromosome_that_the_assembly_lacks_is_refused(small_store):
    """Left out in silence, a misspelt one would be trained on."""
    request = TrainRequest(str(small_store.path), blind=["chr3", "chr77"])
    with pytest.raises(InputError, match=r"--blind: found unknown chromosome chr77"):
        Study(request)
    for name in ("cells", "assays", "folds"):
        with pytest.raises(InputError, match=f"--{name}: found nothing"):
            dataclasses.replace(request, **{name: []})


def test_genes_held_out_by_name_must_be_known_and_leave_some(small_store):
    genes, request = small_store.genes, TrainRequest(str(small_store.path), cv="chromosomes_3")
    with pytest.raises(InputError, match="1 unknown genes"):
        Study(dataclasses.replace(request, test_genes="nobody"))
    (first, *_) = Study(request).folds
    every = genes.gene_id[genes.chrom.isin(first.validation)].tolist()
    with pytest.raises(InputError, match="no other gene for the validation part of fold1"):
        Study(dataclasses.replace(request, test_genes=every))
    assert "test_genes" not in request.as_json()  # as cards of older versions


def test_where_the_store_does_not_serve_a_model_the_flags_that_fit_are_named(small_store):
    """6 kb in bins of 50 bp: too few for the published cnn, which pools 128 bins into one."""
    with pytest.raises(InputError, match="at least as wide") as caught:
        Study(TrainRequest(str(small_store.path), cv="chromosomes_3")).models()
    remedy = caught.value.problems[0].remedy
    assert remedy.endswith("; this store serves --model=promoter_cnn")
    request = TrainRequest(str(small_store.path), "promoter_cnn", cv="chromosomes_3")
    assert Study(request).models()


@pytest.mark.parametrize(
    ("genes", "step"), [(30, 16), (400, 16), (1100, 32), (1300, 64), (9000, 64)]
)
def test_few_genes_are_trained_on_in_small_steps(small_store, genes, step):
    rows = small_store.genes.iloc[np.arange(genes) % len(small_store.genes)]
    store = WindowStore(small_store.path, small_store.manifest, rows)
    request = TrainRequest(str(small_store.path), "promoter_cnn", cv="chromosomes_3")
    assert fitted(request, store).train_config == dataclasses.replace(
        published("promoter_cnn"), batch_size=step
    )
    told = dataclasses.replace(request, train_config=published("promoter_cnn", batch_size=100))
    assert fitted(told, store).train_config == told.train_config


@pytest.mark.parametrize(
    ("stored", "given", "window_bp", "bin_bp"),
    [
        ((40_000, 100), {}, 20_000, 100),
        ((10_000, 25), {}, 10_000, 100),
        ((12_000, 300), {}, 12_000, 300),
        ((40_000, 50), {"bin_bp": 200}, 20_000, 200),
        ((40_000, 50), {"window_bp": 6000}, 6000, None),
    ],
)
def test_a_promoter_cnn_reads_the_window_of_the_store(tmp_path, stored, given, window_bp, bin_bp):
    window, width = stored
    manifest = dataclasses.replace(MANIFEST, window_bp=window, bin_bp=width)
    genes = GENES.assign(chrom=[f"chr{i % 3}" for i in range(len(GENES))])
    store = WindowStore.create(tmp_path / "s.zarr", manifest, genes, EXPRESSION)
    request = TrainRequest(str(store.path), "promoter_cnn", given)
    asked = fitted(request, store).model_options
    assert asked == {"window_bp": window_bp, **({"bin_bp": bin_bp} if bin_bp else {})}
    assert fitted(request, store).train_config.batch_size == 32  # of 700 genes
    of_others = TrainRequest(str(store.path), "cnn", given)
    assert fitted(of_others, store) == of_others


def test_cells_that_lack_a_track_are_left_out_of_kinds_of_sets(holed):
    store, cell, assay = holed
    asked = study(store, assays=["each", "pairs", "all"])
    runs = asked.runs
    assert "left out: 4 of 14 combinations of a cell and an assay set" in asked.left_out
    assert asked.left_out.endswith(f"no track {cell}-{assay}")
    trained = {(run.cell, run.assays) for run in runs}
    assert len(trained) == 10
    assert not any(c == cell and assay in assays for c, assays in trained)
    assert len(runs) == 3 * len(trained)
    assert sum(len(group.runs) for group in asked.groups()) == len(runs)
    others = [name for name in store.manifest.assays if name != assay]
    complete = study(store, assays=others)
    assert {run.cell for run in complete.runs} == set(store.manifest.cells)
    assert complete.left_out == ""


def test_what_is_named_must_be_there(holed):
    store, cell, assay = holed
    for asked in (
        {"cells": [cell]},
        {"cells": [cell], "assays": ["all"]},
        {"assays": [assay]},
        {"assays": ["each", "+".join(store.manifest.assays)]},
    ):
        with pytest.raises(InputError, match=f"no track {cell}-{assay}"):
            study(store, **asked)
    only = study(store, assays=["all"])
    assert {run.cell for run in only.runs} == set(store.manifest.cells) - {cell}


def test_masked_models_have_a_mask_for_every_assay(holed):
    wanted = study(holed[0], assays=["each", "all"], masked=True)
    channels = {group.name: group.trainer.model_config.assays for group in wanted.groups()}
    assert channels == {"1-assay": 2, "3-assay": 6}
    assert wanted.request.as_json()["train_config"]["masked"] is True


@pytest.mark.parametrize("count", [1, 2, 3, 4, 11, 13])
def test_shares_hold_every_run_once_and_in_order(count):
    parts = [Share(index, count).of(RUNS) for index in range(count)]
    assert [run for part in parts for run in part] == RUNS
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_neighbours_stay_together():
    assert [run.seed for run in Share(1, 4).of(RUNS)] == [2, 3, 4]


def test_one_process_alone_has_every_run():
    assert Share().of(RUNS) == RUNS


def test_names_tell_shares_apart():
    assert [Share(index, 2).name for index in range(2)] == ["0-of-2", "1-of-2"]
