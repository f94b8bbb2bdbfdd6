"""Small inputs in every format that a command reads, where `data_prep.simulate` writes none."""

import gzip
import hashlib
import pathlib
import re

import numpy as np
import pandas as pd
import pyBigWig

from tests.data_prep.contact_maps import write_cool
from tests.epi2expr_jax.screens.screen import made_up

GENES = 66  # three on each chromosome
CELLS = ("E003", "E114")
ASSAYS = ("H3K36me3", "H3K4me1")

_STUDY = """
out = "study"
[store]
tracks = "data/tracks.csv"
expression = "data/RPKM.pc.gz"
genes = "data/genes.gtf.gz"
assembly = "data/genome.chrom.sizes"
window_bp = 6000
bin_bp = 50
workers = 1
[train.cnn]
model = "promoter_cnn"
width = 0.02
epochs = 2
batch_size = 32
cv = "chromosomes_3"
cells = "E003"
assays = "all"
[[predict]]
run = "cnn"
"""


def write(folder: pathlib.Path, url: str) -> None:
    """All of them, next to the simulated Roadmap in `folder/data`, which `url` serves."""
    random = np.random.default_rng(0)
    for make in (_reads, _counts, _arrays, _variants, _screen):
        make(folder, random)
    _sheets(folder, url)
    _other_names(folder)
    _elements(folder, random)


def _reads(folder: pathlib.Path, random: np.random.Generator) -> None:
    """Alignments of two samples on two chromosomes."""
    (folder / "reads").mkdir()
    (folder / "reads/toy.chrom.sizes").write_text("chr1\t60000\nchr2\t30000\n")
    for name in ("one", "two"):
        with gzip.open(folder / f"reads/{name}.tagAlign.gz", "wt") as file:
            for start in random.integers(0, 29_000, 3000):
                file.write(f"chr{1 + start % 2}\t{start}\t{start + 36}\tN\t1000\t+\n")


def _counts(folder: pathlib.Path, random: np.random.Generator) -> None:
    """Window counts of two cells, 12 genes, and their annotation and expression."""
    (folder / "counts").mkdir()
    genes = [(f"ENSG{g:02}", f"G{g}", f"chr{1 + g % 6}", 50_000 + g, "+") for g in range(12)]
    columns = ["gene_id", "name", "chrom", "tss", "strand"]
    pd.DataFrame(genes, columns=columns).to_csv(folder / "counts/genes.csv.gz", index=False)
    rpkm = pd.DataFrame(random.gamma(1, 3, (12, 2)).round(2), columns=list(CELLS))
    rpkm.insert(0, "gene_id", [gene[0] for gene in genes])
    rpkm.to_csv(folder / "counts/rpkm.csv.gz", index=False)
    for cell in CELLS:
        with gzip.open(folder / f"counts/{cell}.train.csv.gz", "wt") as file:
            for gene, symbol, *_ in genes:
                for place in range(1, 21):
                    two = ",".join(map(str, random.integers(0, 9, 2)))
                    file.write(f"{gene}_{symbol}_{place},{two}\n")


def _arrays(folder: pathlib.Path, random: np.random.Generator) -> None:
    """Chromoformer's layout: two cells, two marks, six genes."""
    rows = []
    for number in range(6):
        tss = 50_000 + 20_000 * number
        contacts = ("chr2:500-750;chr1:200-300", "2.5;1.5") if number % 2 else ("", "")
        for cell in CELLS:
            row = [f"g{number}", number / 2, cell, number % 2, "chr1", tss, tss + 1, "+", *contacts]
            rows.append(row)
    header = [
        "gene_id",
        "expression",
        "eid",
        "label",
        "chrom",
        "start",
        "end",
        "strand",
        "neighbors",
        "scores",
    ]
    table = pd.DataFrame(rows, columns=header)
    (folder / "npy").mkdir()
    table.to_csv(folder / "npy/meta.csv", index=False)
    (folder / "npy/toy.chrom.sizes").write_text("chr1\t200000\nchr2\t1000\n")
    places = {f"chr1:{tss - 20_000}-{tss + 20_000}": 40_000 for tss in table.start}
    for cell in CELLS:
        (folder / "npy" / cell).mkdir()
        for name, bases in {**places, "chr2:500-750": 250, "chr1:200-300": 100}.items():
            depth = random.integers(0, 50, (2, bases)).astype(np.float16)
            np.save(folder / "npy" / cell / f"{name}.npy", depth)


