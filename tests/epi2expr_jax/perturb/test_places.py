"""Places: where they lie on either strand, in each gene's own contacts, and what is none."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.models.region_batch import TokenLayout
from epi2expr_jax.perturb import places
from epi2expr_jax.perturb.places import Scene
from tests.epi2expr_jax.perturb.edited_batches import FINE, batch_of, by_edit, signal_of


def test_the_original_protocol_by_its_bins(distal_store, rows):
    """Log features times a factor in the original's bins, in the window's copy alone."""
    assay = distal_store.manifest.assays[0]
    rows = rows[::2]
    promoter = perturb.scale(assay, perturb.original_promoter(), 0.3, space="log")
    distal = [perturb.scale(assay, p, 0.3, space="log") for p in perturb.original_distal()]
    assert len(distal) == 17
    edits = [promoter, *distal]
    x = batch_of(signal_of(distal_store, FINE, [assay], edits, rows))
    bins = {2000: (8, 11), 500: (34, 46), 100: (170, 230)}
    kept = [i for i in range(20) if i not in (8, 9, 10)]
    for values, resolution in zip(x.promoter, FINE.resolutions, strict=True):
        values = by_edit(values, len(edits))
        alone = values[:, -1]
        expected = alone.copy()
        expected[:, :, slice(*bins[resolution])] *= 0.3
        np.testing.assert_allclose(values[:, 0], expected, rtol=1e-6)
        wide = 2000 // resolution
        for e, number in enumerate(kept, 1):
            expected = alone.copy()
            expected[:, :, number * wide : (number + 1) * wide] *= 0.3
            np.testing.assert_allclose(values[:, e], expected, rtol=1e-6)
    for values in x.region:
        values = np.asarray(TokenLayout.of(x.slots).regions_by_gene(values))
        values = values.reshape(len(rows), len(edits) + 1, -1)
        assert (values == values[:, -1:]).all()


def test_distal_bins_leave_the_promoter_alone():
    bins = perturb.distal_bins()
    assert len(bins) == 16
    assert all(abs(place.distance) >= 4000 for place in bins)
    assert [place.distance for place in bins] == sorted(place.distance for place in bins)


def scene(store, rows, resolutions=(0,), window_bp=40_000):
    return Scene(store, store.genes.iloc[rows], "E003", window_bp, resolutions)


def test_a_span_runs_along_the_strand(distal_store, rows):
    genes = distal_store.genes.iloc[rows]
    found = places.span(-500, 1500).intervals(scene(distal_store, rows))
    assert set(genes.strand) == {"+", "-"}
    for (start, end), gene in zip(found[:, 0, 0], genes.itertuples(), strict=True):
        low, high = (-500, 1500) if gene.strand == "+" else (-1500, 500)
        assert (start, end) == (gene.tss + low, gene.tss + high)
    assert places.span(-500, 1500).distance == 500
    assert places.span(-500, 1500).name == "-0.5..+1.5 kb"


def test_the_original_promoter_is_elsewhere_in_bins_of_2_kb_and_stays_in_the_window(
    distal_store, rows
):
    place = places.original_promoter()
    assert not place.in_regions
    genes = distal_store.genes.iloc[rows]
    found = place.intervals(scene(distal_store, rows, (2000, 500, 100)))[:, :, 0]
    width = np.diff(found)[..., 0]
    assert (width == 6000).all()
    middle = found.mean(-1) - genes.tss.to_numpy()[:, None]
    np.testing.assert_array_equal(middle[:, 1:], 0)
    np.testing.assert_array_equal(middle[:, 0], np.where(genes.strand == "+", -1000, 1000))
    cut = place.intervals(scene(distal_store, rows, (500,), window_bp=4000))
    np.testing.assert_array_equal(np.diff(cut)[..., 0], 4000)


def test_a_contact_is_the_genes_own_region(distal_store, rows):
    regions = distal_store.regions("E003")
    contacts = regions.contacts.set_index(["gene", "rank"]).region
    for rank in (0, 1):
        place = places.pcre(rank)
        assert np.isnan(place.distance)
        found = place.intervals(scene(distal_store, rows))[:, 0, 0].tolist()
        for row, interval in zip(rows, found, strict=True):
            expected = [0, 0]  # a gene without such a region
            if (row, rank) in contacts.index:
                region = regions.table.loc[contacts[row, rank]]
                expected = [region.start, region.end]
            assert interval == expected
        assert [0, 0] in found
        assert any(end for _, end in found)


def test_an_interval_is_there_for_the_genes_of_its_chromosome(distal_store):
    rows = np.arange(len(distal_store.genes))
    chrom = distal_store.genes.chrom[0]
    (place,) = places.intervals(
        pd.DataFrame({"chrom": [chrom], "start": [5], "end": [95], "name": ["peak"]})
    )
    assert place.name == "peak"
    found = place.intervals(scene(distal_store, rows))[:, 0, 0]
    here = (distal_store.genes.chrom == chrom).to_numpy()
    np.testing.assert_array_equal(found[here], np.tile([5, 95], (here.sum(), 1)))
    assert not found[~here].any()
    (unnamed,) = places.intervals(pd.DataFrame({"chrom": [chrom], "start": [5], "end": [95]}))
    assert unnamed == places.interval(chrom, 5, 95)
    assert unnamed.name == f"{chrom}:5-95"


def test_places_that_are_none_are_refused():
    with pytest.raises(InputError, match="start below its end"):
        places.span(100, 100)
    with pytest.raises(InputError, match="0 <= start < end"):
        places.interval("chr1", 10, 5)
    with pytest.raises(InputError, match=r"2 that are empty .*\(chr1:5-5, chr1:-1-3\)"):
        places.intervals(pd.DataFrame({"chrom": "chr1", "start": [5, -1, 0], "end": [5, 3, 2]}))
    with pytest.raises(InputError, match=r"also \['end'\]"):
        places.intervals(pd.DataFrame({"chrom": ["chr1"], "start": [5]}))
