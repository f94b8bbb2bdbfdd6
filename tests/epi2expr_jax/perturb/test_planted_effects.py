"""Do altered marks tell planted elements from decoys of equal signal, and know when there is none?

Each gene has peaks at some of 16 distal places. A place drives expression up, or down, or does
nothing, the same for all genes; peaks everywhere are drawn alike, so signal alone tells nothing.
"""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_auc_score

from epi2expr_jax import perturb
from epi2expr_jax.predict.loading import load
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import train
from epi2expr_jax.training.one_run import TrainConfig
from experiments.cli.elements import silencing_models
from experiments.crispri import COMPLETED, score_screens

BINS, WIDE, FINE = 20, 2000, 500  # places of a window, their width and that of the store's bins
DISTAL = np.r_[0:8, 12:BINS]
FACTORS = (0, 0.25, 0.5, 0.75, 1)
SLOPE = 0.7  # of log2(RPKM + 1) by the height of a driving peak
NEXT_BP = 60_000  # to the next gene, out of reach


def size_of(trial_size):
    """Genes, epochs, seeds, and every how many genes are looked at."""
    return trial_size((800, 12, 5, 3), (1600, 20, 5, 1))


@dataclasses.dataclass
class Planted:
    """A store, and by gene and place along the strand its peaks, their signal, and what they do."""

    store: WindowStore
    peak: np.ndarray
    signal: np.ndarray
    sign: np.ndarray

    @property
    def driving(self):
        return self.peak & (self.sign != 0)

    @property
    def decoy(self):
        return self.peak & (self.sign == 0)


def plant(path, genes, seed):
    random = np.random.default_rng(seed)
    chromosomes = [f"chr{i}" for i in range(1, 9)]
    each = genes // len(chromosomes)
    names = [f"ENSG{i:05d}" for i in range(each * len(chromosomes))]
    table = pd.DataFrame(
        {
            "gene_id": names,
            "gene_name": names,
            "chrom": np.repeat(chromosomes, each),
            "tss": np.tile(30_000 + NEXT_BP * np.arange(each), len(chromosomes)),
            "strand": random.choice(["+", "-"], len(names)),
        }
    )
    sign, shape = np.zeros(BINS), (len(table), BINS)
    sign[random.permutation(DISTAL)[:8]] = [1, 1, 1, 1, 1, -1, -1, -1]
    peak = np.isin(np.arange(BINS), DISTAL) & (random.random(shape) < 0.3)
    height = random.uniform(1.5, 4, shape) * peak
    level = 3 + SLOPE * (height * sign).sum(1) + random.normal(0, 0.5, len(table))
    fine = WIDE // FINE
    raw = np.repeat(np.sinh(height), fine, axis=1)
    raw *= random.uniform(0.7, 1.3, raw.shape)
    raw += np.sinh(random.gamma(2, 0.05, raw.shape))
    minus = (table.strand == "-").to_numpy()[:, None]
    manifest = Manifest(
        window_bp=BINS * WIDE,
        bin_bp=FINE,
        assembly="planted",
        chrom_sizes=dict.fromkeys(chromosomes, NEXT_BP * (each + 1)),
        chromosomes=chromosomes,
        blind=[],
        cells=["cell"],
        assays=["mark"],
        tracks=[["cell", "mark"]],
        units={"mark": "pvalue"},
        groups={"mark": "histone"},
        min_covered=0.0,
        tss="gene_5p",
        candidates_sha256="0",
    )
    rpkm = 2 ** np.maximum(0, level) - 1
    store = WindowStore.create(path, manifest, table, rpkm[None])
    oriented = np.where(minus, raw[:, ::-1], raw).astype(np.float32)
    covered = np.ones(len(table), np.float32)
    source = [{"name": "planted", "bytes": 0, "sha256": "0"}]
    store.write_slab("cell", "mark", np.ascontiguousarray(oriented), covered, source)
    signal = raw.reshape(*shape, fine).mean(2)
    return Planted(WindowStore.open(path), peak, signal, sign)


@pytest.fixture(scope="module")
def worlds(trial_size, tmp_path_factory):
    """Planted worlds and the runs that were trained on them."""
    folder = tmp_path_factory.mktemp("planted")
    genes, epochs, seeds, _ = size_of(trial_size)
    made = []
    for seed in range(trial_size(1, 5)):
        made.append((plant(folder / f"{seed}.zarr", genes, seed), folder / f"run{seed}"))
        learn(*made[-1], epochs, seeds)
    return made


def learn(world, run_dir, epochs, seeds):
    train(
        TrainRequest(
            store=str(world.store.path),
            model="promoter_cnn",
            model_options={"width": 0.1, "window_bp": BINS * WIDE, "bin_bp": FINE},
            cv="chromosomes_4",
            seeds=seeds,
            train_share=0.5,
            train_config=TrainConfig(epochs=epochs, batch_size=32),
        ),
        run_dir,
    )


