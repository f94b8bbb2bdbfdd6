"""Which element changes which gene? Every element of a BED, on every gene whose model reads it.

    python -m experiments.element_map --run=runs/k562 --elements=peaks.bed
    python -m experiments.element_map --run=runs/k562 --elements=peaks.bed.gz --single_marks
    python -m experiments.element_map --run=runs/k562 --elements=peaks.bed --marks=DNase+H3K27ac
    python -m experiments.element_map --run=RUN --elements=peaks.bed --candidates=AllPutative.tsv.gz
    python -m experiments.element_map --run=RUN --elements=hg38.bed --chain=hg38ToHg19.over.chain.gz

An element is silenced: all active marks and DNase go down to the window's lower quartile, over the
element and 250 bp on either side, and models that never saw the gene predict its expression. A
gene's model reads an element whose middle lies in its window or in a region that it touches.

Writes into --out (default: DIR/element_map) element_map.tsv.gz, a row an element and gene, with
columns named as by the ABC model: chr, start, end, name, CellType, TargetGene, TargetGeneEnsemblID,
TargetGeneTSS, distance (bp, from the middle of the element), isSelfPromoter (within 250 bp of the
TSS); and before (predicted log2(x + 1)), effect (its change), low and high (95 % interval of models
retrained on other genes; empty where too few models predict), change (of x + 1, as a fraction),
models (how many), changed (whether there was signal to silence), outside (whether what is left lies
outside the range trained on); with --single_marks effect_MARK of each mark alone.

--candidates is a table of all candidate elements of each gene, its own promoter among them, such as
EnhancerPredictionsAllPutative of the ABC model: chr, start, end, TargetGene, activity_base and a
column of contacts. Then ABC.Score is their activity × contact as a share of the gene's sum over all
of them; empty for genes whose promoter is not listed, and for elements that are no candidates.

--chain takes elements, and candidates, to the assembly of the run's tracks. The map has their
places there; elements without a name keep their place in the BED as one. What has no place, and
what lies on chromosomes that the store's assembly lacks, is left out and counted.

Some 65,000 predictions are in memory at a time; only the lists of elements and pairs grow. Killed,
the same command goes on where it was.
"""

import dataclasses
import gzip
import io
import pathlib
import resource
import shutil

import pandas as pd
from absl import flags
from tqdm import tqdm

from data_prep.formats.bed import on_assembly, read_intervals
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import (
    numbers,
    only_writer,
    read_json,
    read_parquet,
    sha256,
    write_json,
    write_parquet,
)
from epi2expr_jax.perturb.elements import (
    QUERIES,
    batches,
    in_reach,
    predict_silenced,
    predictable,
)
from epi2expr_jax.program import require, start
from epi2expr_jax.screens.abc import ABC, PROMOTER_BP, abc_scores
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study import results
from epi2expr_jax.units import count
from experiments.cli.elements import (
    SilencingModels,
    define_chain,
    define_silencing,
    lift,
    lift_distinct,
    silencer_of_flags,
)
from experiments.cli.flags import define_run, define_store
from experiments.cli.given_table import read_table

FLAGS = flags.FLAGS

NAME = "element_map.tsv.gz"
_PLACE = ["chr", "start", "end"]


def write_map(
    out: pathlib.Path,
    models: SilencingModels,
    bed: pathlib.Path,
    candidates: pathlib.Path | None = None,
    *,
    contact: str = "",
    chain: str = "",
    queries: int = QUERIES,
) -> str:
    """Write the map, and say in words what it holds.

    Args:
        bed: of elements, on the store's assembly, or on that where `chain` starts.
        candidates: see the module; on the same assembly as the elements.
        contact: their column of contacts, see `screens.abc.abc_scores`.
        chain: a chain file, from the elements' assembly to the store's.
        queries: predicted at a time; also what is lost if this is killed.

    Raises:
        InputError: for files that cannot be read, or if no gene's model reads any element.
    """
    store, ensemble = models.store, models.ensemble
    elements, left_out = _elements(bed, store, chain)
    config, cell = ensemble.members[0].model_config, ensemble.runs[0].cell
    pairs = predictable(ensemble, store, in_reach(store, config, cell, elements))
    if pairs.empty:
        found = f"{count(len(elements), 'element')}, none in a window or region of a gene's model"
        remedy = f"give elements of {store.manifest.assembly}, or models that read farther"
        raise InputError(str(bed), found, "elements in reach", remedy)
    scores, counted = None, ""
    if candidates:
        scores, counted = _abc(candidates, store, contact, chain)
    parts = batches(pairs, len(models.silencing.ways), queries)
    most = max(int(part["rank"].max()) + 1 for part in parts)
    asked = {
        "elements": sha256(bed),
        "candidates": sha256(candidates) if candidates else "",
        "contact": contact,
        "chain": sha256(chain) if chain else "",
        "store": store.checksum(),
        "models": [run.run_id for run in ensemble.runs],
        "weights": [part["weights_sha256"] for part in ensemble.card["populations"]],
        "silencing": {**dataclasses.asdict(models.silencing), "marks": [*models.silencing.marks]},
        "parts": len(parts),
    }
    folder = out / ".element_map"
    with only_writer(folder):
        _begin(folder, asked)
        with tqdm(total=len(pairs), desc="pairs", unit="pair", disable=None) as progress:
            for number, part in enumerate(parts):
                path = folder / f"{number:06}.parquet"
                if not path.exists():
                    found = predict_silenced(
                        ensemble, store, elements, part, models.silencing, most
                    )
                    write_parquet(path, _named(found, elements, models, scores))
                progress.update(len(part))
        with results.written(out, "element_map", **asked) as place:
            _joined(folder, len(parts), place / NAME)
        shutil.rmtree(folder)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{out / NAME}: {count(len(pairs), 'pair')} of "
        f"{count(pairs['element'].nunique(), 'element')} (of {len(elements):,}) and "
        f"{count(pairs['gene'].nunique(), 'gene')}, by models of "
        f"{ensemble.runs[0].label} in {cell}; silenced: {', '.join(models.silencing.marks)}; "
        f"{peak:,.0f} MB of memory at peak{counted}{left_out}"
    )


