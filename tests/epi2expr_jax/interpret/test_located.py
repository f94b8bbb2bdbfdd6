"""Where edited places lie, on either strand, and what signal and contacts are there."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.interpret.located import contacts_of, gene_plots, locate, place_table
from epi2expr_jax.perturb.places import interval, pcre, span

CELL, WINDOW_BP = "E003", 40_000


@pytest.fixture(scope="module")
def assay(distal_store):
    return distal_store.manifest.assays[0]


def effects(store, place, **columns):
    """An effect of every gene, by one model, at one place."""
    return pd.DataFrame(
        {
            "cell": CELL, "assays": "any", "place": place.name, "gene": store.genes.gene_id,
            "effect": np.arange(len(store.genes)) - 100.0, "change": "x0", "low": -1.0,
            "high": 1.0, "distance": place.distance,
        }
    ).assign(**columns)  # fmt: skip


def test_a_place_lies_along_the_strand(distal_store):
    place, genes = span(-3000, -1000), distal_store.genes
    found = locate(effects(distal_store, place), [place], distal_store, WINDOW_BP)
    assert found.gene.tolist() == genes.gene_id.tolist()
    plus = (genes.strand == "+").to_numpy()
    assert (found.start - found.tss).tolist() == np.where(plus, -3000, 1000).tolist()
    assert (found.end - found.tss).tolist() == np.where(plus, -1000, 3000).tolist()
    assert (found.distance == -2000).all()


def test_genes_without_the_place_are_left_out(distal_store):
    contacts = distal_store.regions(CELL).contacts
    touching = distal_store.genes.gene_id[sorted(set(contacts[contacts["rank"] == 1].gene))]
    found = locate(effects(distal_store, pcre(1)), [pcre(1)], distal_store, WINDOW_BP)
    assert 0 < len(found) < len(distal_store.genes)
    assert found.gene.tolist() == touching.tolist()
    middle = (found.start + found.end) / 2 - found.tss
    expected = np.where(found.strand == "-", -middle, middle)
    np.testing.assert_array_equal(found.distance, expected)


def test_signal_is_the_mean_of_the_bins_that_a_place_overlaps(distal_store, assay):
    place, genes = span(-2450, -1250), distal_store.genes
    located = locate(effects(distal_store, place), [place], distal_store, WINDOW_BP)
    found = place_table(located, assay, distal_store, WINDOW_BP)
    assert found.gene_id.tolist() == genes.gene_id.tolist()
    raw = distal_store.read_signal([CELL], [assay])[0, 0].astype(float)
    # Bins of 100 bp from -20 kb: the first and the last are overlapped by half.
    plus, minus = raw[:, 175:188].mean(1), raw[:, 212:225].mean(1)
    np.testing.assert_allclose(found.signal, np.where(genes.strand == "+", plus, minus), rtol=1e-5)


def test_places_of_which_no_signal_is_stored_are_left_out(distal_store, assay):
    """Beyond the window and in no region."""
    gene = distal_store.genes.iloc[0]
    tss = int(gene.tss)
    far = interval(gene.chrom, tss + 30_000, tss + 30_010)
    own = effects(distal_store, far)
    own = own[own.gene == gene.gene_id]
    touched = contacts_of(distal_store, CELL, assay)
    touched = touched[touched.gene_id == gene.gene_id]
    assert not ((touched.start < far.end) & (far.start < touched.end)).any()
    located = locate(own, [far], distal_store, WINDOW_BP)
    assert len(located) == 1
    assert place_table(located, assay, distal_store, WINDOW_BP).empty


def test_a_place_meets_the_best_of_the_regions_that_it_overlaps(distal_store, assay):
    contacts = contacts_of(distal_store, CELL, assay)
    regions = distal_store.regions(CELL)
    assert len(contacts) == len(regions.contacts)
    depth = distal_store.read_region_signal(CELL, [assay])[0]
    first = regions.contacts.iloc[0]
    own = regions.table.iloc[int(first.region)]
    (row,) = contacts[
        (contacts.gene_id == distal_store.genes.gene_id[first.gene])
        & (contacts.start == own.start) & (contacts.end == own.end)
    ].itertuples()  # fmt: skip
    assert row.score == first.score
    there = depth[own["first"] : own["first"] + own.bins]
    assert row.signal == pytest.approx(there.mean(), rel=1e-5)
    # A stretch over all regions of one gene meets the one with the best score.
    gene = contacts.gene_id.value_counts().index[0]
    its = contacts[contacts.gene_id == gene]
    assert its.score.nunique() > 1
    wide = interval(str(its.chrom.iloc[0]), int(its.start.min()), int(its.end.max()))
    located = locate(effects(distal_store, wide), [wide], distal_store, WINDOW_BP)
    found = place_table(located, assay, distal_store, WINDOW_BP).set_index("gene_id")
    assert found.contact[gene] == its.score.max()


def test_the_genes_that_are_moved_furthest_are_drawn(distal_store, assay):
    place = span(1000, 3000)
    located = locate(effects(distal_store, place), [place], distal_store, WINDOW_BP)
    # The same gene in another model, less moved there: it is drawn once, in the first.
    weaker = located.assign(assays="other", effect=located.effect / 2)
    tracks = gene_plots(pd.concat([located, weaker]), assay, distal_store, 2)
    genes = distal_store.genes
    last = len(genes) - 1
    furthest = sorted(range(len(genes)), key=lambda row: -abs(row - 100.0))[:2]
    assert [track.gene.gene_id for track in tracks] == genes.gene_id[furthest].tolist()
    assert furthest[0] == last
    for row, track in zip(furthest, tracks, strict=True):
        assert track.title == f"{CELL} {assay}"
        raw = distal_store.read_signal([CELL], [assay])[0, 0, row]
        np.testing.assert_array_equal(track.signal, raw)
        assert (track.edges[0], track.edges[-1], len(track.edges)) == (-20_000, 20_000, 401)
        (edit,) = track.edits.itertuples()
        low, high = (1000, 3000) if genes.strand[row] == "+" else (-3000, -1000)
        assert (edit.start, edit.end, edit.effect) == (low, high, row - 100)
        touched = contacts_of(distal_store, CELL, assay)
        touched = touched[touched.gene_id == genes.gene_id[row]]
        np.testing.assert_array_equal(track.contacts.start, touched.start - genes.tss[row])
        assert track.contacts.score.tolist() == touched.score.tolist()
