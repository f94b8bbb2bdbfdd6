"""Small inputs in every format that a command reads, where `data_prep.simulate` writes none."""

import gzip
import hashlib
import pathlib

import numpy as np
import pandas as pd

GENES = 66  # three on each chromosome
CELLS = ("E003", "E114")
ASSAYS = ("H3K36me3", "H3K4me1")


def write(folder: pathlib.Path, url: str) -> None:
    """All of them, next to the simulated Roadmap in `folder/data`, which `url` serves."""
    random = np.random.default_rng(0)
    for make in (_reads, _counts, _arrays, _variants):
        make(folder, random)
    _sheets(folder, url)


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


def _sheets(folder: pathlib.Path, url: str) -> None:
    """The simulated track sheet, with URLs in place of paths."""
    sheet = pd.read_csv(folder / "data/tracks.csv", dtype=str)
    sheet["url"] = f"{url}/fine/" + sheet.path
    sheet.drop(columns="path").to_csv(folder / "data/urls.csv", index=False)
    for path in (folder / "data").glob("*.bigwig"):
        (found,) = sheet[sheet.url.str.endswith(f"/{path.name}")].sha256
        assert found == hashlib.sha256(path.read_bytes()).hexdigest()
    (folder / "data/places.bed").write_text("chr1\t1000\t90000\nchr2\t1000\t90000\n")
    (folder / "data/genes.txt").write_text("")
