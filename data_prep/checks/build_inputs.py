"""The inputs of a build: the flags shared by build_store and doctor, and what they name, read."""

import dataclasses
import pathlib

import numpy as np
import pandas as pd
from absl import flags

from data_prep.checks.join_expression import candidates, each_gene_once
from data_prep.contacts.contact_files import FORMATS
from data_prep.contacts.link_genes import CellContacts, ContactRule, link_genes, read_contacts
from data_prep.formats.annotation import (
    TSS_RULES,
    digest_genes,
    read_genes,
    read_tss,
    require_said,
    said_assembly,
)
from data_prep.formats.assembly import Assembly, define_assembly, load_assembly, select_chromosomes
from data_prep.formats.bed import bed_record, read_bed
from data_prep.formats.bigwig import assembly_of
from data_prep.formats.expression import TABLE_UNITS, Expression, read_expression
from data_prep.formats.track_sheet import TrackSheet, read_sound_rows
from data_prep.work.sources import localise
from epi2expr_jax.errors import Problems, collect
from epi2expr_jax.genome import (
    GENE_COLUMNS,
    WindowSpec,
    listing,
    match_chromosomes,
    sort_chromosomes,
)
from epi2expr_jax.program import require
from epi2expr_jax.roadmap import BLIND_CHROMOSOMES
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.training.splits import blind_in
from epi2expr_jax.units import UNIT_TRANSFORM

FLAGS = flags.FLAGS

UNKNOWN = "hg19"  # the assembly where neither tracks nor genes are there to say: Roadmap's
_OF_CONTACTS = (
    "min_contact_score",
    "score_column",
    "max_contacts",
    "max_pcre_bp",
    "trans_contacts",
)


def define_flags() -> None:
    """The flags of build_store and doctor."""
    flags.DEFINE_string(
        "tracks",
        None,
        "Track sheet: CSV with the columns cell, assay, path or url, and optionally sha256, unit "
        f"({', '.join(UNIT_TRANSFORM)}), replicate, group. Paths are relative to it.",
    )
    flags.DEFINE_string(
        "expression",
        "",
        "Expression table, genes x cells: Roadmap's matrix, or any GCT, CSV or TSV (.gz). Genes by "
        "id or name. Empty: a store to predict from, not to train on.",
    )
    define_expression_unit()
    flags.DEFINE_string(
        "genes",
        "",
        "GTF, or a table gene_id,chrom,tss,strand (TSS 0-based). Empty: Ensembl 75 by pyensembl.",
    )
    flags.DEFINE_string("store", None, "Folder of the window store to make.")
    flags.DEFINE_integer("window_bp", 10_000, "Width of the window around the TSS, in bp.")
    flags.DEFINE_integer("bin_bp", 25, "Width of a bin, in bp.")
    flags.DEFINE_float(
        "min_covered",
        0.0,
        "Leave out genes whose window, in any track, has data on less than this share of bases.",
        lower_bound=0.0,
        upper_bound=1.0,
    )
    define_assembly("", "Empty: what the lengths of the tracks' chromosomes say.")
    flags.DEFINE_string(
        "chromosomes", "autosomes", "Store the genes of: autosomes, all, or a comma list."
    )
    flags.DEFINE_string(
        "blind",
        "auto",
        "Comma list of chromosomes kept for the final test of monte_carlo_5. "
        "auto: the Roadmap study's (chr3, chr7, chr20), as far as they are stored.",
    )
    flags.DEFINE_enum("tss", "gene_5p", TSS_RULES, "Which position of a gene in a GTF is its TSS.")
    flags.DEFINE_string(
        "interactions",
        "",
        "Promoter contacts, whose other ends become regions of the store: "
        + ", ".join(kind.what for kind in FORMATS.values())
        + ", or a .csv with the columns cell, path and perhaps min_score and score_column. "
        "Empty: none.",
    )
    flags.DEFINE_float(
        "min_contact_score",
        None,
        "A contact's score must be above this. Default: "
        + ", ".join(f"{kind.min_score:g} for {name}" for name, kind in FORMATS.items())
        + ".",
    )
    flags.DEFINE_string(
        "score_column",
        "",
        "Name or number (from 1) of the column of contact scores; of p and q values -log10 is "
        "taken. Empty: as the format has it.",
    )
    flags.DEFINE_integer("max_contacts", 8, "The best contacts a gene keeps.", lower_bound=1)
    flags.DEFINE_integer(
        "max_pcre_bp", 40_000, "Widest other end of a contact, in bp.", lower_bound=1
    )
    flags.DEFINE_bool("trans_contacts", False, "Keep contacts between chromosomes, too.")
    flags.DEFINE_string("downloads", "", "Folder for downloaded tracks. Empty: STORE.downloads.")
    flags.DEFINE_string(
        "blacklist",
        "",
        "BED (.gz) of intervals whose signal is an artefact: bins that touch one count as bases "
        "without data, 0 in every track.",
    )
    flags.DEFINE_integer("workers", 2, "Worker processes; each reads one track.", lower_bound=1)
    flags.DEFINE_float(
        "worker_gib", 2.0, "Memory of a worker; beyond it, it is restarted.", lower_bound=0.5
    )
    flags.DEFINE_string(
        "scheduler_address",
        "",
        "tcp://HOST:PORT of a Dask cluster to join instead of starting --workers here; its "
        "workers must see the same folders.",
    )
    flags.DEFINE_integer("retries", 2, "Retries of a track whose task failed.", lower_bound=0)
    flags.DEFINE_bool(
        "verify", True, "Read the store back at the end and compare it with its checksums."
    )


