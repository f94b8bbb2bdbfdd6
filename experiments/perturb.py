"""Alter a mark in silico: what would expression be if it changed at promoters, or further off?

    python -m experiments.perturb --run=runs/cnn --assay=H3K27ac
    python -m experiments.perturb --run=runs/cnn --assay=H3K27ac --where=distal --genes=expressed
    python -m experiments.perturb --run=runs/cnn --assay=H3K9me3 --where=chr1:1000000-1002000
    python -m experiments.perturb --run=runs/cnn --assay=H3K27ac --where=peaks.bed --factors=0,2
    python -m experiments.perturb --run=runs/distal --assay=H3K4me3 --where=original_distal

--where is promoter (6 kb around the TSS), distal (every 2 kb bin outside of it), pcre (each of the
regions a gene touches), original_promoter or original_distal (the published protocol: it multiplies
what the model reads, not the signal, and leaves regions alone), chr:start-end (0-based, end not
included), a BED file, or a comma list of these. Only models that never saw a gene predict it.

Writes into DIR/perturb (or --out): effects.parquet (model, gene, edit: before, after, effect, the
interval over 3 or more models, whether the edit changed anything, and whether the edited signal
lies outside what was trained on), dose_distance.csv and .parquet (mean effects over genes with
intervals), regions.parquet (for experiments.enrichment), and plots. Models predict; that a cell
would do the same they do not prove.
"""

import pathlib
import re
from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from absl import flags
from scipy import stats
from tqdm import tqdm

from data_prep.bed import read_bed
from data_prep.program import start
from epi2expr_jax import perturb as edits_of
from epi2expr_jax.errors import InputError, Problem, collect, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.perturb import Edit, Place
from epi2expr_jax.places import Scene
from epi2expr_jax.predict import load
from epi2expr_jax.ranking import MIN_CHROMOSOMES, jackknife
from epi2expr_jax.store import WindowStore
from experiments.chosen_genes import define_genes, genes_of
from experiments.figures import STYLE
from experiments.figures_effects import distance_figure, dose_figure
from experiments.flags import define_run, define_store, require

FLAGS = flags.FLAGS

PRESETS = ("promoter", "distal", "pcre", "original_promoter", "original_distal")
FACTORS = tuple(round(0.1 * i, 1) for i in range(11))
_INTERVAL = re.compile(r"([^:]+):([\d,]+)-([\d,]+)")


def places_of(texts: Sequence[str], store: WindowStore, window_bp: int) -> tuple[list[Place], str]:
    """What --where names, and the space that it is edited in.

    Raises:
        InputError: naming everything that is no place, or of a chromosome without genes.
    """
    places: list[Place] = []
    problems: list[Problem] = []
    spaces = {"log" if text.startswith("original_") else "raw" for text in texts}
    if len(spaces) > 1:
        problems.append(
            Problem("--where", "the original's presets and others", "one kind", "run them apart")
        )
    for text in texts:
        with collect(problems):
            places += _places(text, store, window_bp)
    if problems:
        raise InputError(problems)
    return places, spaces.pop()


def _places(text: str, store: WindowStore, window_bp: int) -> Sequence[Place]:
    if text == "promoter":
        return [edits_of.promoter()]
    if text == "distal":
        bins = edits_of.distal_bins(window_bp=window_bp)
        if not bins:
            raise InputError(
                Problem(
                    "--where=distal",
                    f"models that read {window_bp:,} bp, all of it promoter",
                    "a window wider than the 6 kb of the promoter and a 2 kb bin on either side",
                    "train with --model_window_bp=40000 from a store as wide",
                )
            )
        return bins
    if text == "pcre":
        most = max(
            (len(part) and int(part["rank"].max()) + 1)
            for part in (store.regions(cell).contacts for cell in store.manifest.contacts)
        )
        return [edits_of.pcre(rank) for rank in range(most)]
    if text == "original_promoter":
        return [edits_of.original_promoter()]
    if text == "original_distal":
        return edits_of.original_distal()
    if found := _INTERVAL.fullmatch(text):
        chrom, *ends = found.groups()
        table = pd.DataFrame([[chrom, *(int(end.replace(",", "")) for end in ends)]])
        table.columns = pd.Index(["chrom", "start", "end"])
    elif pathlib.Path(text).exists():
        table = read_bed(text, store.manifest.chrom_sizes)
        if not (table["name"] != "").all():
            table = table.drop(columns="name")
    else:
        raise InputError(
            Problem(
                "--where",
                text,
                f"{', '.join(PRESETS)}, chr:start-end, or a BED file",
                nearest([text], PRESETS) or "is the file there?",
            )
        )
    strange = sorted(set(table["chrom"]) - set(store.genes.chrom))
    if len(strange) == table["chrom"].nunique():
        raise InputError(
            Problem(
                text,
                f"intervals on {listing(strange)} alone",
                f"chromosomes of the store's genes ({listing(store.genes.chrom.unique())})",
                f"give intervals of {store.manifest.assembly}, spelled as there",
            )
        )
    return edits_of.intervals(table.loc[~table["chrom"].isin(strange)])


