"""Ensembles predict what their models never saw, on the scale asked for; all else is refused."""

import dataclasses
import shutil

import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.dataset import StoreDataset
from epi2expr_jax.inputs.masking import CHANNELS
from epi2expr_jax.predict.ensemble import (
    BEFORE,
    NEW_GENE,
    NOVELTY,
    SEEN,
    Member,
    gene_rows,
)
from epi2expr_jax.predict.training_store import other_store
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.lookup import Study
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.targets import TargetScale
from tests.epi2expr_jax.untrained import WINDOW, ensemble_of

HELD = "ENSG00000099999"
FOLDS = ("fold1", "fold2", "fold3")


@pytest.fixture(scope="module")
def ensemble(small_store):
    """Of two assays, in all three folds, with two seeds."""
    return ensemble_of(small_store, WINDOW, small_store.manifest.assays[:2], FOLDS, seeds=2)


@pytest.fixture(scope="module")
def everything(ensemble, small_store):
    return ensemble.predict(small_store)


@pytest.fixture(scope="module")
def masked(small_store):
    """Masked-mark models of all assays; they say which store is their own."""
    assays = tuple(small_store.manifest.assays)
    drawn = ensemble_of(small_store, WINDOW, assays * CHANNELS, FOLDS)
    (member,) = drawn.members
    runs = tuple(dataclasses.replace(run, assays=assays) for run in member.runs)
    card = {
        "request": {"train_config": {"masked": True}},
        "store": {"path": str(small_store.path)},
        "store_checksum": small_store.checksum(),
    }
    return dataclasses.replace(drawn, card=card, members=(dataclasses.replace(member, runs=runs),))


def test_models_predict_only_what_they_never_saw(ensemble, everything, small_store):
    chrom = small_store.genes.chrom
    assert everything.dims == ("run", "gene")
    assert everything.gene.to_numpy().tolist() == small_store.genes.gene_id.tolist()
    assert everything.run.to_numpy().tolist() == [run.run_id for run in ensemble.runs]
    assert everything.fold.to_numpy().tolist() == np.repeat(FOLDS, 2).tolist()
    assert everything.seed.to_numpy().tolist() == [0, 1] * 3
    for row, run in zip(everything.to_numpy(), ensemble.runs, strict=True):
        unseen = chrom.isin(ensemble.folds[run.fold].test)
        np.testing.assert_array_equal(np.isfinite(row), unseen)
    every = ensemble.predict(small_store, include_seen=True)
    assert np.isfinite(every).all()
    there = everything.notnull().to_numpy()
    np.testing.assert_allclose(every.to_numpy()[there], everything.to_numpy()[there], atol=1e-6)


def test_some_genes_are_predicted_as_among_all(ensemble, everything, small_store):
    unseen = everything.gene[everything.notnull().any("run")].to_numpy()
    genes = unseen[[7, 3, 30]].tolist()  # in whatever order
    found = ensemble.predict(str(small_store.path), genes)
    assert found.gene.to_numpy().tolist() == genes
    np.testing.assert_allclose(found, everything.sel(gene=genes), atol=1e-6)


def test_genes_that_are_unknown_or_seen_by_all_are_refused(ensemble, small_store):
    genes = small_store.genes
    with pytest.raises(InputError) as caught:
        ensemble.predict(small_store, genes=["ENSG1", genes.gene_id[0], "ENSG2"])
    (problem,) = caught.value.problems
    assert problem.where == str(small_store.path)
    assert "open_store(STORE).genes" in problem.remedy
    assert problem.found == "2 unknown genes (ENSG1, ENSG2)"
    one = ensemble.select(lambda run: run.fold == "fold2")
    seen = genes[~genes.chrom.isin(ensemble.folds["fold2"].test)].gene_id.tolist()[:3]
    with pytest.raises(InputError, match="3 genes that every model saw") as caught:
        one.predict(small_store, genes=seen)
    assert "include_seen (--include_seen)" in caught.value.problems[0].remedy
    assert one.predict(small_store, genes=seen, include_seen=True).notnull().all()


def test_genes_are_found_in_the_stores_table(small_store):
    ids = small_store.genes.gene_id
    assert gene_rows(small_store, [ids[5], ids[2]]).tolist() == [5, 2]
    assert gene_rows(small_store, None).tolist() == list(range(len(ids)))