def effects_of(world, run_dir, seeds, every):
    """`effect`, `low` and `high` `[G, place, factor]`, by models that never saw the gene.

    Of every so many genes, and the world of these alone.
    """
    edges = range(-BINS * WIDE // 2, BINS * WIDE // 2, WIDE)
    places = [perturb.span(edge, edge + WIDE) for edge in edges]
    edits = [perturb.scale("mark", place, factor) for place in places for factor in FACTORS]
    chosen = world.store.genes.gene_id.tolist()[::every]
    found = perturb.summarise(perturb.run(load(run_dir), world.store, edits, chosen)).isel(model=0)
    assert (found.models == seeds).all()
    assert found.gene.to_numpy().tolist() == chosen
    shape = (len(chosen), BINS, len(FACTORS))
    seen = dataclasses.replace(world, peak=world.peak[::every], signal=world.signal[::every])
    return seen, *(found[name].to_numpy().reshape(shape) for name in ("effect", "low", "high"))


@pytest.mark.trial
def test_planted_elements_are_told_from_decoys(trial_size, worlds):
    *_, seeds, every = size_of(trial_size)
    holds, drives = [], []
    for seed, (planted, run_dir) in enumerate(worlds):
        world, effect, low, high = effects_of(planted, run_dir, seeds, every)
        emptied = effect[..., 0]
        driving = world.driving[world.peak]
        by_effect = roc_auc_score(driving, np.abs(emptied)[world.peak])
        by_signal = roc_auc_score(driving, world.signal[world.peak])
        right = (-np.sign(emptied) == world.sign)[world.driving].mean()
        includes = ((low <= 0) & (high >= 0))[..., 0]
        # Genes that nothing drives: their share of peaks whose interval includes the true 0.
        idle = world.decoy.any(1) & ~world.driving.any(1)
        holds += [includes[g][world.decoy[g]].mean() for g in np.flatnonzero(idle)]
        drives.append(1 - includes[world.driving].mean())
        print(
            f"seed {seed}: AUROC {by_effect:.3f} by effect, {by_signal:.3f} by signal; signs right "
            f"{right:.1%}; drivers whose interval excludes 0 {drives[-1]:.1%}"
        )
        assert by_effect >= 0.85
        assert by_signal <= 0.6
        assert right >= 0.95
        for place in np.flatnonzero(world.sign):
            dose = effect[world.driving[:, place], place].mean(0)
            assert (np.diff(dose) * world.sign[place] > 0).all()
            assert dose[-1] == 0
    rate, error = np.mean(holds), np.std(holds) / np.sqrt(len(holds))
    print(f"idle genes: {rate:.3f} of intervals include 0 ({len(holds)} genes)")
    assert rate >= 0.95 - 2 * error
    assert np.mean(drives) > trial_size(0.3, 0.5)  # and they are not an empty promise


def screen_of(world, every, rng):
    """A CRISPRi screen of every so many genes: each peak with its gene, and with the next one.

    Losses are measured with noise that differs, so power does; some pairs change indirectly, the
    next gene's among them.
    """
    gene, place = np.nonzero(world.peak)
    here = gene % every == 0
    gene, place = gene[here], place[here]
    genes = world.store.genes
    minus = (genes.strand == "-").to_numpy()[gene]
    tss = genes.tss.to_numpy()[gene]
    from_tss = WIDE * np.where(minus, BINS - 1 - place, place) - BINS * WIDE // 2
    level = np.log2(world.store.read_expression(["cell"])[0][gene] + 1)
    height = np.arcsinh(world.signal[gene, place])
    silenced = np.maximum(0, level - SLOPE * height * world.sign[place])
    own = np.where(level > 0, (np.exp2(silenced) - np.exp2(level)) / (np.exp2(level) - 1 + 1e-9), 0)
    start = tss + from_tss + 250
    direct = np.concatenate([np.clip(own, -1, 3), np.zeros(len(own))])
    change = direct - 0.3 * (rng.random(2 * len(own)) < 0.03)
    error = rng.uniform(0.05, 0.2, len(change))
    measured = change + rng.normal(0, error)
    significant = np.abs(measured) > 3 * error
    distance = np.abs(from_tss + WIDE / 2)
    following = np.append(genes.gene_id.to_numpy()[1:], "ENSG_none")
    both = {
        "chrom": genes.chrom.to_numpy()[gene],
        "chromStart": start,
        "chromEnd": start + WIDE - 500,
        "H3K27ac.RPM": world.signal[gene, place],
    }
    return pd.DataFrame(
        {name: np.tile(values, 2) for name, values in both.items()}
        | {
            "measuredGeneEnsemblId": np.append(genes.gene_id.to_numpy()[gene], following[gene]),
            "distanceToTSS": np.append(distance, NEXT_BP - from_tss - WIDE / 2),
            "EffectSize": measured,
            "Significant": significant,
            "Regulated": significant & (measured < 0),
        }
    )


@pytest.mark.trial
def test_a_screen_is_found_better_than_by_activity_and_distance(trial_size, worlds, tmp_path):
    *_, every = size_of(trial_size)
    for seed, (world, run_dir) in enumerate(worlds):
        path = tmp_path / f"{seed}.tsv"
        screen = screen_of(world, every, np.random.default_rng(seed))
        screen.to_csv(path, sep="\t", index=False)
        said = score_screens(path, tmp_path / f"out{seed}", models=silencing_models(run_dir))
        leads = pd.read_csv(tmp_path / f"out{seed}" / "crispri_leads.csv")
        leads = leads[leads["rival"] == "activity × distance"].set_index(["pairs", "score"])
        near = leads.loc[("in reach: all pairs", "predicted loss")]
        whole = leads.loc[("all pairs", COMPLETED)]
        print(
            f"seed {seed}: lead over activity × distance, pairs in reach {near.lead:.3f} "
            f"({near.low:.3f} to {near.high:.3f}), all {whole.lead:.3f} ({whole.low:.3f} to "
            f"{whole.high:.3f}); {screen['Regulated'].sum()} regulated of {len(screen)}"
        )
        assert near.low > 0
        assert whole.low > 0
        assert f"in reach of the models of mark in cell: {len(screen) // 2:,} of" in said
