"""Which mark to measure next, and what those at hand already tell: from a masked-mark model.

    python -m experiments.advise --model=simulated --tracks=demo/data/tracks.csv --cell=E003 \\
        --have=DNase,H3K4me1                                 # a first look, after make demo
    python -m experiments.train  --store=roadmap.zarr --run=runs/advisor --masked --assays=all \\
        --cells=leave_one_out
    python -m experiments.advise --run=runs/advisor --have=DNase,H3K27ac
    python -m data_prep.build_store --tracks=mine.csv --genes=genes.gtf.gz --store=mine.zarr \\
        --window_bp=10000 --bin_bp=25                        # your cell; it needs no expression
    python -m experiments.advise --run=runs/advisor --store=mine.zarr

The expected gain of a mark is how much better the models predict held-out genes of the training
cells with it than from the marks at hand alone: in Pearson r over all genes, in AUC for on or off,
in Spearman's rho among genes that are on, and in r within classes of genes (biotypes, and columns
of --covariates). With --cells=leave_one_out no model saw the cell that it is tested in. Intervals
are for one more cell like these (Student's t over cells, five or more). Gains are averages over
cells and no promise for yours.

With --store, expression of your cell is predicted from the marks at hand. Each track is first
matched to those of the training cells by quantiles, and you are warned of a mark that is more than
three times as far from their mean as the farthest training cell is from that of the others. The
store must hold tracks in the units of training. --tracks reads a track sheet instead, around the
genes of the training, in its windows and bins; for other genes, or a blacklist, build a store.

--model=simulated are models that ship with this package, for a first look: of the demo's simulated
genome, five cells that the demo has not, seven marks. They know nothing of real genes, refuse
tracks of any other genome, and all that is written says "simulated", as for any simulated genes.

Writes into --out advise.csv (gains), advise_by_cell.csv, predictions.csv (of your cell), and
advise.png and .svg.
"""

import contextlib
import functools
import pathlib
import re
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import pandas as pd
from absl import flags
from tqdm import tqdm

from data_prep.formats.foreign import is_url
from data_prep.formats.track_sheet import read_sheet
from data_prep.planted import simulated
from epi2expr_jax.errors import InputError, Problem, reworded
from epi2expr_jax.files import write_csv
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.covariates import covariates_of, read_covariates
from epi2expr_jax.inputs.pools import PLUS, cells_of
from epi2expr_jax.names import as_names, known_names
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.held_out import new_cells
from epi2expr_jax.predict.loading import load
from epi2expr_jax.predict.matching import MatchingEnsemble, Reference
from epi2expr_jax.program import require, start
from epi2expr_jax.scores.ranking import LEAST_CELLS
from epi2expr_jax.scores.subsets import (
    gains_by_cell,
    gains_over_cells,
    require_masked,
)
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results
from experiments.cli.flags import define_run, refuse_without_effect
from experiments.figures.studies import gain_figure
from experiments.figures.style import STYLE, number, save_figure

FLAGS = flags.FLAGS

_MODELS = pathlib.Path(__file__).parent / "models"
SIMULATED = "simulated"  # what all results say, where the genes are
_OWN = ("run", "model", "have", "store", "tracks", "cell", "match", "covariates", "training_store",
        "out")  # fmt: skip
_OF_TRACKS = (
    "correct the sheet (unit, files); or build a store of these tracks with what they need "
    "(python -m data_prep.build_store --help), and give it as --store"
)


@contextlib.contextmanager
def shipped(name: str) -> Iterator[pathlib.Path]:
    """The run directory of models that ship, next to its store, for as long as it is needed.

    Raises:
        InputError: if there are none of that name.
    """
    known = {path.stem: path for path in sorted(_MODELS.glob("*.zip"))}
    known_names(name, known, "--model", "model")
    with tempfile.TemporaryDirectory(prefix="epi2expr-") as place:
        with zipfile.ZipFile(known[name]) as archive:
            archive.extractall(place)
        with _named({f"{place}/run": f"--model={name}"}):
            yield pathlib.Path(place) / "run"