def test_names_are_taken_alike_wherever_they_are_given(ensemble, everything, masked, small_store):
    genes, (cell, other) = small_store.genes, small_store.manifest.cells
    symbol, expected = genes.name[4], everything[:, [4]]
    for name in (symbol, [symbol], genes.gene_id[4], f"{genes.gene_id[4]}.7"):
        np.testing.assert_array_equal(ensemble.predict(small_store, name), expected)
    with pytest.raises(InputError, match=f"unknown cell {cell.lower()}; .*did you mean {cell}"):
        ensemble.predict(small_store, cell=cell.lower())
    assay = small_store.manifest.assays[0]
    alone = masked.predict(small_store, present=assay)
    np.testing.assert_array_equal(alone, masked.predict(small_store, present=[assay]))
    data = ensemble.dataset(small_store, WINDOW, other, assay)
    assert (data.cells, data.assays) == ((other,), (assay,))
    with pytest.raises(InputError) as caught:
        ensemble.dataset(small_store, WINDOW, "nobody", ["CTCF", assay])
    assert [problem.found for problem in caught.value.problems] == [
        "unknown cell nobody", "unknown assay CTCF",
    ]  # fmt: skip


def test_genes_that_no_training_store_held_are_new(small_store, tmp_path):
    """On chromosomes that every model saw; in the training store itself no gene is new."""
    shutil.copytree(small_store.path, tmp_path / "other")
    one = ensemble_of(small_store, WINDOW, small_store.manifest.assays[:1], ("fold1",))
    card = {"store": {"path": str(small_store.path)}, "store_checksum": small_store.checksum()}
    folds = {"fold1": dataclasses.replace(one.folds["fold1"], held_out=(HELD,))}
    one = dataclasses.replace(one, card=card, folds=folds)
    genes, tested = small_store.genes.copy(), one.folds["fold1"].test
    seen = genes.index[~genes.chrom.isin(tested)][:2]
    genes.loc[seen, "gene_id"] = ["NEW1", HELD]
    renamed = WindowStore(tmp_path / "other", small_store.manifest, genes)
    assert one.novelty(renamed, seen.to_numpy()[:1]).tolist() == [SEEN]  # by its place
    genes.loc[seen[0], "tss"] += 7
    other = WindowStore(tmp_path / "other", small_store.manifest, genes)
    rows = np.array([*seen, *genes.index[genes.chrom.isin(tested)][:1], seen[1] + 1])
    assert one.novelty(other, rows).tolist() == [NEW_GENE, NOVELTY[1], NOVELTY[0], SEEN]
    expected = ensemble_of(small_store, WINDOW, small_store.manifest.assays[:1], ("fold1",))
    expected = expected.predict(small_store, include_seen=True).to_numpy()[:, rows[:3]]
    found = one.predict(other, genes.gene_id[rows[:3]].tolist())
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert one.novelty(small_store, rows).tolist() == [SEEN, SEEN, NOVELTY[0], SEEN]
    # Held out whole by one fold, left out by name of another: the less strict reason stands.
    tested_gene = genes.gene_id[rows[2]]
    both = dict(folds, fold2=dataclasses.replace(folds["fold1"], name="fold2", test=(),
                                                 held_out=(tested_gene,)))  # fmt: skip
    two = ensemble_of(small_store, WINDOW, small_store.manifest.assays[:1], ("fold1", "fold2"))
    two = dataclasses.replace(two, card=card, folds=both)
    assert two.novelty(small_store, rows[2:3]).tolist() == [NOVELTY[1]]
    moved = dataclasses.replace(one, card={**card, "store": {"path": str(tmp_path / "gone")}})
    assert moved.novelty(other, rows[:1]).tolist() == [SEEN]  # nobody knows
    # Weights that had seen test genes, nobody knows which: nothing is held out any more.
    (run,) = one.runs
    for seen, expected in ((0, one.novelty(other, rows).tolist()), (9, [BEFORE] * 3 + [SEEN])):
        started = {"run_id": run.run_id, "started": {"seen": seen, "test_genes": 20}}
        tuned = dataclasses.replace(one, card={**card, "populations": [{"runs": [started]}]})
        assert tuned.novelty(other, rows).tolist() == expected
        np.testing.assert_array_equal(
            tuned.wanted(other, rows, False), one.wanted(other, rows, False)
        )