def define_expression_unit() -> None:
    """What the values of --expression are."""
    flags.DEFINE_enum(
        "expression_unit",
        "auto",
        TABLE_UNITS,
        "What the expression table holds. auto: what the file's name or comments say, else RPKM; "
        "none: another unit; log2_TPM and the like: log2(TPM + 1), which is undone; label: 0 for "
        "silent, 1 for expressed genes, for classification.",
        case_sensitive=False,
    )


@dataclasses.dataclass(frozen=True)
class BuildConfig:
    """What to build from what. See the flags for the fields."""

    tracks: str
    expression: str
    store: str
    expression_unit: str = "auto"
    genes: str = ""
    window_bp: int = 10_000
    bin_bp: int = 25
    min_covered: float = 0.0
    assembly: str = ""
    aliases: str = ""
    chromosomes: str = "autosomes"
    blind: str = "auto"
    tss: str = "gene_5p"
    interactions: str = ""
    min_contact_score: float | None = None
    score_column: str = ""
    max_contacts: int = 8
    max_pcre_bp: int = 40_000
    trans_contacts: bool = False
    downloads: str = ""
    blacklist: str = ""
    workers: int = 2
    worker_gib: float = 2.0
    scheduler_address: str = ""
    retries: int = 2
    verify: bool = True

    @property
    def download_folder(self) -> pathlib.Path:
        """Where tracks lie that the sheet knows only by their URL."""
        return pathlib.Path(self.downloads or f"{self.store.rstrip('/')}.downloads")

    @classmethod
    def from_flags(cls) -> "BuildConfig":
        """From the command line.

        Raises:
            InputError: naming every flag that is needed and missing, or given without effect.
        """
        require("tracks", "store")
        with collect() as problems:
            if FLAGS["expression_unit"].value != "auto" and not FLAGS.expression:
                expected, remedy = "--expression, which it is of", "give both or none"
                problems.add("--expression_unit", "no --expression", expected, remedy)
            for name in () if FLAGS.interactions else _OF_CONTACTS:
                if FLAGS[name].value != FLAGS[name].default:
                    found = f"{FLAGS[name].serialize()}, which has no effect without --interactions"
                    problems.add(f"--{name}", found, "flags that have an effect", "omit it")
        return cls(**{field.name: getattr(FLAGS, field.name) for field in dataclasses.fields(cls)})