def _named(names: Mapping[str, str]) -> contextlib.AbstractContextManager[None]:
    """Problems within name what the user gave, not the files made from it, which are removed.

    Args:
        names: text of each file, and what stands for it.
    """

    def said(text: str) -> str:
        for path, name in names.items():
            text = text.replace(path, name)
        return text

    def change(one: Problem) -> Problem:
        remedy = said(one.remedy)
        if {*re.findall(r"--(\w+)", remedy)} - {*_OWN} or "build the store" in remedy:
            remedy = _OF_TRACKS
        return Problem(said(one.where), said(one.found), said(one.expected), remedy, one.kind)

    return reworded(change)


def store_of_tracks(
    sheet: str, cell: str, trained_on: WindowStore, assays: Sequence[str], place: pathlib.Path
) -> WindowStore:
    """A store of one cell's tracks, like that of the training but for its expression.

    Args:
        sheet: a track sheet, or the name of one that ships.
        cell: which of its cells; empty: the only one.
        assays: those of the models; other tracks are not read.
        place: a folder for the store and what it is made from.

    Raises:
        InputError: if the sheet has several cells and none is named, or none of the assays, or as
            `build_store`.
    """
    # Only this needs the libraries of file formats.
    from data_prep.build_store import build
    from data_prep.checks.build_inputs import BuildConfig

    known, given = trained_on.manifest, read_sheet(sheet)
    own = given.select(cells=[_one(cell, given.cells, sheet)])
    if not (there := [assay for assay in own.assays if assay in assays]):
        found, expected = f"tracks of {listing(own.assays)}", f"some of {', '.join(assays)}"
        raise InputError(sheet, found, expected, "name assays as the models do")
    chosen = own.select(assays=there)
    for source in (source for track in chosen.tracks for source in track.sources):
        if is_url(source.location):
            remedy = "download them first: python -m data_prep.download --tracks=SHEET --out=FOLDER"
            raise InputError(
                sheet, f"a track at {source.location}", "files on this machine", remedy
            )
    rows = [
        {"cell": track.cell, "assay": track.assay, "unit": track.unit, "replicate": file.replicate,
         "path": "" if file.location == file.url else file.location, "url": file.url or "",
         "sha256": file.sha256 or ""}
        for track in chosen.tracks for file in track.sources
    ]  # fmt: skip
    tracks, genes = place / "tracks.csv", place / "genes.csv"
    sizes = place / f"{known.assembly}.chrom.sizes"
    pd.DataFrame(rows).to_csv(tracks, index=False)
    columns = ["gene_id", "name", "chrom", "tss", "strand"]
    trained_on.genes[columns].to_csv(genes, index=False)
    sizes.write_text("".join(f"{name}\t{size}\n" for name, size in known.chrom_sizes.items()))
    config = BuildConfig(
        tracks=str(tracks), expression="", genes=str(genes), assembly=str(sizes),
        chromosomes=",".join(known.chromosomes), store=str(place / "own.zarr"),
        window_bp=known.window_bp, bin_bp=known.bin_bp,
    )  # fmt: skip
    return build(config)