def test_scales_are_each_models_own(ensemble, everything, small_store):
    """The second model's target is RPKM scaled to 0-1."""
    (member,) = ensemble.members
    scale = TargetScale("minmax", 0.0, 100.0, 0.2, 0.1)
    scales = (member.scales[0], scale, *member.scales[2:])
    other = dataclasses.replace(
        ensemble, target="minmax", members=(dataclasses.replace(member, scales=scales),)
    )
    raw, log2 = (other.predict(small_store, scale=name) for name in ("raw", "log2"))
    assert (raw.attrs["units"], log2.attrs["units"]) == ("minmax", "log2(RPKM + 1)")
    standard = everything[1]  # of a scale that changes nothing
    np.testing.assert_allclose(raw[1], standard * 0.1 + 0.2, atol=1e-6)
    expected = np.log2(np.maximum((standard * 0.1 + 0.2) * 100, 0) + 1)
    np.testing.assert_allclose(log2[1], expected, atol=1e-4)
    np.testing.assert_allclose(log2[0], everything[0], atol=1e-6)


def test_a_scale_is_a_name_that_is_known(ensemble, everything, small_store):
    known = everything.to_numpy()
    linear = ensemble.predict(small_store, scale="linear")
    np.testing.assert_allclose(linear, np.maximum(2**known - 1, 0), rtol=1e-5, atol=1e-5)
    assert linear.attrs["units"] == "RPKM"
    np.testing.assert_array_equal(ensemble.predict(small_store, scale="rpkm"), linear)
    in_tpm = dataclasses.replace(ensemble, card={"store": {"expression_unit": "TPM"}})
    found = in_tpm.predict(small_store, scale="tpm")
    np.testing.assert_array_equal(found, linear)
    assert (found.attrs["units"], in_tpm.units) == ("TPM", "log2(TPM + 1)")
    for scale, near in (("rpkm", "choose one"), ("log", "did you mean log2?"), ("", "choose one")):
        with pytest.raises(InputError) as caught:
            in_tpm.predict(small_store, scale=scale)
        (problem,) = caught.value.problems
        assert problem.expected == "log2 (log2(TPM + 1)), linear (TPM), raw (log2)"
        assert near in problem.remedy
    labelled = dataclasses.replace(ensemble, target="label")
    assert labelled.units == "probability of being expressed"
    with pytest.raises(InputError, match="no scale of label models"):
        labelled.predict(small_store, scale="linear")


def test_a_store_without_expression_is_predicted_from(ensemble, everything, small_store, tmp_path):
    manifest = dataclasses.replace(small_store.manifest, expression_unit="")
    bare = WindowStore.create(tmp_path / "bare.zarr", manifest, small_store.genes, None)
    for cell, assay in manifest.tracks:
        means, coverage, *_ = small_store.slabs.read(cell, assay)
        bare.write_slab(cell, assay, means, coverage, [])
    np.testing.assert_array_equal(ensemble.predict(bare.path), everything)
    with pytest.raises(InputError, match="a store without expression"):
        Study(TrainRequest(str(bare.path), cv="chromosomes_3"))


def test_chosen_runs_keep_their_weights(ensemble, everything, small_store):
    chosen = ensemble.select(lambda run: run.seed == 1)
    assert [(run.fold, run.seed) for run in chosen.runs] == [(fold, 1) for fold in FOLDS]
    np.testing.assert_allclose(chosen.predict(small_store), everything[1::2], atol=1e-6)
    assert not ensemble.select(lambda run: run.cell == "nowhere").members
    (member,) = ensemble.members
    turned = dataclasses.replace(ensemble, members=(member.only([5, 2, 0]),))
    assert turned.runs == [member.runs[i] for i in (5, 2, 0)]
    np.testing.assert_allclose(turned.predict(small_store), everything[[5, 2, 0]], atol=1e-6)


