"""Check that a run directory proves what it claims; exit status 0 only if every check passes.

    python -m experiments.verify --run=runs/cnn
    python -m experiments.verify --run=runs/cnn --store=/elsewhere/roadmap.zarr --quick

Checks, and writes to DIR/verify.json:

    splits        parts of a fold share no chromosome; the folds are those of the scheme and seed
    training      the genes each model was trained on and chosen by are its fold's, and no others
    store         its contents are those trained on, and read back as they were written
    weights       the checkpoints are those that training wrote
    predictions   held-out genes and no others, observed as in the store, and predicted as the
                  checkpoints predict them now, to 0.0001 (log2 scale)
    scores        metrics.parquet and ranking.csv follow from the predictions, to 0.0001

Versions or a device other than in training are named, but do not count as failures.
--quick only reads the store's checksum, and does not predict again.
"""

import collections
import dataclasses
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from absl import flags

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_json
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.pools import cells_of
from epi2expr_jax.predict.held_out import predict_held_out
from epi2expr_jax.predict.loading import load
from epi2expr_jax.program import require, start
from epi2expr_jax.scores import ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.runs import Run, drawn
from epi2expr_jax.training.splits import PARTS, Fold, digest, make_folds, read_splits
from experiments.cli.flags import define_run, define_store

FLAGS = flags.FLAGS

TOLERANCE = 1e-4
KEY = ["run_id", "cell", "gene_id"]
NOT_EVALUATED = "not evaluated yet"


@dataclasses.dataclass(frozen=True)
class Claim:
    """What a run directory claims, and whether it holds.

    Attributes:
        holds: None where it was not looked at, and `found` says why.
    """

    name: str
    holds: bool | None
    found: str

    def __str__(self) -> str:
        word = {True: "ok", False: "FAILED", None: "not checked"}[self.holds]
        return f"{word:<12} {self.name:<12} {self.found}"


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
        if "splits_sha256" not in self.card:
            raise InputError(
                str(run_dir),
                "no record of what its models were trained on (imported weights have none)",
                "a run trained by experiments.train",
                "nothing can be proved about it; train it here",
            )
        self.folds = read_splits(run_dir / "splits.json")
        self.store = WindowStore.open(store_path or self.card["store"]["path"])
        self.rows = [row for population in self.card["populations"] for row in population["runs"]]

    def claims(self) -> Iterator[Claim]:
        """Every claim, one after the other."""
        checks: list[Callable[[], str | None]] = [
            self.splits, self.training, self.of_store, self.weights, self.predictions, self.scores,
        ]  # fmt: skip
        for check in checks:
            name = check.__name__.removeprefix("of_")
            try:
                found = check()
            except (_Broken, InputError) as failure:
                yield Claim(name, False, str(failure))
            else:
                skipped = found is not None and found.startswith("not ")
                yield Claim(name, None if skipped else True, found or "")

    def splits(self) -> str:
        """Whether no chromosome serves twice in a fold, and nobody edited the folds."""
        for fold in self.folds:
            parts = [set(getattr(fold, part)) for part in PARTS]
            shared = (parts[0] & parts[1]) | (parts[0] & parts[2]) | (parts[1] & parts[2])
            _require(not shared, f"fold {fold.name}: {listing(sorted(shared))} in two parts")
        same = checkpoint.files_sha256(self.run_dir / "splits.json") == self.card["splits_sha256"]
        _require(same, "splits.json is not the file that training wrote")
        asked = self.card["request"]
        if asked["cv"]:
            counts = collections.Counter(self.store.genes.chrom)
            blind = asked["blind"] or self.store.manifest.blind
            made = make_folds(asked["cv"], counts, blind=blind, seed=asked["split_seed"])
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
        return f"{len(self.rows)} runs read their fold's training and validation genes alone"

    def _genes(self, fold: Fold, part: str, row: dict) -> str:
        """Of a pool of cells, each gene stands once for each cell."""
        genes, known = self.store.genes, self.store.manifest.cells
        of_part = genes.gene_id[genes.chrom.isin(getattr(fold, part))].tolist()
        of_part *= len(cells_of(row["cell"], known))
        share = self.card["request"].get("train_share", 1)
        if part == "train":
            run = Run(row["cell"], tuple(row["assays"]), row["fold"], row["seed"])
            of_part = [of_part[i] for i in drawn(len(of_part), share, run)]
        return digest(of_part)

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

    def predictions(self) -> str:
        """Whether the predictions are of held-out genes, and follow from store and weights."""
        path = self.run_dir / "predictions.parquet"
        if not path.exists():
            return NOT_EVALUATED
        table = pd.read_parquet(path)
        folds = {fold.name: fold for fold in self.folds}
        for fold, part in table.groupby("fold"):
            leaked = sorted(set(part.chrom) - set(folds[str(fold)].test))
            _require(not leaked, f"fold {fold}: predictions on {listing(leaked)}, not held out")
        chrom_of = dict(zip(self.store.genes.gene_id, self.store.genes.chrom, strict=True))
        placed = table.gene_id.map(chrom_of) == table.chrom
        _require(bool(placed.all()), "genes on other chromosomes than in the store")
        if self.quick:
            return "held-out genes alone (not predicted again)"
        again = predict_held_out(load(self.run_dir), self.store)
        largest = _largest_difference(table, again, KEY, ["observed", "predicted"])
        return f"{len(table):,} of held-out genes alone; predicted again, they differ by {largest}"

    def scores(self) -> str:
        """Whether scores and ranking follow from the predictions."""
        if not (self.run_dir / "ranking.csv").exists():
            return NOT_EVALUATED
        scores = scoring.score_table(pd.read_parquet(self.run_dir / "predictions.parquet"))
        written = pd.read_parquet(self.run_dir / "metrics.parquet")
        key = [*scoring.RUN, "chrom"]
        of_scores = _largest_difference(written, scores, key, scoring.METRICS)
        written = pd.read_csv(self.run_dir / "ranking.csv")
        ranked = ranking.rank_assays(scores)
        columns = ["pearson", "low", "high", "spearman", "rank", "rank_low", "rank_high"]
        of_ranks = _largest_difference(written, ranked, ["cell", "assay"], columns)
        return f"computed again from predictions: scores differ by {of_scores}, ranks by {of_ranks}"

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


