"""Write the report of an evaluated run: one self-contained page, DIR/report.html.

    python -m experiments.report --run=runs/cnn
    python -m experiments.report --run=runs/chromoformer --compare=runs/cnn,runs/promoter_only

Which assay predicts expression best and how sure that is, every cell and assay, learning curves,
predicted against observed expression, and how it was made. Needs what experiments.train and
experiments.evaluate wrote. The page loads nothing from elsewhere: mail it, print it, archive it.
"""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import matplotlib
import pandas as pd
from absl import flags

from data_prep.program import start
from epi2expr_jax import checkpoint, ranking
from epi2expr_jax.comparison import compare_models
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import listing
from experiments.figures import MOST_CURVES, STYLE, figures_of, number, unit_of
from experiments.flags import define_run, require

FLAGS = flags.FLAGS

# What the report reads besides the run card, and the program that writes it. `ranking.csv` is
# written last by evaluate: without it the other tables may be those of an interrupted evaluation.
NEEDS = {
    "splits.json": "train",
    "history.parquet": "train",
    "predictions.parquet": "evaluate",
    "metrics.parquet": "evaluate",
    "ranking.csv": "evaluate",
}
FEW_GENES = 1000  # below, r alone is uncertain by 0.04 or more: as much as good assays differ


def write_report(run_dir: pathlib.Path, compare: Sequence[pathlib.Path] = ()) -> pathlib.Path:
    """Write report.html of an evaluated run, whole or not at all; returns its path.

    Args:
        compare: further evaluated runs on the same store and folds, to stand beside it in a table.

    Raises:
        InputError: naming every file that is missing, if runs cannot be compared, if nothing can
            be ranked, or if the page cannot be written.
    """
    card = checkpoint.read_card(run_dir)
    for folder in (run_dir, *compare):
        _require_outputs(folder)
    scores = pd.read_parquet(run_dir / "metrics.parquet")
    ranked = ranking.rank_assays(scores)
    if ranked.empty:
        raise InputError(
            Problem(
                str(run_dir / "metrics.parquet"),
                f"nothing to rank ({' '.join(ranking.caveats(scores))})",
                "assays scored on the same folds and chromosomes",
                "train on more genes, or rank fewer assays together",
            )
        )
    models = _compared(run_dir, compare) if compare else pd.DataFrame()
    page = _page(run_dir, card, scores, ranked, models)
    path = run_dir / "report.html"
    partial = path.with_name(path.name + ".partial")
    try:
        partial.write_text(page, encoding="utf-8")
        partial.replace(path)
    except OSError as error:
        raise InputError(
            Problem(
                str(path),
                f"a page that could not be written ({error})",
                "room and permission to write",
                "free space, then run the same command again",
            )
        ) from error
    return path


def _require_outputs(run_dir: pathlib.Path) -> None:
    remedies = {
        "train": "run the same experiments.train command again: it resumes",
        "evaluate": f"python -m experiments.evaluate --run={run_dir}",
    }
    missing = [
        Problem(
            str(run_dir / name),
            "no such file",
            f"what experiments.{program} writes",
            remedies[program],
        )
        for name, program in NEEDS.items()
        if not (run_dir / name).is_file()
    ]
    if missing:
        raise InputError(missing)


def _compared(run_dir: pathlib.Path, others: Sequence[pathlib.Path]) -> pd.DataFrame:
    """Scores of several runs side by side; the first is what the others are held against.

    Raises:
        InputError: naming every run that has another store, other folds or another target.
    """
    folders = [run_dir, *others]
    cards = [checkpoint.read_card(folder) for folder in folders]
    folds = [json.loads((folder / "splits.json").read_text())["folds"] for folder in folders]
    problems = [
        Problem(
            str(folder),
            f"another {what} than {run_dir}'s",
            "runs on one store, with the same folds and target",
            "train it with the same --store, --cv and --target",
        )
        for folder, card, fold in zip(folders, cards, folds, strict=True)
        for what, same in (
            ("store", card["store_checksum"] == cards[0]["store_checksum"]),
            ("target", card["target"] == cards[0]["target"]),
            ("division into folds", fold == folds[0]),
        )
        if not same
    ]
    if problems:
        raise InputError(problems)
    names = [folder.resolve().name for folder in folders]
    if len(set(names)) < len(names):
        names = [str(folder) for folder in folders]
    labels = [f"{card['model']} ({name})" for card, name in zip(cards, names, strict=True)]
    tables = [pd.read_parquet(folder / "metrics.parquet") for folder in folders]
    return compare_models(dict(zip(labels, tables, strict=True)))


def _page(
    run_dir: pathlib.Path,
    card: dict[str, Any],
    scores: pd.DataFrame,
    ranked: pd.DataFrame,
    models: pd.DataFrame,
) -> str:
    # "all" comes first; without it (no cell has every assay) the first cell is headlined.
    rows = ranked.loc[ranked["cell"] == ranked["cell"].iloc[0], :].reset_index(drop=True)
    runs = pd.DataFrame([run for part in card["populations"] for run in part["runs"]])
    runs["assay"] = ["+".join(assays) for assays in runs["assays"]]
    with matplotlib.rc_context(STYLE):
        figures = figures_of(run_dir, runs, ranked, rows, unit_of(card["target"]))
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": number, "duration": duration, "listing": listing}
    kinds = card["store"]["groups"]
    return environment.get_template("report.html.j2").render(
        name=run_dir.resolve().name,
        card=card,
        request_json=json.dumps({k: v for k, v in card.items() if k != "populations"}, indent=1),
        splits=json.loads((run_dir / "splits.json").read_text()),
        rows=rows.to_dict("records"),
        kinds={
            assay: "+".join(dict.fromkeys(kinds[a] for a in assay.split("+") if kinds.get(a)))
            for assay in rows["assay"]
        },
        over_all=bool(rows["cell"].iloc[0] == ranking.ALL),
        cells=list(dict.fromkeys(runs["cell"])),
        runs=runs.to_dict("records"),
        statuses=runs["status"].value_counts().to_dict(),
        caveats=ranking.caveats(scores),
        few_genes=rows["n_genes"].iloc[0] < FEW_GENES,
        few_chromosomes=rows["n_chromosomes"].iloc[0] < ranking.FEW_CHROMOSOMES,
        figures=figures,
        unit=unit_of(card["target"]),
        models=models.to_dict("records"),
        most_curves=MOST_CURVES,
    )


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def main() -> None:
    require("run")
    path = write_report(pathlib.Path(FLAGS.run), [pathlib.Path(other) for other in FLAGS.compare])
    print(f"{path}: open it in a browser")


def define_compare() -> None:
    flags.DEFINE_list("compare", [], "Further evaluated runs, on the same store and folds.")


def run() -> None:
    start(main, define_run, define_compare)


if __name__ == "__main__":
    run()
