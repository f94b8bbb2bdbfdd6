import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import chromosome_key
from epi2expr_jax.store.regions import CONTACT_COLUMNS, Regions

GENES = pd.DataFrame({"gene_id": [f"g{i}" for i in range(6)]})

contact = st.tuples(
    st.sampled_from([f"g{i}" for i in range(8)]),  # g6 and g7 are not in the store
    st.sampled_from(["chr10", "chr2", "chrX"]),
    st.integers(0, 3).map(lambda i: i * 1000),
    st.integers(1, 4).map(lambda i: i * 130),
    st.floats(0, 10),
)


def table(rows):
    rows = [(gene, chrom, start, start + width, score) for gene, chrom, start, width, score in rows]
    return pd.DataFrame(rows, columns=list(CONTACT_COLUMNS))


@settings(deadline=None, max_examples=60)
@given(st.lists(contact, max_size=25), st.sampled_from([100, 130, 1000]), st.integers(1, 5))
def test_the_ragged_layout_against_brute_force(rows, bin_bp, most):
    contacts = table(rows)
    regions = Regions.from_contacts(contacts, GENES, bin_bp)
    kept = [row for row in contacts.itertuples(index=False) if row.gene_id in set(GENES.gene_id)]
    distinct = sorted(
        {(row.chrom, row.start, row.end) for row in kept},
        key=lambda place: (chromosome_key(place[0]), *place[1:]),
    )
    assert list(regions.table[["chrom", "start", "end"]].itertuples(index=False)) == distinct

    # Every bin of the ragged axis, written out.
    axis = [(place, left) for place in distinct for left in range(place[1], place[2], bin_bp)]
    assert regions.bins == len(axis)
    for place, row in zip(distinct, regions.table.itertuples(), strict=True):
        assert [bin_of[0] for bin_of in axis[row.first : row.first + row.bins]] == [
            place
        ] * row.bins
        assert axis[row.first] == (place, place[1])

    region, score = regions.by_gene(len(GENES), most)
    assert region.shape == score.shape == (6, most)
    for g, gene in enumerate(GENES.gene_id):
        own = [row for row in kept if row.gene_id == gene][:most]
        places = [distinct[r] for r in region[g] if r >= 0]
        assert places == [(row.chrom, row.start, row.end) for row in own]
        expected = [np.float32(row.score) for row in own] + [0] * (most - len(own))
        assert score[g].tolist() == expected
        assert (region[g, len(own) :] == -1).all()


def test_contacts_are_ordered_by_gene_and_keep_their_rank():
    rows = [("g4", "chr1", 0, 100, 1.0), ("g1", "chr1", 500, 100, 2.0), ("g4", "chr1", 500, 100, 3)]
    regions = Regions.from_contacts(table(rows), GENES)
    assert regions.contacts.gene.tolist() == [1, 4, 4]
    assert regions.contacts["rank"].tolist() == [0, 0, 1]
    assert regions.contacts.region.tolist() == [1, 0, 1]
    assert regions.contacts.score.tolist() == [2.0, 1.0, 3.0]


def test_regions_are_named_by_their_bins():
    rows = [("g0", "chr1", 0, 250, 1.0), ("g0", "chr2", 10, 100, 1.0), ("g1", "chr2", 900, 20, 1.0)]
    regions = Regions.from_contacts(table(rows), GENES)
    bins = np.zeros(regions.bins, bool)
    bins[[1, 2, 4]] = True
    assert regions.holding(bins) == ["chr1:0-250", "chr2:900-920"]
    assert regions.holding(np.zeros(regions.bins, bool)) == []


def test_the_checksum_is_of_both_tables():
    rows = [("g0", "chr1", 0, 250, 1 / 3), ("g0", "chr2", 10, 100, 0.1)]
    regions = Regions.from_contacts(table(rows), GENES)
    back = Regions(regions.table.copy(), regions.contacts.copy())
    assert back.sha256() == regions.sha256()
    changed = Regions.from_contacts(table([(*rows[0][:4], 0.3), rows[1]]), GENES)
    assert changed.sha256() != regions.sha256()


def test_shuffled_regions_are_those_of_a_gene_alike_on_another_chromosome():
    rng = np.random.default_rng(3)
    names, chroms = [f"g{i}" for i in range(203)], [f"chr{1 + i % 4}" for i in range(203)]
    tss = 100_000 + 1_000_000 * (np.arange(203) // 4)
    genes = pd.DataFrame({"gene_id": names, "chrom": chroms, "tss": tss})
    many = rng.integers(0, 5, len(genes))
    far = 10_000 * rng.integers(1, 30, len(genes))
    rows = [
        (names[i], chroms[i], tss[i] + far[i] + 500 * k, 200, 1 + rng.random())
        for i in range(len(genes))
        for k in range(many[i])
    ]
    own = Regions.from_contacts(table(rows), genes)
    other = own.shuffled(genes)
    pd.testing.assert_frame_equal(other.table, own.table)
    pd.testing.assert_frame_equal(other.contacts, own.shuffled(genes).contacts)
    (region, score), (before, _) = other.by_gene(203, 5), own.by_gene(203, 5)
    owner = {tuple(row): i for i, row in enumerate(before) if row.max() >= 0}
    from_gene = {i: owner[tuple(row)] for i, row in enumerate(region) if row.max() >= 0}
    # Each gene with regions has all those of one other, and no two have the same.
    assert sorted(from_gene) == sorted(from_gene.values()) == np.flatnonzero(many).tolist()
    takers, givers = np.array([*from_gene.items()]).T
    assert (takers != givers).all()
    np.testing.assert_array_equal(score[takers], own.by_gene(203, 5)[1][givers])
    # About as many, about as far away, and of another chromosome.
    assert (many[takers] == many[givers]).mean() > 0.8
    assert (
        np.median(np.abs(far[takers] - far[givers]))
        < np.median(np.abs(far[takers] - rng.permutation(far[takers]))) / 2
    )
    shared = [chroms[a] == chroms[b] for a, b in from_gene.items()]
    assert np.mean(shared) < 0.1


@pytest.mark.parametrize("touching", [0, 1, 2])
def test_few_genes_with_regions_are_shuffled_as_far_as_they_go(touching):
    genes = GENES.assign(chrom="chr1", tss=1000)
    rows = [(f"g{i}", "chr1", 5000 * (i + 1), 100, 1.0) for i in range(touching)]
    region, _ = Regions.from_contacts(table(rows), genes).shuffled(genes).by_gene(6, 1)
    assert region[:, 0].tolist() == [[-1] * 6, [0] + [-1] * 5, [1, 0] + [-1] * 4][touching]


def test_regions_without_a_base_are_refused():
    rows = [("g0", "chr1", 10, 0, 1.0), ("g5", "chr1", 10, 5, 1.0), ("g2", "chr1", 10, -5, 1.0)]
    with pytest.raises(InputError, match=r"2 regions without a base \(g0, g2\)"):
        Regions.from_contacts(table(rows), GENES)
