"""Chromoformer's prepared data to a window store: metadata CSV + arrays of read depth -> store.

    python -m data_prep.import_chromoformer --meta=demo_meta.csv --npy_dir=demo_npy.tar.gz \\
        --store=demo.zarr

Each promoter (TSS ± 20 kb) and each pCRE is a file `chrom:start-end.npy`, float16 `[A, bp]`, the
read depth of every base. They are in a folder or a tar archive, which is read without unpacking it.
Contacts, labels and expression are those of the metadata. All cells (eid) of the
metadata are imported. The same command run again does only what is missing.
"""

import dataclasses
import hashlib
import pathlib
from collections import defaultdict
from typing import Any

import numpy as np
import pandas as pd
from absl import flags
from jaxtyping import Float32
from tqdm import tqdm

from data_prep.checks.next_command import print_training
from data_prep.contacts.chromoformer_arrays import (
    bin_means,
    changed_at,
    read_arrays,
    size_on_disk,
)
from data_prep.contacts.chromoformer_meta import NAME, Metadata, read_metadata
from data_prep.formats.annotation import digest_genes
from data_prep.formats.assembly import Assembly, define_assembly, load_assembly
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import only_writer
from epi2expr_jax.genome import WindowSpec, listing, match_chromosomes, sort_chromosomes
from epi2expr_jax.program import require, start
from epi2expr_jax.roadmap import BLIND_CHROMOSOMES
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.regions import CONTACT_COLUMNS, REGION_BIN_BP, Regions
from epi2expr_jax.store.resume import resume
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.units import DEFAULT_UNIT

FLAGS = flags.FLAGS

# The marks of Chromoformer's arrays, in their order.
MARKS = ("H3K4me1", "H3K4me3", "H3K9me3", "H3K27me3", "H3K36me3", "H3K27ac", "H3K9ac")
PROMOTER_BP = 40_000


def define_flags() -> None:
    """The flags of this program."""
    flags.DEFINE_string(
        "meta",
        None,
        "Metadata CSV: gene_id, eid, chrom, start, end, strand, expression or label or both, and "
        "maybe neighbors and scores.",
    )
    flags.DEFINE_string(
        "npy_dir",
        None,
        "Folder of the .npy files, or a .tar.gz of it; {eid} in it stands for the cell.",
    )
    flags.DEFINE_string("store", None, "Folder of the window store to make.")
    flags.DEFINE_list("assays", list(MARKS), "The marks of the arrays, in their order.")
    define_assembly("hg19")
    flags.DEFINE_integer("bin_bp", 100, "Width of a bin of the promoter windows, in bp.")
    flags.DEFINE_integer(
        "max_contacts",
        None,
        "Keep at most this many contacts of a gene, the first ones. Default: all.",
        lower_bound=1,
    )
    flags.DEFINE_integer(
        "max_pcre_bp",
        None,
        "Leave out contacts that are wider, in bp: chromoformer reads up to 40000. Default: none.",
        lower_bound=1,
    )


@dataclasses.dataclass(frozen=True)
class ImportConfig:
    """What to import from where. See the flags for the fields."""

    meta: str
    npy_dir: str
    store: str
    assays: tuple[str, ...] = MARKS
    assembly: str = "hg19"
    aliases: str = ""
    bin_bp: int = 100
    max_contacts: int | None = None
    max_pcre_bp: int | None = None

    @classmethod
    def from_flags(cls) -> "ImportConfig":
        """From the command line.

        Raises:
            InputError: naming every flag that is needed and missing.
        """
        require("meta", "npy_dir", "store")
        values = {field.name: getattr(FLAGS, field.name) for field in dataclasses.fields(cls)}
        return cls(**{**values, "assays": tuple(values["assays"])})

    def arrays(self, cell: str) -> pathlib.Path:
        """The folder or archive that holds the cell's arrays."""
        return pathlib.Path(self.npy_dir.replace("{eid}", cell))


def import_store(config: ImportConfig) -> WindowStore:
    """Import, or go on importing, into the store of `config`.

    Raises:
        InputError: with all problems of the metadata; else with all problems of all arrays. Cells
            whose arrays were read before the first bad one are kept. Or if another process writes
            the store.
    """
    meta, manifest = read_request(config)
    with only_writer(config.store):
        return _import(config, meta, manifest)


