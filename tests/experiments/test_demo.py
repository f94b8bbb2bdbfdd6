import json
import pathlib
import re
import shutil

import numpy as np
import pandas as pd
import pytest

from data_prep.checks.build_inputs import BuildConfig
from data_prep.simulate import simulate
from epi2expr_jax import perturb
from epi2expr_jax.perturb.summary import mean_effects
from epi2expr_jax.predict.loading import load
from epi2expr_jax.study.request import TrainRequest, published
from epi2expr_jax.study.train import train
from experiments import demo, study
from experiments.demo import compare_with_truth

ROOT = pathlib.Path(__file__).resolve().parents[2]
SMALL = """
[simulate]
genes = 300
cells = 1
assays = 7
[store]
tracks = "{out}/data/tracks.csv"
expression = "{out}/data/RPKM.pc.gz"
genes = "{out}/data/genes.gtf.gz"
assembly = "{out}/data/genome.chrom.sizes"
[train.cnn]
run = "{out}/run"
model = "promoter_cnn"
model_window_bp = 6000
width = 0.1
cv = "chromosomes_3"
epochs = 8
batch_size = 16
"""
TRUTH = {"oracle": {"6000": {"all": {"a": 0.9, "b": 0.6, "c": 0.3, "d": 0.0, "e": 0.0}}}}


def ranking(**changes):
    scores = {"a": 0.8, "b": 0.5, "c": 0.2, "d": 0.03, "e": -0.02, **changes}
    table = pd.DataFrame({"assay": list(scores), "pearson": list(scores.values()), "cell": "all"})
    table["rank"] = table.pearson.rank(ascending=False)
    return table.assign(simultaneous_low=table.pearson - 0.1, simultaneous_high=table.pearson + 0.1)


def test_a_ranking_like_the_oracle_holds():
    lines, holds = compare_with_truth(ranking(), TRUTH)
    assert holds
    assert "Spearman 1.000" in "\n".join(lines)


@pytest.mark.parametrize(
    "changes",
    [
        {"a": 0.4},  # order lost
        {"d": 0.25},  # an assay without effect among those with one, its interval above 0
        {"e": -0.15},  # an interval that excludes 0
    ],
)
def test_a_ranking_that_misses_the_truth_does_not_hold(changes):
    assert not compare_with_truth(ranking(**changes), TRUTH)[1]


def test_wide_intervals_do_not_hold():
    wide = ranking().assign(simultaneous_low=-0.2, simultaneous_high=0.2)
    assert not compare_with_truth(wide, TRUTH)[1]


@pytest.mark.trial
@pytest.mark.usefixtures("worker_here")
def test_the_whole_chain_from_public_files_to_the_report(
    tmp_path, monkeypatch, trial_size, program
):
    """The demo's own commands; small here, as they stand under `make trials`."""

    def here(command, folder, environment):
        """In this process, which has all loaded."""
        done = program(*command[2:])
        assert done.returncode == 0, done.stderr
        return done.returncode

    monkeypatch.setattr(study, "_status", trial_size(here, study._status))
    (tmp_path / "small.toml").write_text(SMALL)
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "demo"
    holds = demo.demo(out, trial_size("small.toml", "demo"))
    ranked = pd.read_csv(out / "run" / "ranking.csv")
    truth = json.loads((out / "data" / "truth.json").read_text())
    oracle = pd.Series(truth["oracle"][demo.MODEL_WINDOW]["all"])
    scores = ranked[ranked.cell == "all"].set_index("assay").pearson
    # 200 training genes are too few for the weak ones, but not for the strong.
    assert set(oracle.nlargest(2).index) == set(scores.nlargest(2).index)
    assert (out / "run" / "report.html").stat().st_size > 100_000
    assert holds or trial_size(True, False)

    # What the README and the notebook show of it, in the folder where `make demo` is run.
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    text = (ROOT / "README.md").read_text()
    (example,) = [
        part for part in re.findall(r"```python\n(.*?)```", text, re.S) if "edits" in part
    ]
    found: dict = {}
    exec(compile(example, "README.md", "exec"), found)
    assert len(found["ranking"])
    held_out = {
        chrom for fold in found["study"].load("demo/dnase").folds.values() for chrom in fold.test
    }
    genes = pd.read_parquet(out / "store.zarr" / "genes.parquet").set_index("gene_id")
    assert set(genes.chrom[found["table"].gene]) == held_out
    assert (found["summary"].effect.isel(edit=-1) == 0).all()  # factor 1
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/python.md").read_text(), re.S)
    exec(compile("\n".join(blocks), "docs/python.md", "exec"), {})
    (tmp_path / "notebooks").mkdir()
    monkeypatch.chdir(tmp_path / "notebooks")  # notebooks work from their own folder
    notebook = json.loads((ROOT / "notebooks" / "altered_marks.ipynb").read_text())
    shown: dict = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"cell {number}", "exec"), shown)
    assert (shown["dose"] != 0).sum() == len(shown["factors"]) - 1
    assert len(shown["profile"]) == 60


@pytest.mark.trial
def test_over_seeds_of_the_demo_idle_marks_have_no_effect(trial_size, build, tmp_path):
    """Its chain, of the idle marks and the strongest."""
    if not trial_size(False, True):
        pytest.skip("in make trials: 20 trainings")
    idle, driving = [], []
    for seed in range(20):
        folder = tmp_path / str(seed)
        data = simulate(folder / "data", genes=1500, cells=3, seed=seed)
        truth = json.loads((data / "truth.json").read_text())
        marks = [name for name, effect in truth["effects"].items() if effect["sign"] == 0]
        best = max(scores := truth["oracle"][demo.MODEL_WINDOW]["all"], key=scores.get)
        tracks = pd.read_csv(data / "tracks.csv")
        tracks[tracks.assay.isin([best, *marks])].to_csv(data / "some.csv", index=False)
        made = {"expression": "RPKM.pc.gz", "genes": "genes.gtf.gz"}
        made |= {"assembly": "genome.chrom.sizes", "tracks": "some.csv"}
        inputs = {name: str(data / path) for name, path in made.items()}
        store = build(BuildConfig(**inputs, store=str(folder / "store.zarr")))
        request = TrainRequest(
            store=str(store.path), model="promoter_cnn", model_options={"width": 0.125},
            cv="chromosomes_5", train_config=published("promoter_cnn", epochs=8, batch_size=64),
        )  # fmt: skip
        train(request, folder / "run")
        ensemble = load(folder / "run")
        for mark in [best, *marks]:
            edit = perturb.scale(mark, perturb.promoter(), 0.0)
            means = mean_effects(perturb.run(ensemble, store, [edit]))
            found = driving if mark == best else idle
            found += means[["effect", "low", "high"]].to_numpy().tolist()
        shutil.rmtree(folder)
        (_, low, high), (effect, least, most) = np.transpose(idle), np.transpose(driving)
        given, shown = np.isfinite(low), np.isfinite(least)
        wrong = ((low > 0) | (high < 0))[given]
        missed = ((least <= 0) & (most >= 0))[shown].sum()
        print(
            f"{seed + 1} seeds: {wrong.sum()} of {given.sum()} idle intervals exclude 0, "
            f"{(~given).sum()} not given, median width {np.median((high - low)[given]):.3f}; of "
            f"the strongest mark {missed} of {shown.sum()} include 0, median effect "
            f"{np.median(np.abs(effect)):.3f}",
            flush=True,
        )
    assert wrong.mean() <= 0.05
    assert shown.all()
    assert missed == 0
