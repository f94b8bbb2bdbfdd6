"""DeepChrome-style window counts to a window store: CSV of read counts around each TSS -> store.

    python -m data_prep.import_window_counts --counts=E003.train.csv.gz,E003.valid.csv.gz \\
        --expression=57epigenomes.RPKM.pc.gz --genes=gencode.gtf.gz --store=counts.zarr

Each line is `GENE_symbol_bin,c1,c2,…`: a gene's bin, from 1 on and from left to right on the genome
whatever the strand, and the count of each mark (--assays names them in order). A file belongs to
the cell that its name begins with, up to the first dot; several files of a cell are put together.
Genes that not every cell has, or that annotation or expression lack, are left out and counted. The
same command run again does only what is missing.
"""

import collections
import dataclasses
import io
import pathlib
from typing import cast

import numpy as np
import pandas as pd
from absl import flags
from jaxtyping import Float32
from tqdm import tqdm

from data_prep.checks.build_inputs import define_expression_unit
from data_prep.checks.join_expression import each_gene_once
from data_prep.checks.next_command import print_training
from data_prep.formats.annotation import digest_genes, read_genes, require_said
from data_prep.formats.assembly import define_assembly, load_assembly
from data_prep.formats.expression import read_expression
from data_prep.formats.foreign import opened_as
from data_prep.formats.text import is_header, separator_of
from epi2expr_jax.errors import InputError, collect, describe
from epi2expr_jax.files import file_record, numbers, only_writer
from epi2expr_jax.genome import (
    gene_order,
    listing,
    match_chromosomes,
    sort_chromosomes,
)
from epi2expr_jax.program import require, start
from epi2expr_jax.roadmap import BLIND_CHROMOSOMES
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.resume import resume
from epi2expr_jax.store.window_store import WindowStore

FLAGS = flags.FLAGS

# The marks of DeepChrome's counts (Singh et al., Bioinformatics 2016), as in its files' columns.
MARKS = ("H3K4me1", "H3K4me3", "H3K9me3", "H3K27me3", "H3K36me3")


def define_flags() -> None:
    """The flags of this program."""
    flags.DEFINE_list("counts", [], "CSV files of counts, CELL.anything.csv, gzipped or not.")
    flags.DEFINE_string("expression", None, "Expression table: genes, and a column a cell.")
    define_expression_unit()
    flags.DEFINE_string("genes", None, "GTF or table of genes: chromosome, TSS and strand.")
    flags.DEFINE_string("store", None, "Folder of the window store to make.")
    flags.DEFINE_list("assays", list(MARKS), "The marks of the columns, in their order.")
    define_assembly("hg19")
    flags.DEFINE_integer("bin_bp", 100, "Width of a bin, in bp.", lower_bound=1)


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """What to import from where. See the flags for the fields."""

    counts: tuple[str, ...]
    expression: str
    genes: str
    store: str
    assays: tuple[str, ...] = MARKS
    assembly: str = "hg19"
    aliases: str = ""
    bin_bp: int = 100
    expression_unit: str = "auto"

    @classmethod
    def from_flags(cls) -> "ImportConfig":
        """From the command line.

        Raises:
            InputError: naming every flag that is needed and missing.
        """
        require("counts", "expression", "genes", "store")
        values = {field.name: getattr(FLAGS, field.name) for field in dataclasses.fields(cls)}
        lists = {name: tuple(values[name]) for name in ("counts", "assays")}
        return cls(**{**values, **lists})


