"""Where the tokens of a batch lie, and what a batch keeps of its genes' regions."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epi2expr_jax.models.region_batch import RegionBatch, TokenLayout

slot_tuples = st.lists(st.integers(0, 8), max_size=24).map(lambda x: tuple(sorted(x)[::-1]))


@settings(deadline=None, max_examples=100)
@given(slot_tuples)
@example(())
@example((0, 0, 0))
@example((8,) * 16)
def test_every_token_has_one_row_and_genes_stay_whole(slots):
    layout = TokenLayout.of(slots)
    pairs = list(zip(layout.gene, layout.slot, strict=True))
    assert pairs == [(g, s) for s in range(9) for g, have in enumerate(slots) if s < have]
    assert layout.prefix == tuple(
        sum(have > s for have in slots) for s in range(max(slots, default=0))
    )
    blocks, height = layout.owner.shape
    rows = layout.rows.reshape(blocks, height)
    found = {}
    for block in range(blocks):
        for row in range(height):
            gene, token = layout.owner[block, row], layout.token[block, row]
            if gene < 0:
                assert (token, rows[block, row]) == (0, 0)
                continue
            assert (gene, token) not in found
            found[gene, token] = block, row
            expected = gene if token == 0 else len(slots) + pairs.index((gene, token - 1))
            assert rows[block, row] == expected
    assert len(found) == len(slots) + len(pairs)
    for gene, have in enumerate(slots):
        block, row = divmod(layout.first[gene], height)
        assert [found[gene, token] for token in range(1 + have)] == [
            (block, row + token) for token in range(1 + have)
        ]
        assert layout.place[gene] // layout.first_of.shape[1] == block
        assert layout.first_of.reshape(-1)[layout.place[gene]] == row
    assert len(set(layout.place)) == len(slots)
    # Attention costs as many rows as there are, filled or not.
    filled = (layout.owner >= 0).sum(1)
    assert (np.sort(filled)[1:] > height / 2).all()


@pytest.mark.parametrize("slots", [(), (0, 0), (4, 4, 3, 1, 1, 0), (8,) * 5 + (0,) * 9])
def test_rows_find_their_genes(slots):
    layout = TokenLayout.of(slots)
    random = np.random.default_rng(len(slots))
    genes, most = len(slots), max(slots, default=0)
    blocks, height = layout.owner.shape
    x, pairs, between = (
        random.normal(size=shape).astype(np.float32)
        for shape in ((genes, 3, 2), (len(layout.gene), 3), (blocks, 2, 3, height, height))
    )
    contacts = np.array([max(0, have - g % 2) for g, have in enumerate(slots)], np.int32)

    @jax.jit
    def found(x, pairs, between, contacts):
        by_gene = layout.regions_by_gene(pairs), layout.pairs_by_gene(between, contacts)
        return layout.spread(x), *by_gene

    spread, dense, within = found(x, pairs, between, contacts)
    np.testing.assert_array_equal(spread, x[layout.gene])

    expected = np.zeros((genes, most, 3), np.float32)
    for values, gene, slot in zip(pairs, layout.gene, layout.slot, strict=True):
        expected[gene, slot] = values
    np.testing.assert_array_equal(dense, expected)

    expected = np.zeros((genes, 2, 3, 1 + most, 1 + most), np.float32)
    for gene in range(genes):
        block, row = divmod(layout.first[gene], height)
        own = 1 + contacts[gene]
        expected[gene, :, :, :own, :own] = between[block, :, :, row : row + own, row : row + own]
    np.testing.assert_array_equal(within, expected)


def batch_of(slots, regions=True):
    """Three genes that touch 3, 2 and no regions, read at two resolutions."""
    region = jnp.array([[4, 0, 2, -1], [1, 4, -1, -1], [-1] * 4])
    score = jnp.array([[9.0, 5, 3, 0], [8, 2, 0, 0], [0] * 4])

    def read(rows):
        return [(jnp.zeros((rows, 1, n)), jnp.ones((rows, n), bool)) for n in (2, 5)]

    return RegionBatch.of(read(3), read(sum(slots)) if regions else [], region, score, slots)


@pytest.mark.parametrize(
    ("slots", "contacts", "score"),
    [
        ((4, 4, 4), [3, 2, 0], [[9, 5, 3, 0], [8, 2, 0, 0], [0, 0, 0, 0]]),
        ((2, 1, 1), [2, 1, 0], [[9, 5], [8, 0], [0, 0]]),
        ((2, 0, 0), [2, 0, 0], [[9, 5], [0, 0], [0, 0]]),
        ((0, 0, 0), [0, 0, 0], [[], [], []]),
    ],
)
def test_a_batch_keeps_the_best_regions_that_its_slots_hold(slots, contacts, score):
    batch = batch_of(slots)
    assert batch.n_contacts.tolist() == contacts
    assert batch.score.tolist() == score
    assert [x.shape for x in batch.promoter] == [(3, 1, 2), (3, 1, 5)]
    assert [valid.shape for valid in batch.region_valid] == [(sum(slots), 2), (sum(slots), 5)]


def test_a_batch_without_regions_has_no_resolutions_of_them():
    batch = batch_of((0, 0, 0), regions=False)
    assert (batch.region, batch.region_valid) == ((), ())
    assert len(batch.promoter) == len(batch.promoter_valid) == 2


def test_slots_are_part_of_the_program_and_not_of_its_data():
    one, other = batch_of((2, 1, 0)), batch_of((1, 1, 1))
    assert len(jax.tree.leaves(one)) == 2 * 4 + 2
    assert jax.tree.structure(one) == jax.tree.structure(batch_of((2, 1, 0)))
    assert jax.tree.structure(one) != jax.tree.structure(other)
    assert jax.tree.map(lambda x: x, one).slots == (2, 1, 0)
