"""Does a recipe make `promoter_cnn` better than as it ships, and than ridge regression?

    python -m tests.recipes --out=FOLDER                      made-up worlds, width 1/4
    python -m tests.recipes --out=FOLDER --width=1            for an accelerator
    python -m tests.recipes --out=FOLDER --store=mine.zarr    a store's cells in place of worlds

`FOLDER/leads.csv` has by world, and for all marks together and each alone, mean Pearson r of
held-out genes and the lead over the network as it ships and over ridge regression (`whole_ridge`),
paired by chromosome, with 95 % intervals (jackknife over chromosomes, each of one number alone).
Finished trainings are kept there: the same command goes on. Test genes choose nothing.
"""

import argparse
import dataclasses
import pathlib
import time

import numpy as np
import pandas as pd
import scipy

from epi2expr_jax.predict import load
from epi2expr_jax.predict.baselines import mean_of_seeds, predict_baselines
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.scores.intervals import jackknife
from epi2expr_jax.scores.table import score_table
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.request import TrainRequest, published
from epi2expr_jax.study.train import train
from tests.recipes import worlds
from tests.recipes.models import SomeMarksConfig

BASE, RIDGE, BOOSTING = "promoter_cnn", "whole_ridge", "boosting"
ENSEMBLE, HALVES, PRETRAINED = "mean of seeds", "mean with ridge", "pretrained"
RECIPES = ("augmented", "averaged", "linear_path", PRETRAINED)  # the last for each mark alone
ALL, EACH = "all", "each"  # marks that a model reads
UNIT = ["world", "reads", "recipe", "assays", "chrom"]
ENDS = ("lead", "low", "high")
COLUMNS = [*UNIT[:3], "r"] + [f"{end}_{of}" for of in (BASE, RIDGE) for end in ENDS]
KEPT = [
    "run_id", "model", "cell", "assays", "fold", "seed", "gene_id", "chrom", "observed",
    "predicted", "observed_raw", "predicted_raw",
]  # fmt: skip


def arguments(argv: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, required=True, help="folder to make")
    parser.add_argument("--store", default="", help="a window store, in place of made-up worlds")
    parser.add_argument("--reads", default=f"{ALL},{EACH}", help="which marks a model reads")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="besides those that ship")
    parser.add_argument("--marks", default="", help="those read alone; all where empty")
    parser.add_argument("--genes", type=int, default=600, help="of each world")
    parser.add_argument("--width", type=float, default=0.25, help="of the networks")
    parser.add_argument("--seeds", type=int, default=3, help="of models of all marks")
    parser.add_argument("--epochs", type=int, default=100, help="at most")
    parser.add_argument("--cv", default="chromosomes_5", help="as of experiments.train")
    return parser.parse_args(argv)


class Bench:
    """Trains recipes on one store and keeps what they predict of held-out genes."""

    def __init__(self, asked: argparse.Namespace):
        self.asked, self.out = asked, asked.out
        self.out.mkdir(parents=True, exist_ok=True)
        path = self.out / "worlds.zarr"
        if asked.store:
            self.store = WindowStore.open(asked.store)
        elif path.exists():
            self.store = WindowStore.open(path)
        else:
            self.store = worlds.make(path, asked.genes)
        self.marks = self.store.manifest.assays
        self.single = asked.marks.split(",") if asked.marks else self.marks

    def request(self, model: str, reads: str, seeds: int, **changes) -> TrainRequest:
        return TrainRequest(
            store=str(self.store.path),
            model=model,
            model_options={"width": self.asked.width},
            assays=["+".join(self.marks)] if reads == ALL else self.single,
            cv=self.asked.cv,
            seeds=seeds,
            train_config=published(BASE, epochs=self.asked.epochs),
            **changes,
        )

    def predicted(self, name: str, request: TrainRequest, baselines: tuple = ()) -> pd.DataFrame:
        """Predictions of the runs of a request, trained if they are not there."""
        kept = self.out / f"{name}.parquet"
        if not kept.exists():
            begin = time.monotonic()
            run, store = self.out / name, WindowStore.open(request.store)
            train(request, run)
            ensemble = load(run)
            tables = [predict_held_out(ensemble, store).assign(model=request.model)]
            if baselines:
                tables.append(predict_baselines(ensemble, store, baselines))
            pd.concat(tables, ignore_index=True)[KEPT].to_parquet(kept)
            print(f"{name}: {time.monotonic() - begin:.0f} s", flush=True)
        return pd.read_parquet(kept)

    def pretrained(self) -> pd.DataFrame:
        """Models of some marks drawn anew for each gene and step, then trained on to one mark."""
        first = self.request(SomeMarksConfig.NAME, ALL, 1)
        self.predicted("some_marks", first)
        tables = []
        for mark in self.single:
            path = self.out / f"only_{mark}.zarr"
            if not path.exists():
                worlds.alone(self.store, mark, path)
            began = str(self.out / "some_marks")
            second = dataclasses.replace(first, store=str(path), start_from=began)
            tables.append(self.predicted(f"only_{mark}", second).assign(assays=mark))
        return pd.concat(tables, ignore_index=True).assign(model=PRETRAINED)

    def scores(self) -> pd.DataFrame:
        """Pearson r, with `n`, by `UNIT`; seeds averaged."""
        parts = []
        for reads in self.asked.reads.split(","):
            seeds = self.asked.seeds if reads == ALL else 1
            simple = (RIDGE, BOOSTING)
            tables = [self.predicted(f"{BASE}_{reads}", self.request(BASE, reads, seeds), simple)]
            recipes = self.asked.recipes.split(",")
            tables += [
                self.predicted(f"{recipe}_{reads}", self.request(recipe, reads, seeds))
                for recipe in recipes
                if recipe != PRETRAINED
            ]
            if reads == ALL and seeds > 1:
                shipped = tables[0][tables[0]["model"] == BASE]
                tables.append(mean_of_seeds(shipped).assign(model=ENSEMBLE))
            tables.append(halves(tables[0]))
            if reads == EACH and PRETRAINED in recipes:
                tables.append(self.pretrained())
            for table in tables:
                for model, own in table.groupby("model", sort=False):
                    scored = score_table(own)
                    parts.append(scored.assign(recipe=model, reads=reads, world=scored["cell"]))
        table = pd.concat(parts, ignore_index=True)
        grouped = table.groupby(UNIT, sort=False)
        return grouped.agg(pearson=("pearson", "mean"), n=("n", "first")).reset_index()


