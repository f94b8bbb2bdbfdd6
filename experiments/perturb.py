"""Alter a mark in silico: what would expression be if it changed at promoters, or elsewhere?

    python -m experiments.perturb --run=runs/cnn --assay=H3K27ac
    python -m experiments.perturb --run=runs/cnn --assay=H3K27ac --where=distal --genes=expressed
    python -m experiments.perturb --run=runs/cnn --assay=H3K9me3 --where=chr1:1000000-1002000
    python -m experiments.perturb --run=runs/cnn --assay=H3K27ac --where=peaks.bed --factors=0,2
    python -m experiments.perturb --run=runs/cnn --assay=H3K27ac --edits=remove_peak,swap:@E005
    python -m experiments.perturb --run=runs/pairs --assay=H3K27ac+H3K4me3 --factors=0
    python -m experiments.perturb --run=runs/distal --assay=H3K4me3 --where=original_distal

--where and --edits take comma lists, see below. The original_* places follow the
published protocol: it multiplies what the model reads, not the signal, and leaves regions alone.
Intervals are 0-based, end not included. Only models that never saw a gene predict it.

Writes into DIR/perturb (or --out): effects.parquet (model, gene, edit: before, after, effect, its
interval where the models can tell one, whether the edit changed anything, and whether the edited
signal is outside the range trained on), dose_distance.csv and .parquet (mean effects over genes
with intervals), between_models.csv (Pearson's r over genes between the effects of two models that
never saw them: of other folds where these test the same chromosomes, or of other seeds; empty where
each gene has one model), regions.parquet (for experiments.enrichment), and plots: dose response,
effect by distance to the TSS, agreement of models, and in tracks/ the genes with the largest
effects, with the mark, the edits and their contacts. The run's report shows them. Models predict;
they do not prove that a cell would do the same.
"""

import pathlib
from collections.abc import Sequence

import matplotlib
import pandas as pd
from absl import flags
from tqdm import tqdm

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import as_name, read_csv, whole_folder, write_csv, write_parquet
from epi2expr_jax.inputs.dataset import InputConfig
from epi2expr_jax.inputs.pools import PLUS
from epi2expr_jax.interpret.located import GenePlot, gene_plots, locate, place_table
from epi2expr_jax.perturb.edits import forms
from epi2expr_jax.perturb.effects import run as run_edits
from epi2expr_jax.perturb.mark_null import (
    KEY,
    compare,
    effects_of,
    names_of,
    permutable,
    permute,
)
from epi2expr_jax.perturb.places import PRESETS
from epi2expr_jax.perturb.summary import NEEDED, between_models, mean_effects, summarise, to_frame
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.loading import load
from epi2expr_jax.program import require, start
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results, train
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.tables import GENE_GROUPS
from epi2expr_jax.training.checkpoint import read_card
from epi2expr_jax.training.one_run import TrainConfig
from epi2expr_jax.training.schedules import EarlyStopConfig, PlateauConfig
from epi2expr_jax.units import count, percent
from epi2expr_jax.words import doubts
from experiments.cli.edits import FACTORS, named_edits, named_places, to_number
from experiments.cli.flags import define_run, define_store, refuse_without_effect
from experiments.cli.genes import define_genes, genes_of
from experiments.figures.altered_marks import effect_figures, gene_figure, one_change
from experiments.figures.style import STYLE, save_figure

FLAGS = flags.FLAGS


