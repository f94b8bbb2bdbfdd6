"""Ranks and their intervals cover; holes and traps are named."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from epi2expr_jax.errors import InputError
from epi2expr_jax.scores import comparison, ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.intervals import (
    LEAST_SCORED,
    ONE_VALUE,
    TOO_FEW_GENES,
    score_cube,
    shared_units,
)
from epi2expr_jax.words.caveats import caveats
from tests.epi2expr_jax.scores.simulated import simulated

# Protein-coding genes of the Roadmap RPKM matrix on hg19's autosomes.
COUNTS = """2010 1241 1047 752 862 1016 894 721 795 756 1294
1035 323 641 611 852 1176 276 1393 539 231 450"""
GENES = {f"chr{number}": int(n) for number, n in enumerate(COUNTS.split(), 1)}
BLIND = {chrom: GENES[chrom] for chrom in ("chr3", "chr7", "chr20")}


def scores_of(pearson, n=100):
    """A score table from {(cell, assay): {chrom: pearson}}; other scores follow pearson."""
    rows = [
        {"cell": cell, "assays": assay, "fold": "f0", "seed": 0, "chrom": chrom, "pearson": r}
        for (cell, assay), chromosomes in pearson.items()
        for chrom, r in chromosomes.items()
    ]
    table = pd.DataFrame(rows)
    table["n"] = table["chrom"].map(n) if isinstance(n, dict) else n
    for name in scoring.METRICS[1:]:
        table[name] = table["pearson"]
    return table.assign(constant=False, constant_observed=False)


def test_chromosomes_of_equal_size_give_the_classical_t_interval():
    values = np.array([0.61, 0.55, 0.7, 0.42, 0.58])
    chromosomes = {f"chr{k}": r for k, r in enumerate(values, 1)}
    row = ranking.rank_assays(scores_of({("E003", "DNase"): chromosomes})).iloc[-1]
    low, high = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    assert [row["low"], row["high"]] == pytest.approx([low, high])
    # One assay: nothing to share the error with.
    assert [row["simultaneous_low"], row["simultaneous_high"]] == pytest.approx([low, high])
    assert [row["spearman_low"], row["spearman_high"]] == pytest.approx([low, high])
    assert [row["rank"], row["rank_low"], row["rank_high"]] == [1, 1, 1]
    assert [row["n_genes"], row["n_chromosomes"], row["n_folds"]] == [500, 5, 1]


def test_folds_and_seeds_are_averaged_before_chromosomes():
    once = scores_of({("E003", "DNase"): {"chr1": 0.5, "chr2": 0.3, "chr3": 0.6}})
    shift = [
        once.assign(fold=f, pearson=once["pearson"] + d) for f, d in (("f0", 0.1), ("f1", -0.1))
    ]
    again = [table.assign(seed=seed) for table in shift for seed in (0, 1)]
    columns = ["pearson", "low", "high", "n_genes", "n_chromosomes"]
    expected = ranking.rank_assays(once)
    repeated = ranking.rank_assays(pd.concat(again))
    pd.testing.assert_frame_equal(repeated[columns], expected[columns])
    assert set(repeated["n_folds"]) == {2}


def test_cells_that_share_their_chromosomes_add_no_certainty():
    chromosomes = {"chr1": 0.5, "chr2": 0.3, "chr3": 0.6}
    one = ranking.rank_assays(scores_of({("E003", "DNase"): chromosomes}))
    many = {(f"E{k:03}", "DNase"): chromosomes for k in range(8)}
    over_all = ranking.rank_assays(scores_of(many))
    assert over_all["cell"].tolist() == ["all", *sorted(cell for cell, _ in many)]
    for name in ("pearson", "low", "high"):
        assert over_all[name].iloc[0] == pytest.approx(one[name].iloc[0])
    assert over_all["n_cells"].tolist() == [8] + [1] * 8


def test_ranks_and_rank_sets():
    rng = np.random.default_rng(3)
    base = rng.normal(0.5, 0.1, 10)  # chromosomes differ far more than assays: pairing matters
    marks = {"best": 0.2, "tied_a": 0.1, "tied_b": 0.1, "worst": -0.3}
    pearson = {
        ("E003", name): {
            f"chr{k}": float(r) for k, r in enumerate(base + d + rng.normal(0, 0.01, 10), 1)
        }
        for name, d in marks.items()
    }
    table = ranking.rank_assays(scores_of(pearson))
    one = table[table["cell"] == "E003"].set_index("assay")
    assert one["rank"].tolist() == [1, 2, 3, 4]
    sets = one[["rank_low", "rank_high"]].apply(tuple, axis=1).to_dict()
    assert sets == {"best": (1, 1), "tied_a": (2, 3), "tied_b": (2, 3), "worst": (4, 4)}
    assert one["high"]["worst"] < one["low"]["best"]
    # Alone their intervals overlap: it is the pairing by chromosome that tells them apart.
    assert one["high"]["tied_a"] > one["low"]["best"]
    assert (one["simultaneous_high"] - one["simultaneous_low"] > one["high"] - one["low"]).all()


def test_calls_are_corrected_together():
    rng = np.random.default_rng(5)
    base = rng.normal(0.5, 0.1, 12)
    levels = {"good": base + 0.1, "fair": base, "twin": base, "idle": 0 * base}
    pearson = {
        ("E003", name): {f"chr{k}": float(r) for k, r in enumerate(r + rng.normal(0, 0.02, 12), 1)}
        for name, r in levels.items()
    }
    table = comparison.calls(scores_of(pearson))
    one = table[table["cell"] == "E003"].set_index(["assay", "other"])
    assert len(one) == 4 + 6  # against 0, and against each other
    called = set(one.index[one["called"]])
    assert {("good", ""), ("fair", ""), ("twin", ""), ("good", "fair"), ("good", "twin")} <= called
    assert not called & {("idle", ""), ("fair", "twin"), ("twin", "fair")}
    assert (one["lead"].drop(index=("idle", "")) > 0).all()  # the better one comes first
    np.testing.assert_allclose(table["q"], stats.false_discovery_control(table["p"]))
    lead, error = one.loc[("good", ""), "lead"], stats.sem(list(pearson["E003", "good"].values()))
    assert one.loc[("good", ""), "p"] == pytest.approx(2 * stats.t.sf(lead / error, 11))


def test_equal_assays_cannot_be_told_apart():
    rng = np.random.default_rng(4)
    pearson = {
        ("E003", name): {f"chr{k}": float(r) for k, r in enumerate(rng.normal(0.5, 0.1, 6))}
        for name in ("a", "b")
    }
    table = ranking.rank_assays(scores_of(pearson))
    assert set(table["rank_low"]) == {1}
    assert set(table["rank_high"]) == {2}


@pytest.mark.parametrize("chromosomes", [1, 2])
def test_too_few_chromosomes_have_no_interval(chromosomes):
    r = {f"chr{k}": 0.4 + k / 10 for k in range(chromosomes)}
    scores = scores_of({("E003", "a"): r, ("E003", "b"): dict.fromkeys(r, 0.1)})
    table = ranking.rank_assays(scores)
    assert table[["low", "high", "simultaneous_low", "spearman_low"]].isna().all(axis=None)
    assert table["pearson"].notna().all()
    assert table["note"].str.contains("fewer than 3 chromosomes").all()
    assert set(table["rank_low"]) == {1}
    assert set(table["rank_high"]) == {2}
    assert any("There is no interval" in note for note in caveats(scores))


def test_tiny_and_unexpressed_chromosomes_carry_no_weight_and_are_counted():
    r = {"chr1": 0.5, "chr2": 0.3, "chr3": 0.6, "chrY": 1.0, "chr21": 0.0}
    scores = scores_of(
        {("E003", "DNase"): r}, n={"chr1": 9, "chr2": 9, "chr3": 9, "chrY": 2, "chr21": 9}
    )
    scores["constant_observed"] = scores["chrom"] == "chr21"
    row = ranking.rank_assays(scores).iloc[0]
    assert row["pearson"] == pytest.approx(1.4 / 3)
    assert (row["n_chromosomes"], row["n_genes"]) == (3, 27)
    notes = "\n".join(caveats(scores))
    assert "1 score without weight: fewer than 3 genes (chrY)" in notes
    assert "1 score without weight: the same expression for all genes (chr21)" in notes
    nothing = ranking.rank_assays(scores.assign(n=2))
    assert nothing.empty
    assert list(nothing.columns) == ranking.COLUMNS
    assert any("0 chromosomes and 0 genes" in n for n in caveats(scores.assign(n=2)))


def test_auc_skips_chromosomes_of_one_label():
    scores = scores_of({("E003", "a"): {"chr1": 0.5, "chr2": 0.3, "chr3": 0.6}})
    ranked = ranking.rank_assays(scores.assign(auc=[0.8, np.nan, 0.6]))
    assert ranked["auc"].to_numpy() == pytest.approx(0.7)


def test_a_cell_without_an_assay_stays_out_of_all():
    r = {"chr1": 0.5, "chr2": 0.3, "chr3": 0.6}
    low = {chrom: value - 0.2 for chrom, value in r.items()}
    scores = scores_of({("E003", "a"): r, ("E003", "b"): low, ("E114", "a"): low, ("E116", "b"): r})
    table = ranking.rank_assays(scores).set_index(["cell", "assay"])
    assert table.loc[("all", "a"), "n_cells"] == 1
    assert table.loc[("all", "a"), "pearson"] == table.loc[("E003", "a"), "pearson"]
    assert ("E114", "b") not in table.index
    assert ("E114", "a") in table.index
    notes = "\n".join(caveats(scores))
    assert (
        'The ranking over cells ("all" in tables) leaves out cells that lack an assay: E114 lacks '
        "b, E116 lacks a."
    ) in notes
    apart = scores[scores["cell"] != "E003"]
    assert set(ranking.rank_assays(apart)["cell"]) == {"E114", "E116"}
    assert any("there is no ranking over cells" in note for note in caveats(apart))


def test_assays_are_compared_on_the_chromosomes_they_share():
    r = {"chr1": 0.5, "chr2": 0.3, "chr3": 0.6, "chr4": 0.9}
    failed = {chrom: value for chrom, value in r.items() if chrom != "chr4"}
    scores = scores_of({("E003", "a"): r, ("E003", "b"): failed})
    table = ranking.rank_assays(scores)
    assert table["pearson"].to_numpy() == pytest.approx(1.4 / 3)
    assert set(table["n_chromosomes"]) == {3}
    assert any("E003: 1 fold-seed-chromosome unit left out" in n for n in caveats(scores))
    nothing = scores_of({("E003", "a"): {"chr1": 0.5}, ("E003", "b"): {"chr2": 0.5}})
    assert ranking.rank_assays(nothing).empty
    assert any("E003 is not ranked" in note for note in caveats(nothing))


def test_one_predicted_value_has_no_interval_and_says_why():
    level = {("E003", "a"): {f"chr{k}": 0.4 + 0.01 * k for k in range(1, 9)},
             ("E003", "b"): {f"chr{k}": 0.0 for k in range(1, 9)}}  # fmt: skip
    scores = scores_of(level, n={f"chr{k}": 100 for k in range(1, 9)})
    scores["constant"] = scores["assays"] == "b"
    table = ranking.rank_assays(scores).set_index(["cell", "assay"])
    intervals = ["low", "high", "simultaneous_low", "simultaneous_high", "spearman_low"]
    assert table.loc[("all", "b"), intervals].isna().all()
    assert table.loc[("all", "a"), intervals].notna().all()
    assert table["note"].xs("b", level="assay").tolist() == [ONE_VALUE] * 2
    assert table["note"].xs("a", level="assay").tolist() == [""] * 2
    scores["n"] = 10  # then no assay has one, for another reason
    notes = ranking.rank_assays(scores).set_index("assay")["note"]
    assert set(notes["a"]) == {TOO_FEW_GENES}
    assert set(notes["b"]) == {ONE_VALUE}


def shrunk(genes, by):
    """Fewer genes at the same relative sizes: enough for a small trial."""
    return {chrom: max(LEAST_SCORED, n // by) for chrom, n in genes.items()}


def over_all_cells(scores):
    """What `rank_assays` says of all cells together, without what it says of each."""
    return ranking._rank_group("all", shared_units(score_cube(scores))[0], 0.95)


def tolerance(covered):
    """Three binomial standard errors of a 95 % coverage."""
    return 3 * np.sqrt(0.95 * 0.05 / len(covered))


@pytest.mark.trial
@pytest.mark.parametrize("spread", [0.0, 0.05])
@pytest.mark.parametrize("genes", [BLIND, GENES], ids=["blind", "autosomes"])
def test_interval_of_one_score_covers(trial_size, genes, spread):
    batches, by = trial_size(1, 25), trial_size(12, 4)
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(batches):
        r = rng.uniform(0.2, 0.7, (80, 1))
        scores = scoring.score_table(simulated(rng, r, shrunk(genes, by), spread))
        table = ranking.rank_assays(scores)
        rows = table[table["cell"] != "all"]
        covered += list((rows["low"] <= r[:, 0]) & (r[:, 0] <= rows["high"]))
    print(f"\ncoverage over {len(genes)} chromosomes, spread {spread}: {np.mean(covered):.4f}")
    assert 0.925 - tolerance(covered) <= np.mean(covered) <= 0.975 + tolerance(covered)


@pytest.mark.trial
@pytest.mark.parametrize("genes", [BLIND, GENES], ids=["blind", "autosomes"])
def test_simultaneous_intervals_and_rank_sets_cover_jointly(trial_size, genes):
    batches, by = trial_size(1, 20), trial_size(12, 4)
    rng = np.random.default_rng(6)
    truth = np.array([0.6, 0.55, 0.55, 0.4, 0.2, 0.0])
    intervals, ranks, alone = [], [], []
    for _ in range(batches):
        r = np.tile(truth, (50, 1))
        table = ranking.rank_assays(scoring.score_table(simulated(rng, r, shrunk(genes, by))))
        for _, rows in table[table["cell"] != "all"].sort_values("assay").groupby("cell"):
            inside = (rows["simultaneous_low"] <= truth) & (truth <= rows["simultaneous_high"])
            intervals.append(inside.all())
            alone.append(((rows["low"] <= truth) & (truth <= rows["high"])).all())
            # Tied assays may take any of the ranks they share.
            first, last = np.array([[1, 2, 2, 4, 5, 6], [1, 3, 3, 4, 5, 6]])
            ranks.append(((rows["rank_low"] <= first) & (last <= rows["rank_high"])).all())
    shares = [f"{np.mean(inside):.4f}" for inside in (intervals, alone, ranks)]
    print(f"\njoint coverage over {len(genes)} (intervals, pointwise ones, rank sets): {shares}")
    assert np.mean(intervals) >= 0.95 - tolerance(intervals)
    assert np.mean(ranks) >= 0.95 - tolerance(intervals)
    assert np.mean(alone) < np.mean(intervals)


@pytest.mark.trial
@pytest.mark.parametrize("genes", [BLIND, GENES], ids=["blind", "autosomes"])
def test_interval_over_crossed_cells_covers(trial_size, genes):
    batches, by = trial_size(1, 34), trial_size(12, 4)
    rng = np.random.default_rng(7)
    covered = []
    for _ in range(batches):
        truth = rng.uniform(0.3, 0.6, (30, 1, 1)) + rng.normal(0, 0.05, (30, 4, 1))
        # Scored together, ranked apart: every trial is a fold of its own.
        tables = [
            simulated(rng, r, shrunk(genes, by), shared=True).assign(fold=trial)
            for trial, r in enumerate(truth)
        ]
        scores = scoring.score_table(pd.concat(tables, ignore_index=True))
        for r, (_, own) in zip(truth, scores.groupby("fold"), strict=True):
            table = over_all_cells(own)
            if not covered:
                whole = ranking.rank_assays(own)
                pd.testing.assert_frame_equal(table, whole[whole["cell"] == "all"])
            row = table.iloc[0]
            assert (row["cell"], row["n_cells"]) == ("all", 4)
            covered.append(row["low"] <= r.mean() <= row["high"])
    print(f"\ncoverage of 4 crossed cells over {len(genes)} chromosomes: {np.mean(covered):.4f}")
    assert 0.925 - tolerance(covered) <= np.mean(covered) <= 0.975 + tolerance(covered)


def test_a_confidence_in_per_cent_is_refused():
    with pytest.raises(InputError, match="between 0 and 1"):
        ranking.rank_assays(scores_of({("E003", "DNase"): {"chr1": 0.5}}), confidence=95.0)


def switch_and_dial(rng, chromosomes=20, genes=100, noise=0.5):
    """A switch that knows which genes are on, a dial that knows how much those that are express,
    and an idle mark."""
    n = chromosomes * genes
    on, level = rng.random(n) < 0.6, rng.uniform(1.2, 8, n)
    observed = np.where(on, level, 0.3 * rng.random(n))
    noise, other = noise * rng.standard_normal((2, n)), rng.uniform(1.2, 8, n)
    known = {"switch": 4 * on, "dial": np.where(on, level, other), "idle": 0 * level}
    table = pd.DataFrame({"chrom": np.repeat([f"chr{k + 1}" for k in range(chromosomes)], genes)})
    table = table.assign(cell="E1", fold="f", seed=0, gene_id=[f"g{i}" for i in range(n)])
    table = table.assign(observed=observed, observed_raw=observed)
    parts = []
    for assay, value in known.items():
        predicted = value + noise[int(assay == "dial")]
        parts.append(table.assign(assays=assay, predicted=predicted, predicted_raw=predicted))
    return pd.concat(parts, ignore_index=True)


def test_each_question_finds_its_own_mark():
    table = switch_and_dial(np.random.default_rng(0))
    found = ranking.rank_questions(scoring.score_questions(table))
    assert set(found["threshold"]) == {"0.5", "1", "2"}
    assert list(found.columns) == ranking.QUESTION_COLUMNS
    found = found[(found["threshold"] == "1") & (found["cell"] == "all")].set_index(
        ["question", "assay"]
    )
    for question, best in (("on", "switch"), ("level", "dial")):
        rows = found.loc[question]
        assert rows["rank_low"].tolist() == [1, 2, 2]
        assert rows.index[0] == best
        for assay, row in rows.iterrows():
            if assay != best:  # knows nothing of this
                chance = 0.5 if question == "on" else 0.0
                assert row["simultaneous_low"] < chance < row["simultaneous_high"]
    own = table[table["assays"] == "dial"]
    on = own["observed"] >= 1  # log2(1 + 1)
    errors, rhos, areas = [], [], []
    for _, rows in own.groupby("chrom"):
        live = rows[on[rows.index]]
        rhos.append(stats.spearmanr(live["observed"], live["predicted"]).statistic)
        errors.append(((live["observed"] - live["predicted"]) ** 2).mean())
        silent = rows["predicted"][~on[rows.index]].to_numpy()
        areas.append((live["predicted"].to_numpy()[:, None] > silent).mean())
    genes = own[on].groupby("chrom").size()
    level, area = found.loc[("level", "dial")], found.loc[("on", "dial")]
    assert level["score"] == pytest.approx(np.average(rhos, weights=genes), abs=1e-5)
    assert level["rmse"] == pytest.approx(np.sqrt(np.average(errors, weights=genes)), abs=1e-5)
    assert area["score"] == pytest.approx(np.mean(areas), abs=1e-5)
    assert (level["n_genes"], area["n_genes"]) == (on.sum(), 2000)
    low, high = stats.t.interval(0.975, 19, np.mean(areas), stats.sem(areas))
    assert [area["low"], area["high"]] == pytest.approx([low, high], abs=1e-5)
    both = own.assign(predicted=scoring.hurdle(own))
    rs = [rows["observed"].corr(rows["predicted"]) for _, rows in both.groupby("chrom")]
    row, limits = (
        found.loc[("both", "dial")],
        stats.t.interval(0.95, 19, np.mean(rs), stats.sem(rs)),
    )
    assert [row["score"], row["low"], row["high"]] == pytest.approx(
        [np.mean(rs), *limits], abs=1e-5
    )


def test_labels_and_silent_cells_have_fewer_questions():
    table = switch_and_dial(np.random.default_rng(0), chromosomes=3)
    labels = table.assign(observed=(table["observed"] > 1) * 1.0)
    assert scoring.score_questions(labels).empty
    assert ranking.rank_questions(scoring.score_questions(labels)).empty
    silent = table.assign(observed=table["observed"].clip(upper=0.9))
    found = ranking.rank_questions(scoring.score_questions(silent, (1.0,)))
    assert found.empty  # all of one kind


def test_ranking_without_each_chromosome():
    rng = np.random.default_rng(2)
    scores = scores_of(
        {("E003", name): {f"chr{k}": float(r) for k, r in enumerate(rng.normal(level, 0.05, 5))}
         for name, level in (("a", 0.6), ("b", 0.3))}
    )  # fmt: skip
    table = ranking.without_each(scores, "all").set_index(["chrom", "assay"])
    assert len(table) == 5 * 2
    rest = ranking.rank_assays(scores[scores["chrom"] != "chr2"])
    rest = rest[rest["cell"] == "all"].set_index("assay")
    ends = ["simultaneous_low", "simultaneous_high"]
    pd.testing.assert_frame_equal(table.loc["chr2"][ends], rest[ends])
    alone = scores[scores["chrom"] == "chr2"].set_index("assays")["pearson"]
    assert table.loc["chr2", "pearson"].to_dict() == pytest.approx(alone.to_dict())
    few = scores[scores["chrom"].isin(["chr0", "chr1", "chr2"])]
    assert ranking.without_each(few, "E003").empty  # two chromosomes give no interval
