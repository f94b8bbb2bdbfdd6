"""The code blocks of the pages, and data and programs that stand in for those of a user.

A block that cannot run says why, in a comment on the line before it: <!-- not run: REASON -->.
"""

import dataclasses
import gzip
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from collections.abc import Iterator

import numpy as np
import pandas as pd

from tests.epi2expr_jax.screens.screen import made_up

ROOT = pathlib.Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"^(?: *<!-- not run: ([^\n]+) -->\n)?( *)```(\w*)\n(.*?)^ *```$", re.M | re.S)
# The pages with commands, in an order in which each finds what it needs.
ORDER = (
    "README.md",
    *(f"docs/{name}.md" for name in ("start", "inputs", "commands", "chromoformer", "clusters")),
    *(f"docs/{name}.md" for name in ("together", "growing", "altering", "crispri", "upgrade")),
    *("docs/walks.md", "docs/accelerators.md", "CONTRIBUTING.md"),
)
SMALL = ("--width=0.02", "--epochs=2", "--batch_size=32")
STAND_INS = {  # flags that a command gets unless it has them
    "experiments.plan": SMALL,
    "experiments.train": SMALL,
    "experiments.select": (*SMALL, "--most=2", "--cells=E003"),
    "experiments.sweep": (*SMALL, "--windows=6000,20000", "--cells=E003"),
    "experiments.attribution": ("--genes=GENES",),
}
# What only users have, and what stands in for it.
REPLACED = {
    "<this repository>": str(ROOT),
    "--tracks=roadmap_pvalue": "--tracks=tracks.csv",
    "--tracks=roadmap_alignments": "--tracks=alignments.csv",
    "--downloads=tracks ": "",
    'model = "promoter_cnn"    ': 'model = "promoter_cnn"\nwidth = 0.02\nepochs = 2\n#',
    "--cell=patient1": "--cell=E003",
    "E003,E116": "E003,E114",
    "--have=DNase,H3K27ac": "--have=H3K4me1,H3K4me3",
    "--run=runs/k562": "--run=runs/masked --cell=E003",
    # cnn was trained otherwise before; bfloat16 needs what quick compiling leaves out
    "--run=runs/cnn --precision=bfloat16": "--run=runs/fast --precision=float32",
    "--run=runs/cnn --share": "--run=runs/shared --share",
}


@dataclasses.dataclass(frozen=True)
class Block:
    """One block of code of a page.

    Attributes:
        page: from the root of the checkout.
        language: as the page says; empty for what is no code.
        text: without the indentation of the list it may stand in.
        reason: why it is not run; empty if it is.
    """

    page: str
    language: str
    text: str
    reason: str


