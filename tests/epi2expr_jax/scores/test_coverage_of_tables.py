"""Tables of further questions: their intervals and rank sets cover, in simulated studies.

As in `test_coverage`, genes lie in domains that share expression and errors, and chromosomes differ
in how well a mark predicts. The truth is the mean of the estimates over all simulated studies,
which differ in their genes and chromosomes (and, where models are fitted, in the genes these were
fitted on).
"""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.scores import comparison, ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.scores.across_cells import score_changes, score_deviations
from tests.epi2expr_jax.scores.test_coverage import draw

K, G, FOLDS = 20, 60, 5  # chromosomes, genes on each
CHROMS = np.array([f"chr{k + 1}" for k in range(K)])


def covers(low, high, truth, count, least=0.93):
    """Whether intervals cover as they should; in few studies, whether nothing is badly wrong."""
    share = np.mean((low <= truth) & (truth <= high), axis=0)
    assert np.min(share) >= (least if count >= 900 else 0.3), share
    return np.round(share, 3)


def of_genes(values, name, **more):
    """A table of `[studies or cells, A, K, G]` values, by cell, assay, chromosome and gene."""
    c, a, k, g = (axis.ravel() for axis in np.indices(values.shape))
    table = pd.DataFrame({"cell": np.char.mod("E%04d", c), "assays": np.char.mod("m%d", a)})
    table["gene_id"] = np.char.mod("g%d", k * values.shape[3] + g)
    return table.assign(chrom=CHROMS[k], fold="f", seed=0, **{name: values.ravel()}, **more)


def predictions_of(observed, predicted):
    table = of_genes(predicted, "predicted")
    observed = np.broadcast_to(observed, predicted.shape).ravel()
    table = table.assign(observed=observed, observed_raw=observed)
    return table.assign(predicted_raw=table["predicted"])


def marks(rng, sets, rho, z):
    """Predictions `[sets, A, K, G]` that follow z `[sets, 1, K, G]` by about rho `[A]`."""
    r = np.reshape(rho, (1, -1, 1, 1)) + 0.05 * rng.standard_normal((sets, len(rho), K, 1))
    noise = draw(rng, sets * K, 1, len(rho), G).reshape(sets, K, len(rho), G).swapaxes(1, 2)
    return r * z + np.sqrt(1 - np.clip(r, -0.95, 0.95) ** 2) * noise


def gene_values(rng, sets):
    return draw(rng, sets * K, 1, 1, G).reshape(sets, 1, K, G)


@pytest.mark.trial
def test_each_question(trial_size):
    """Of a strong mark, two equal ones and an idle one: is a gene on, how much, both in one."""
    rng, rho, found = np.random.default_rng(0), [0.8, 0.6, 0.6, 0.0], []
    blocks, by = trial_size((1, 3), (50, 20))
    for block in range(blocks):
        z = gene_values(rng, by)
        table = predictions_of(np.maximum(0, 2 + 2.4 * z), 2 + 2.4 * marks(rng, by, rho, z))
        table["cell"] = table["cell"] + f"_{block}"  # each cell a study
        asked = ranking.rank_questions(scoring.score_questions(table, (1.0,)))
        found.append(asked[asked["cell"] != "all"])
    rows = pd.concat(found).sort_values(["question", "cell", "assay"])
    count, held = blocks * by, []
    columns = ["score", "low", "high", "rank_low", "rank_high"]
    for question, own in rows.groupby("question"):
        score, low, high, least, most = own[columns].to_numpy().reshape(count, 4, 5).T
        truth = score.mean(axis=1)[:, None]
        if question == scoring.BOTH:  # an idle mark has no interval there
            assert np.isnan(low[3]).mean() >= 0.95
            score, low, high, truth = score[:3], low[:3], high[:3], truth[:3]
        print(question, truth.ravel().round(3), covers(low.T, high.T, truth.T, count))
        # What could be called: the strong first, the idle last, the equal ones either way.
        held.append((least <= [[1], [2], [2], [4]]) & (most >= [[1], [3], [3], [4]]))
    both = np.mean(np.all(held, axis=(0, 1)))
    print(f"rank sets of all questions: {both:.3f}")
    assert both >= (0.93 if count >= 900 else 0.3)


@pytest.mark.trial
@pytest.mark.parametrize("seeds", [1, 2])
def test_who_gains_from_what(seeds, trial_size):
    """Differences of gains hold together; some are 0, some not."""
    count, rng = trial_size(8, 1000), np.random.default_rng(seeds)
    r, gain = np.array([0.7, 0.6, 0.5, 0.4]), np.array([0.05, 0.02, 0.02, 0.0])
    held, shown = [], []
    for _ in range(count):
        shared = 0.05 * rng.standard_normal((K, 4))  # what both models find on a chromosome
        tables = []
        for level in (r, r + gain):
            own = shared + level + 0.02 * rng.standard_normal((K, 4))
            trained = 0.01 * rng.standard_normal((FOLDS, seeds, 4))
            k, s, a = (axis.ravel() for axis in np.indices((K, seeds, 4)))
            score = own[k, a] + (trained[k % FOLDS, s, a] if seeds > 1 else 0)
            tables.append(
                pd.DataFrame(
                    {"cell": "E1", "assays": np.char.mod("m%d", a), "fold": k % FOLDS, "seed": s,
                     "chrom": CHROMS[k], "n": G, "constant": False, "constant_observed": False,
                     **dict.fromkeys(scoring.METRICS, score)}
                )
            )  # fmt: skip
        table = comparison.interactions(*tables)
        of = [gain[table[name].str[1:].astype(int)] for name in ("assay", "other")]
        held.append(((table.low <= of[0] - of[1]) & (of[0] - of[1] <= table.high)).all())
        shown.append((table.low > 0).mean())
    print(f"{seeds} seeds: all differences {np.mean(held):.3f}, shown {np.mean(shown):.3f}")
    assert np.mean(held) >= (0.93 if count >= 900 else 0.3)


