"""The files of a run directory that a report is made from: who writes each, and which claim of
`experiments.verify` checks it.

Nothing else reads them: whoever adds a table to the report adds it here.
"""

import contextlib
import dataclasses
import pathlib
from collections.abc import Collection, Iterator
from typing import Any

import numpy as np
import pandas as pd
from pandas.api.types import is_bool_dtype, is_numeric_dtype

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import read_csv, read_parquet
from epi2expr_jax.genome import listing
from epi2expr_jax.scores import across_cells, comparison, ranking
from epi2expr_jax.scores import table as scoring
from epi2expr_jax.screens import scoring as screening
from epi2expr_jax.study import results
from epi2expr_jax.training.checkpoint import files_sha256, read_card, read_finished

TOLERANCE = 1e-4  # of numbers made again, relative above 1


@dataclasses.dataclass(frozen=True)
class Table:
    """One file of a run directory.

    Attributes:
        path: in the run directory.
        program: of `experiments`, that writes it.
        claim: of `experiments.verify`, that checks it.
        key: columns that name a row, each once.
        numbers: columns of numbers, or of yes and no.
    """

    path: str
    program: str
    claim: str
    key: tuple[str, ...] = ()
    numbers: tuple[str, ...] = ()

    def remedy(self, run_dir: pathlib.Path) -> str:
        """What the user can do if it is missing or damaged."""
        if self.program == "train":
            return "run the same experiments.train command again: it resumes; or copy the run again"
        if self.program in ("evaluate", "across_cells"):
            return f"python -m experiments.{self.program} --run={run_dir}"
        return f"run again the experiments.{self.program} command that wrote it"

    def checked(self, run_dir: pathlib.Path) -> pathlib.Path | None:
        """Where it lies; None if it was not written.

        Raises:
            InputError: if it is not as its program wrote it.
        """
        path = run_dir / self.path
        if self.program != "train":
            return results.checked(path, self.program)
        expected = read_card(run_dir).get(f"{path.stem}_sha256")
        if path.exists() and expected not in (None, files_sha256(path)):
            found, wrote = "other content than training wrote", f"sha256 {expected[:12]}…"
            raise InputError(str(path), found, f"{wrote} as in the run card", self.remedy(run_dir))
        return path if path.exists() else None

    def read(
        self,
        run_dir: pathlib.Path,
        columns: Collection[str] = (),
        *,
        as_written: bool = True,
        **options: Any,
    ) -> pd.DataFrame:
        """The table, with all of its columns or some; empty if it was not written.

        Args:
            as_written: whether to compare it with the record of its program.
            options: of `pandas.read_parquet`, such as `filters`.

        Raises:
            InputError: if it is damaged, not as its program wrote it, or another kind of table.
        """
        path = self.checked(run_dir) if as_written else run_dir / self.path
        if path is None or not path.exists():
            return pd.DataFrame(columns=pd.Index([*self.key, *self.numbers]))
        what, remedy = f"table of experiments.{self.program}", self.remedy(run_dir)
        wanted = [*self.key, *self.numbers]
        if path.suffix == ".csv":
            table = read_csv(path, what, remedy, columns or wanted, self.key)
        else:
            table = read_parquet(path, what, remedy, columns, **options)
            if not columns and (missing := [name for name in wanted if name not in table]):
                found = f"a table without {', '.join(missing)}"
                raise InputError(str(path), found, what, remedy)
        for name in set(self.numbers) & set(table):
            if not (is_numeric_dtype(table[name]) or is_bool_dtype(table[name])) and len(table):
                found = f"{table[name].iloc[0]!r} in column {name}"
                raise InputError(str(path), found, f"numbers in a {what}", remedy)
        return table

    def difference(self, written: pd.DataFrame, made: pd.DataFrame) -> str:
        """By how much the rows of this table, and of the same made again, differ.

        Raises:
            InputError: if rows are missing or surplus, or a value differs, numbers by more than
                `TOLERANCE`; naming the first.
        """
        key = list(self.key)
        both = written.merge(made, on=key, how="outer", suffixes=("", " again"), indicator=True)
        alone = both.loc[both["_merge"] != "both", key]
        if len(alone) or len(both) != len(made):
            found = f"{len(alone)} of {len(both)} rows in one of the two alone: {_named(alone)}"
            raise InputError(self.path, found, "the rows that verify computes", self._again())
        off, unlike, most, words = np.zeros(len(both), bool), np.zeros(len(both), bool), 0.0, []
        for name in made.columns.intersection(written.columns).difference(key):
            old, new = both[name], both[f"{name} again"]
            if name in self.numbers:
                a, b = old.to_numpy(float), new.to_numpy(float)
                same = (a == b) | (np.isnan(a) & np.isnan(b))
                difference = np.abs(np.subtract(a, b, where=~same, out=np.zeros(len(a))))
                difference = np.where(np.isnan(difference), np.inf, difference)
                size = np.where(np.isfinite(b), np.abs(b), 1)
                off |= difference > TOLERANCE * np.maximum(1, size)
                most = max(most, difference.max(initial=0))
            else:
                a, b = (column.astype(object).where(column.notna(), "") for column in (old, new))
                here = (a.astype(str) != b.astype(str)).to_numpy()
                words += [name] if here.any() else []
                unlike |= here
        if (off | unlike).any():
            by = [f"by more than {TOLERANCE}, by up to {most:.3g}"] if off.any() else []
            by += [f"in the words of {', '.join(words)}"] if words else []
            named = _named(both[key].iloc[np.flatnonzero(off | unlike)])
            found = f"{(off | unlike).sum()} of {len(both)} rows differ {' and '.join(by)}: {named}"
            raise InputError(self.path, found, "what verify computes", self._again())
        return f"at most {most:.1g}"

    def _again(self) -> str:
        return f"run experiments.{self.program} again, then verify"


