"""Write a small synthetic Roadmap with planted truth, in the formats of the real one.

  python -m data_prep.simulate --out=sim
  python -m data_prep.simulate --out=tiny --genes=60 --cells=1
  python -m data_prep.simulate --out=mouse --assembly=mm10 --genes=300 --cells=1

DIR then holds, ready for `data_prep.build_store`:

  tracks.csv           the track sheet, one bigWig a line
  *.bigwig             -log10 p signal of every cell and assay
  RPKM.pc.gz           expression matrix, with the real one's trailing tab
  genes.gtf.gz         genes, transcripts, exons, coding sequence
  contacts.bedpe       promoter-capture contacts
  genome.chrom.sizes   chromosome lengths, for --assembly
  truth_elements.csv   every regulatory element of every gene
  truth.json           what drives expression, where, and the oracle: the best score any predictor
                       limited to one assay and one window can reach

The first cells and assays of the shipped Roadmap sheet lend their names. The same flags always
write the same files. truth.json is written last: without it the folder is not complete.
"""

import collections
import contextlib
import dataclasses
import gzip
import json
import os
import pathlib
from collections.abc import Iterator

import numpy as np
import pandas as pd
from absl import flags
from tqdm import tqdm

from data_prep import planted
from data_prep.formats.assembly import Assembly, load_assembly, select_chromosomes
from data_prep.formats.track_sheet import TrackSheet, read_sheet
from data_prep.planted_tracks import write_bigwig
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import only_writer, sha256, write_json
from epi2expr_jax.genome import listing, strip_version
from epi2expr_jax.program import start
from epi2expr_jax.roadmap import AUTOSOMES

FORMAT = 1  # raised whenever the same flags would write other files


@dataclasses.dataclass(frozen=True)
class _Request:
    """What was asked for; it decides every byte."""

    genes: int
    cells: int
    seed: int
    assays: int
    assembly: str = ""
    chromosomes: int = len(AUTOSOMES)
    format: int = FORMAT


def simulate(
    out: str | os.PathLike,
    *,
    genes: int = 1500,
    cells: int = 3,
    seed: int = 0,
    assays: int | None = None,
    assembly: str = "",
    chromosomes: int | None = None,
) -> pathlib.Path:
    """Write a synthetic Roadmap into the folder `out`, or leave it be if it is there already.

    Args:
        out: folder to create; existing, it must be empty or hold (part of) the same simulation.
        genes: how many genes, at least `planted.LEAST_GENES`.
        cells: how many cells of the Roadmap sheet have tracks; all of them have expression.
        seed: seed of everything random, not negative.
        assays: how many assays of the sheet to simulate; all by default.
        assembly: whose chromosomes to use, names and lengths (`mm10`, …, or a FILE.chrom.sizes);
            the genes lie at their beginnings. Empty: chr1 to chr22, as long as needed.
        chromosomes: how many numbered ones have genes; all of the assembly by default, at most 22.

    Returns:
        The folder.

    Raises:
        InputError: if the numbers do not fit the sheet, `out` holds something else, or another
            process writes it.
    """
    out = pathlib.Path(out)
    sheet = _roadmap_sheet()
    genome = load_assembly(assembly) if assembly else None
    names = select_chromosomes(genome)[: len(AUTOSOMES)] if genome else list(AUTOSOMES)
    request = _Request(
        genes,
        cells,
        seed,
        len(sheet.assays) if assays is None else assays,
        assembly,
        len(names) if chromosomes is None else chromosomes,
    )
    _check_request(request, len(sheet.cells), len(sheet.assays), len(names))
    with only_writer(out):
        if not _is_complete(out, request):
            _write(out, request, sheet, genome, names)
    return out


