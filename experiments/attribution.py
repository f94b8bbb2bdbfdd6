"""Which bins of which mark do predictions rest on? Profiles at the TSS, and tracks for a browser.

    python -m experiments.attribution --run=runs/cnn
    python -m experiments.attribution --run=runs/cnn --method=occlusion --bin_bp=1000
    python -m experiments.attribution --run=runs/cnn --genes=expressed --tracks=bigwig
    python -m experiments.attribution --run=runs/both --assays=each     (trained with each,all)
    python -m experiments.attribution --run=runs/chromoformer --method=attention

--method=gradients divides the difference between each prediction and that from no signal at all
among bins (integrated gradients, exact to 1e-3 or it says so); occlusion empties one interval after
another, which takes longer and does not add up. Only models that never saw a gene explain it.
--method=attention, of chromoformer, writes into DIR/attention (or --out) attention.csv and
.parquet, where each promoter looks: a row a gene and region, with the share of the promoter's last
token that comes from it through all layers, by resolution, and what emptying the region does; and
agreement.csv, the rank correlation of that share with the size of the effect.

Writes into DIR/attribution (or --out): shares.zarr (shares by model, gene, assay and bin; open it
with xarray), profile.csv and .parquet (mean share by assay and distance to the TSS along the
strand, with intervals of models retrained on other genes), profile.png, and with --tracks a file
for each model and assay: the mean share of the genes whose window covers a base.
"""

import gzip
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
import xarray as xr
from absl import flags
from jaxtyping import Float, Int
from tqdm import tqdm

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import as_name, read_parquet, whole, write_csv, write_parquet
from epi2expr_jax.interpret import attribution
from epi2expr_jax.interpret.attention import agreement, attention_table
from epi2expr_jax.names import retrain
from epi2expr_jax.perturb.summary import NEEDED, reach_of_mean
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.predict.loading import load
from epi2expr_jax.program import require, start
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results
from epi2expr_jax.training.runs import ASSAY_SETS
from epi2expr_jax.units import count
from experiments.cli.flags import define_run, define_store, refuse_without_effect
from experiments.cli.genes import define_genes, genes_of
from experiments.figures.altered_marks import profile_figure
from experiments.figures.style import STYLE, save_figure, unit_of_shares

FLAGS = flags.FLAGS

METHODS = ("gradients", "occlusion", "attention")
TRACKS = ("none", "bigwig", "bedgraph")
UNIT = "share of the prediction"


def attribute(
    run_dir: pathlib.Path,
    method: str = "gradients",
    *,
    genes: str = "",
    assays: Sequence[str] = (),
    bin_bp: int = 0,
    tracks: str = "none",
    store: str | None = None,
    out: pathlib.Path | None = None,
) -> xr.Dataset:
    """Compute attributions, write them, their profiles and tracks; return them.

    Raises:
        InputError: for genes or models that cannot be explained.
    """
    ensemble = models_of(load(run_dir, store), assays)
    opened = ensemble.open_store(store)
    chosen = genes_of(genes, ensemble, opened)
    done = "gene" if method == "gradients" else "edited gene"
    folder = out or run_dir / "attribution"
    asked = {"method": method, "genes": genes, "assays": list(assays)}
    with results.written(folder, "attribution", **asked) as place:
        with tqdm(desc=method, unit=done, disable=None) as progress:
            if method == "gradients":
                found = attribution.integrated_gradients(
                    ensemble, opened, chosen, progress=progress.update
                )
            else:
                found = attribution.occlusion(
                    ensemble, opened, chosen, bp=bin_bp, progress=progress.update
                )
        # Format 3 has no text of fixed length.
        found.to_zarr(place / "shares.zarr", zarr_format=2, consolidated=True)
        profile = mean_profile(found)
        write_parquet(place / "profile.parquet", profile)
        write_csv(place / "profile.csv", profile)
        with matplotlib.rc_context(STYLE):
            unit = unit_of_shares(ensemble.target, ensemble.expression_unit, method)
            save_figure(profile_figure(profile, unit), place / "profile")
        if tracks != "none":
            write_tracks(found, opened, place, tracks)
    return found


def attention_and_effects(
    run_dir: pathlib.Path,
    *,
    genes: str = "",
    assays: Sequence[str] = (),
    store: str | None = None,
    out: pathlib.Path | None = None,
) -> pd.DataFrame:
    """Write attention to each region and what emptying it does; return how far these agree.

    Raises:
        InputError: for genes or models that have no attention among regions.
    """
    ensemble = models_of(load(run_dir, store), assays)
    opened = ensemble.open_store(store)
    chosen = genes_of(genes, ensemble, opened)
    asked = {"genes": genes, "assays": list(assays)}
    with results.written(out or run_dir / "attention", "attribution", **asked) as place:
        with tqdm(desc="attention", unit="edited gene", disable=None) as progress:
            table = attention_table(ensemble, opened, chosen, progress=progress.update)
        found = agreement(table)
        write_parquet(place / "attention.parquet", table)
        write_csv(place / "attention.csv", table)
        write_csv(place / "agreement.csv", found)
    return found