@dataclasses.dataclass(frozen=True)
class BuildInputs:
    """The inputs, read and joined.

    Attributes:
        genes: candidates in genome order: in the annotation, the expression table (if there is
            one) and on the chosen chromosomes.
        expression: `[C, G]` of the candidates, cells in the sheet's order, NaN without a table.
        read: the table of expression, and what there is to say of it.
        left_out: why and how many genes of the expression table are not candidates.
        unplaced: ids of the expression table that the annotation lacks.
        without_expression: ids of the annotation's genes on the chosen chromosomes that the
            expression table lacks.
        interactions: of each cell, the contacts that the candidates keep; empty if not asked for.
        blacklist: columns `chrom`, `start`, `end`; None if not asked for.
    """

    config: BuildConfig
    window: WindowSpec
    assembly: Assembly
    chromosomes: list[str]
    blind: list[str]
    sheet: TrackSheet
    genes: pd.DataFrame
    expression: np.ndarray
    read: Expression
    left_out: dict[str, int]
    unplaced: list[str]
    without_expression: list[str]
    interactions: dict[str, CellContacts]
    blacklist: pd.DataFrame | None = None

    @property
    def contacts(self) -> dict[str, pd.DataFrame]:
        """Cell to its contacts table."""
        return {cell: found.table for cell, found in self.interactions.items()}

    def manifest(self) -> Manifest:
        """The manifest of the store to build, as far as it is known before any track is read."""
        sheet = self.sheet
        return Manifest(
            window_bp=self.window.window_bp,
            bin_bp=self.window.bin_bp,
            assembly=self.assembly.name,
            chrom_sizes=dict(self.assembly.chrom_sizes),
            chromosomes=self.chromosomes,
            blind=self.blind,
            cells=list(sheet.cells),
            assays=list(sheet.assays),
            tracks=[[track.cell, track.assay] for track in sheet.tracks],
            units={track.assay: track.unit for track in sheet.tracks},
            groups={track.assay: track.group for track in sheet.tracks},
            min_covered=self.config.min_covered,
            tss=self.config.tss,
            candidates_sha256=digest_genes(self.genes, self.expression.tobytes()),
            expression_unit=self.read.unit,
            given_labels=self.read.labels,
            contacts={cell: found.source for cell, found in self.interactions.items()},
            blacklist=bed_record(self.config.blacklist) if self.config.blacklist else {},
        )