def advise(
    run_dir: pathlib.Path,
    out: pathlib.Path,
    *,
    have: Sequence[str] = (),
    store: str = "",
    tracks: str = "",
    cell: str = "",
    match: bool = True,
    covariates: str = "",
    training_store: str | None = None,
) -> str:
    """Score what each mark would add, predict from what is there, write both; return it in words.

    Args:
        have: the marks at hand; by default those that the cell of `store` has.
        store, cell: what to predict from; of a store of one cell that one.
        tracks: a track sheet to predict from instead, see `store_of_tracks`.
        match: whether its tracks are matched to those of training.
        covariates: as for `study.evaluate`.
        training_store: where that lies now.

    Raises:
        InputError: for models that are not masked-mark ones, or stores, cells and marks that do not
            fit them.
    """
    ensemble = load(run_dir, training_store)
    require_masked(ensemble)
    trained_on = ensemble.open_store(training_store)
    given = read_covariates(covariates, trained_on.genes) if covariates else pd.DataFrame()
    known = covariates_of(trained_on.genes, given)
    label = {"data": SIMULATED} if simulated(trained_on.genes["gene_id"]) else {}
    said = [f"{SIMULATED} data: this says nothing of real genes or cells"] if label else []
    with contextlib.ExitStack() as held:
        opened = WindowStore.open(store) if store else None
        if tracks:
            folder = held.enter_context(tempfile.TemporaryDirectory(prefix="epi2expr-"))
            assays = ensemble.runs[0].assays
            made = {"own.zarr": tracks, "tracks.csv": tracks, "genes.csv": "the models' genes"}
            names = {f"{folder}/{file}": name for file, name in made.items()}
            held.enter_context(_named(names | {f"{folder}/": ""}))
            opened = store_of_tracks(tracks, cell, trained_on, assays, pathlib.Path(folder))
        if opened:
            cell = _one(cell, opened.manifest.cells, str(opened.path))
        have = _have(ensemble, as_names(have), opened, cell, tracks or store)
        about = {"have": have, "store": store, "tracks": tracks, "cell": cell, "match": match}
        place = held.enter_context(results.written(out, "advise", **about, **label))
        if opened:
            table, notes = predict_cell(ensemble, trained_on, opened, cell, have, match=match)
            write_csv(place / "predictions.csv", table.assign(**label))
            said += [f"{len(table):,} genes of {cell} predicted from {', '.join(have)}", *notes]
        show = functools.partial(tqdm, desc="gains", unit="mark", disable=None)
        by_cell = gains_by_cell(ensemble, trained_on, have, known, show)
        gains = gains_over_cells(by_cell)
        write_csv(place / "advise_by_cell.csv", by_cell.assign(**label))
        write_csv(place / "advise.csv", gains.assign(**label))
        if len(gains):
            with matplotlib.rc_context(STYLE):
                save_figure(gain_figure(gains, have, **label), place / "advise")
    said += [describe(gains, have), *_notes(ensemble, trained_on, gains)]
    made = ["predictions.csv"] if opened else []
    made += ["advise.csv", "advise_by_cell.csv", *(["advise.png"] if len(gains) else [])]
    return "\n".join([*said, f"{out}/{', '.join(made)}"])


def predict_cell(
    ensemble: Ensemble,
    trained_on: WindowStore,
    store: WindowStore,
    cell: str,
    have: Sequence[str],
    *,
    match: bool = True,
) -> tuple[pd.DataFrame, list[str]]:
    """Expression predicted from the marks at hand, and a note on each that is of another scale.

    Returns:
        A row a gene: gene_id, symbol, chrom, tss, novelty (see `predict.gene_table`), `mean` in
        log2 of the unit trained on and `spread` over models, and how many they are.

    Raises:
        InputError: if the store does not serve the models.
    """
    model = ensemble.members[0].model_config
    cells = {c for run in ensemble.runs for c in cells_of(run.cell, trained_on.manifest.cells)}
    cells = [c for c in trained_on.manifest.cells if c in cells]
    reference = Reference.of(ensemble.dataset(trained_on, model, cells, have))
    own, notes = ensemble.dataset(store, model, [cell], have), []
    for assay in have:
        far, limit = reference.unlike(assay, own.track(cell, assay))
        if far > limit:
            what = "matched by quantiles, so what its own level says is lost"
            what = what if match else "read as it is"
            notes.append(
                f"warning: {assay} of {cell} is of another scale than in training (mean difference "
                f"of quantiles {far:.3g}, limit {limit:.3g}); it was {what}"
            )
    if match:
        ensemble = MatchingEnsemble.of(ensemble, reference)
    rows, _ = ensemble.chosen(store, None)
    genes = store.genes.iloc[rows]
    ids = genes["gene_id"].tolist() or None
    predicted = ensemble.predict(store, ids, cell=cell, present=have)
    table = genes.rename(columns={"name": "symbol"})[["gene_id", "symbol", "chrom", "tss"]]
    return table.assign(
        novelty=ensemble.novelty(store, rows),
        mean=predicted.mean("run").values,
        spread=predicted.std("run", ddof=1).values,
        models=predicted.notnull().sum("run").values,
    ), notes


def _one(asked: str, cells: Sequence[str], where: str) -> str:
    """The cell to predict: the one asked for, or the only one."""
    if not asked and len(cells) > 1:
        found = f"{len(cells)} cells"
        raise InputError(where, found, "--cell", f"choose one of {listing(cells)}")
    return known_names(asked or cells[0], cells, where, "cell")[0]