def models_of(ensemble: Ensemble, assays: Sequence[str]) -> Ensemble:
    """The models of some sets of assays; all models if none is named.

    Args:
        assays: sets, each joined by +, or kinds of sets as `experiments.train --assays` takes
            them: `each` for those of one assay, `all` for those of every assay of the store, …

    Raises:
        InputError: for a set that no model reads.
    """
    labels: set[str] = set()
    stored = len(ensemble.card.get("store", {}).get("assays", []))
    for wanted in assays:
        size = ASSAY_SETS[wanted](stored) if wanted in ASSAY_SETS else None
        kind = {run.label for run in ensemble.runs if len(run.assays) == size}
        if size and not kind and wanted != "all":
            expected = f"one of {', '.join(dict.fromkeys(run.label for run in ensemble.runs))}"
            remedy = f"name one of these; or {retrain(wanted)}"
            found = f"{wanted}, and no model of {count(size, 'assay')}: they were not trained"
            raise InputError("--assays", found, expected, remedy)
        labels |= kind or {run.label for run in ensemble.only(wanted).runs}
    return ensemble.select(lambda run: run.label in labels) if labels else ensemble


def mean_profile(found: xr.Dataset) -> pd.DataFrame:
    """Mean share over genes, with a 95 % interval of models retrained on other genes.

    Genes that one model explains share its errors, so neither genes nor chromosomes count as
    independent: the rule is that of `perturb.mean_effects`.

    Returns:
        Columns distance (bp from the TSS along the strand), share, low, high (NaN for too few
        models to say: see `perturb.summary.NEEDED`), model, assay, genes.
    """
    rows = []
    for model, assay, values, _ in _explained(found):
        own = found.isel(run=np.flatnonzero(found.of_model.to_numpy() == model))
        reach = reach_of_mean(
            own.of_run.sel(assay=assay).to_numpy(), own.explained.to_numpy(),
            own.fold.to_numpy(), found.overlap, found.attrs["train_share"],
        )  # fmt: skip
        mean = values.mean(axis=0)
        columns = {"distance": found.bin.to_numpy(), "share": mean}
        columns |= {"low": mean - reach, "high": mean + reach}
        rows.append(pd.DataFrame(columns).assign(model=model, assay=assay, genes=len(values)))
    return pd.concat(rows, ignore_index=True)


def _explained(found: xr.Dataset) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    """Each model and assay that it reads: shares `[g bin]` of the genes it explains, and which."""
    for model in found.model.to_numpy():
        for assay in found.assay.to_numpy():
            values = found.promoter.sel(model=model, assay=assay).to_numpy()
            known = ~np.isnan(values[:, 0])
            if known.any():
                yield str(model), str(assay), values[known], known


def write_tracks(found: xr.Dataset, store: WindowStore, out: pathlib.Path, kind: str) -> None:
    """A bigWig or a gzipped bedGraph of each model and assay that it reads."""
    genes = store.genes.set_index("gene_id").loc[found.gene.to_numpy()]
    sizes = store.manifest.chrom_sizes
    width = float(found.bin[1] - found.bin[0])
    edges = np.append(found.bin.to_numpy() - width / 2, found.bin.to_numpy()[-1] + width / 2)
    for model, assay, values, known in _explained(found):
        own = genes[known]
        minus = (own.strand == "-").to_numpy()
        of_chrom = {}
        for chrom in store.manifest.chromosomes:
            here = (own.chrom == chrom).to_numpy()
            of_chrom[chrom] = mean_along(
                own.tss.to_numpy()[here], minus[here], values[here], edges.astype(np.int64),
                sizes[chrom],
            )  # fmt: skip
        name = as_name(f"{model} {assay}")
        if kind == "bigwig":
            _write_bigwig(out / f"{name}.bw", of_chrom, sizes)
        else:
            _write_bedgraph(out / f"{name}.bedGraph.gz", of_chrom, f"{model}, {assay}")