def blocks(page: str) -> list[Block]:
    text = (ROOT / page).read_text()
    return [
        Block(page, language, textwrap.dedent(code), reason)
        for reason, _, language, code in BLOCK.findall(text)
    ]


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Our commands in lines of a shell: the module, and its arguments."""
    joined, named = re.sub(r"\\\n\s*| 2>&1", " ", text), {}
    for name, value in re.findall(r'^(\w+)="(.*?)"', joined, re.M):
        own = value.replace(f"${name}", named.get(name, ""))
        named[name] = own
        joined = joined.replace(f"${name}", own)
    folders = {path.stem: folder for folder in ("data_prep", "experiments")
               for path in (ROOT / folder).glob("*.py")}  # fmt: skip
    for line in re.split(r"\n|&&|'", joined):
        words = shlex.split(line.partition(" #")[0].partition(" > ")[0].partition(" | ")[0])
        words = [word for word in words if word not in ("!", "!epi2expr")] if words else []
        if "-m" in words and (module := words[words.index("-m") + 1]).count("."):
            yield module, words[words.index("-m") + 2 :]
        elif words[:1] == ["epi2expr"] and words[1:] and not words[1].startswith("-"):
            name = words[1].replace("-", "_")
            yield f"{folders[name]}.{name}", words[2:]


def workshop(folder: pathlib.Path) -> None:
    """Make a folder with files of the names that the pages use."""
    simulated = f"--out={folder} --genes=330 --cells=2 --assays=3 --assembly=hg19"
    _run(folder.parent, "-m", "data_prep.simulate", *simulated.split())
    linked = "epi2expr_jax data_prep experiments workflow tests pyproject.toml constraints.txt"
    for name in (*linked.split(), "README.md", "LICENSE", "Makefile"):
        (folder / name).symlink_to(ROOT / name)
    for name, others in {
        "RPKM.pc.gz": ("57epigenomes.RPKM.pc.gz", "files/57epigenomes.RPKM.pc.gz"),
        "genes.gtf.gz": ("gencode.gtf.gz", "files/gencode.v10.annotation.gtf.gz"),
    }.items():
        for other in others:
            (folder / other).parent.mkdir(exist_ok=True)
            (folder / other).symlink_to(folder / name)
    (folder / "files/hg19-blacklist.v2.bed.gz").write_bytes(b"chr1\t0\t1000\n")
    annotation = gzip.decompress((folder / "genes.gtf.gz").read_bytes()).decode()
    for name, chrom in (("GENES", "chr3"), ("genes.txt", "chr1")):  # chr3 is held out
        genes = re.findall(rf'^{chrom}\t\S+\tgene\t.*?gene_id "(\w+)', annotation, re.M)
        (folder / name).write_text("\n".join(genes) + "\n")
    _alignments(folder)
    _screens(folder, annotation)
    (folder / "mine.toml").write_text(STUDY)
    if (ROOT / "demo/study.json").exists():
        shutil.copytree(ROOT / "demo", folder / "demo", symlinks=True)
    else:
        _run(folder, "-m", "experiments.demo")
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").write_text("")
    programs = folder / "programs"
    programs.mkdir()
    stand_in = f'#!/bin/sh\nexec {sys.executable} {ROOT}/tests/stand_in.py $(basename $0) "$@"\n'
    for name in ("python", "epi2expr", "pip", "make", "sbatch"):
        (programs / name).write_text(stand_in)
        (programs / name).chmod(0o755)


STUDY = """
[store]
tracks = "tracks.csv"
expression = "RPKM.pc.gz"
genes = "genes.gtf.gz"
[train.small]
model = "promoter_cnn"
width = 0.02
epochs = 2
"""


def _alignments(folder: pathlib.Path) -> None:
    """Reads of every cell, as tagAlign, and their sheet."""
    rng, rows = np.random.default_rng(0), ["cell,assay,path,unit"]
    for cell in pd.read_csv(folder / "tracks.csv")["cell"].unique():
        start = np.sort(rng.integers(0, 30_000_000, 2000))
        lines = [f"chr{1 + n % 22}\t{at}\t{at + 36}\tN\t1000\t+" for n, at in enumerate(start)]
        (folder / f"{cell}.tagAlign").write_text("\n".join(lines) + "\n")
        rows.append(f"{cell},H3K4me3,{cell}.tagAlign,depth")
    (folder / "alignments.csv").write_text("\n".join(rows) + "\n")


def _screens(folder: pathlib.Path, annotation: str) -> None:
    """Pairs of elements and simulated genes, in hg38 too, their chain, peaks and candidates."""
    found = re.findall(
        r'^(\w+)\t\S+\tgene\t(\d+)\t(\d+)\t\S+\t(.)\t.*?gene_id "(\w+).*?gene_name "([^"]+)',
        annotation, re.M,
    )  # fmt: skip
    genes = pd.DataFrame(found, columns=["chrom", "start", "end", "strand", "id", "name"])
    tss = np.where(genes["strand"] == "+", genes["start"], genes["end"]).astype(int)
    genes = genes.assign(tss=tss)
    pairs = made_up(np.random.default_rng(3)).assign(mine=lambda table: table["DHS.RPM"])
    own = genes.iloc[np.arange(len(pairs)) % len(genes)].reset_index(drop=True)
    first = (own["tss"] + pairs["distanceToTSS"].astype(int)).to_numpy()
    pairs = pairs.assign(
        chrom=own["chrom"], chromStart=first - 250, chromEnd=first + 250, startTSS=own["tss"],
        measuredGeneEnsemblId=own["id"], measuredGeneSymbol=own["name"],
    )  # fmt: skip
    for name in ("screens.tsv.gz", "hg38.tsv.gz"):
        pairs.to_csv(folder / name, sep="\t", index=False)
    sizes = [line.split() for line in (folder / "genome.chrom.sizes").read_text().splitlines()]
    chains = [
        f"chain 1000 {chrom} {size} + 0 {size} {chrom} {size} + 0 {size} {number}\n{size}\n\n"
        for number, (chrom, size) in enumerate(sizes, 1)
    ]
    (folder / "hg38ToHg19.over.chain.gz").write_bytes(gzip.compress("".join(chains).encode()))
    places = {"start": genes["tss"] - 2200, "end": genes["tss"] - 1900}
    peaks = genes[["chrom"]].assign(**places)
    peaks.to_csv(folder / "peaks.bed", sep="\t", header=False, index=False)
    candidates = peaks.rename(columns={"chrom": "chr"}).assign(
        activity_base=2.0, hic_contact=0.5, TargetGene=genes["name"]
    )
    candidates.to_csv(folder / "EnhancerPredictionsAllPutative.tsv.gz", sep="\t", index=False)


def _run(folder: pathlib.Path, *arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], cwd=folder, check=True, env=environment(folder))


def environment(folder: pathlib.Path) -> dict[str, str]:
    path = f"{folder / 'programs'}:{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    # Most of these programs compile longer than they run.
    quick = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "MPLBACKEND": "agg"}
    return {**os.environ, **quick, "PATH": path, "PYTHONPATH": str(ROOT)}


def run_block(block: Block, folder: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Run the lines of a shell in the workshop."""
    genes = (folder / "GENES").read_text().split()
    text = block.text.replace("TP53,ENSG00000012048", ",".join(genes[:2]))
    for given, own in REPLACED.items():
        text = text.replace(given, own)
    command = ["bash", "-euo", "pipefail", "-c", text]
    return subprocess.run(
        command, cwd=folder, env=environment(folder), capture_output=True, text=True
    )
