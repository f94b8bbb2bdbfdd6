"""Check that a run directory proves what it claims; exit status 0 only if no check fails.

    python -m experiments.verify --run=runs/cnn
    python -m experiments.verify --run=runs/cnn --store=/elsewhere/roadmap.zarr --quick

Checks, and writes to DIR/verify.json:

    splits        parts of a fold share no chromosome; the folds are those of the scheme and seed
    training      the genes each model was trained on and chosen by are its fold's, and no others
    history       the losses end as the run card says
    store         its contents are those trained on, and read back as they were written
    weights       the checkpoints are those that training wrote
    results       every table is the file that its program wrote, by checksum
    predictions   held-out genes and no others, observed as in the store, and predicted as the
                  checkpoints predict them now
    scores        scores, rankings, groups and calls follow from the predictions; the comparison
                  with baselines follows from theirs, which are not fitted again
    copies        genes that are like others in signal are those of the store; those that a table
                  named are taken as they were written
    quality       mean signal and signal-to-noise of the tracks are those of the store
    combinations  the scores of all subsets, and Shapley values, come out again
    across_cells  tests in other cells come out again
    perturb       mean effects follow from those of genes, which are not predicted again

All numbers are compared to 0.0001, relative above 1. Versions or a device other than in training
are named, but do not count as failures. --quick reads of the store only its checksum, and predicts
nothing again: what it does not check, it says.

verify.json names the checksums of all these files and of the store as they were when this began:
the report takes it for void once one of them differs. The old one is removed before anything is
checked.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from absl import flags

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import only_writer, write_sealed
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.pools import cells_of
from epi2expr_jax.perturb.mark_null import compare
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.predict.loading import load
from epi2expr_jax.predict.training_store import find_store, places
from epi2expr_jax.program import require, start
from epi2expr_jax.scores.shapley import rank_correlation
from epi2expr_jax.scores.table import BY_EXPRESSION
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, tables
from epi2expr_jax.study.evaluate import alike_genes, leaked_genes, of_older_rules, quality, score
from epi2expr_jax.study.lookup import folds_of
from epi2expr_jax.study.tables import Table
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.runs import Run, drawn, seen_words
from epi2expr_jax.training.splits import Fold, digest, read_splits
from experiments.across_cells import score_everywhere
from experiments.cli.certificate import CERTIFICATE, Claim, store_now
from experiments.cli.flags import define_run, define_store
from experiments.combinations import score_subsets

FLAGS = flags.FLAGS

NOT_EVALUATED = "not evaluated yet"
NOT_AGAIN = "not predicted again (--quick)"


class _Broken(Exception):
    """A claim that does not hold, and why."""


class Verification:
    """The claims of one run directory, each checked by a method of its name.

    Args:
        quick: do without what reads the whole store or predicts.
    """

    def __init__(self, run_dir: pathlib.Path, store_path: str | None = None, quick: bool = False):
        self.run_dir, self.quick = run_dir, quick
        self.card = checkpoint.read_finished(run_dir)
        if "splits_sha256" not in self.card or "converted" in self.card:
            raise InputError(
                str(run_dir),
                "no record of what its models were trained on (imported weights have none)",
                "a run trained by experiments.train",
                "nothing can be proved about it; train it here",
            )
        self.folds = read_splits(run_dir / "splits.json")
        self.store = WindowStore.open(find_store(run_dir, self.card, store_path))
        self.rows = [row for population in self.card["populations"] for row in population["runs"]]

    @functools.cached_property
    def ensemble(self) -> Ensemble:
        return load(self.run_dir, self.store.path)

    def claims(self) -> Iterator[Claim]:
        """Every claim, one after the other; of studies those whose results are there."""
        checks: list[Callable[[], str]] = [
            self.splits, self.training, self.history, self.of_store, self.weights, self.results,
            self.predictions, self.scores, self.copies, self.quality,
        ]  # fmt: skip
        studies = [self.combinations, self.across_cells, self.perturb]
        there = {table.claim for table in tables.TABLES if self._there(table)}
        for check in [*checks, *(study for study in studies if study.__name__ in there)]:
            name = check.__name__.removeprefix("of_")
            try:
                found = check()
            except (_Broken, InputError) as failure:
                yield Claim(name, False, str(failure))
            else:
                yield Claim(name, None if found.startswith("not ") else True, found)

    def _there(self, *needed: Table) -> bool:
        return all((self.run_dir / table.path).exists() for table in needed)

    def _written(self, table: Table) -> pd.DataFrame:
        """A table as it is; whether it is as its program wrote it is a claim of its own."""
        return table.read(self.run_dir, as_written=False)

    def splits(self) -> str:
        """Whether nobody edited the folds. (Read, no chromosome serves twice in one of them.)"""
        same = checkpoint.files_sha256(self.run_dir / "splits.json") == self.card["splits_sha256"]
        _require(same, "splits.json is not the file that training wrote")
        asked = self.card["request"]
        if asked["cv"]:
            made = folds_of(
                self.store, asked["cv"], asked["blind"], asked["split_seed"],
                asked.get("test_genes", ()), tables.GENE_GROUPS.read(self.run_dir),
            )  # fmt: skip
            strange = [fold.name for fold in self.folds if fold not in made]
            _require(not strange, f"{listing(strange)}: not as {asked['cv']} makes them")
        return f"{len(self.folds)} folds, disjoint, as {asked['cv']} makes them"

    def training(self) -> str:
        """Whether each run was trained on, and chosen by, its fold's genes."""
        folds = {fold.name: fold for fold in self.folds}
        wrong = [
            f"{row['run_id']} ({row['cell']} {'+'.join(row['assays'])} {row['fold']}): {part} genes"
            for row in self.rows
            for part in ("train", "validation")
            if row["read"][part] != self._genes(folds[row["fold"]], part, row)
        ]
        _require(not wrong, f"{len(wrong)} parts are not those of the fold: {listing(wrong)}")
        said = seen_words([row["started"] for row in self.rows if "started" in row])
        read = f"{len(self.rows)} runs read their fold's training and validation genes alone"
        return "; but ".join([read, *said])

    def _genes(self, fold: Fold, part: str, row: dict) -> str:
        """Of a pool of cells, each gene stands once for each cell."""
        genes, known = self.store.genes, self.store.manifest.cells
        of_part = genes.gene_id[fold.masks(genes)[part]].tolist()
        of_part *= len(cells_of(row["cell"], known))
        share = self.card["request"].get("train_share", 1)
        if part == "train":
            run = Run(row["cell"], tuple(row["assays"]), row["fold"], row["seed"])
            of_part = [of_part[i] for i in drawn(len(of_part), share, run)]
        return digest(of_part)

    def history(self) -> str:
        """Whether the losses are those that training wrote, and end as the run card says."""
        _require(tables.HISTORY.checked(self.run_dir) is not None, "history.parquet is missing")
        table = self._written(tables.HISTORY)
        finite = table["validation_loss"].where(np.isfinite(table["validation_loss"]))
        ends = finite.groupby(table["run_id"]).agg(["size", "min"]).astype("float32")
        said = {
            row["run_id"]: (row["epochs"], row["best_validation_loss"])
            for row in self.rows
            if row["epochs"]
        }
        expected = pd.DataFrame(said, ["size", "min"]).T.astype("float32").reindex(ends.index)
        wrong = [
            *ends.index[~ends.eq(expected).mask(ends.isna() & expected.isna(), True).all(axis=1)]
        ]
        wrong += said.keys() - set(ends.index)
        _require(not wrong, f"{len(wrong)} runs end otherwise than the card says: {listing(wrong)}")
        return f"{len(self.rows)} runs, epochs and lowest validation loss as in the run card"

    def of_store(self) -> str:
        """Whether the store holds what was trained on."""
        same = self.store.checksum() == self.card["store_checksum"]
        _require(same, f"{self.store.path} is not the store trained on: its checksum differs")
        if self.quick:
            return "checksum as in the run card (contents not read back)"
        problems = self.store.verify()
        _require(not problems, "; ".join(map(str, problems)))
        return f"{len(self.store.manifest.tracks)} tracks read back as they were written"

    def weights(self) -> str:
        """Whether the checkpoints are those that training wrote."""
        parts = self.card["populations"]
        wrong = [
            part["weights"]
            for part in parts
            if checkpoint.files_sha256(self.run_dir / part["weights"]) != part["weights_sha256"]
        ]
        _require(not wrong, f"not as training wrote them: {listing(wrong)}")
        return f"{len(parts)} checkpoints as training wrote them"

    def results(self) -> str:
        """Whether every table is the one that its program wrote, with the others of its results."""
        recorded = [table for table in tables.TABLES if table.program != "train"]
        with collect() as problems:
            for table in recorded:
                with problems.part():
                    table.checked(self.run_dir)
        folders = {((self.run_dir / table.path).parent, table.program) for table in recorded}
        records = [name for folder, name in folders if results.record_of(folder, name)]
        if not records:
            return "not checked: no program has left a record of its results"
        return f"as their programs wrote them: {listing(sorted(records))}"

    def predictions(self) -> str:
        """Whether the predictions are of held-out genes, and follow from store and weights."""
        if not self._there(tables.PREDICTIONS):
            return NOT_EVALUATED
        table = self._written(tables.PREDICTIONS)
        folds = {fold.name: fold for fold in self.folds}
        for fold, part in table.groupby("fold"):
            _require(fold in folds, f"fold {fold}: not in splits.json")
            leaked = sorted(set(part.chrom) - set(folds[str(fold)].test))
            _require(not leaked, f"fold {fold}: predictions on {listing(leaked)}, not held out")
        chrom_of = dict(zip(self.store.genes.gene_id, self.store.genes.chrom, strict=True))
        placed = table.gene_id.map(chrom_of) == table.chrom
        _require(bool(placed.all()), "genes on other chromosomes than in the store")
        if self.quick:
            return f"{len(table):,} of held-out genes alone; {NOT_AGAIN}"
        again = predict_held_out(self.ensemble, self.store)
        differ = tables.PREDICTIONS.difference(table, again)
        return f"{len(table):,} of held-out genes alone; predicted again, they differ by {differ}"

    def scores(self) -> str:
        """Whether scores, ranking and the like follow from the predictions."""
        if not self._there(tables.PREDICTIONS, tables.RANKING):
            return NOT_EVALUATED
        predictions = self._written(tables.PREDICTIONS)
        made, record = (
            self._written(tables.OF_BASELINES),
            results.record_of(self.run_dir, "evaluate"),
        )
        groups = None if record is None else record.get("groups")
        alike, genes = self._written(tables.COPIES), self.store.genes
        leaked = leaked_genes(self.folds, genes, alike)
        known = self._written(tables.COVARIATES)
        again = score(self.card["model"], predictions, made, genes, groups, leaked, known)
        aside = "; baselines were not fitted again" if len(made) else ""
        if record is None and set(self._written(tables.GROUPS)["group"]) - {*BY_EXPRESSION}:
            del again[tables.GROUPS]
            aside += "; groups not checked: version 0.1 did not record which"
        if record is None:  # version 0.1 wrote none
            again, which = of_older_rules(again, self._written(tables.RANKING))
            aside += f"; intervals of {which} not checked (earlier rules)"
        differ = {}
        with collect() as problems:
            for table, content in again.items():
                if table in tables.NEEDED or self._there(table):
                    with problems.part():
                        differ[table] = table.difference(self._written(table), content)
        each = ", ".join(f"{table.path} by {most}" for table, most in differ.items())
        return f"made again from the predictions, they differ: {each}{aside}"

    def copies(self) -> str:
        """Whether the genes that are said to be alike are those of the store's signal."""
        record = results.record_of(self.run_dir, "evaluate") or {}
        if "gene_groups" not in record:
            return "not looked for: the evaluation is of an older version"
        if self.quick:
            return "not computed again (--quick)"
        written = self._written(tables.COPIES)
        named = written.loc[written["r"].isna(), ["gene", "group"]]
        again = alike_genes(self.store, self.folds, named)
        differ = tables.COPIES.difference(written, again)
        return f"{len(written)} genes, {len(named)} named by a table; they differ by {differ}"

    def quality(self) -> str:
        """Whether the tracks' mean signal and signal-to-noise are those of the store."""
        if not self._there(tables.QUALITY, tables.SCORES):
            return NOT_EVALUATED
        if self.quick:
            return "not computed again (--quick)"
        written, scores = self._written(tables.QUALITY), self._written(tables.SCORES)
        differ = tables.QUALITY.difference(written, quality(self.store, scores))
        return f"{len(written)} tracks, computed again from the store: they differ by {differ}"

    def combinations(self) -> str:
        """Whether the scores of subsets come out again, and what follows from them."""
        pairs, aside = self._written(tables.AGREEMENT_SUBSETS), ""
        if len(pairs):
            written, again = self._written(tables.AGREEMENT), rank_correlation(pairs)
            differ = tables.AGREEMENT.difference(written, again)
            aside = f"; the comparison with models of single subsets, not scored again, {differ}"
        if self.quick:
            return NOT_AGAIN + aside
        each = ", ".join(
            f"{table.path} by {table.difference(self._written(table), again)}"
            for table, again in score_subsets(self.ensemble, self.store).items()
        )
        return f"scored again, they differ: {each}{aside}"

    def across_cells(self) -> str:
        """Whether the tests in other cells come out again."""
        if self.quick:
            return NOT_AGAIN
        between = self._written(tables.CHANGES)[["cell", "other"]].head(1).to_numpy().ravel()
        again = score_everywhere(self.ensemble, self.store, between.tolist())
        differ = [f"{t.path} by {t.difference(self._written(t), c)}" for t, c in again.items()]
        return f"predicted again, they differ: {', '.join(differ)}"

    def perturb(self) -> str:
        """Whether mean effects follow from those of genes."""
        of_genes = self._written(tables.EFFECTS).groupby([*tables.MEAN_EFFECTS.key])
        again = of_genes[["effect", "changed", "outside"]].mean()
        again = again.assign(genes=of_genes.size()).reset_index()
        differ = tables.MEAN_EFFECTS.difference(self._written(tables.MEAN_EFFECTS), again)
        draws = self._written(tables.PERMUTED)
        if len(draws):
            null = compare(self._written(tables.MEAN_EFFECTS), draws)
            differ += f", p by {tables.NULL.difference(self._written(tables.NULL), null)}"
        return f"means over genes differ by {differ}; effects and intervals not computed again"

    def notes(self) -> list[str]:
        """What differs from training without being wrong."""
        now = checkpoint.versions()
        return [
            f"{name} was {then}, is {now.get(name)}"
            for name, then in self.card["versions"].items()
            if now.get(name) != then
        ]