def halves(predictions: pd.DataFrame) -> pd.DataFrame:
    """The mean prediction of the network as it ships and ridge regression."""
    of = ["cell", "assays", "fold", "seed", "gene_id"]
    network, ridge = (predictions[predictions["model"] == name] for name in (BASE, RIDGE))
    both = network.merge(ridge, on=of, suffixes=("", " of ridge"), validate="1:1")
    for value in ("predicted", "predicted_raw"):
        both[value] = (both[value] + both[f"{value} of ridge"]) / 2
    return both[predictions.columns].assign(model=HALVES)


def leads(scores: pd.DataFrame) -> pd.DataFrame:
    """One row a world, what is read and recipe: columns `COLUMNS`.

    Args:
        scores: as from `Bench.scores`.
    """
    rows = []
    for (world, reads), own in scores.groupby(["world", "reads"], sort=False):
        # Marks count the same on a chromosome.
        by_chrom = own.groupby(["chrom", "recipe"])["pearson"].mean().unstack()
        genes = own.groupby("chrom")["n"].first().reindex(by_chrom.index).to_numpy(float)
        for recipe in own["recipe"].unique():
            mean = np.average(by_chrom[recipe], weights=genes)
            row = [world, reads, recipe, mean]
            for rival in (BASE, RIDGE):
                values = (by_chrom[recipe] - by_chrom[rival]).to_numpy()
                lead, error = (x.item() for x in jackknife(values[:, None], genes))
                reach = scipy.stats.t.ppf(0.975, len(genes) - 1) * error
                row += [lead, lead - reach, lead + reach]
            rows.append(row)
    return pd.DataFrame(rows, columns=pd.Index(COLUMNS))


def as_markdown(table: pd.DataFrame) -> str:
    """A row a recipe, a column a world: r, the lead over the network as it ships, and over ridge
    regression."""
    lines = []
    for reads, own in table.groupby("reads", sort=False):
        names = list(own["world"].unique())
        lines += ["", f"| {reads} | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
        for title, of in (("r", ""), (f"over {BASE}", BASE), (f"over {RIDGE}", RIDGE)):
            for recipe in own["recipe"].unique():
                if recipe == of:
                    continue
                rows = own[own["recipe"] == recipe].set_index("world").loc[names]
                cells = [f"{r:.3f}" for r in rows["r"]]
                if of:
                    ends = rows[[f"{end}_{of}" for end in ENDS]].to_numpy()
                    cells = ["{:.3f} ({:.3f} to {:.3f})".format(*row) for row in ends]
                lines.append(f"| {recipe}, {title} | " + " | ".join(cells) + " |")
    return "\n".join(lines).replace("-0.", "−0.")


def main(argv: list[str] | None = None) -> pd.DataFrame:
    bench = Bench(arguments(argv))
    scores = bench.scores()
    scores.to_csv(bench.out / "scores.csv", index=False)
    table = leads(scores)
    table.to_csv(bench.out / "leads.csv", index=False)
    print(as_markdown(table))
    return table


if __name__ == "__main__":
    main()