def perturb(
    run_dir: pathlib.Path,
    assay: str,
    where: Sequence[str],
    factors: Sequence[float] = FACTORS,
    *,
    kinds: Sequence[str] = ("scale",),
    genes: str = "",
    tracks: int = 3,
    null: int = 0,
    store: str | None = None,
    out: pathlib.Path | None = None,
) -> pd.DataFrame:
    """Predict every edit, write tables and plots; return mean effects by place and change.

    Args:
        assay: the mark; marks joined by + are altered together, and the first is drawn.
        where, kinds: as --where and --edits name them.
        factors: of the kind `scale`.
        tracks: of how many genes to draw the mark and the effects.
        null: so many permutations of the mark are trained on and altered alike, see
            `epi2expr_jax.perturb.mark_null`.

    Raises:
        InputError: for places, edits or genes that make no sense, or an assay no model reads.
    """
    ensemble = load(run_dir, store)
    opened = ensemble.open_store(store)
    window_bp = max(member.model_config.window.window_bp for member in ensemble.members)
    places, space = named_places(where, opened, window_bp)
    edits = named_edits(assay, places, space, kinds, factors)
    chosen = genes_of(genes, ensemble, opened)
    if null and (PLUS in assay or any(e.from_assay or e.from_cell for one in edits for e in one)):
        remedy = "leave --null out, or alter one mark by itself"
        raise InputError("--null", "marks altered together, or from elsewhere", "one mark", remedy)
    asked = {"assay": assay, "where": list(where), "edits": list(kinds), "factors": list(factors)}
    with results.written(out or run_dir / "perturb", "perturb", **asked, genes=genes) as place:
        with tqdm(desc="edited genes", unit="gene", disable=None) as progress:
            effects = run_edits(ensemble, opened, edits, chosen, progress=progress.update)
        table = to_frame(summarise(effects))
        write_parquet(place / "effects.parquet", table)
        means = mean_effects(effects)
        write_parquet(place / "dose_distance.parquet", means)
        write_csv(place / "dose_distance.csv", means)
        between = between_models(effects)
        write_csv(place / "between_models.csv", between)
        if null:
            models, permuted = _retrained(run_dir, ensemble, opened, assay, null)
            draws = effects_of(
                [
                    mean_effects(run_edits(models, permuted, of_draw, chosen))
                    for of_draw in (
                        named_edits(name, places, space, kinds, factors)
                        for name in names_of(assay, null)
                    )
                ],
                means, assay,
            )  # fmt: skip
            write_csv(place / "permuted.csv", draws)
            write_csv(place / "null.csv", compare(means, draws))
        located, drawn = locate(one_change(table), places, opened, window_bp), assay.split(PLUS)[0]
        write_parquet(place / "regions.parquet", place_table(located, drawn, opened, window_bp))
        _draw(
            means,
            between,
            effects.attrs["units"],
            gene_plots(located, drawn, opened, tracks),
            place,
        )
    means.attrs["units"] = ensemble.units
    return means


def _retrained(
    run_dir: pathlib.Path,
    ensemble: Ensemble,
    store: WindowStore,
    mark: str,
    count: int,
) -> tuple[Ensemble, WindowStore]:
    """Models like those of a run that read a mark, trained on permutations of it; and their store.

    Both lie in the run directory, in `null/MARK-COUNT`; what is there is not made again, and an
    interrupted training goes on.
    """
    folder = run_dir / "null" / f"{as_name(mark)}-{count}"
    if not (folder / "permuted").exists():
        with whole_folder(folder / "permuted") as place:
            permute(ensemble, store, mark, count, place / "store.zarr")
    made = WindowStore.open(folder / "permuted" / "store.zarr")
    train(_request(run_dir, ensemble, made, mark), folder / "run")
    return load(folder / "run"), made


def _request(
    run_dir: pathlib.Path, ensemble: Ensemble, store: WindowStore, mark: str
) -> TrainRequest:
    """What the run was asked for, of the permuted marks in the place of the mark."""
    asked = dict(ensemble.card["request"])
    trained = dict(asked.pop("train_config"))
    for name, made in (("plateau", PlateauConfig), ("early_stop", EarlyStopConfig)):
        trained[name] = made(**trained[name]) if trained[name] else None
    names = [a for a in store.manifest.assays if a.startswith(f"{mark}~")]
    sets = dict.fromkeys(run.assays for run in ensemble.runs if mark in run.assays)
    if "gene_groups" in asked:
        asked["gene_groups"] = str(run_dir / GENE_GROUPS.path)
    return TrainRequest(
        **asked
        | {
            "store": str(store.path),
            "cells": store.manifest.cells,
            "assays": [
                "+".join(name if a == mark else a for a in own) for own in sets for name in names
            ],
            "input_config": InputConfig(**asked["input_config"]),
            "train_config": TrainConfig(**trained),
        }
    )


def _draw(
    means: pd.DataFrame,
    between: pd.DataFrame,
    unit: str,
    plots: Sequence[GenePlot],
    out: pathlib.Path,
) -> None:
    (out / "tracks").mkdir()
    with matplotlib.rc_context(STYLE):
        drawn = effect_figures(means, unit, between)
        drawn |= {f"tracks/{as_name(plot.gene['gene_id'])}": gene_figure(plot) for plot in plots}
        for name, figure in drawn.items():
            save_figure(figure, out / name)