def _import(config: ImportConfig, meta: Metadata, manifest: Manifest) -> WindowStore:
    path = pathlib.Path(config.store)
    store = resume(path, manifest)
    todo = meta.cells
    if store:
        _require_same_sources(store, config, meta)
        missing = store.missing_slabs()
        todo = [cell for cell in meta.cells if any(cell == other for other, _ in missing)]
        print(f"{path}: {len(meta.cells) - len(todo)} of {len(meta.cells)} cells are done")
    with collect() as problems:
        for cell in todo:
            with problems.part():
                means, regions, source = read_cell(config, meta, cell)
                if problems:
                    continue  # the other cells are still checked
                if store is None:
                    store = WindowStore.create(
                        path, manifest, meta.genes, meta.expression, meta.contacts, meta.labels
                    )
                covered = np.ones(len(meta.genes), np.float32)
                for a, assay in enumerate(config.assays):
                    if store.slab_record(cell, assay) is None:
                        own = regions[a] if meta.contacts else None
                        store.write_slab(cell, assay, means[a], covered, [source], own)
    return WindowStore.open(path)


def read_request(config: ImportConfig) -> tuple[Metadata, Manifest]:
    """Read the metadata and say what store is asked for.

    Raises:
        InputError: with all problems of the flags and the metadata.
    """
    with collect() as problems:
        with problems.part():
            WindowSpec(PROMOTER_BP, config.bin_bp)
        with problems.part():
            _check_assays(config.assays)
        assembly = load_assembly(config.assembly, config.aliases)
        meta = read_metadata(
            config.meta, assembly.chrom_sizes, config.max_contacts, config.max_pcre_bp
        )
        if len(meta.cells) > 1 and "{eid}" not in config.npy_dir:
            found = f"one place for the arrays of {listing(meta.cells)}"
            remedy = "write for example --npy_dir=data/{eid}"
            problems.add("--npy_dir", found, "{eid} in its name", remedy)
    return meta, _manifest(config, assembly, meta)


def _check_assays(assays: tuple[str, ...]) -> None:
    bad = [name for name in assays if not NAME.fullmatch(name)]
    bad += sorted({name for name in assays if assays.count(name) > 1})
    if bad or not assays:
        expected = "different names of letters, digits, `.`, `_` and `-`"
        found = listing(map(repr, bad)) or "none"
        raise InputError("--assays", found, expected, "correct the flag")


def _manifest(config: ImportConfig, assembly: Assembly, meta: Metadata) -> Manifest:
    chromosomes = sort_chromosomes(meta.genes.chrom)
    known = [part.tobytes() for part in (meta.expression, meta.labels) if part is not None]
    candidates = digest_genes(meta.genes, b"".join(known))
    contacts = {
        "name": pathlib.Path(config.meta).name,
        "format": "chromoformer_meta",
        "sha256": meta.sha256,
        "min_score": None,
        "max_width_bp": config.max_pcre_bp,
        "max_contacts": config.max_contacts,
        "trans": True,
    }
    return Manifest(
        window_bp=PROMOTER_BP,
        bin_bp=config.bin_bp,
        assembly=assembly.name,
        chrom_sizes=dict(assembly.chrom_sizes),
        chromosomes=chromosomes,
        blind=sort_chromosomes(match_chromosomes(BLIND_CHROMOSOMES, chromosomes).values()),
        cells=meta.cells,
        assays=list(config.assays),
        tracks=[[cell, assay] for cell in meta.cells for assay in config.assays],
        units=dict.fromkeys(config.assays, "depth"),
        groups={assay: "histone" if assay in MARKS else "" for assay in config.assays},
        min_covered=0.0,
        tss="given",
        candidates_sha256=candidates,
        contacts=dict.fromkeys(meta.contacts, contacts),
        region_bin_bp=REGION_BIN_BP,
        given_labels=meta.labels is not None,
        expression_unit=DEFAULT_UNIT if meta.expression is not None else "",
        left_out=meta.left_out,
    )