def _require(holds: bool, otherwise: str) -> None:
    if not holds:
        raise _Broken(otherwise)


def verify(
    run_dir: pathlib.Path, store_path: str | None = None, quick: bool = False
) -> list[Claim]:
    """Check every claim of a run directory and write verify.json; returns the claims.

    Raises:
        InputError: if it is not a finished run, its store cannot be read, or another process is
            verifying it.
    """
    with only_writer(run_dir / CERTIFICATE):
        (run_dir / CERTIFICATE).unlink(missing_ok=True)  # nothing is proved until all is checked
        verification = Verification(run_dir, store_path, quick)
        # Before they are read: whatever changes from now on makes the certificate void.
        sums, path = tables.checksums(run_dir, verification.card), verification.store.path
        store = {**places(path, run_dir), "sha256": store_now(path)}
        claims = []
        for claim in verification.claims():
            print(claim, flush=True)
            claims.append(claim)
        content: dict[str, Any] = {
            "holds": all(claim.holds is not False for claim in claims),
            "quick": quick,
            "tolerance": tables.TOLERANCE,
            "claims": [dataclasses.asdict(claim) for claim in claims],
            "notes": verification.notes(),
            "files": sums,
            "store": store,
        }
        for note in content["notes"]:
            print(f"note: {note}")
        write_sealed(run_dir / CERTIFICATE, content)
    return claims


def main() -> None:
    require("run")
    claims = verify(pathlib.Path(FLAGS.run), FLAGS.store, FLAGS.quick)
    failed = [claim.name for claim in claims if claim.holds is False]
    if failed:
        raise SystemExit(f"{FLAGS.run} does not hold: {', '.join(failed)}")


def define_quick() -> None:
    flags.DEFINE_boolean("quick", False, "Skip the checks that read the whole store or predict.")


def run() -> None:
    start(main, define_run, define_store, define_quick)


if __name__ == "__main__":
    run()
