"""Every command of the table: how it is typed, what it reads, and what it leaves."""

import dataclasses

from tests.torture.inputs import ASSAYS, CELLS, GENES

_TINY = "--epochs=2 --batch_size=32 --cv=chromosomes_3"
_CNN = f"--store=small.zarr --model=promoter_cnn --width=0.02 {_TINY}"
_DISTAL = f"--store=distal.zarr --model=chromoformer --width=0.05 --resolutions=2000 {_TINY}"
_ROADMAP = (
    "--tracks=data/tracks.csv --expression=data/RPKM.pc.gz --genes=data/genes.gtf.gz "
    "--assembly=data/genome.chrom.sizes --workers=1"
)
_SMALL = f"{_ROADMAP} --store=small.zarr --window_bp=6000 --bin_bp=50"
_ALIASES = (
    "--tracks=other/tracks.csv --expression=data/RPKM.pc.gz --genes=other/genes.gtf "
    "--assembly=data/genome.chrom.sizes --aliases=other/chromAlias.txt --workers=1 "
    "--store=other.zarr --window_bp=6000 --bin_bp=50"
)
_WIDE = "--window_bp=40000 --bin_bp=100 --interactions=data/contacts.bedpe"
_MARKS = f"--assays={','.join(ASSAYS)}"


@dataclasses.dataclass(frozen=True)
class Command:
    """One way to start a program, in a folder that has what it needs.

    Attributes:
        name: of this way, unique.
        typed: module and flags; paths are relative to the folder.
        needs: files and folders that must be there, made by `inputs` or by commands before it.
        trains: whether its trials count as trainings.
    """

    name: str
    typed: str
    needs: tuple[str, ...] = ()
    trains: bool = False

    @property
    def module(self) -> str:
        return self.typed.split()[0]

    @property
    def arguments(self) -> list[str]:
        return self.typed.split()[1:]


def _of(name: str, typed: str, needs: str = "", trains: bool = False) -> Command:
    return Command(name, typed, tuple(needs.split()), trains)


_TRAIN = "experiments.train"

