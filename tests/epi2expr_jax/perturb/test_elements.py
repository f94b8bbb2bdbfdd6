"""Elements silenced: which genes read them, and that each gets what an edit of it alone gives."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.perturb.elements import (
    batches,
    in_reach,
    models_of,
    predict_silenced,
    predictable,
    silencing_of,
)
from tests.epi2expr_jax.untrained import SMALL, WINDOW, ensemble_of


@pytest.fixture(scope="module")
def elements(distal_store):
    """In windows, in regions, and in nothing that any gene reads."""
    genes = distal_store.genes.iloc[::9]
    near = pd.DataFrame({"chrom": genes.chrom, "start": genes.tss + 7600, "end": genes.tss + 8400})
    far = distal_store.regions("E003").table.iloc[::25][["chrom", "start", "end"]]
    nowhere = pd.DataFrame({"chrom": ["chr1"], "start": [0], "end": [10]})
    return pd.concat([near, nowhere, far], ignore_index=True)


@pytest.fixture(scope="module")
def ensemble(distal_store):
    wide = dataclasses.replace(WINDOW, window_bp=40_000)
    return ensemble_of(distal_store, wide, distal_store.manifest.assays[:2])


def test_elements_in_reach_are_those_that_a_loop_finds(distal_store, elements):
    pairs, expected = in_reach(distal_store, SMALL, "E003", elements), []
    regions = distal_store.regions("E003")
    number, _ = regions.by_gene(len(distal_store.genes), SMALL.contacts)
    for g, gene in enumerate(distal_store.genes.itertuples()):
        read = [(gene.chrom, gene.tss - 20_000, gene.tss + 20_000)]
        touched = regions.table.iloc[number[g][number[g] >= 0]]
        read += list(touched[["chrom", "start", "end"]].itertuples(index=False))
        for e, element in enumerate(elements.itertuples()):
            middle = (element.start + element.end) // 2
            if any(c == element.chrom and low <= middle < high for c, low, high in read):
                expected.append((g, e))
    assert list(pairs[["gene", "element"]].itertuples(index=False, name=None)) == expected
    assert 0 < len(set(pairs["element"])) < len(elements)


def test_an_element_of_many_is_silenced_as_it_would_be_alone(distal_store, ensemble, elements):
    pairs = in_reach(distal_store, ensemble.members[0].model_config, "E003", elements)
    silencing = silencing_of(ensemble, apart=True)
    assert silencing.marks == tuple(distal_store.manifest.assays[:2])
    known = predictable(ensemble, distal_store, pairs)
    parts = batches(known, 3, queries=72)
    assert len(parts) > 1
    most = max(int(part["rank"].max()) + 1 for part in parts)
    found = pd.concat(
        [
            predict_silenced(ensemble, distal_store, elements, part, silencing, most)
            for part in parts
        ]
    )
    assert found[["gene", "element"]].to_numpy().tolist() == known.to_numpy().tolist()
    assert (found["changed"]).mean() > 0.8
    np.testing.assert_allclose(found["change"], 2 ** found["effect"] - 1)
    rows = found[found["changed"]].sort_values("effect", key=np.abs).iloc[[-1, -2, len(found) // 3]]
    for row in rows.itertuples():
        element = elements.iloc[row.element]
        start, end = int(element.start) - 250, int(element.end) + 250
        place = perturb.interval(element.chrom, start, end)
        first, second = (perturb.silence(mark, place) for mark in silencing.marks)
        gene = distal_store.genes.gene_id[row.gene]
        alone = perturb.run(ensemble, distal_store, [(first, second), first, second], [gene])
        together, *apart = perturb.summarise(alone).effect.to_numpy().ravel()
        assert row.effect == pytest.approx(together, abs=1e-5)
        single = [getattr(row, f"effect_{mark}") for mark in silencing.marks]
        assert single == pytest.approx(apart, abs=1e-5)


def test_silenced_signal_is_the_lower_quartile_and_never_higher():
    kind = perturb.edits.KINDS["silence"].mixed
    edit = perturb.silence("K27ac", perturb.promoter())
    raw = np.array([[0, 1, 2, 9, 8, 7, 9, 1]], np.float32)
    quartile = np.quantile(raw, 0.25)
    assert kind(raw, edit, np.array([100])).tolist() == np.minimum(raw, quartile).tolist()
    assert kind(raw, edit, np.array([100])).dtype == np.float32


def test_models_and_marks_are_named_where_several_would_do(finished, ensemble):
    from epi2expr_jax.predict.loading import load

    both = load(finished)
    with pytest.raises(InputError, match="one cell"):
        models_of(both)
    of_all = models_of(both, "E003")
    assert {len(run.assays) for run in of_all.runs} == {3}
    (one,) = {run.assays for run in models_of(both, "E003", of_all.runs[0].assays[1]).runs}
    assert one == (of_all.runs[0].assays[1],)
    singles = both.select(lambda run: len(run.assays) == 1)
    with pytest.raises(InputError, match="models of labels"):
        models_of(dataclasses.replace(ensemble, target="label"))
    (member,) = ensemble.members
    pool = [dataclasses.replace(run, cell=f"{run.cell}+E9") for run in member.runs]
    pooled = dataclasses.replace(member, runs=tuple(pool))
    with pytest.raises(InputError, match="models of pools of cells"):
        models_of(dataclasses.replace(ensemble, members=(pooled,)))
    with pytest.raises(InputError, match="one of them"):
        models_of(singles, "E003")
    first, second = ensemble.runs[0].assays
    assert silencing_of(ensemble, spared=[first]).marks == (second,)
    assert silencing_of(ensemble, first, spared=[first]).marks == (first,)
    for options, said in (
        ({"marks": "H9"}, "unknown assay"),
        ({"spared": [first, second]}, "an active mark"),
        ({"flank_bp": -1}, "0 or more"),
    ):
        with pytest.raises(InputError, match=said):
            silencing_of(ensemble, **options)
