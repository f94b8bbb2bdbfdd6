import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.models.region_batch import TokenLayout

GENES, MOST = 40, 8

counts = st.lists(st.integers(0, MOST + 2), min_size=GENES, max_size=GENES).map(np.array)
masks = st.lists(st.booleans(), min_size=GENES, max_size=GENES).map(np.array)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _deal(size, balanced, part, key, contacts):
    plan = BatchPlan(size, balanced=balanced)
    order, genes = plan.order(part, key, contacts), part.sum()
    steps = jnp.arange(-(-part.size // size))
    return plan.steps(genes), *jax.vmap(lambda step: plan.batch(step, order, genes))(steps)


def deal(plan, part, key, contacts):
    """All batches of an epoch: genes `[steps, B]`, and which places are taken."""
    # The deal does not look at the slots, so it need not be compiled for each.
    steps, index, mask = _deal(plan.size, plan.balanced, part, key, contacts)
    return np.asarray(index)[:steps], np.asarray(mask)[:steps]


@settings(deadline=None, max_examples=50)
@given(
    contacts=counts,
    parts=st.lists(masks, min_size=1, max_size=3),
    size=st.sampled_from([1, 4, 16, 64]),
    seed=st.none() | st.integers(0, 9),
    balanced=st.booleans(),
)
@example(np.arange(GENES) % 9, [np.ones(GENES, bool), np.arange(GENES) < 3], 4, 0, True)  # unlike
@example(np.zeros(GENES, int), [np.ones(GENES, bool)], 16, 0, True)  # no gene has any
@example(np.full(GENES, 9), [np.arange(GENES) == 7], 16, 0, True)  # one gene
@example(np.full(GENES, 9), [np.arange(GENES) < 17], 16, 0, True)  # a last batch of one
@example(np.arange(GENES) % 9, [np.ones(GENES, bool)], 64, None, False)  # less than a batch
@example(np.arange(GENES) % 9, [np.zeros(GENES, bool)], 4, 0, True)  # nobody at all
def test_every_gene_is_dealt_once_to_a_place_that_has_its_slots(
    contacts, parts, size, seed, balanced
):
    plan = BatchPlan.of(size, MOST, [contacts[part] for part in parts], balanced=balanced)
    assert len(plan.slots) == size
    assert (np.diff(plan.slots) <= 0).all()
    key = None if seed is None else jax.random.key(seed)
    contacts = np.minimum(contacts, MOST)  # as the device holds them
    for part in parts:
        index, mask = deal(plan, part, key, contacts)
        assert len(index) == -(-part.sum() // size)
        assert sorted(index[mask]) == np.flatnonzero(part).tolist()
        assert ((index >= 0) & (index < GENES)).all()
        have = np.where(mask, contacts[index], 0)
        assert (have <= np.array(plan.slots)).all()
        if balanced and len(parts) == 1:
            # Every place but the first is filled to the place before it, or better.
            assert len(index) * (sum(plan.slots) - max(plan.slots)) <= have.sum()


def test_hardly_a_slot_is_left_empty_on_real_counts():
    """Counts as in Chromoformer's demo: mean 5.8, at most 8, 11 % none."""
    demo = np.repeat(np.arange(9), [11, 8, 3, 3, 4, 5, 4, 4, 58])
    contacts = np.random.default_rng(0).choice(demo, 6000)
    plan = BatchPlan.of(64, 8, [contacts], balanced=True)
    index, mask = deal(plan, np.ones(6000, bool), jax.random.key(0), contacts)
    assert (mask.sum(1) >= 63).all()
    real = (contacts[index] * mask).sum(1)
    assert sum(plan.slots) < 1.02 * real.mean()
    # No batch is poorer than another: they would train differently early and late in an epoch.
    assert real.std() < 3
    assert sum(BatchPlan.of(64, 8, [contacts], balanced=False).slots) == 64 * 8


def test_order_is_shuffled_by_the_key_alone_whatever_the_padding():
    contacts = jnp.arange(GENES) % 3
    part = jnp.arange(GENES) % 5 > 0
    genes = part.sum()
    padded = jnp.pad(part, (0, 17)), jnp.pad(contacts, (0, 17), constant_values=5)
    for balanced in (False, True):
        plan = BatchPlan(4, balanced=balanced)
        orders = []
        for seed in (0, 1):
            key = jax.random.key(seed)
            order = np.asarray(plan.order(part, key, contacts))[:genes]
            assert sorted(order) == np.flatnonzero(part).tolist()
            longer = np.asarray(plan.order(padded[0], key, padded[1]))[:genes]
            np.testing.assert_array_equal(order, longer)
            orders.append(order)
            if balanced:
                assert (np.diff(contacts[order]) <= 0).all()
        assert (orders[0] != orders[1]).any()
        assert (np.diff(orders[0][contacts[orders[0]] == 1]) < 0).any()  # equals are shuffled, too
        plain = np.asarray(plan.order(part, None, contacts))[:genes]
        ranked = np.argsort(-contacts, kind="stable") if balanced else np.arange(GENES)
        np.testing.assert_array_equal(plain, ranked[part[ranked]])


def test_plans_of_models_that_read_no_regions_have_no_slots():
    assert BatchPlan.of(5, 0, [np.zeros(3, int)], balanced=False).slots == ()
    assert BatchPlan.of(5, 0, [np.zeros(3, int)], balanced=True).slots == ()
    assert BatchPlan.of(3, 2, balanced=False) == BatchPlan(3, (2, 2, 2))


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