def _variants(folder: pathlib.Path, random: np.random.Generator) -> None:
    """Places of 60 genes with made-up effects, eQTLs and the variants that were tested."""
    (folder / "eqtl").mkdir()
    gene, place = (axis.ravel() for axis in np.indices((60, 5)))
    start = 50_000 + 100_000 * (gene // 12) + 2000 * place
    table = pd.DataFrame({"gene_id": np.char.mod("ENSG%05d", gene), "start": start})
    table["chrom"], table["end"] = np.char.mod("chr%d", gene % 12 + 1), start + 2000
    table["distance"], table["signal"] = 2000 * (place - 2), random.gamma(2, 1, gene.size)
    table = table.assign(cell="E003", assays="H3K27ac", effect=random.normal(size=gene.size))
    table.to_parquet(folder / "eqtl/effects.parquet", index=False)
    pairs = table.assign(pos=table.start + 5)[["gene_id", "chrom", "pos"]]
    pairs[place == random.integers(0, 5, 60)[gene]].to_csv(
        folder / "eqtl/eqtls.tsv.gz", sep="\t", index=False
    )
    pairs.to_parquet(folder / "eqtl/tested.parquet", index=False)


def _screen(folder: pathlib.Path, random: np.random.Generator) -> None:
    """Pairs of elements and genes of a CRISPRi screen."""
    (folder / "screen").mkdir()
    pairs = made_up(random, sizes=(30, 40, 50, 60, 40))
    pairs = pairs.assign(HiC=random.gamma(2, 1, len(pairs)).round(3))
    pairs.to_csv(folder / "screen/pairs.tsv.gz", sep="\t", index=False)


def _elements(folder: pathlib.Path, random: np.random.Generator) -> None:
    """Elements of the simulated genes: a BED, a screen of them, and a contact map."""
    truth = pd.read_csv(folder / "data/truth_elements.csv")
    place = truth[["chrom", "start", "end"]]
    place.to_csv(folder / "data/elements.bed", sep="\t", header=False, index=False)
    far = place.assign(chrom="chr1", start=place.start + 200_000, end=place.end + 200_000)
    pairs = pd.concat([place, far], ignore_index=True)
    pairs = pairs.set_axis(["chrom", "chromStart", "chromEnd"], axis=1)
    pairs["measuredGeneEnsemblId"] = [*truth.gene_id] * 2
    pairs["Regulated"] = random.random(len(pairs)) < 0.3
    pairs["distanceToTSS"] = random.integers(100, 90_000, len(pairs))
    pairs["DHS.RPM"] = random.gamma(2, 1, len(pairs)).round(3)
    pairs.to_csv(folder / "screen/silenced.tsv.gz", sep="\t", index=False)
    sizes = pd.read_csv(folder / "data/genome.chrom.sizes", sep="\t", header=None, index_col=0)
    (folder / "maps").mkdir()
    write_cool(folder / "maps/map.cool", sizes[1].to_dict(), 5_000)


def _other_names(folder: pathlib.Path) -> None:
    """The simulated annotation and one track by other names of the chromosomes."""
    (folder / "other").mkdir()
    sizes = pd.read_csv(folder / "data/genome.chrom.sizes", sep="\t", names=["name", "length"])
    other = {name: f"scaffold_{name[3:]}" for name in sizes.name}
    lines = "".join(f"{new}\t{name}\n" for name, new in other.items())
    (folder / "other/chromAlias.txt").write_text(lines)
    annotation = gzip.decompress((folder / "data/genes.gtf.gz").read_bytes()).decode()
    (folder / "other/genes.gtf").write_text(re.sub(r"(?m)^chr", "scaffold_", annotation))
    sheet = pd.read_csv(folder / "data/tracks.csv", dtype=str)
    sheet["path"] = "../data/" + sheet.path
    named = folder / "other/named.bigwig"
    with (
        pyBigWig.open(str(folder / "other" / sheet.path[0])) as old,
        pyBigWig.open(str(named), "w") as new,
    ):
        new.addHeader([(other[name], length) for name, length in old.chroms().items()])
        for name in old.chroms():
            starts, ends, values = zip(*old.intervals(name), strict=True)
            new.addEntries([other[name]] * len(starts), [*starts], ends=[*ends], values=[*values])
    digest = hashlib.sha256(named.read_bytes()).hexdigest()
    sheet.loc[0, ["path", "sha256"]] = named.name, digest
    sheet.to_csv(folder / "other/tracks.csv", index=False)


def _sheets(folder: pathlib.Path, url: str) -> None:
    """The simulated track sheet, with URLs in place of paths."""
    sheet = pd.read_csv(folder / "data/tracks.csv", dtype=str)
    sheet["url"] = f"{url}/fine/" + sheet.path
    sheet.drop(columns="path").to_csv(folder / "data/urls.csv", index=False)
    for path in (folder / "data").glob("*.bigwig"):
        (found,) = sheet[sheet.url.str.endswith(f"/{path.name}")].sha256
        assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "data/places.bed").write_text("chr1\t1000\t90000\nchr2\t1000\t90000\n")
    table = pd.read_csv(folder / "data/RPKM.pc.gz", sep="\t", index_col=False)
    genes = table.gene_id
    (folder / "data/held_out.txt").write_text("\n".join(genes[:5]) + "\n")
    known = pd.DataFrame({"gene_id": genes, "gc": np.arange(len(genes)) % 7 / 7})
    known.to_csv(folder / "data/genes.csv", index=False)
    (folder / "study.toml").write_text(_STUDY)