@pytest.mark.trial
def test_what_assays_add(trial_size):
    """Least squares on a covariate, and on it with the 20 stretches of a mark, of 5 folds."""
    count, rng, found = trial_size(3, 1000), np.random.default_rng(3), []
    effects = [0.5, 0.15, 0.0]  # of marks; the last is idle
    for _ in range(count):
        known, *signal = draw(rng, K, 1, 1 + 3 * 20, G)[:, 0].swapaxes(0, 1).astype(float)
        signal = np.reshape(signal, (3, 20, K, G))
        slopes = 1 + 0.3 * rng.standard_normal((3, K, 1))  # chromosomes differ
        y = 0.4 * known + draw(rng, K, 1, 1, G)[:, 0, 0]
        y = y + (np.reshape(effects, (3, 1, 1)) * slopes * signal.mean(axis=1) * 4).sum(axis=0)
        tables = []
        for with_assay in (False, True):
            for a in range(3):
                features = [np.ones((K, G)), known, *(signal[a] if with_assay else ())]
                features = np.stack(features, axis=-1)
                for k in range(K):
                    train = np.arange(K) % FOLDS != k % FOLDS
                    if k < FOLDS:
                        x = features[train].reshape(-1, features.shape[-1])
                        weights = np.linalg.lstsq(x, y[train].ravel())[0]
                        own = np.arange(k, K, FOLDS)
                        error = ((y[own] - features[own] @ weights) ** 2).mean(axis=1)
                        r2 = 1 - error / y[own].var(axis=1)
                        tables.append((with_assay, a, k, own, r2))
        scores = pd.concat(
            pd.DataFrame({"with": w, "assays": f"m{a}", "fold": k, "chrom": CHROMS[own], "r2": r2})
            for w, a, k, own, r2 in tables
        ).assign(cell="E1", seed=0, n=G, constant=False, constant_observed=False)
        scores = scores.assign(**dict.fromkeys({*scoring.METRICS} - {"r2"}, scores["r2"]))
        added = comparison.added_value(scores[~scores["with"]], scores[scores["with"]])
        found.append(added.sort_values("assay")[["added", "low", "high"]].to_numpy())
    added, low, high = np.transpose(found, (2, 0, 1))
    truth = added.mean(axis=0)
    together = ((low <= truth) & (truth <= high)).all(axis=1).mean()
    print(f"added {truth.round(3)}: {covers(low, high, truth, count)}, together {together:.3f}; "
          f"an idle assay is shown to add in {(low[:, 2] > 0).mean():.3f}")  # fmt: skip
    assert together >= (0.93 if count >= 900 else 0.3)
    assert (low[:, 2] > 0).mean() <= 0.05


@pytest.mark.trial
def test_what_is_a_cells_own_and_what_differs_between_two(trial_size):
    """Three cells share most of their expression; a mark knows its cell, another what all share."""
    blocks, by = trial_size((1, 3), (50, 20))
    rng, own, changes = np.random.default_rng(4), [], []
    for _ in range(blocks):
        shared, specific = gene_values(rng, by), gene_values(rng, by * 3) * 0.5
        z = (shared[:, None] + specific.reshape(by, 3, 1, K, G)).reshape(by * 3, 1, K, G)
        knows = np.reshape([0.6, 0.0], (1, 2, 1, 1))  # of what is a cell's own
        common = np.repeat(marks(rng, by, [0.7, 0.7], shared), 3, axis=0)
        slope = 1 + 0.2 * rng.standard_normal((by * 3, 2, K, 1))  # chromosomes differ
        noise = 0.3 * marks(rng, by * 3, [0.0, 0.0], z)
        table = predictions_of(z, common + knows * slope * specific + noise)
        number = table["cell"].str[1:].astype(int)
        table = table.assign(cell=np.char.mod("C%d", number % 3), trained_on="")
        table["assays"] += np.char.mod("_%d", number // 3)  # each a study
        table["run_id"] = table["assays"]
        scores = score_deviations(table)
        study = scores["assays"].str.split("_").str[1]
        own += [ranking.rank_assays(part)[lambda t: t["cell"] == "all"].sort_values("assay")
                for _, part in scores.groupby(study)]  # fmt: skip
        promoters = table[table["cell"] == "C0"][["run_id", "gene_id"]]
        promoters = promoters.assign(promoter=rng.standard_normal(len(promoters)))
        for _, part in table.groupby(table["assays"].str.split("_").str[1]):
            changes.append(score_changes(part, promoters, ("C0", "C1")).sort_values("assays"))
    count = blocks * by
    columns = ["pearson", "low", "high", "rank_low", "rank_high"]
    score, low, high, least, most = np.transpose([t[columns].to_numpy() for t in own], (2, 0, 1))
    right = ((least <= [1, 2]) & (most >= [1, 2])).all(axis=1).mean()
    print(f"a cell's own: {covers(low, high, score.mean(axis=0), count)}, ranks {right:.3f}")
    assert right >= (0.93 if count >= 900 else 0.3)
    for score, low, high in (
        ("pearson", "low", "high"), ("lead", "lead_low", "lead_high"),
        ("less", "less_low", "less_high"),
    ):  # fmt: skip
        values = np.transpose([t[[score, low, high]].to_numpy() for t in changes], (2, 0, 1))
        truth = values[0].mean(axis=0)
        print(f"change, {score} {truth.round(3)}: {covers(*values[1:], truth, count)}")