def read_counts(path: str, assays: int) -> tuple[list[str], Float32[np.ndarray, "G W A"]]:
    """The gene ids of a file of counts, and the counts of every bin and mark.

    Raises:
        InputError: with all problems of the file.
    """

    def wrong(found: str, expected: str, remedy: str) -> InputError:
        return InputError(path, found, expected, remedy)

    with opened_as(path, "a CSV of counts") as file:
        top = cast(io.BufferedReader, file).peek(4096).decode("utf-8-sig", "replace").splitlines()
        skipped = 0  # comments, and a header
        while top[skipped:] and (top[skipped][:1] == "#" or is_header(_fields(top[skipped])[1:])):
            skipped += 1
        separator = separator_of("".join(top[skipped : skipped + 1])) or ","
        try:
            table = pd.read_csv(
                file, sep=separator, header=None, dtype={0: str}, skiprows=skipped,
                skipinitialspace=True,
            )  # fmt: skip
        except ValueError as error:
            found = f"a file that cannot be read ({error})"
            raise wrong(found, "a CSV of counts", "check it") from None
    if table.shape[1] > assays + 1 and table.iloc[:, -1].isna().all():
        table = table.iloc[:, :-1]  # lines that end in a separator
    table[0] = table[0].str.strip()
    if _is_deepchromes(table):
        raise wrong(
            "DeepChrome's own layout (gene, bin, counts, label)",
            "GENE_symbol_bin and the counts",
            f"write it so, in the order {','.join(MARKS)}: awk -F, '{{printf "
            f'"ENSG%011d__%d,%s,%s,%s,%s,%s\\n",$1,$2,$5,$6,$7,$3,$4}}\' {pathlib.Path(path).name} '
            "> CELL.csv",
        )
    if table.shape[1] != assays + 1:
        found = f"{table.shape[1] - 1} counts a line"
        raise wrong(found, f"{assays}, one for each of --assays", "name the marks by --assays")
    parts = table[0].str.extract(r"^([^_]+)_.*?_?([0-9]+)$")
    counts = table.drop(columns=0).apply(numbers).to_numpy(np.float32)
    bad = (parts.isna().any(axis=1) | (parts[1].str.len() > 9)).to_numpy()
    if bad.any():
        rows = listing(f"line {i + 1 + skipped}: {table[0][i]!r}" for i in np.flatnonzero(bad))
        raise wrong(f"{bad.sum()} lines without gene and bin ({rows})", "GENE_symbol_bin", "check")
    bad = ~(np.isfinite(counts) & (counts >= 0)).all(axis=1)
    if bad.any():
        rows = listing(f"line {i + 1 + skipped}" for i in np.flatnonzero(bad))
        found = f"{bad.sum()} lines with a count that is negative or no number ({rows})"
        raise wrong(found, "counts of 0 or more", "correct the file")
    gene, number = parts[0].to_numpy(str), parts[1].to_numpy(int)
    first = np.flatnonzero(np.r_[True, gene[1:] != gene[:-1]])
    ids = [name.split(".")[0] for name in gene[first]]
    if twice := sorted(name for name, n in collections.Counter(ids).items() if n > 1):
        raise wrong(f"genes twice ({listing(twice)})", "each gene's lines together", "remove some")
    bins = np.diff(np.r_[first, len(gene)])
    counted = np.arange(len(gene)) - np.repeat(first, bins) + 1
    broken = np.unique(gene[(number != counted) | (np.repeat(bins, bins) != bins[0])])
    if len(broken):
        found = f"bins missing or out of order ({listing(broken)})"
        raise wrong(found, f"bins 1 to {bins[0]} of every gene", "sort or complete the file")
    return ids, counts.reshape(len(ids), bins[0], assays)


def _fields(line: str) -> list[str]:
    return line.split(separator_of(line) or ",")


def _is_deepchromes(table: pd.DataFrame) -> bool:
    """Whether lines are as in DeepChrome's published files: 000003,1,4,3,0,8,4,0."""
    if table.shape[1] != len(MARKS) + 3:
        return False
    label = table.iloc[:, -1].isin([0, 1]).all()
    return bool(label and table[0].astype(str).str.fullmatch(r"\d+").all() and table[1][0] == 1)


def import_store(config: ImportConfig) -> WindowStore:
    """Import, or go on importing, into the store of `config`.

    Raises:
        InputError: with all problems of the inputs; if another process is at this store.
    """
    with only_writer(config.store):
        return _import(config)