def _shown(means: pd.DataFrame) -> pd.DataFrame:
    """Rows that the terminal shows."""
    return means[means["factor"].isna() | (means["factor"] == means["factor"].min())]


def format_means(means: pd.DataFrame) -> str:
    """Mean effects place by place: of the lowest factor, and of every other change."""
    shown = _shown(means)
    wide = max(len("change"), *map(len, shown["change"])) + 2
    # Models of several sets of assays may read the mark.
    several = means["assays"].nunique() > 1
    model = max(len("model"), *means["assays"].map(len)) + 2 if several else 0
    lines = [
        f"{'cell':<10}{'model' if several else '':<{model}}{'place':<20}{'change':<{wide}}"
        f"{'effect':>7}   95 % interval"
    ]
    for row in shown.to_dict("records"):
        low, high, own = row["low"], row["high"], row["assays"] if several else ""
        interval = f"{low:+.3f} to {high:+.3f}" if pd.notna(low) else "none: too few models"
        lines.append(
            f"{row['cell']:<10}{own:<{model}}{row['place']:<20}{row['change']:<{wide}}"
            f"{row['effect']:>+7.3f}   {interval}"
        )
    if means["genes"].nunique() == 1:
        lines.append(
            f"{count(int(means['genes'].iloc[0]), 'gene')}, each by models that held it out"
        )
    if units := means.attrs.get("units"):
        lines.append(f"effects are changes of the predicted {units}")
    lines.append("intervals are of models retrained on other genes")
    if means["low"].isna().any():
        lines[-1] += f"; they need {NEEDED}"
    still = means.loc[means["factor"] != 1, "changed"]
    if (still < 1).any():
        lines.append(
            f"{percent(1 - still.mean(), 1)} of edits changed nothing: no signal at that place"
        )
    return "\n".join(lines)


def format_null(table: pd.DataFrame) -> str:
    """Effects next to those of the permuted mark."""
    lines = ["permuted among genes alike in the other marks, and trained on anew:"]
    for row in table.itertuples():
        lines.append(
            f"{row.cell:<10}{row.place:<20}{row.change}: {row.effect:+.3f}, permuted "
            f"{row.null_low:+.3f} to {row.null_high:+.3f} (of {row.permutations}), p {row.p:.2g}"
        )
    return "\n".join(lines)


def define_perturbation() -> None:
    flags.DEFINE_string("assay", None, "The mark to alter; marks joined by + are altered together.")
    presets = ", ".join(f"{name} ({preset.help})" for name, preset in PRESETS.items())
    flags.DEFINE_list("where", ["promoter"], f"Where: {presets}, chr:start-end, or a BED file.")
    flags.DEFINE_list("edits", ["scale"], f"scale (by each of --factors), {forms()}.")
    flags.DEFINE_list("factors", [f"{factor:g}" for factor in FACTORS], "The factors of `scale`.")
    flags.DEFINE_integer("tracks", 3, "Draw this many genes, those with the largest effects.", 0)
    flags.DEFINE_integer(
        "null", 0, "Also train on this many permutations of the mark (19 for p 0.05), among "
        "genes alike in the other marks, and alter these; shown as p. Kept in DIR/null.", 0,
    )  # fmt: skip
    flags.DEFINE_string("out", None, "Where to write; default: DIR/perturb.")


def main() -> None:
    require("run", "assay")
    if "scale" not in FLAGS.edits:
        refuse_without_effect([("factors", "without --edits=scale")])
    run_dir = pathlib.Path(FLAGS.run)
    out = pathlib.Path(FLAGS.out) if FLAGS.out else run_dir / "perturb"
    factors = [to_number(text, "--factors") for text in FLAGS.factors]
    means = perturb(
        run_dir, FLAGS.assay, FLAGS.where, factors, kinds=FLAGS.edits, genes=FLAGS.genes,
        tracks=FLAGS.tracks, null=FLAGS.null, store=FLAGS.store, out=out,
    )  # fmt: skip
    print(format_means(means))
    null = pd.DataFrame()
    if FLAGS.null:
        null = read_csv(out / "null.csv", "table of effects", "run it again", text=KEY)
        print(format_null(null))
    may = permutable(means, read_card(run_dir))
    if said := doubts.altered(means, null, _shown(means), may):
        print(said)
    print(f"{out}: effects.parquet, dose_distance.csv, regions.parquet, plots, tracks/")


def run() -> None:
    start(main, define_run, define_store, define_genes, define_perturbation)


if __name__ == "__main__":
    run()
