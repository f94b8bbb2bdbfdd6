"""How wide a window does each assay need? One training for each width, from one store.

    python -m experiments.sweep --store=distal.zarr --run=runs/sweep --model=promoter_cnn
    python -m experiments.sweep --store=distal.zarr --run=runs/sweep --model=cnn \\
        --windows=10000,20000,40000 --cells=E003 --assays=H3K27ac,H3K4me3 --cv=chromosomes_5

Takes the flags of experiments.train. Every width is a run directory of its own, DIR/window-10000
and so on, trained and evaluated like any other; the same command resumes. Then writes DIR/sweep.csv
(for every assay and width Pearson r with its interval, and by how much it exceeds that of the
narrowest window, paired by chromosome) and DIR/sweep.png and .svg, a curve an assay. Windows are
cropped from the store's: the genes are the same at every width.
"""

import dataclasses
import pathlib
from collections.abc import Sequence

import matplotlib
import pandas as pd
from absl import flags

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import only_writer, write_csv
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.program import start
from epi2expr_jax.scores.comparison import compare_models
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, tables
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import Machine
from experiments.cli.flags import define_training, request_of_flags
from experiments.cli.progress import train_shown
from experiments.cli.shares import define_machine, machine_of_flags
from experiments.figures.studies import called, sweep_figure
from experiments.figures.style import STYLE, save_figure

FLAGS = flags.FLAGS

WINDOWS = (6_000, 10_000, 20_000, 40_000, 100_000)  # bp
ALONE = (
    "to share the work, first train each width by experiments.train with --share or --distributed, "
    "--model_window_bp=WIDTH and --run=DIR/window-WIDTH; then run this command in one process"
)


def sweep(
    request: TrainRequest,
    run_dir: pathlib.Path,
    windows: tuple[int, ...] = (),
    machine: Machine = Machine(),
    track: Sequence[str] = (),
) -> pd.DataFrame:
    """Train and evaluate at every width; write and return the table of DIR/sweep.csv.

    Args:
        windows: widths in bp; none: those of `WINDOWS` that the store and the model allow.
        track: where else to show losses (see `experiments.cli.progress`).

    Raises:
        InputError: naming every width that the store or the model does not allow, or if fewer than
            two are left.
    """
    requests = _requests(request, windows)
    scores = {}
    for number, (window, of_window) in enumerate(requests.items(), 1):
        folder = run_dir / f"window-{window}"
        print(f"\n[{number}/{len(requests)}] {window:,} bp: {folder}", flush=True)
        train_shown(of_window, folder, machine, track)
        if not _evaluated(folder):
            evaluate(folder)
        scores[str(window)] = tables.SCORES.read(folder)
    table = compare_models(scores).rename(columns={"model": "window_bp"})
    table["window_bp"] = table["window_bp"].astype(int)
    with results.written(run_dir, "sweep") as place:
        with matplotlib.rc_context(STYLE):
            save_figure(sweep_figure(table), place / "sweep")
        write_csv(place / "sweep.csv", table)
    return table


def _evaluated(run_dir: pathlib.Path) -> bool:
    """Whether all tables are there, whole, and of the models as they are now."""
    try:
        tables.require(run_dir)
    except InputError:
        return False
    return results.complete(run_dir, "evaluate")


def _requests(request: TrainRequest, windows: tuple[int, ...]) -> dict[int, TrainRequest]:
    """The request at each width, the narrowest first."""
    store = WindowStore.open(request.store)
    made: dict[int, TrainRequest] = {}
    left_out = collect()
    for window in sorted(set(windows or WINDOWS)):
        options = {**request.model_options, "window_bp": window}
        with left_out.part():
            REGISTRY[request.model](**options).window.crop_and_merge(store.manifest.window)
            made[window] = dataclasses.replace(request, model_options=options)
    with collect() as problems:
        if len(made) < 2 and not (windows and left_out):
            found = f"{len(made)} widths that {request.store} and {request.model} allow"
            remedy = "give --windows, or build a store with a wider --window_bp"
            problems.add("--windows", found, "two or more to compare", remedy)
        if len(made) < 2 or windows:
            problems.extend(left_out.found)
    return made


def format_table(table: pd.DataFrame) -> str:
    """Pearson r by assay and width."""
    wide = table.pivot(index="assay", columns="window_bp", values="pearson")
    wide = wide.sort_values(wide.columns[-1], ascending=False)
    if ALL in wide.index:
        wide = wide.loc[[ALL, *(assay for assay in wide.index if assay != ALL)]]
    widths = sorted(set(table["window_bp"]))
    lines = [f"{'assay':<24}" + "".join(f"{width / 1000:>9g} kb" for width in widths)]
    for assay, values in zip(map(called, wide.index), wide.to_numpy(), strict=True):
        lines.append(f"{assay:<24}" + "".join(f"{value:>12.3f}" for value in values))
    return "\n".join(lines)


def _windows() -> tuple[int, ...]:
    wrong = [text for text in FLAGS.windows if not (text.isdecimal() and int(text))]
    if wrong:
        raise InputError(
            "--windows", ", ".join(wrong), "widths in bp, such as 6000,10000", "correct it"
        )
    if FLAGS.model_window_bp:
        raise InputError(
            "--model_window_bp", f"{FLAGS.model_window_bp}", "--windows alone", "omit it"
        )
    return tuple(map(int, FLAGS.windows))


def main() -> None:
    windows, request = _windows(), request_of_flags()
    run_dir, machine = pathlib.Path(FLAGS.run), machine_of_flags(ALONE)
    with only_writer(run_dir):
        table = sweep(request, run_dir, windows, machine, FLAGS.track)
    print("\n" + format_table(table))
    print(f"{FLAGS.run}/sweep.csv, sweep.png")


def define_windows() -> None:
    widths = ",".join(map(str, WINDOWS))
    flags.DEFINE_list(
        "windows", [], f"Widths in bp; by default those of {widths} that store and model allow."
    )


def run() -> None:
    start(main, define_training, define_machine, define_windows)


if __name__ == "__main__":
    run()