def gather_inputs(config: BuildConfig, problems: Problems) -> BuildInputs | None:
    """Read and join all inputs but the tracks themselves, as far as they are sound.

    That is enough to look into the tracks, not to build a store: bad rows of the sheet are left
    out, an impossible window is replaced by the default one, expression that cannot be read is NaN,
    and there are no genes if they cannot be read.

    Args:
        config: what is to be built.
        problems: takes every problem of every input, with its `kind`.

    Returns:
        The inputs; None without a track or without an assembly.
    """
    window = WindowSpec(BuildConfig.window_bp, BuildConfig.bin_bp)
    assembly = sheet = annotated = read = blacklist = None
    contact_files, interactions = {}, {}
    chromosomes: list[str] = []
    blind: list[str] = []
    with problems.part("window"):
        window = WindowSpec(config.window_bp, config.bin_bp)
    with problems.part("sheet"):
        sheet = localise(read_sound_rows(config.tracks, problems), config.download_folder)
    cells = sheet.cells if sheet else ()
    with problems.part("assembly"):
        assembly = _assembly(config, sheet)
    if assembly:
        with problems.part("chromosomes"):
            chromosomes = select_chromosomes(assembly, config.chromosomes)
        with problems.part("blind"):
            blind = blind_chromosomes(config.blind, chromosomes)
        with problems.part("annotation"):
            require_said(config.genes, assembly.chrom_sizes)
        with problems.part("annotation"):
            annotated = read_genes(config.genes, tss=config.tss, chrom_sizes=assembly.chrom_sizes)
        if config.blacklist:
            with problems.part("blacklist"):
                blacklist = read_bed(config.blacklist, assembly.chrom_sizes)
    if config.expression:
        with problems.part("expression"):
            unit = config.expression_unit
            read = read_expression(config.expression, cells or None, problems, unit)
    if assembly and cells and config.interactions:
        with problems.part("contacts"):
            contact_files = read_contacts(
                config.interactions,
                cells,
                assembly.chrom_sizes,
                config.min_contact_score,
                problems,
                config.score_column,
            )
    if assembly is None or sheet is None or not cells:
        return None

    both = annotated is not None and (read is not None or not config.expression)
    if annotated is None:
        annotated = pd.DataFrame(columns=list(GENE_COLUMNS))
    if read is None:
        read = Expression(pd.DataFrame(index=pd.Index(annotated.gene_id, dtype=object)))
    read, odd = each_gene_once(read, annotated, config.expression)
    chosen = annotated[annotated.chrom.isin(chromosomes)]
    genes, values, left_out = candidates(annotated, read.table, cells, chromosomes)
    left_out |= odd
    left_out |= {why: len(some) for why, some in annotated.attrs.get("left_out", {}).items()}
    if genes.empty and both and chromosomes:
        problems.add(
            " and ".join(filter(None, [config.genes or "Ensembl 75", config.expression])),
            f"no gene {'that both have, ' if config.expression else ''}on {listing(chromosomes)} "
            f"({'; '.join(f'{count} {why}' for why, count in left_out.items())})",
            "genes named alike, on the chosen chromosomes",
            "check --genes, --expression and --chromosomes",
            kind="no_genes",
        )
    if contact_files and len(genes):
        # Of all genes of the annotation: a bait without a TSS is another thing than one whose
        # genes are not stored.
        tss = read_tss(config.genes, annotated, chrom_sizes=assembly.chrom_sizes)
        rule = ContactRule(config.max_pcre_bp, config.max_contacts, config.trans_contacts)
        with problems.part("contacts"):
            interactions = link_genes(contact_files, genes, tss, rule)
    return BuildInputs(
        config=config,
        window=window,
        assembly=assembly,
        chromosomes=chromosomes,
        blind=blind,
        sheet=sheet,
        genes=genes,
        expression=values,
        read=read,
        left_out=left_out,
        unplaced=read.table.index[~read.table.index.isin(annotated.gene_id)].to_list(),
        without_expression=chosen.gene_id[~chosen.gene_id.isin(read.table.index)].to_list(),
        interactions=interactions,
        blacklist=blacklist,
    )


def _assembly(config: BuildConfig, sheet: TrackSheet | None) -> Assembly:
    """As --assembly says; else as the tracks do, or else the annotation, where they are there."""
    name, why = config.assembly, ""
    tracks = sheet.tracks if sheet and not name else ()
    if not name:
        name = assembly_of([file.location for track in tracks for file in track.sources])
        why = "as the lengths of the tracks' chromosomes say"
    if not name:
        name, why = said_assembly(config.genes), "as the annotation says"
    if not name:
        name, why = UNKNOWN, "the default"
    return dataclasses.replace(load_assembly(name, config.aliases), why=why)


def blind_chromosomes(text: str, chromosomes: list[str]) -> list[str]:
    """Those of the chosen chromosomes that `--blind` names; an `InputError` names any others."""
    if text == "auto":
        return sort_chromosomes(match_chromosomes(BLIND_CHROMOSOMES, chromosomes).values())
    wanted = [name.strip() for name in text.split(",") if name.strip()]
    return sort_chromosomes(blind_in(wanted, chromosomes, "chosen"))