def _write(
    out: pathlib.Path,
    request: _Request,
    sheet: TrackSheet,
    genome: Assembly | None,
    chromosomes: list[str],
) -> None:
    """Write all files of the simulation.

    Args:
        genome: whose chromosomes are used, if any.
        chromosomes: those that may have genes.
    """
    genes, seed = request.genes, request.seed
    unfinished = out / "unfinished.json"
    out.mkdir(parents=True, exist_ok=True)
    write_json(unfinished, {"request": dataclasses.asdict(request)})

    used, names = chromosomes[: request.chromosomes], sheet.assays[: request.assays]
    roles = planted.assign_roles(names, seed)
    land = planted.lay_out(genes, seed, used)
    sizes = dict(land.sizes)
    if genome:
        sizes = {chrom: genome.chrom_sizes[chrom] for chrom in land.sizes}
        short = [chrom for chrom in sizes if sizes[chrom] < land.sizes[chrom]]
        if short:
            raise InputError(
                f"--assembly={request.assembly}",
                f"{listing(short)}, too short for the genes simulated there",
                f"at least {max(land.sizes[chrom] for chrom in short):,} bp",
                "simulate fewer genes, or give longer chromosomes",
            )
    activity = {cell: planted.activity(genes, c, seed) for c, cell in enumerate(sheet.cells)}
    expression = {cell: planted.rpkm(t, c, seed) for c, (cell, t) in enumerate(activity.items())}
    _write_genes(out, land, sizes)
    _write_expression(out / "RPKM.pc.gz", land, expression)

    rows, oracle = [], {scope: {} for scope in planted.SCOPES}
    tracks = sheet.select(sheet.cells[: request.cells], names).tracks
    for track in tqdm(tracks, desc="simulate", unit="track", disable=None):
        cell, assay = track.cell, track.assay
        rng = planted.stream(seed, "track", sheet.cells.index(cell), sheet.assays.index(assay))
        readings = planted.read_activity(activity[cell], roles[assay], land.elements, rng)
        path = out / f"{cell}-{assay}.pval.signal.bigwig"
        write_bigwig(path, sizes, land.sizes, readings, rng)
        rows.append((cell, assay, path.name, sha256(path), track.unit, track.group))
        observed = np.log2(expression[cell] + 1)
        for scope in planted.SCOPES:
            best = planted.best_prediction(readings, genes, scope)
            score = planted.pearson_within(best, observed, land.genes.chrom)
            oracle[scope].setdefault(cell, {})[assay] = round(score, 4)
    for scores in oracle.values():
        scores["all"] = pd.DataFrame(scores).mean(axis=1).round(4).to_dict()
    columns = ["cell", "assay", "path", "sha256", "unit", "group"]
    pd.DataFrame(rows, columns=columns).to_csv(out / "tracks.csv", index=False)

    truth = {
        "request": dataclasses.asdict(request),
        "seed": seed,
        "effects": {assay: _describe(role) for assay, role in roles.items()},
        "oracle": oracle,
        "files": {
            path.name: path.stat().st_size
            for path in sorted(out.iterdir())
            if not path.name.startswith(("unfinished.", "truth.json"))
        },
    }
    write_json(out / "truth.json", truth)
    unfinished.unlink()


def _roadmap_sheet() -> TrackSheet:
    """The shipped sheet, reduced to the cells that have every assay."""
    sheet = read_sheet("roadmap_pvalue")
    count = collections.Counter(track.cell for track in sheet.tracks)
    return sheet.select(cells=[cell for cell in count if count[cell] == len(sheet.assays)])


def _check_request(request: _Request, cells: int, assays: int, chromosomes: int) -> None:
    wanted = {
        "genes": (request.genes, planted.LEAST_GENES, 20_000),
        "cells": (request.cells, 1, cells),
        "assays": (request.assays, 1, assays),
        "seed": (request.seed, 0, 2**32 - 1),
        "chromosomes": (request.chromosomes, 1, chromosomes),
    }
    with collect() as problems:
        for name, (value, low, high) in wanted.items():
            if not low <= value <= high:
                remedy = f"choose another number of {name}"
                problems.add("simulate", f"{name}={value}", f"{low} to {high}", remedy)