def _largest_difference(
    written: pd.DataFrame, made: pd.DataFrame, key: list[str], columns: list[str]
) -> str:
    """By how much the same rows of two tables differ.

    Raises:
        _Broken: if rows are missing or surplus, or a value differs by more than the
            tolerance, naming the first.
    """
    both = written.merge(made, on=key, how="outer", suffixes=("", " again"), indicator=True)
    alone = both.loc[both["_merge"] != "both", key]
    whole = alone.empty and len(both) == len(made)
    _require(whole, f"{len(alone)} of {len(both)} rows on one side alone: {_named(alone)}")
    a = both[columns].to_numpy(float)
    b = both[[f"{name} again" for name in columns]].to_numpy(float)
    difference = np.where(np.isnan(a) & np.isnan(b), 0, np.abs(a - b))
    difference = np.where(np.isnan(difference), np.inf, difference)
    off = (difference > TOLERANCE * np.maximum(1, np.abs(b))).any(axis=1)
    found = f"{off.sum()} of {len(both)} rows differ by more than {TOLERANCE}"
    most = f"by up to {difference.max():.3g}: {_named(both[key].iloc[np.flatnonzero(off)])}"
    _require(not off.any(), f"{found}, {most}")
    return f"at most {difference.max():.1g}"


def _named(rows: pd.DataFrame) -> str:
    return listing(" ".join(map(str, row)) for row in rows.to_numpy())


def verify(
    run_dir: pathlib.Path, store_path: str | None = None, quick: bool = False
) -> list[Claim]:
    """Check every claim of a run directory and write verify.json; returns the claims.

    Raises:
        InputError: if it is not a finished run, or its store cannot be read.
    """
    verification = Verification(run_dir, store_path, quick)
    claims = []
    for claim in verification.claims():
        print(claim, flush=True)
        claims.append(claim)
    content: dict[str, Any] = {
        "holds": all(claim.holds is not False for claim in claims),
        "tolerance": TOLERANCE,
        "claims": [dataclasses.asdict(claim) for claim in claims],
        "notes": verification.notes(),
    }
    for note in content["notes"]:
        print(f"note: {note}")
    write_json(run_dir / "verify.json", content, sort_keys=False)
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