def _import(config: ImportConfig) -> WindowStore:
    files: dict[str, list[str]] = collections.defaultdict(list)
    for path in config.counts:
        files[pathlib.Path(path).name.split(".")[0]].append(path)
    read: dict[str, list] = collections.defaultdict(list)
    pairs = [(cell, path) for cell, paths in files.items() for path in paths]
    records: dict[str, dict] = {}  # from before they are read, in case they change meanwhile
    with collect() as problems:
        for cell, path in tqdm(pairs, desc="reading counts", unit="file", disable=None):
            with problems.part():
                if pathlib.Path(path).is_file():
                    records[path] = file_record(path)
                read[cell].append(read_counts(path, len(config.assays)))
        bins = {counts.shape[1] for parts in read.values() for _, counts in parts}
        if len(bins) > 1:
            found = f"{listing(sorted(bins))} bins a gene"
            problems.add("--counts", found, "as many in every file", "import them apart")
        for cell, parts in read.items():
            ids = [gene for genes, _ in parts for gene in genes]
            if twice := sorted(name for name, n in collections.Counter(ids).items() if n > 1):
                found = f"genes in several files ({listing(twice)})"
                problems.add(f"--counts of {cell}", found, "each once", "leave one out")
        with problems.part():
            unit = config.expression_unit
            expressed = read_expression(config.expression, list(files), problems, unit)
        assembly = load_assembly(config.assembly, config.aliases)
        require_said(config.genes, assembly.chrom_sizes)
        annotated = read_genes(config.genes, chrom_sizes=assembly.chrom_sizes)

    expressed, odd = each_gene_once(expressed, annotated, config.expression)
    print("\n".join([*expressed.notes, describe(expressed.doubts)]).rstrip())
    of_cell = {cell: [gene for ids, _ in parts for gene in ids] for cell, parts in read.items()}
    everywhere = set.intersection(*map(set, of_cell.values()))
    anywhere = set.union(*map(set, of_cell.values()))
    known = everywhere & set(annotated.gene_id)
    values = expressed.table.reindex(sorted(known))
    whole = set(values.index[values.notna().all(axis=1)])
    genes = annotated[annotated.gene_id.isin(list(whole))]
    genes = genes.iloc[gene_order(genes.chrom, genes.tss)].reset_index(drop=True)
    if genes.empty:
        raise InputError(
            "--counts, --genes and --expression",
            f"no gene that all have ({len(anywhere)} in the counts)",
            "gene ids of one kind",
            "check the files",
        )
    left_out = {
        "not in every cell": len(anywhere - everywhere),
        "not in the annotation": len(everywhere - known),
        "expression missing in a cell": len(known - whole),
        **odd,
    }
    manifest = _manifest(config, files, assembly, genes, bins.pop(), left_out, records)
    manifest = dataclasses.replace(
        manifest, expression_unit=expressed.unit, given_labels=expressed.labels
    )
    table = np.ascontiguousarray(expressed.table.loc[genes.gene_id].to_numpy(np.float32).T)
    path = pathlib.Path(config.store)
    store = resume(path, manifest)
    if store and not np.array_equal(store.read_expression(list(files)), table):
        found, remedy = f"other expression than that of {path}", "give another --store"
        raise InputError(config.expression, found, "the table it was begun with", remedy)
    labels = table == 1 if expressed.labels else None
    given = None if expressed.labels else table
    store = store or WindowStore.create(path, manifest, genes, given, labels=labels)
    for cell, assay in store.missing_slabs():
        counts = np.concatenate([counts for _, counts in read[cell]])
        rows = pd.Index(of_cell[cell]).get_indexer(pd.Index(genes.gene_id))
        means = counts[rows, :, config.assays.index(assay)]
        covered = np.ones(len(genes), np.float32)
        sources = [records[file] for file in files[cell]]
        store.write_slab(cell, assay, np.ascontiguousarray(means), covered, sources)
    return WindowStore.open(path)


def _manifest(config, files, assembly, genes, bins, left_out, records) -> Manifest:
    cells, chromosomes = list(files), sort_chromosomes(genes.chrom)
    digests = (records[path]["sha256"].encode() for paths in files.values() for path in paths)
    return Manifest(
        window_bp=bins * config.bin_bp,
        bin_bp=config.bin_bp,
        assembly=assembly.name,
        chrom_sizes=dict(assembly.chrom_sizes),
        chromosomes=chromosomes,
        blind=sort_chromosomes(match_chromosomes(BLIND_CHROMOSOMES, chromosomes).values()),
        cells=cells,
        assays=list(config.assays),
        tracks=[[cell, assay] for cell in cells for assay in config.assays],
        units=dict.fromkeys(config.assays, "counts"),
        groups={assay: "histone" if assay.startswith("H") else "" for assay in config.assays},
        min_covered=0.0,
        tss="gene_5p",
        candidates_sha256=digest_genes(genes, *digests),
        left_out=left_out,
    )


def main() -> None:
    store = import_store(ImportConfig.from_flags())
    manifest = store.manifest
    print(
        f"{store.path}: {len(manifest.cells)} cells x {len(manifest.assays)} assays x "
        f"{len(store.genes)} genes x {manifest.window.bins} bins; left out: "
        + ", ".join(f"{n} {why}" for why, n in manifest.left_out.items())
    )
    print_training(store)


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