def _is_complete(out: pathlib.Path, request: _Request) -> bool:
    """Whether `out` holds this very simulation, whole. False: it may be written to.

    Raises:
        InputError: if `out` holds anything else.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    wanted = dataclasses.asdict(request)
    truth, started = _read_json(out / "truth.json"), _read_json(out / "unfinished.json")
    held = (truth or started).get("request")
    if held:  # by an older version, which knew but one genome
        held = {"assembly": "", "chromosomes": len(AUTOSOMES)} | held
    if held == wanted:
        if truth:
            _check_files(out, truth["files"])
        return bool(truth)
    raise InputError(
        str(out),
        f"a simulation of {held}" if held else "something that is not a simulation",
        f"an empty or new folder, or the simulation of {wanted}",
        "choose another --out, or remove this one",
    )


def _check_files(out: pathlib.Path, files: dict[str, int]) -> None:
    """Refuse a finished simulation that has lost files, or whose files were changed."""
    with collect() as problems:
        for name, expected in files.items():
            size = (out / name).stat().st_size if (out / name).exists() else 0
            if size != expected:
                problems.add(
                    str(out / name),
                    f"{size} bytes",
                    f"{expected} bytes, as truth.json says",
                    "remove the folder and simulate again",
                )


def _describe(role: planted.Role) -> dict:
    """A role as truth.json tells it: offsets in bp from the TSS, along the strand."""
    components = [
        {
            "component": name,
            "rho": round(rho, 4),
            "offsets_bp": planted.reach(name),  # null: see truth_elements.csv
            "visible_from": planted.COMPONENTS[name].scope,
        }
        for name, rho in role.rho.items()
    ]
    return {"drives": role.sign != 0, "sign": role.sign, "components": components}


def _write_genes(out: pathlib.Path, land: planted.Landscape, sizes: dict[str, int]) -> None:
    """Chromosome sizes, annotation, contacts and elements."""
    lines = "".join(f"{chrom}\t{size}\n" for chrom, size in sizes.items())
    (out / "genome.chrom.sizes").write_text(lines)
    lines = [line for gene in land.genes.itertuples() for line in _gtf_lines(gene)]
    _write_gzip(out / "genes.gtf.gz", "##description: simulated genes\n" + "\n".join(lines) + "\n")
    ids = land.genes.gene_id.map(strip_version).to_numpy()
    contacts = land.contacts
    pd.DataFrame(
        {
            "#chrom1": contacts.chrom,
            "start1": contacts.start1,
            "end1": contacts.end1,
            "chrom2": contacts.chrom,
            "start2": contacts.start2,
            "end2": contacts.end2,
            "name": ids[contacts.gene],
            "score": contacts.score,
            "strand1": ".",
            "strand2": ".",
        }
    ).to_csv(out / "contacts.bedpe", sep="\t", index=False)
    elements = land.elements.drop(columns="gene")
    elements.insert(0, "gene_id", ids[land.elements.gene])
    elements.to_csv(out / "truth_elements.csv", index=False)


def _read_json(path: pathlib.Path) -> dict:
    """The object in a file; empty if there is none (anybody's file may have that name)."""
    with contextlib.suppress(OSError, ValueError):
        content = json.loads(path.read_text())
        return content if isinstance(content, dict) else {}
    return {}


def _write_gzip(path: pathlib.Path, text: str) -> None:
    """Gzip without a time stamp, so that the same text makes the same bytes."""
    path.write_bytes(gzip.compress(text.encode(), mtime=0))


def _gtf_lines(gene) -> Iterator[str]:
    """GTF records (1-based, closed) of a gene and its transcripts, the longest one first.

    Exons are placed along the strand: the 5′ end of the gene is the longest transcript's. Every
    third gene has a second transcript, which begins at the second exon.
    """
    number = gene.gene_id.partition(".")[0][4:]
    length = gene.end - gene.start
    exons = [(0, 300), (length // 2, length // 2 + 180), (length - 500, length)]

    def record(feature: str, low: int, high: int, **more: str) -> str:
        if gene.strand == "+":
            start, end = gene.start + low + 1, gene.start + high
        else:
            start, end = gene.end - high + 1, gene.end - low
        tags = {"gene_id": gene.gene_id} | more
        tags |= {"gene_name": gene.name, "gene_type": "protein_coding"}
        text = " ".join(f'{key} "{value}";' for key, value in tags.items())
        frame = "0" if feature == "CDS" else "."
        fields = (gene.chrom, "SIMULATED", feature, start, end, ".", gene.strand, frame, text)
        return "\t".join(map(str, fields))

    yield record("gene", 0, length)
    for t, own in enumerate([exons, exons[1:]][: 2 if int(number) % 3 == 0 else 1]):
        name = f"ENST{number[1:]}{t}.1"
        tags = {"transcript_id": name, "transcript_type": "protein_coding"}
        tags["transcript_name"] = f"{gene.name}-{t + 1:03d}"
        yield record("transcript", own[0][0], length, **tags)
        for e, (low, high) in enumerate(own):
            exon = tags | {"exon_number": str(e + 1), "exon_id": f"ENSE{number[2:]}{t}{e}.1"}
            yield record("exon", low, high, **exon)
            first, last = e == 0, e == len(own) - 1
            coding = (low + 90 * first, high - 200 * last)
            if first:
                yield record("start_codon", coding[0], coding[0] + 3, **exon)
            yield record("CDS", *coding, **exon, protein_id=f"ENSP{number[1:]}{t}.1")
            if last:
                yield record("stop_codon", coding[1], coding[1] + 3, **exon)


def _write_expression(path: pathlib.Path, land: planted.Landscape, expression: dict) -> None:
    """The matrix as Roadmap writes it: data rows end in a tab, the header does not."""
    table = pd.DataFrame(expression, index=land.genes.gene_id.map(strip_version)).sort_index()
    lines = ["\t".join(["gene_id", *table.columns])]
    for gene_id, values in zip(table.index, table.to_numpy(), strict=True):
        lines.append("\t".join([gene_id, *(f"{value:.3f}" for value in values)]) + "\t")
    _write_gzip(path, "\n".join(lines) + "\n")


def define_flags() -> None:
    """The flags of this program."""
    flags.DEFINE_string("out", None, "Folder to write.", required=True)
    flags.DEFINE_integer("genes", 1500, "How many genes, over all chromosomes.")
    flags.DEFINE_integer("cells", 3, "How many cells have tracks.")
    flags.DEFINE_integer("assays", None, "How many assays; all of the Roadmap sheet by default.")
    flags.DEFINE_string(
        "assembly", "", "Names and lengths of chromosomes: hg38, mm10, … Empty: a small genome."
    )
    flags.DEFINE_integer("chromosomes", None, "How many chromosomes have genes; all by default.")
    flags.DEFINE_integer("seed", 0, "Seed of everything random.")


def main() -> None:
    given = flags.FLAGS
    there = (pathlib.Path(given.out) / "truth.json").exists()
    out = simulate(
        given.out,
        genes=given.genes,
        cells=given.cells,
        seed=given.seed,
        assays=given.assays,
        assembly=given.assembly,
        chromosomes=given.chromosomes,
    )
    print(f"{out}: {'already there, complete' if there else 'written'}")


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
