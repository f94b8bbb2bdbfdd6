import functools

import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import example, given, settings
from hypothesis import strategies as st

from epi2expr_jax.inputs.batch_plan import BatchPlan

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