def _elements(bed: pathlib.Path, store: WindowStore, chain: str) -> tuple[pd.DataFrame, str]:
    """Elements on the store's assembly, each with a name, and in words what was left out."""
    given, said = read_intervals(bed), ""
    given["name"] = given["name"].where(~given["name"].isin(["", "."]), _places(given))
    if chain and len(given):
        given, lifted = lift(pathlib.Path(chain), given)
        said = f"; {lifted}"
    found = on_assembly(given, store.manifest.chrom_sizes, str(bed))
    if unknown := len(given) - len(found):
        assembly = store.manifest.assembly
        said += f"; {count(unknown, 'element')} on chromosomes that {assembly} lacks left out"
    return found, said


def _places(elements: pd.DataFrame) -> pd.Series:
    ends = elements["start"].astype(str) + "-" + elements["end"].astype(str)
    return elements["chrom"] + ":" + ends


def _abc(
    path: pathlib.Path, store: WindowStore, contact: str, chain: str
) -> tuple[pd.DataFrame, str]:
    """ABC scores of candidates, and in words for how many genes."""
    table, lifted = read_table(path), ""
    known = chain and {*_PLACE} <= {*table}
    if known and all(numbers(table[side]).notna().all() for side in _PLACE[1:]):
        given = table[_PLACE].set_axis(["chrom", "start", "end"], axis=1)
        places, lifted = lift_distinct(pathlib.Path(chain), given)
        table = table.loc[places.index].copy()
        for own, place in zip(_PLACE, places, strict=True):
            table[own] = places[place]
        lifted = f"; candidates: {lifted}"
    scores = abc_scores(table, store.genes, str(path), contact)
    found = scores[ABC].notna().groupby(scores["gene"]).any()
    said = (
        f"; {ABC} for {count(found.sum(), 'gene')}, {(~found).sum():,} have no promoter among their"
    )
    return scores, f"{said} candidates{lifted}"


def _begin(folder: pathlib.Path, asked: dict) -> None:
    """A folder for parts; those of another request are removed."""
    record = folder / "asked.json"
    if record.exists() and read_json(record, "record of parts", "remove the folder") == asked:
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    write_json(record, asked)


def _named(
    found: pd.DataFrame,
    elements: pd.DataFrame,
    models: SilencingModels,
    scores: pd.DataFrame | None,
) -> pd.DataFrame:
    """Predictions with the columns of the ABC model."""
    own = elements.iloc[found["element"]].reset_index(drop=True)
    genes = models.store.genes.iloc[found["gene"]].reset_index(drop=True)
    table = pd.DataFrame(
        {
            "chr": own["chrom"],
            "start": own["start"],
            "end": own["end"],
            "name": own["name"],
            "CellType": models.ensemble.runs[0].cell,
            "TargetGene": genes.get("name", genes["gene_id"]),
            "TargetGeneEnsemblID": genes["gene_id"],
            "TargetGeneTSS": genes["tss"],
            "distance": ((own["start"] + own["end"]) // 2 - genes["tss"]).abs(),
            "isSelfPromoter": (own["start"] < genes["tss"] + PROMOTER_BP)
            & (own["end"] > genes["tss"] - PROMOTER_BP),
        }
    )
    predicted = found.drop(columns=["gene", "element", "rank"]).reset_index(drop=True)
    table = pd.concat([table, predicted], axis=1)
    if scores is None:
        return table
    keyed = table.assign(gene=found["gene"].to_numpy())
    return keyed.merge(scores, on=[*_PLACE, "gene"], how="left").drop(columns="gene")


def _joined(folder: pathlib.Path, parts: int, path: pathlib.Path) -> None:
    """All parts in one file, one in memory at a time."""
    with open(path, "wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
        text = io.TextIOWrapper(packed, "utf-8")
        for number in range(parts):
            part = read_parquet(folder / f"{number:06}.parquet", "part of a map", "run it again")
            part.to_csv(text, sep="\t", index=False, header=not number, float_format="%.6g")
        text.detach()


def main() -> None:
    require("run", "elements")
    out = FLAGS.out or f"{FLAGS.run}/element_map"
    candidates = pathlib.Path(FLAGS.candidates) if FLAGS.candidates else None
    bed = pathlib.Path(FLAGS.elements)
    options = {"contact": FLAGS.contact, "chain": FLAGS.chain}
    print(write_map(pathlib.Path(out), silencer_of_flags(), bed, candidates, **options))


def define_flags() -> None:
    flags.DEFINE_string("elements", None, "BED of elements, on the assembly of the store.")
    flags.DEFINE_string("out", None, "Folder for the map; default: DIR/element_map.")
    flags.DEFINE_string("candidates", "", f"Candidates of every gene, for {ABC}; see above.")
    flags.DEFINE_string("contact", "", "Their column of contacts; default: what the ABC model has.")


def run() -> None:
    start(main, define_run, define_store, define_silencing, define_chain, define_flags)


if __name__ == "__main__":
    run()