def _have(
    ensemble: Ensemble, asked: Sequence[str], store: WindowStore | None, cell: str, where: str
) -> list[str]:
    """The marks at hand, in the order of the models.

    Args:
        where: what the store is made of, as it was named.

    Raises:
        InputError: for marks that the models, or the cell, do not have, or none.
    """
    assays, there = ensemble.runs[0].assays, None
    if store:
        there = [assay for assay in assays if [cell, assay] in store.manifest.tracks]
    if asked:
        known_names(asked, assays, "--have", "mark")
        if there is not None and (absent := [mark for mark in asked if mark not in there]):
            found = f"no track of {', '.join(absent)} of {cell}"
            raise InputError(where, found, "tracks of --have", "leave them out")
    elif not there:
        found = f"no mark of the models in {where}" if store else "neither --have nor --store"
        expected = f"some of {', '.join(assays)}"
        raise InputError("--have", found, expected, "name the marks at hand")
    return [assay for assay in assays if assay in (asked or there or ())]


def describe(gains: pd.DataFrame, have: Sequence[str]) -> str:
    """The gains as a table, for the terminal."""
    if gains.empty:
        return f"{', '.join(have)}: these are all the marks of the models; none is left to measure"
    lines = []
    for genes, part in gains.groupby("genes", sort=False):
        first = part.iloc[0]
        lines.append(
            f"\n{genes}: {first.score} {number(first.have)} from {PLUS.join(have)}, mean of "
            f"{first.cells} cells"
        )
        for row in part.to_dict("records"):
            low, high = number(row["low"]), number(row["high"])
            interval = row["note"] or f"{low} to {high} in one more cell"
            gain = f"{row['gain']:+.3f}".replace("-", "−")
            lines.append(f"  {row['assay']:<20} {gain}  ({interval})")
    return "\n".join(lines)


def _notes(ensemble: Ensemble, trained_on: WindowStore, gains: pd.DataFrame) -> list[str]:
    """What the gains do not say."""
    if gains.empty:
        return []
    said = [
        "note: gains are averages over cells and genes, no promise for a cell; an interval is for "
        "one more cell like these, for each mark alone"
    ]
    if not new_cells((run.cell for run in ensemble.runs), trained_on.manifest.cells):
        said.append(
            "note: the models saw the cells they are tested in (on other chromosomes); train with "
            "--cells=leave_one_out to test them in cells that they did not see"
        )
    if (gains["note"] != "").any():
        said.append(f"note: an interval over cells takes at least {LEAST_CELLS} of them")
    return said


def define_flags() -> None:
    define_run()
    flags.DEFINE_string("model", "", "Models that ship, instead of --run: simulated.")
    flags.DEFINE_list("have", [], "Marks at hand. Default: those that your cell has.")
    flags.DEFINE_string("store", "", "Window store of your cell; it needs no expression.")
    flags.DEFINE_string("tracks", "", "Track sheet of your cell, instead of --store.")
    flags.DEFINE_string("cell", "", "Which cell of --store or --tracks, if they have several.")
    flags.DEFINE_boolean("match", True, "Match your tracks to those of training by quantiles.")
    flags.DEFINE_string("covariates", "", "CSV of genes and their classes, as for evaluate.")
    flags.DEFINE_string("training_store", None, "Where the store of the training lies now.")
    flags.DEFINE_string("out", "", "Folder for the results. Default: RUN/advise, or advise.")


def main() -> None:
    without = [] if FLAGS.store or FLAGS.tracks else ["cell", "match"]
    reasons = dict.fromkeys(without, "without --store or --tracks")
    if FLAGS.model:
        reasons |= dict.fromkeys(("run", "training_store"), "with --model")
    else:
        require("run")
    if FLAGS.tracks:
        reasons["store"] = "with --tracks"
    refuse_without_effect(reasons.items())
    with shipped(FLAGS.model) if FLAGS.model else contextlib.nullcontext() as given:
        run_dir = given or pathlib.Path(FLAGS.run)
        print(
            advise(
                run_dir,
                pathlib.Path(FLAGS.out or ("advise" if FLAGS.model else run_dir / "advise")),
                have=FLAGS.have,
                store=FLAGS.store,
                tracks=FLAGS.tracks,
                cell=FLAGS.cell,
                match=FLAGS.match,
                covariates=FLAGS.covariates,
                training_store=FLAGS.training_store,
            )
        )


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
