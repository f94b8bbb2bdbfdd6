"""Which queries the models of one cell and assay set predict, block by block."""

import numpy as np

from epi2expr_jax import perturb
from epi2expr_jax.perturb import queries
from epi2expr_jax.perturb.queries import EditedRuns
from tests.epi2expr_jax.untrained import WINDOW, ensemble_of


def test_inputs_unlike_any_trained_on_are_flagged(distal_store):
    assay = distal_store.manifest.assays[0]
    ensemble = ensemble_of(distal_store, WINDOW, [assay])
    found = perturb.run(
        ensemble,
        distal_store,
        [perturb.scale(assay, perturb.promoter(), f) for f in (0.9, 1000.0)],
    )
    known = found.before.notnull()
    assert found.outside.isel(edit=1).where(known).mean() > 0.9
    assert found.outside.isel(edit=0).where(known).mean() < 0.1


def test_blocks_of_genes_change_nothing(distal_store, monkeypatch):
    assay = distal_store.manifest.assays[0]
    ensemble = ensemble_of(distal_store, WINDOW, [assay])
    edits = [perturb.scale(assay, perturb.promoter(), f) for f in (0, 2)]
    whole = perturb.run(ensemble, distal_store, edits)
    monkeypatch.setattr(queries, "_QUERIES", 40 * 3)
    pieces = perturb.run(ensemble, distal_store, edits)
    np.testing.assert_allclose(whole.effect, pieces.effect, atol=1e-6)
    np.testing.assert_array_equal(whole.changed, pieces.changed)


def test_an_edit_of_one_genes_promoter_changes_that_gene_alone(distal_store):
    assay, rows = distal_store.manifest.assays[0], np.arange(0, len(distal_store.genes), 5)
    ensemble = ensemble_of(distal_store, WINDOW, [assay])
    wanted = ensemble.wanted(distal_store, rows, False)
    run, at = np.argwhere(wanted)[3]
    gene = distal_store.genes.iloc[rows[at]]
    place = perturb.interval(gene.chrom, int(gene.tss) - 1000, int(gene.tss) + 1000)
    steps = [(perturb.set_to(assay, place, 50.0),), (perturb.scale(assay, place, 1),)]
    (member,) = ensemble.members
    told = []
    found = EditedRuns(ensemble, member, distal_store, steps, rows, wanted, True).predict(
        told.append
    )
    expected = ensemble.predict(distal_store, include_seen=True).to_numpy()[:, rows]
    np.testing.assert_allclose(found["before"], np.where(wanted, expected, np.nan), atol=1e-5)
    # Genes beside it may have the interval in their window, too; no other chromosome has.
    elsewhere = (distal_store.genes.chrom.iloc[rows] != gene.chrom).to_numpy()
    assert found["reached"][run, at].tolist() == [True, True]
    assert found["changed"][run, at].tolist() == [True, False]
    assert not found["reached"][:, elsewhere].any()
    assert not found["changed"][:, elsewhere].any()
    before = np.broadcast_to(found["before"][..., None], found["after"].shape)
    unchanged = ~found["changed"]
    np.testing.assert_array_equal(found["after"][unchanged], before[unchanged])
    assert abs(found["after"][run, at, 0] - before[run, at, 0]) > 1e-4
    assert sum(told) == found["changed"].sum()