def read_cell(
    config: ImportConfig, meta: Metadata, cell: str
) -> tuple[Float32[np.ndarray, "A G W"], Float32[np.ndarray, "A bin"], dict[str, Any]]:
    """Read every array of a cell once.

    Returns:
        Bin means of the promoter windows; those of the regions, end to end; and the record of
        the source: its name, size, last change, and one sha256 over all arrays.

    Raises:
        InputError: naming the files that are missing, and those of each kind of mistake.
    """
    genes, assays = meta.genes, len(config.assays)
    none = pd.DataFrame(columns=list(CONTACT_COLUMNS))
    regions = Regions.from_contacts(meta.contacts.get(cell, none), genes)
    means = np.empty((assays, len(genes), PROMOTER_BP // config.bin_bp), np.float32)
    signal = np.empty((assays, regions.bins), np.float32)
    # Two genes may share a promoter, and a pCRE may be one: a file can have several places.
    places: dict[str, list[tuple[np.ndarray, int]]] = defaultdict(list)
    for g, name in enumerate(_promoter_files(genes)):
        places[name].append((means[:, g], config.bin_bp))
    table = regions.table
    for name, first, bins in zip(_region_files(table), table["first"], table.bins, strict=True):
        places[name].append((signal[:, first : first + bins], REGION_BIN_BP))
    widths = dict.fromkeys(_promoter_files(genes), PROMOTER_BP)
    widths |= dict(zip(_region_files(table), table.end - table.start, strict=True))

    source = config.arrays(cell)
    digests = {}
    arrays = read_arrays(source, widths, assays)
    for name, bases, digest in tqdm(arrays, cell, len(widths), unit="file", disable=None):
        digests[name] = digest
        for view, bin_bp in places[name]:
            view[:] = bin_means(bases, bin_bp)
    every = "".join(f"{name} {digests[name]}\n" for name in sorted(digests))
    record = {
        "name": source.name,
        "bytes": size_on_disk(source, widths),
        "mtime_ns": changed_at(source, widths),
        "sha256": hashlib.sha256(every.encode()).hexdigest(),
    }
    return means, signal, record


def _promoter_files(genes: pd.DataFrame) -> list[str]:
    half = PROMOTER_BP // 2
    pairs = zip(genes.chrom, genes.tss, strict=True)
    return [f"{chrom}:{tss - half}-{tss + half}.npy" for chrom, tss in pairs]


def _region_files(table: pd.DataFrame) -> list[str]:
    places = zip(table.chrom, table.start, table.end, strict=True)
    return [f"{chrom}:{start}-{end}.npy" for chrom, start, end in places]


def _require_same_sources(store: WindowStore, config: ImportConfig, meta: Metadata) -> None:
    """Arrays that changed after they were imported do not count as done."""
    with collect() as problems:
        for cell in meta.cells:
            records = [store.slab_record(cell, assay) for assay in config.assays]
            before = [record["sources"][0] for record in records if record]
            source = config.arrays(cell)
            names = set(_promoter_files(store.genes))
            names |= set(_region_files(store.regions(cell).table) if meta.contacts else ())
            size, changed = size_on_disk(source, names), changed_at(source, names)
            same = all(record["bytes"] == size for record in before)
            # To read all arrays again on each resume would take as long as to import them.
            if same and any(record.get("mtime_ns") != changed for record in before):
                digest = read_cell(config, meta, cell)[2]["sha256"]
                same = all(record["sha256"] == digest for record in before)
            if not same:
                problems.add(
                    f"{store.path}: {cell}",
                    f"slabs of other arrays than are at {source} now",
                    "the arrays as they were imported",
                    f"put them back; or delete {store.path}/slabs/{cell} to import them again",
                )


def main() -> None:
    store = import_store(ImportConfig.from_flags())
    manifest = store.manifest
    touched = sum(len(store.regions(cell).table) for cell in manifest.contacts)
    print(
        f"{store.path}: {len(manifest.cells)} cells x {len(manifest.assays)} assays x "
        f"{len(store.genes)} genes x {manifest.window.bins} bins, {touched} regions, "
        f"checksum {store.checksum()[:12]}; left out: "
        + ", ".join(f"{count} {why}" for why, count in manifest.left_out.items())
    )
    print_training(store)


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