def perturb(
    run_dir: pathlib.Path,
    assay: str,
    where: Sequence[str],
    factors: Sequence[float] = FACTORS,
    *,
    genes: str = "",
    store: str | None = None,
    out: pathlib.Path | None = None,
) -> pd.DataFrame:
    """Predict every edit, write tables and plots; return mean effects by place and factor.

    Raises:
        InputError: for places, factors or genes that make no sense, or an assay no model reads.
    """
    ensemble = load(run_dir)
    opened = ensemble.open_store(store)
    window_bp = max(member.model_config.window.window_bp for member in ensemble.members)
    places, space = places_of(where, opened, window_bp)
    problems: list[Problem] = []
    edits: list[Edit] = []
    for place in places:
        for factor in factors:
            with collect(problems):
                edits.append(edits_of.scale(assay, place, factor, space=space))
    if problems:
        raise InputError(problems)
    chosen = genes_of(genes, ensemble, opened)
    with tqdm(desc="edited genes", unit="gene", disable=None) as progress:
        effects = edits_of.run(ensemble, opened, edits, chosen, progress=progress.update)
    summary = edits_of.summarise(effects)
    table = edits_of.to_frame(summary)
    out = out or run_dir / "perturb"
    out.mkdir(parents=True, exist_ok=True)
    _write(table, out / "effects.parquet")
    means = mean_effects(table)
    _write(means, out / "dose_distance.parquet")
    means.to_csv(out / "dose_distance.csv", index=False, float_format="%.6g")
    lowest = table[table["factor"] == table["factor"].min()]
    _write(_regions(lowest, places, assay, opened, window_bp), out / "regions.parquet")
    _draw(means, out)
    return means


def _write(table: pd.DataFrame, path: pathlib.Path) -> None:
    partial = path.with_suffix(".partial")
    table.to_parquet(partial, index=False)
    partial.replace(path)


def mean_effects(table: pd.DataFrame) -> pd.DataFrame:
    """Mean effect over genes by cell, assays, place and factor, with a 95 % chromosome jackknife-t.

    Returns:
        Columns cell, assays, place, distance, factor, effect, low, high, genes, changed and outside
        (shares of genes); NaN intervals for fewer than three chromosomes.
    """
    keys = ["cell", "assays", "place", "distance", "factor"]
    by_chrom = table.groupby([*keys, "chrom"], dropna=False, sort=False).agg(
        effect=("effect", "mean"), genes=("effect", "size")
    )
    rows = []
    for names, part in by_chrom.groupby(keys, dropna=False, sort=False):
        values, genes = part["effect"].to_numpy(float)[:, None], part["genes"].to_numpy(float)
        (mean,), (error,) = jackknife(values, genes)
        enough = len(genes) >= MIN_CHROMOSOMES
        reach = stats.t.isf(0.025, len(genes) - 1) * error if enough else np.nan
        rows.append((*names, mean, mean - reach, mean + reach, int(genes.sum())))
    means = pd.DataFrame(rows, columns=pd.Index([*keys, "effect", "low", "high", "genes"]))
    shares = table.groupby(keys, dropna=False, sort=False)[["changed", "outside"]].mean()
    return means.merge(shares.reset_index(), on=keys)


