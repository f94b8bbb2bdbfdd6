"""Means of effects, and intervals that hold: of a mark that does nothing they include 0."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy import stats

from epi2expr_jax import perturb
from epi2expr_jax.perturb import summary
from epi2expr_jax.training.splits import make_folds, overlap
from tests.epi2expr_jax.untrained import WINDOW, ensemble_of

CHROMOSOMES = [f"chr{i}" for i in range(1, 23)]
BLIND = ["chr3", "chr7", "chr20"]


def folds_of(scheme, genes):
    counts = dict.fromkeys(CHROMOSOMES, genes)
    blind = BLIND if scheme == "monte_carlo_5" else ()
    return make_folds(scheme, counts, blind=blind), counts


def linear_models(rng, folds, counts, seeds, share):
    """Effects, as `perturb.run` gives them, of taking away a real mark and an idle one.

    Marks are correlated; what a gene's expression owes to the real one goes by chromosome, and so
    does part of the rest. Each model is ordinary least squares on its training genes, and noise.
    """
    chrom = np.repeat(list(counts), list(counts.values()))
    domain = np.repeat(rng.standard_normal(-(-len(chrom) // 5)), 5)[: len(chrom)]
    base = rng.standard_normal((2, len(chrom)))
    real, idle = np.exp(0.5 * base[0]), np.exp(0.35 * (base[0] + base[1]))
    slope = dict(zip(counts, 1 + 0.3 * rng.standard_normal(len(counts)), strict=True))
    noise = np.sqrt(0.7) * rng.standard_normal(len(chrom)) + np.sqrt(0.3) * domain
    y = real * [slope[c] for c in chrom] + noise
    design = np.stack([np.ones(len(chrom)), real, idle], axis=1)
    runs = [(fold, seed) for fold in folds for seed in range(seeds)]
    effect = np.full((len(runs), len(chrom), 2), np.nan)
    for r, (fold, _) in enumerate(runs):
        trained = np.flatnonzero(np.isin(chrom, fold.train))
        if share < 1:
            trained = rng.choice(trained, int(share * len(trained)), replace=False)
        weights = np.linalg.lstsq(design[trained], y[trained])[0] + rng.normal(0, 0.02, 3)
        tested = np.isin(chrom, fold.test)
        effect[r, tested] = -weights[1:] * design[tested, 1:]
    names = [fold.name for fold in folds]
    dims, false = ("run", "gene", "edit"), np.zeros(effect.shape, bool)
    return xr.Dataset(
        {
            "before": (dims[:2], np.where(np.isnan(effect[..., 0]), np.nan, 0.0)),
            "after": (dims, effect),
            "effect": (dims, effect),
            "changed": (dims, ~false),
            "outside": (dims, false),
            "overlap": (("of", "trained", "also"), overlap(folds, counts)),
        },
        coords={
            "trained": names,
            "also": names,
            "cell": ("run", ["E003"] * len(runs)),
            "assays": ("run", ["real+idle"] * len(runs)),
            "fold": ("run", [fold.name for fold, _ in runs]),
            "gene": np.arange(len(chrom)),
            "chrom": ("gene", chrom),
            "edit": ["real", "idle"],
            **{name: ("edit", ["real", "idle"]) for name in ("mark", "place", "change")},
            **{name: ("edit", [np.nan, 0.0]) for name in ("distance", "factor")},
        },
        attrs={"train_share": share},
    )


def test_models_are_compared_on_genes_that_neither_saw():
    """Folds where they test the same chromosomes, else seeds, else nothing."""
    rng = np.random.default_rng(5)

    def made(scheme, seeds):
        folds, counts = folds_of(scheme, 30)
        found = linear_models(rng, folds, counts, seeds, 1.0)
        seed = [n for _ in folds for n in range(seeds)]
        return found.assign_coords(seed=("run", seed))

    effects = made("monte_carlo_5", 2)
    row = summary.between_models(effects).set_index("mark").loc["real"]
    assert (row["between"], row.pairs, row.genes) == ("folds", 2 * 10, 3 * 30)
    one = effects.effect.sel(edit="real").to_numpy()
    known = ~np.isnan(one[0])
    r = np.corrcoef(one[:, known])
    fold, seed = effects.fold.to_numpy(), effects.seed.to_numpy()
    pairs = (fold[:, None] < fold) & (seed[:, None] == seed)
    assert (row.r, row.lowest) == pytest.approx((r[pairs].mean(), r[pairs].min()))

    effects = made("chromosomes_5", 2)
    row = summary.between_models(effects).set_index("mark").loc["idle"]
    assert (row["between"], row.pairs) == ("seeds", 5)
    flat = effects.assign(effect=effects.effect.where(effects.edit != "idle", 0.0))
    assert summary.between_models(flat)["mark"].tolist() == ["real"]
    none = summary.between_models(made("chromosomes_5", 1))
    assert none.empty
    assert list(none) == summary.BETWEEN


@pytest.mark.trial
@pytest.mark.parametrize(("seeds", "share"), [(1, 1.0), (2, 1.0), (3, 0.5)])
@pytest.mark.parametrize("scheme", ["chromosomes_5", "chromosomes_22", "monte_carlo_5"])
def test_intervals_of_mean_effects_hold(scheme, seeds, share, trial_size):
    """Of the mean over genes; a jackknife over chromosomes covers an idle 0 in 0 to 30 %."""
    count, rng = trial_size(15, 1000), np.random.default_rng(seeds)
    folds, counts = folds_of(scheme, 40)
    tables = [
        perturb.mean_effects(linear_models(rng, folds, counts, seeds, share)) for _ in range(count)
    ]
    found = {mark: pd.concat([t[t.mark == mark] for t in tables]) for mark in ("real", "idle")}
    for mark, rows in found.items():
        truth = rows.effect.mean() if mark == "real" else 0.0
        if scheme == "monte_carlo_5" and seeds == 1:
            assert rows.low.isna().all()
            continue
        inside = ((rows.low <= truth) & (truth <= rows.high)).mean()
        width = (rows.high - rows.low).median()
        print(f"{scheme}, {seeds} seeds of {share:g}: {mark} {inside:.3f}, width {width:.2f}")
        assert inside >= (0.93 if count >= 500 else 0.8)
    if found["real"].low.notna().all():
        assert (found["real"].high < 0).mean() > 0.9  # and it is not an empty promise


@pytest.mark.trial
@pytest.mark.parametrize(
    ("scheme", "seeds", "share"), [("monte_carlo_5", 2, 1.0), ("chromosomes_5", 5, 0.5)]
)
def test_intervals_of_a_gene_hold(scheme, seeds, share, trial_size):
    count, rng = trial_size(15, 1000), np.random.default_rng(0)
    folds, counts = folds_of(scheme, 40)
    inside, effects = [], []
    for _ in range(count):
        found = perturb.summarise(linear_models(rng, folds, counts, seeds, share)).isel(model=0)
        tested = np.flatnonzero(found.models)[:: 40 // 4]
        idle = found.sel(edit="idle").isel(gene=tested)
        inside.append(((idle.low <= 0) & (idle.high >= 0)).mean().item())
        effects.append(found.effect.sel(edit="real").mean().item())
    print(f"{scheme}, {seeds} seeds of {share:g}: idle in a gene {np.mean(inside):.3f}")
    assert np.mean(inside) >= (0.93 if count >= 500 else 0.8)
    assert np.mean(effects) < -1


def test_the_interval_of_known_models():
    """By hand: five folds, whose models share half of their training genes."""
    folds, counts = folds_of("chromosomes_5", 40)
    effects = linear_models(np.random.default_rng(0), folds, counts, 2, 1.0)
    found = perturb.mean_effects(effects).set_index("mark").loc["idle"]
    idle = effects.effect.sel(edit="idle")
    values = [idle[effects.fold.to_numpy() == f.name].mean().item() for f in folds]
    genes = np.array([40 * len(fold.test) for fold in folds])
    mean = np.average(values, weights=genes)
    squares = ((genes / genes.sum()) ** 2).sum()
    spread = np.average((values - mean) ** 2, weights=genes) / (1 - squares)
    sets = [set(fold.train) for fold in folds]
    pairs = [(a, b) for a in sets for b in sets if a is not b]
    common = np.mean([len(a & b) / len(a) / len(b) for a, b in pairs])
    common /= np.mean([1 / len(a) for a in sets])
    assert 0.45 < common < 0.55
    reach = stats.t.isf(0.025, 4) * np.sqrt(spread * (squares + common / (1 - common)))
    np.testing.assert_allclose([found.effect, found.low, found.high],
                               [mean, mean - reach, mean + reach])  # fmt: skip
    assert found[["genes", "folds", "seeds"]].tolist() == [880, 5, 2]


def test_no_interval_where_one_fold_predicts_nearly_all_genes():
    folds, counts = folds_of("chromosomes_5", 40)
    effects = linear_models(np.random.default_rng(0), folds, counts, 2, 1.0)
    tested = np.isin(effects.chrom, folds[0].test)
    few = np.flatnonzero(tested | (np.arange(len(tested)) % 40 == 0))
    assert perturb.mean_effects(effects.isel(gene=few)).low.isna().all()
    assert perturb.mean_effects(effects.isel(gene=few[::10])).low.isna().all()


def test_what_folds_have_in_common():
    folds, counts = folds_of("chromosomes_22", 40)
    for products in overlap(folds, counts):
        share = products / np.diag(products)
        assert np.diag(share).tolist() == [1] * 22
        # 20 of 22 train, and two folds in a row share 19 of those.
        assert share[0, 1] == pytest.approx(19 / 20)
        assert share[0, 5] == pytest.approx(18 / 20)
    big = {**counts, "chr1": 400}
    by_gene, by_chromosome = overlap(folds, big)
    assert by_gene[1, 4] / by_gene[1, 1] == pytest.approx((17 * 40 + 400) / (19 * 40 + 400))
    assert by_chromosome[1, 4] / by_chromosome[1, 1] > by_gene[1, 4] / by_gene[1, 1]


def test_seeds_of_one_fold_show_other_genes_only_if_they_trained_on_some(distal_store):
    assay = distal_store.manifest.assays[0]
    edits = [perturb.scale(assay, perturb.promoter(), 0)]
    for seeds, share in ((2, 0.5), (3, 0.5), (3, 1.0)):
        ensemble = ensemble_of(distal_store, WINDOW, [assay], folds=("fold1",), seeds=seeds)
        ensemble = dataclasses.replace(ensemble, card={"request": {"train_share": share}})
        found = perturb.run(ensemble, distal_store, edits)
        summary = perturb.summarise(found).isel(model=0)
        assert set(np.unique(summary.models)) == {seeds}  # genes that none predicts are not here
        given = summary.low.notnull().to_numpy()[summary.models > 0]
        assert given.all() if (seeds, share) == (3, 0.5) else not given.any()
        mean = perturb.mean_effects(found)
        assert mean.low.notna().all() == ((seeds, share) == (3, 0.5))
        if given.all():
            one = found.effect.isel(edit=0).dropna("gene").isel(gene=0).to_numpy()
            reach = stats.t.isf(0.025, 2) * one.std(ddof=1) * np.sqrt(1 / 3 + 0.5 / 0.5)
            (row,) = summary.isel(edit=0).dropna("gene").isel(gene=[0]).transpose("gene").low
            np.testing.assert_allclose(row, one.mean() - reach, rtol=1e-4)
    table = perturb.to_frame(perturb.summarise(found))
    assert len(table) == (summary.models > 0).sum()
    assert table.gene.is_unique