def test_models_of_one_assay_set_are_told_apart(ensemble, small_store):
    first, second = small_store.manifest.assays[:2]
    alone = ensemble_of(small_store, WINDOW, [first], FOLDS)
    both = dataclasses.replace(ensemble, members=(*ensemble.members, *alone.members))
    assert both.only([first]).runs == alone.runs
    assert both.only([first, second]).runs == ensemble.runs
    assert both.only(first).runs == alone.runs  # a string is one name
    assert both.only([second, first]).runs == both.only(f"{second}+{first}").runs == ensemble.runs
    of_all = dataclasses.replace(both, card={"store": {"assays": [second, first]}})
    assert of_all.only("all").runs == ensemble.runs
    of_three = dataclasses.replace(both, card={"store": {"assays": [first, second, "x"]}})
    for given, said in (("all", rf"all \({first}\+{second}\+x\)"), ("x", "x")):
        with pytest.raises(InputError, match=f"no model of {said}: it was not trained") as caught:
            of_three.only(given)
        assert (
            f"again with {given} added to --assays: only the new models are trained"
            in caught.value.problems[0].remedy
        )
    with pytest.raises(InputError, match=f"unknown assay set {second}; ") as caught:
        both.only([second])
    assert first in caught.value.problems[0].expected
    np.testing.assert_allclose(
        both.only([first]).predict(small_store), alone.predict(small_store), atol=1e-6
    )


def test_runs_of_the_same_tracks_are_found(ensemble):
    (member,) = ensemble.members
    runs = [Run("b", ("x",), "f", 0), Run("a", ("x",), "f", 0), Run("b", ("x",), "f", 1),
            Run("b", ("x", "y"), "f", 0)]  # fmt: skip
    found = Member(member.model_config, tuple(runs), member.scales, member.weights).by_tracks()
    assert found == {("b", ("x",)): [0, 2], ("a", ("x",)): [1], ("b", ("x", "y")): [3]}


def test_another_cells_signal_can_be_read(ensemble, everything, small_store):
    first, second = small_store.manifest.cells
    found = ensemble.predict(small_store, cell=second)
    assert set(found.cell.to_numpy()) == {first}  # what they were trained on
    assert (abs(found - everything).max("gene") > 1e-3).all()
    (member,) = ensemble.members
    runs = tuple(dataclasses.replace(run, cell=second) for run in member.runs)
    there = dataclasses.replace(ensemble, members=(dataclasses.replace(member, runs=runs),))
    np.testing.assert_array_equal(found, there.predict(small_store))


def test_absent_assays_are_not_read(masked, small_store, monkeypatch):
    """So that a store without their tracks serves, and what is there is all that counts."""
    first, second, _ = small_store.manifest.assays
    read, track = [], StoreDataset.track

    def told(self, cell, assay):
        read.append(assay)
        return track(self, cell, assay)

    everything = masked.predict(small_store, present=[first, second])
    monkeypatch.setattr(StoreDataset, "track", told)
    for present in ([second], [second, first]):
        read.clear()
        found = masked.predict(small_store, present=present)
        assert set(read) == set(present)
    np.testing.assert_array_equal(found, everything)


def test_all_assays_are_present_by_default(masked, small_store):
    everything = masked.predict(small_store)
    named = masked.predict(small_store, present=small_store.manifest.assays)
    np.testing.assert_array_equal(everything, named)
    fewer = masked.predict(small_store, present=small_store.manifest.assays[:1])
    assert (fewer != everything).values[np.isfinite(everything.values)].all()


def test_what_cannot_be_shown_is_refused(masked, ensemble, small_store):
    first = small_store.manifest.assays[0]
    with pytest.raises(InputError, match=f"did you mean {first}"):
        masked.predict(small_store, present=[first.lower()])
    with pytest.raises(InputError, match="no assay"):
        masked.predict(small_store, present=[])
    with pytest.raises(InputError, match="train with --masked"):
        ensemble.predict(small_store, present=[first])


def test_another_store_is_refused(masked, distal_store, small_store):
    assert masked.open_store().path == small_store.path
    with pytest.raises(InputError, match="other contents") as caught:
        masked.open_store(distal_store.path)
    assert caught.value.problems == other_store(distal_store, masked.card).problems
    assert masked.card["store_checksum"][:12] in caught.value.problems[0].expected


def test_signal_that_no_card_describes_is_read_from_the_models_own_store(
    masked, small_store, distal_store
):
    older = dataclasses.replace(masked, signal=None)
    np.testing.assert_array_equal(older.predict(small_store), masked.predict(small_store))
    with pytest.raises(InputError, match=r"load\(RUN, store=PATH\)"):
        older.predict(distal_store)
