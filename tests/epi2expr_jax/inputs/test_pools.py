import jax
import jax.numpy as jnp
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import Dataset, InputConfig, load_dataset
from epi2expr_jax.inputs.pools import PooledDataset, cells_of, parse_cells
from epi2expr_jax.models import ChromoformerConfig, PromoterCnnConfig

CELLS = ("E003", "E004", "CD4+")


def test_grammar_of_cells():
    assert parse_cells(["all"], CELLS) == {cell: (cell,) for cell in CELLS}
    assert parse_cells(["E004+E003", "CD4+"], CELLS) == {
        "E003+E004": ("E003", "E004"),
        "CD4+": ("CD4+",),
    }
    assert parse_cells(["pool"], CELLS[:2]) == {"E003+E004": ("E003", "E004")}
    assert parse_cells(["leave_one_out"], ("a", "b", "c")) == {
        "b+c": ("b", "c"), "a+c": ("a", "c"), "a+b": ("a", "b"),
    }  # fmt: skip
    assert cells_of("CD4+", CELLS) == ("CD4+",)
    assert cells_of("E003+E004", CELLS) == ("E003", "E004")


def test_unknown_cells_are_named_with_the_nearest():
    with pytest.raises(InputError, match="did you mean E003") as caught:
        parse_cells(["E03", "E004+nothing"], CELLS)
    assert len(caught.value.problems) == 2
    with pytest.raises(InputError, match="leave_one_out of one cell"):
        parse_cells(["leave_one_out"], CELLS[:1])


def test_a_pool_is_its_cells_one_after_the_other(small_store):
    cells, assays = small_store.manifest.cells, small_store.manifest.assays
    data = load_dataset(small_store, PromoterCnnConfig(), cells, assays)
    pools = {"both": tuple(cells), "turned": tuple(cells[::-1])}
    pooled = PooledDataset(data, pools)
    genes = len(data.genes)
    name, members = "turned", pools["turned"]
    assert pooled.cells == tuple(pools)
    assert len(pooled.genes) == len(members) * genes
    for k, cell in enumerate(members):
        here = slice(k * genes, (k + 1) * genes)
        np.testing.assert_array_equal(
            pooled.track(name, assays[0]).values[here], data.track(cell, assays[0]).values
        )
        row = pooled.cells.index(name)
        np.testing.assert_array_equal(
            pooled.expression[row, here], data.expression[data.cells.index(cell)]
        )
        assert pooled.genes.gene_id[here].tolist() == data.genes.gene_id.tolist()
    # All that a reader may ask of a dataset is there, and nothing of a single cell's store.
    asked = {name for name in {*Dataset.__annotations__, *vars(Dataset)} if name[0] != "_"}
    assert asked == {name for name in dir(pooled) if name[0] != "_"}
    assert all(getattr(pooled, name) is not None for name in asked - {"labels"})
    assert pooled.regions(name) is None
    np.testing.assert_array_equal(
        pooled.signal(name, assays[:1]).values[0], pooled.track(name, assays[0]).values
    )
    with pytest.raises(ValueError, match="share no gene axis"):
        PooledDataset(data, {"a": tuple(cells[:1]), "b": tuple(cells[:2])})


def test_a_gene_of_a_pool_touches_its_own_cells_regions(distal_store):
    """Gathered from the pool, a gene is what it is gathered from its own cell."""
    config = ChromoformerConfig(assays=2, width=0.1, contacts=3)
    cells, assays = distal_store.manifest.cells, distal_store.manifest.assays[:2]
    data = load_dataset(distal_store, config, cells, assays)
    pooled = PooledDataset(data, {"+".join(cells): tuple(cells)})
    genes = len(data.genes)
    plan = BatchPlan.of(8, config.contacts, balanced=False)
    chosen = jnp.arange(8) * (genes // 8)
    together = pooled.signal(pooled.cells[0], assays)
    gather = jax.jit(lambda signal, genes: signal.gather(genes, plan))
    for k, cell in enumerate(cells):
        own = gather(data.signal(cell, assays), chosen)
        of_pool = gather(together, chosen + k * genes)
        for a, b in zip(own.region, of_pool.region, strict=True):
            np.testing.assert_array_equal(a, b)
        for a, b in zip(own.promoter, of_pool.promoter, strict=True):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(own.score, of_pool.score)
        assert own.n_contacts.sum() > 0


def test_normalised_tracks_have_a_mean_of_one(small_store):
    cells, assays = small_store.manifest.cells, small_store.manifest.assays
    config = PromoterCnnConfig()
    plain, normal = (
        load_dataset(small_store, config, cells, assays, InputConfig("none", normalise=how))
        for how in ("none", "depth")
    )
    for cell in cells:
        values = normal.track(cell, assays[0]).values
        raw = plain.track(cell, assays[0]).values
        assert values.mean(dtype=float) == pytest.approx(1, rel=1e-5)
        np.testing.assert_allclose(values * raw.mean(dtype=float), raw, rtol=1e-4, atol=1e-6)
    with pytest.raises(InputError, match="--normalise"):
        InputConfig(normalise="quantile")
