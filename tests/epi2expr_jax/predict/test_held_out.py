"""Predictions of genes never seen, with what was observed, in the cells a model is tested in."""

import dataclasses

import numpy as np
import pytest

from epi2expr_jax.predict.held_out import has_tracks, held_out_in, predict_held_out
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.targets import TargetScale
from tests.epi2expr_jax.untrained import WINDOW, ensemble_of


@pytest.fixture(scope="module")
def ensemble(small_store):
    return ensemble_of(small_store, WINDOW, small_store.manifest.assays[:2])


def trained_on(ensemble, *cells):
    """The same models, as if each had been trained on another cell, or pool of cells."""
    (member,) = ensemble.members
    runs = [dataclasses.replace(r, cell=c) for r, c in zip(member.runs, cells, strict=True)]
    return dataclasses.replace(ensemble, members=(dataclasses.replace(member, runs=tuple(runs)),))


def rpkm_of(store, cell, genes):
    values = store.read_expression([cell])[0].astype(float)
    return values[store.genes.set_index("gene_id").index.get_indexer(genes)]


def test_every_test_gene_of_a_run_is_there_once(ensemble, small_store):
    table, genes = predict_held_out(ensemble, small_store), small_store.genes
    expected = ensemble.predict(small_store, include_seen=True)
    assert set(table.run_id) == {run.run_id for run in ensemble.runs}
    for run in ensemble.runs:
        own = table[table.run_id == run.run_id]
        tested = genes[genes.chrom.isin(ensemble.folds[run.fold].test)]
        assert own.gene_id.tolist() == tested.gene_id.tolist()
        assert own.chrom.tolist() == tested.chrom.tolist()
        assert set(own.assays) == {run.label}
        assert set(own.cell) == set(own.trained_on) == {run.cell}
        predicted = expected.sel(run=run.run_id, gene=own.gene_id.to_numpy())
        np.testing.assert_allclose(own.predicted, predicted, atol=1e-6)
        observed = np.log2(rpkm_of(small_store, run.cell, own.gene_id) + 1)
        np.testing.assert_allclose(own.observed, observed, rtol=1e-6)
    np.testing.assert_array_equal(table.observed, table.observed_raw)  # this target's own scale


def test_the_models_own_scale_is_kept_beside_the_common_one(ensemble, small_store):
    (member,) = ensemble.members
    scales = (TargetScale("minmax", 0.0, 50.0, 0.2, 0.1),) * 2
    other = dataclasses.replace(ensemble, members=(dataclasses.replace(member, scales=scales),))
    table = predict_held_out(other, small_store)
    rpkm = rpkm_of(small_store, table.cell[0], table.gene_id)
    np.testing.assert_allclose(table.observed_raw, rpkm / 50, rtol=1e-6)
    np.testing.assert_allclose(table.observed, np.log2(rpkm + 1), rtol=1e-6)
    predicted = np.log2(np.maximum(table.predicted_raw * 50, 0) + 1)
    np.testing.assert_allclose(table.predicted, predicted, rtol=1e-6)
    standard = predict_held_out(ensemble, small_store).predicted
    np.testing.assert_allclose(table.predicted_raw, standard * 0.1 + 0.2, atol=1e-6)


def test_a_pool_of_all_cells_is_tested_in_each(ensemble, small_store):
    first, second = small_store.manifest.cells
    pooled = trained_on(ensemble, f"{first}+{second}", f"{first}+{second}")
    table = predict_held_out(pooled, small_store)
    assert table.groupby("cell").fold.nunique().to_dict() == {first: 2, second: 2}
    assert set(table.trained_on) == {f"{first}+{second}"}
    for cell, part in table.groupby("cell"):
        np.testing.assert_allclose(
            part.observed, np.log2(rpkm_of(small_store, cell, part.gene_id) + 1), rtol=1e-6
        )


def test_a_pool_is_tested_outside_of_itself_where_it_can_be(ensemble, small_store):
    """A pool that lacks the second cell: cells of its own it has had in another store."""
    first, second = small_store.manifest.cells
    table = predict_held_out(trained_on(ensemble, f"{first}+E999", f"{first}+E999"), small_store)
    assert set(table.cell) == {second}
    expected = ensemble.predict(small_store, cell=second, include_seen=True)
    for (run_id, gene), predicted in table.set_index(["run_id", "gene_id"]).predicted.items():
        of_fold = table[table.run_id == run_id].fold.iloc[0]
        (row,) = np.flatnonzero(expected.fold.to_numpy() == of_fold)
        assert predicted == pytest.approx(float(expected[row].sel(gene=gene)), abs=1e-6)


def test_models_of_a_cell_and_of_a_pool_are_told_apart_there(ensemble, small_store):
    first, second = small_store.manifest.cells
    pool = f"{first}+{second}"
    table = predict_held_out(trained_on(ensemble, first, pool), small_store)
    assert dict(table.groupby("cell").trained_on.unique().map(list)) == {
        first: [first], f"{first} by {pool}": [pool], f"{second} by {pool}": [pool],
    }  # fmt: skip


def test_a_run_needs_all_of_its_tracks(small_store):
    first, second = small_store.manifest.cells
    assays = small_store.manifest.assays
    tracks = [pair for pair in small_store.manifest.tracks if pair != [second, assays[1]]]
    store = type(small_store)(
        small_store.path,
        dataclasses.replace(small_store.manifest, tracks=tracks),
        small_store.genes,
    )
    both, one = (Run(first, tuple(own), "fold1", 0) for own in (assays[:2], assays[:1]))
    assert has_tracks(store, first, both)
    assert has_tracks(store, second, one)
    assert not has_tracks(store, second, both)


def test_rows_come_by_run_in_the_cell_that_is_asked_for(ensemble, small_store):
    second = small_store.manifest.cells[1]
    tables = held_out_in(ensemble, small_store, second)
    assert [set(table.run_id) for table in tables] == [{run.run_id} for run in ensemble.runs]
    assert all(set(table.cell) == {second} for table in tables)
    assert all(set(table.trained_on) == {ensemble.runs[0].cell} for table in tables)