def _regions(
    table: pd.DataFrame, places: Sequence[Place], assay: str, store: WindowStore, window_bp: int
) -> pd.DataFrame:
    """Where each place lies for each gene, its signal and its effect, for experiments.enrichment.

    Places that a gene's window does not reach are left out; `distance` is along the strand.
    """
    genes = store.genes.set_index("gene_id")
    index = {place.name: place for place in places}
    centre = window_bp // 2
    parts = []
    for (cell, name), part in table.groupby(["cell", "place"], sort=False):
        own = store.genes[store.genes.gene_id.isin(part["gene"])]
        scene = Scene(store, own, str(cell), window_bp, (0,))
        found = index[str(name)].intervals(scene)[:, 0, 0]
        own = own.assign(start=found[:, 0], end=found[:, 1])
        part = part.merge(own, left_on="gene", right_on="gene_id", suffixes=("", "_"))
        offset = (part["start"] + part["end"]) / 2 - part["tss"]
        part["distance"] = np.where(part["strand"] == "-", -offset, offset)
        inside = (part["distance"].abs() < centre) & (part["end"] > part["start"])
        parts.append(part[inside])
    found = pd.concat(parts, ignore_index=True)
    found["signal"] = np.nan
    spec = store.manifest.window
    for cell, part in found.groupby("cell", sort=False):
        rows = pd.Index(store.genes.gene_id).get_indexer(pd.Index(part["gene"]))
        signal = store.read_signal([str(cell)], [assay])[0, 0]
        first = genes.tss.loc[part["gene"]].to_numpy() - spec.window_bp // 2
        low = np.clip((part["start"].to_numpy() - first) // spec.bin_bp, 0, spec.bins - 1)
        high = np.clip(-(-(part["end"].to_numpy() - first) // spec.bin_bp), low + 1, spec.bins)
        total = np.pad(np.cumsum(signal, axis=1, dtype=np.float64), ((0, 0), (1, 0)))
        found.loc[part.index, "signal"] = (total[rows, high] - total[rows, low]) / (high - low)
    columns = ["cell", "assays", "gene_id", "chrom", "start", "end"]
    return found[[*columns, "effect", "distance", "signal"]]


def _draw(means: pd.DataFrame, out: pathlib.Path) -> None:
    drawn = {"dose": dose_figure(means)}
    if means["distance"].nunique() > 1:
        drawn["distance"] = distance_figure(means)
    with matplotlib.rc_context(STYLE):
        for name, figure in drawn.items():
            for kind in ("png", "svg"):
                figure.savefig(out / f"{name}.{kind}", dpi=150)


def format_means(means: pd.DataFrame) -> str:
    """The mean effect of the lowest factor, place by place."""
    lowest = means[means["factor"] == means["factor"].min()]
    lines = [
        f"{'cell':<10}{'place':<20}{'factor':>7}{'effect':>9}   95 % interval over chromosomes"
    ]
    for row in lowest.itertuples():
        interval = f"{row.low:+.3f} to {row.high:+.3f}" if row.low == row.low else "none: too few"
        lines.append(
            f"{row.cell:<10}{row.place:<20}{row.factor:>7g}{row.effect:>+9.3f}   {interval}"
        )
    if means["genes"].nunique() == 1:
        lines.append(f"{means['genes'].iloc[0]} genes, each by models that never saw it")
    still = means.loc[means["factor"] != 1, "changed"]
    if (still < 1).any():
        lines.append(f"{1 - still.mean():.1%} of edits changed nothing: no signal to scale there")
    if (strange := means.loc[means["factor"] != 1, "outside"].mean()) > 0:
        lines.append(f"{strange:.1%} of edits lie outside what the models trained on")
    return "\n".join(lines)


def define_perturbation() -> None:
    flags.DEFINE_string("assay", None, "The mark to alter.")
    flags.DEFINE_list("where", ["promoter"], f"Where: {', '.join(PRESETS)}, chr:start-end, a BED.")
    flags.DEFINE_list(
        "factors", [f"{factor:g}" for factor in FACTORS], "What its signal is multiplied by."
    )
    flags.DEFINE_string("out", None, "Where to write; default: DIR/perturb.")


def _factors() -> list[float]:
    found = []
    for text in FLAGS.factors:
        try:
            found.append(float(text))
        except ValueError:
            raise InputError(
                Problem("--factors", text, "numbers, 0 or more", "such as 0,0.5,1,2")
            ) from None
    return found


def main() -> None:
    require("run")
    require("assay")
    run_dir = pathlib.Path(FLAGS.run)
    out = pathlib.Path(FLAGS.out) if FLAGS.out else run_dir / "perturb"
    means = perturb(
        run_dir, FLAGS.assay, FLAGS.where, _factors(), genes=FLAGS.genes, store=FLAGS.store, out=out
    )
    print(format_means(means))
    print(f"{out}: effects.parquet, dose_distance.csv, regions.parquet, dose.png")


def run() -> None:
    start(main, define_run, define_store, define_genes, define_perturbation)


if __name__ == "__main__":
    run()