def mean_along(
    tss: Int[np.ndarray, " G"],
    minus: np.ndarray,
    values: Float[np.ndarray, "G W"],
    edges: Int[np.ndarray, " W1"],
    size: int,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over the genes whose window covers a base, as stretches of one value.

    Args:
        values: along the strand.
        edges: of the bins, in bp from the TSS along the strand.
        size: of the chromosome; windows are cut at its ends.

    Returns:
        Start, end and value of each stretch that some gene covers, in order.
    """
    values = np.where(minus[:, None], values[:, ::-1], values)
    # Reversed, a bin from a to b bp of the TSS lies from -b to -a.
    offsets = np.where(minus[:, None], -edges[::-1], edges)
    places = np.clip(tss[:, None] + offsets, 0, size)
    at, index = np.unique(places, return_inverse=True)
    index = index.reshape(places.shape)
    total, covering = np.zeros(len(at)), np.zeros(len(at), np.int64)
    for side, sign in ((index[:, :-1], 1), (index[:, 1:], -1)):
        np.add.at(total, side, sign * values)
        np.add.at(covering, side, sign)
    total, covering = np.cumsum(total)[:-1], np.cumsum(covering)[:-1]
    there = covering > 0
    return at[:-1][there], at[1:][there], total[there] / covering[there]


def _write_bigwig(path: pathlib.Path, of_chrom: Mapping, sizes: Mapping[str, int]) -> None:
    from data_prep.formats.bigwig import create_bigwig  # not needed to import this program

    with create_bigwig(path, {chrom: sizes[chrom] for chrom in of_chrom}) as file:
        for chrom, (start, end, value) in of_chrom.items():
            if len(start):
                names = [chrom] * len(start)
                file.add(names, start.tolist(), ends=end.tolist(), values=value.tolist())


def _write_bedgraph(path: pathlib.Path, of_chrom: Mapping, name: str) -> None:
    with whole(path) as place, gzip.open(place, "wt") as file:
        file.write(f'track type=bedGraph name="{name}" description="{UNIT}"\n')
        for chrom, part in of_chrom.items():
            for start, end, value in zip(*part, strict=True):
                file.write(f"{chrom}\t{start}\t{end}\t{value:.6g}\n")


def describe(found: xr.Dataset, profile: pd.DataFrame, method: str) -> str:
    """Where each assay weighs most, and how exact the attributions are."""
    lines = [f"{'model':<28}{'assay':<12}{'genes':>7}   heaviest bin, mean {UNIT}"]
    for (model, assay), part in profile.groupby(["model", "assay"], sort=False):
        heaviest = part.iloc[int(np.argmax(np.abs(part["share"].to_numpy())))]
        lines.append(
            f"{model:<28}{assay:<12}{heaviest['genes']:>7}   "
            f"{heaviest['distance'] / 1000:+.2f} kb {heaviest['share']:+.4f}"
        )
    if profile["low"].isna().all():
        lines.append(f"no intervals: they take {NEEDED}")
    if method == "gradients":
        largest = float(np.abs(found.residual).max())
        lines.append(f"shares miss each difference by at most {largest:.1e}")
    return "\n".join(lines)


def describe_attention(found: pd.DataFrame) -> str:
    """How far attention goes with effects, in lines."""
    lines = [
        f"{row.cell} {row.assays}: {row.regions:,} regions; rank correlation of attention with the "
        f"size of the effect {row.spearman:.3f} over all, {row.within:.3f} within a gene (mean of "
        f"{row.genes:,})"
        for row in found.itertuples()
    ]
    return "\n".join(lines or ["no gene has a region"])


def define_attribution() -> None:
    flags.DEFINE_list(
        "assays",
        [],
        f"Of the models of these sets alone: H3K4me3,DNase+H3K27ac, or {', '.join(ASSAY_SETS)}.",
    )
    flags.DEFINE_enum("method", "gradients", METHODS, "How predictions are divided among bins.")
    flags.DEFINE_integer(
        "bin_bp", 0, "occlusion: width of what is emptied, in bp; 0: the bins of the model."
    )
    flags.DEFINE_enum("tracks", "none", TRACKS, "Also write a track for each model and assay.")
    flags.DEFINE_string("out", None, "Where to write; default: DIR/attribution, or DIR/attention.")


def main() -> None:
    require("run")
    idle = {"gradients": ["bin_bp"], "attention": ["bin_bp", "tracks"]}.get(FLAGS.method, [])
    refuse_without_effect([(name, f"with --method={FLAGS.method}") for name in idle])
    run_dir = pathlib.Path(FLAGS.run)
    if FLAGS.method == "attention":
        out = pathlib.Path(FLAGS.out or run_dir / "attention")
        found = attention_and_effects(
            run_dir, genes=FLAGS.genes, assays=FLAGS.assays, store=FLAGS.store, out=out
        )
        print(describe_attention(found))
        print(f"{out}: attention.csv, attention.parquet, agreement.csv")
        return
    out = pathlib.Path(FLAGS.out) if FLAGS.out else run_dir / "attribution"
    found = attribute(
        run_dir, FLAGS.method, genes=FLAGS.genes, assays=FLAGS.assays, bin_bp=FLAGS.bin_bp,
        tracks=FLAGS.tracks, store=FLAGS.store, out=out,
    )  # fmt: skip
    profile = read_parquet(out / "profile.parquet", "table of profiles", "run it again")
    print(describe(found, profile, FLAGS.method))
    print(f"{out}: shares.zarr, profile.csv, profile.png")


def run() -> None:
    start(main, define_run, define_store, define_genes, define_attribution)


if __name__ == "__main__":
    run()