# In this order each finds what it needs.
COMMANDS = (
    _of(
        "simulate",
        f"data_prep.simulate --out=data --genes={GENES} --cells={len(CELLS)} "
        f"--assays={len(ASSAYS)}",
    ),
    _of("doctor", f"data_prep.doctor {_SMALL} --json=doctor.json", "data"),
    _of("build_store", f"data_prep.build_store {_SMALL}", "data"),
    _of("build_store regions", f"data_prep.build_store {_ROADMAP} --store=distal.zarr {_WIDE}",
        "data"),
    _of("download", "data_prep.download --tracks=data/urls.csv --out=tracks --attempts=3 "
        "--timeout_s=5", "data"),
    _of("build_store aliases", f"data_prep.build_store {_ALIASES}", "data other"),
    _of("depth", "data_prep.depth --reads=reads/one.tagAlign.gz,reads/two.tagAlign.gz "
        "--assembly=reads/toy.chrom.sizes --out=depth", "reads"),
    _of("bin_bigwigs", "data_prep.bin_bigwigs --tracks=data/tracks.csv --out=binned", "data"),
    _of("import_chromoformer", "data_prep.import_chromoformer --meta=npy/meta.csv "
        f"--npy_dir=npy/{{eid}} --store=npy.zarr {_MARKS} --assembly=npy/toy.chrom.sizes", "npy"),
    _of("import_window_counts", "data_prep.import_window_counts --counts="
        + ",".join(f"counts/{cell}.train.csv.gz" for cell in CELLS)
        + " --expression=counts/rpkm.csv.gz --genes=counts/genes.csv.gz --store=counts.zarr "
        + _MARKS, "counts"),
    _of("plan", f"experiments.plan {_CNN} --assays=all", "small.zarr"),
    _of("train", f"{_TRAIN} {_CNN} --run=run --assays=each", "small.zarr", True),
    _of("train streaming", f"{_TRAIN} {_CNN} --run=stream --assays=all --data_gib=0.0001",
        "small.zarr", True),
    _of("train masked", f"{_TRAIN} {_CNN} --run=masked --masked --assays=all", "small.zarr", True),
    _of("train pools", f"{_TRAIN} {_CNN} --run=cells --cells=leave_one_out --assays=all",
        "small.zarr", True),
    _of("train classes", f"{_TRAIN} {_CNN} --run=classes --task=classification --assays=all",
        "small.zarr", True),
    _of("train regions", f"{_TRAIN} {_DISTAL} --run=distal --assays=all --cells=E003 "
        "--folds=fold1", "distal.zarr", True),
    _of("train a share", f"{_TRAIN} {_CNN} --run=shared --assays=all --share=0/2", "small.zarr",
        True),
    _of("train the rest", f"{_TRAIN} {_CNN} --run=shared --assays=all --share=1/2",
        "small.zarr shared", True),
    _of("evaluate", "experiments.evaluate --run=run", "run small.zarr"),
    _of("evaluate classes", "experiments.evaluate --run=classes", "classes small.zarr"),
    _of("evaluate shared", "experiments.evaluate --run=shared", "shared small.zarr"),
    _of("evaluate covariates", "experiments.evaluate --run=masked --covariates=data/genes.csv",
        "masked small.zarr data"),
    _of("predict", "experiments.predict --run=run --genes=expressed --out=predicted.parquet",
        "run small.zarr"),
    _of("predict elsewhere", "experiments.predict --run=run --store=distal.zarr --cell=E003",
        "run small.zarr distal.zarr"),
    _of("predict aliases", "experiments.predict --run=run --store=other.zarr --cell=E114 "
        "--genes=data/held_out.txt --out=other.csv", "run small.zarr other.zarr data"),
    _of("perturb", "experiments.perturb --run=run --assay=H3K4me1 --factors=0,2 --tracks=1",
        "run small.zarr"),
    _of("perturb places", "experiments.perturb --run=run --assay=H3K4me1 --factors=0 --tracks=0 "
        "--where=data/places.bed --out=placed", "run small.zarr data"),
    _of("attribution", "experiments.attribution --run=run", "run small.zarr"),
    _of("attribution regions", "experiments.attribution --run=distal --tracks=bigwig",
        "distal distal.zarr"),
    _of("combinations", "experiments.combinations --run=masked", "masked small.zarr"),
    _of("across_cells", "experiments.across_cells --run=cells", "cells small.zarr"),
    _of("enrichment", "experiments.enrichment --run=run --regions=eqtl/effects.parquet "
        "--eqtls=eqtl/eqtls.tsv.gz --background=eqtl/tested.parquet --assembly=genome "
        "--permutations=19", "run eqtl"),
    _of("verify", "experiments.verify --run=run", "run small.zarr"),
    _of("report", "experiments.report --run=run", "run small.zarr"),
    _of("report compare", "experiments.report --run=run --compare=shared",
        "run shared small.zarr"),
    _of("sweep", "experiments.sweep --store=distal.zarr --model=promoter_cnn --width=0.02 "
        f"{_TINY} --run=sweep --assays=all --cells=E003 --windows=6000,20000", "distal.zarr", True),
    _of("select", f"experiments.select {_CNN} --run=select --cells=E003 --most=1", "small.zarr",
        True),
    _of("convert out", "experiments.convert --run=distal --out=mine.pt", "distal"),
    _of("convert in", "experiments.convert --checkpoint=mine.pt --out=published --cell=E003 "
        f"{_MARKS}", "mine.pt"),
    _of("predict imported", "experiments.predict --run=published --store=npy.zarr --include_seen "
        "--out=predicted.csv", "published npy.zarr"),
    _of("crispri", "experiments.crispri --pairs=screen/pairs.tsv.gz --contact=HiC --out=screened",
        "screen"),
    _of("contacts_from_map", "data_prep.contacts_from_map --elements=data/elements.bed "
        "--map=maps/map.cool --genes=data/genes.gtf.gz --assembly=data/genome.chrom.sizes "
        "--out=near.bedpe", "data maps"),
    _of("element_map", "experiments.element_map --run=stream --cell=E003 --single_marks "
        "--elements=data/elements.bed", "stream small.zarr data"),
    _of("crispri run", "experiments.crispri --run=stream --cell=E003 --single_marks "
        "--pairs=screen/silenced.tsv.gz", "stream small.zarr screen"),
    _of("advise", "experiments.advise --run=masked --have=H3K4me1 --store=distal.zarr --cell=E003",
        "masked small.zarr distal.zarr"),
    _of("train from", f"{_TRAIN} {_CNN} --run=tuned --assays=each --from=run --freeze=trunk",
        "small.zarr run", True),
    _of("train more epochs", f"{_TRAIN} {_CNN} --run=classes --task=classification --assays=all "
        "--epochs=3", "small.zarr classes", True),
    _of("train more seeds", f"{_TRAIN} {_CNN} --run=run --assays=each --seeds=2", "small.zarr run",
        True),
    _of("evaluate more seeds", "experiments.evaluate --run=run", "run small.zarr"),
    _of("report more seeds", "experiments.report --run=run", "run small.zarr"),
    _of("study", "experiments.study --study=study.toml", "data study.toml"),
)  # fmt: skip