def _named(rows: pd.DataFrame) -> str:
    return listing(" ".join(map(str, row)) for row in rows.to_numpy())


def _of(path: str, program: str, claim: str, key: str, numbers: str | Collection[str]) -> Table:
    names = numbers.split() if isinstance(numbers, str) else numbers
    own = tuple(key.split())
    return Table(path, program, claim, own, tuple(n for n in names if n not in {*own, "note"}))


_GENE = "run_id cell assays fold seed chrom gene_id"
_INTERVALS = "low high simultaneous_low simultaneous_high n_chromosomes"
_SCORES = [*scoring.METRICS, "n", "constant", "constant_observed"]

CARD = Table("run_card.json", "train", "training")
SPLITS = Table("splits.json", "train", "splits")
GENE_GROUPS = _of("gene_groups.csv", "train", "splits", "gene group", "")
HISTORY = _of("history.parquet", "train", "history", "run_id epoch", "train_loss validation_loss")
PREDICTIONS = _of("predictions.parquet", "evaluate", "predictions", _GENE, scoring.VALUES)
SCORES = _of("metrics.parquet", "evaluate", "scores", " ".join([*scoring.RUN, "chrom"]), _SCORES)
RANKING = _of("ranking.csv", "evaluate", "scores", "cell assay", ranking.COLUMNS)
NEW_CELL = dataclasses.replace(RANKING, path="ranking_new_cell.csv")
GROUPS = _of("groups.csv", "evaluate", "scores", "group cell assay", ranking.COLUMNS)
QUESTIONS = _of("questions.csv", "evaluate", "scores", "threshold question cell assay",
                ranking.QUESTION_COLUMNS)  # fmt: skip
CALLS = _of("calls.csv", "evaluate", "scores", "cell assay other", "lead p q called")
OF_BASELINES = _of("baselines.parquet", "evaluate", "scores", f"{_GENE} model", scoring.VALUES)
BASELINES = _of("baselines.csv", "evaluate", "scores", "assay model", comparison.COLUMNS)
ADDED = _of("added.csv", "evaluate", "scores", "assay", comparison.ADDED)
OWN = dataclasses.replace(RANKING, path="ranking_own.csv")  # of what is a cell's own
STACK = dataclasses.replace(RANKING, path="ranking_stack.csv")
COVARIATES = _of("covariates.parquet", "evaluate", "scores", "gene_id", "")
COPIES = _of("copies.csv", "evaluate", "copies", "gene group chrom nearest", "r leaked")
WITHOUT = dataclasses.replace(RANKING, path="ranking_without_copies.csv")
BASELINES_WITHOUT = dataclasses.replace(BASELINES, path="baselines_without_copies.csv")
QUALITY = _of("quality.csv", "evaluate", "quality", "cell assay", "pearson depth signal_to_noise")
SUBSETS = _of(
    "subsets.csv", "combinations", "combinations", "cell subset", f"size pearson {_INTERVALS}"
)
SHAPLEY = _of("shapley.csv", "combinations", "combinations", "cell assay", f"value {_INTERVALS}")
AGREEMENT_SUBSETS = _of(
    "agreement_subsets.csv", "combinations", "combinations", "cell subset", "size masked trained"
)
AGREEMENT = _of(
    "agreement.csv", "combinations", "combinations", "cell",
    "subsets spearman pearson difference largest",
)  # fmt: skip
ACROSS = _of(
    "across_cells.csv", "across_cells", "across_cells", " ".join(across_cells.KEY),
    across_cells.COLUMNS,
)  # fmt: skip
CHANGES = _of(
    "between_cells.csv", "across_cells", "across_cells", " ".join(across_cells.CHANGE_KEY),
    across_cells.CHANGE_COLUMNS,
)  # fmt: skip
EFFECTS = _of(
    "perturb/effects.parquet", "perturb", "perturb", "cell assays mark place change chrom",
    "distance factor effect changed outside",
)  # fmt: skip
MEAN_EFFECTS = _of(
    "perturb/dose_distance.csv", "perturb", "perturb", "cell assays mark place change",
    "distance factor effect low high genes changed outside",
)  # fmt: skip
_EDIT = "cell assays mark place change"
NULL = _of("perturb/null.csv", "perturb", "perturb", _EDIT,
           "effect null_low null_high permutations p")  # fmt: skip
PERMUTED = _of("perturb/permuted.csv", "perturb", "perturb", f"{_EDIT} permutation", "effect")

BETWEEN = _of("perturb/between_models.csv", "perturb", "", _EDIT, "pairs genes r lowest highest")

# Compared with the record of its program alone: to make it again takes longer than the training.
PROFILE = _of("attribution/profile.parquet", "attribution", "", "model assay distance",
              "share low high genes")  # fmt: skip
SCREEN = _of("crispri/crispri.csv", "crispri", "", "pairs score", screening.COLUMNS)
SCREEN_LEADS = _of("crispri/crispri_leads.csv", "crispri", "", "pairs score rival",
                   screening.LEADS)  # fmt: skip
ATTENTION = _of("attention/attention.parquet", "attribution", "", "cell assays gene_id rank",
                "start end score attention effect")  # fmt: skip
SWEEP = _of("sweep.csv", "sweep", "", "assay", ["window_bp", *comparison.COLUMNS])  # of no run

TABLES = (
    CARD, SPLITS, GENE_GROUPS, HISTORY,
    PREDICTIONS, SCORES, RANKING, NEW_CELL, GROUPS, QUESTIONS, CALLS, OF_BASELINES, BASELINES,
    COPIES, WITHOUT, BASELINES_WITHOUT, ADDED, OWN, STACK, COVARIATES, QUALITY,
    SUBSETS, SHAPLEY, AGREEMENT_SUBSETS, AGREEMENT, ACROSS, CHANGES, EFFECTS, MEAN_EFFECTS,
    NULL, PERMUTED, SCREEN, SCREEN_LEADS, ATTENTION, BETWEEN, PROFILE,
)  # fmt: skip
NEEDED = (SPLITS, HISTORY, PREDICTIONS, SCORES, RANKING)  # to report anything at all


def epochs_of(card: dict[str, Any]) -> int:
    """How many epochs all runs of a card took together."""
    return sum(row["epochs"] or 0 for part in card["populations"] for row in part["runs"])


def require(run_dir: pathlib.Path) -> None:
    """Refuse a run directory without the tables that a report needs.

    Raises:
        InputError: naming each that is missing or not as its program wrote it; or if the run has
            grown since it was evaluated.
    """
    with collect() as problems:
        with problems.part():
            record = results.record_of(run_dir, "evaluate") or {}
            made, epochs = record.get("runs"), record.get("epochs")  # none: of older ones
            card = read_card(run_dir)
            rows = [row for part in card["populations"] for row in part["runs"]]
            sound = sum(row["status"] != "quarantined" for row in rows)
            if made not in (None, sound):
                found, expected = f"an evaluation of {made} models", f"of all {sound} of the run"
                problems.add(str(run_dir), found, expected, SCORES.remedy(run_dir))
            elif epochs not in (None, now := epochs_of(card)):
                found, expected = f"an evaluation after {epochs} epochs", f"after all {now}"
                problems.add(str(run_dir), found, expected, SCORES.remedy(run_dir))
        for table in NEEDED:
            with problems.part():
                if table.checked(run_dir) is None:
                    expected = f"what experiments.{table.program} writes"
                    path, remedy = str(run_dir / table.path), table.remedy(run_dir)
                    problems.add(path, "no such file", expected, remedy)


@contextlib.contextmanager
def steady(run_dir: pathlib.Path) -> Iterator[dict[str, Any]]:
    """Refuse what was made, while inside, of tables that another program was replacing.

    Yields:
        The run card.

    Raises:
        InputError: at the end, naming what has changed.
    """
    card = read_finished(run_dir)
    before = checksums(run_dir, card)
    yield card
    now = checksums(run_dir, card)
    if changed := sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n)):
        found = f"files that changed while they were read ({listing(changed)})"
        remedy = "wait until the program that writes them has ended, then run this command again"
        raise InputError(str(run_dir), found, "files that stay as they are", remedy)


def checksums(run_dir: pathlib.Path, card: dict[str, Any]) -> dict[str, str]:
    """The checksums of the tables that are there, their records and the weights, by path."""
    weights = [population["weights"] for population in card["populations"]]
    records = {f"{(pathlib.Path(t.path).parent / t.program)}.json" for t in TABLES} - {"train.json"}
    paths = [*(table.path for table in TABLES), *sorted(records), *weights]
    return {path: files_sha256(run_dir / path) for path in paths if (run_dir / path).exists()}
