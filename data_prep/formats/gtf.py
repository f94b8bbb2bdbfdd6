"""GTF files, and where pyensembl keeps Ensembl's: the extents of genes and of transcripts.

A GTF is read line by line. (pyensembl's database refuses an id that occurs twice and joins exons on
several contigs to one gene. Of 2.5 million lines, 60,000 genes, it took 57 s of CPU time for the
canonical transcripts; this takes 17, and 5 for the genes.)
The result is kept as a small Parquet table under the user's cache folder, by the GTF's checksum, so
that this is paid once.
"""

import codecs
import os
import pathlib
import re
from collections.abc import Callable, Iterator

import numpy as np
import pandas as pd
import pyensembl
from absl import logging

from data_prep.formats.assembly import recognise_assembly
from data_prep.formats.foreign import opened_as
from data_prep.formats.text import MOST_LINES, NO_RECORDS
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import read_parquet, sha256, write_parquet, write_text
from epi2expr_jax.genome import listing

ENSEMBL_RELEASE = 75  # the last on GRCh37 (hg19), which the Roadmap tracks refer to
CORRECT_LINE = "correct the line, or leave it out"

_EXTENT_COLUMNS = ["gene_id", "name", "chrom", "start", "end", "strand", "biotype"]
# Records of one id that lie farther apart are of copies; the longest introns of man have 1.2 Mb.
_APART_BP = 2_000_000
_PLACE = ["gene_id", "chrom", "strand"]
_OF_TRANSCRIPTS = {b"transcript", b"exon", b"CDS"}
_NO_RECORDS = tuple(start.encode() for start in NO_RECORDS)
_CACHE_FORMAT = 5  # raise when the cached table's columns or meaning change


def ensembl_gtf(chrom_sizes: dict[str, int]) -> pathlib.Path:
    """The GTF of Ensembl 75, where `pyensembl install` has put it. Nothing is downloaded."""
    if recognise_assembly(chrom_sizes) != "hg19":
        raise InputError(
            "--genes",
            f"no annotation, and an assembly that is not hg19 ({listing(chrom_sizes)})",
            f"an annotation; the default, Ensembl {ENSEMBL_RELEASE}, is of hg19",
            "give --genes=GTF of the assembly",
        )
    release = pyensembl.EnsemblRelease(ENSEMBL_RELEASE, species="human")
    path = next(pathlib.Path(file) for file in release.required_local_files() if ".gtf" in file)
    if not path.is_file():
        raise InputError(
            f"Ensembl {ENSEMBL_RELEASE}",
            f"not installed ({path})",
            "the annotation, downloaded once by pyensembl",
            f"run `pyensembl install --release {ENSEMBL_RELEASE} --species human`, "
            "or give --genes=GTF",
        )
    return path


def _lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """The numbered records of a GTF, or of any text file."""
    with opened_as(path, "a GTF or a gene table") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(codecs.BOM_UTF8)
            if not line.startswith(_NO_RECORDS) and line.strip():
                yield number, line


def looks_like_gtf(path: pathlib.Path) -> bool:
    """Whether the first record of a file is one of a GTF."""
    first = next(_lines(path), (0, b""))[1].split(b"\t", 8)
    placed = all(field.isdigit() for field in first[3:5])
    return len(first) == 9 and (placed or b"gene_id" in first[8])


def gtf_extents(path: pathlib.Path, kind: str) -> pd.DataFrame:
    """Extents of genes or transcripts, read from the cache if this GTF has been seen before.

    Args:
        path: the GTF.
        kind: `gene`: one row a gene; `canonical`: one row a gene, its canonical transcript;
            `transcript`: one row a transcript, none if the GTF lists neither them nor exons.

    Returns:
        Columns `gene_id` (as in the file), `name`, `chrom`, `start`, `end` (0-based, half-open),
        `strand` and `biotype`: of a gene, such as protein_coding, as far as the GTF says it. An id
        that the file has on several contigs, on both strands, or far apart has a row for each; so
        have several records of a gene that differ.

    Raises:
        InputError: naming the malformed lines; if the GTF has no genes, transcripts or exons; or
            if `kind` is `canonical` and it lists no transcripts.
    """
    cached = _cache_folder() / f"{sha256(path)}.{kind}.v{_CACHE_FORMAT}.parquet"
    known = _from_cache(cached)
    if known is not None:
        return known
    logging.info("indexing %s, once", path)
    extents = _READERS[kind](path)
    extents = extents[_EXTENT_COLUMNS].drop_duplicates(ignore_index=True)
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        write_parquet(cached, extents)
        write_text(_sum_file(cached), sha256(cached))
    except OSError as error:
        raise InputError(
            str(cached.parent),
            f"a cache folder that refuses writing ({error.strerror or error})",
            "room for one small table",
            "set XDG_CACHE_HOME to another folder",
        ) from None
    return extents


def _from_cache(cached: pathlib.Path) -> pd.DataFrame | None:
    """The cached table; None if it is not there, or not as it was written."""
    try:
        if _sum_file(cached).read_text(encoding="utf-8") == sha256(cached):
            return read_parquet(cached, "cached annotation", "remove it", _EXTENT_COLUMNS)
    except (OSError, UnicodeDecodeError, InputError):
        logging.debug("%s is not there, or damaged", cached)
    return None


def _sum_file(cached: pathlib.Path) -> pathlib.Path:
    return cached.with_suffix(".sha256")


def coding_ids(path: pathlib.Path) -> set[str] | None:
    """Ids of a GTF's protein-coding genes, as in the file; None if it does not say which are."""
    genes = gtf_extents(path, "gene")
    if (genes["biotype"] == "").all():
        return None
    return set(genes.loc[genes["biotype"] == "protein_coding", "gene_id"])


def _cache_folder() -> pathlib.Path:
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "epi2expr_jax" / "annotation"


def _records(
    path: pathlib.Path, kinds: set[bytes]
) -> Iterator[tuple[bytes, str, int, int, str, bytes]]:
    """Kind, chromosome, start, end (0-based, half-open), strand and attributes of such records.

    Raises:
        InputError: after the last of them, naming the malformed lines.
    """
    with collect(most=MOST_LINES) as problems:
        for number, line in _lines(path):
            fields = line.split(b"\t", 8)
            if len(fields) == 9 and fields[2] not in kinds:
                continue
            if wrong := _fault(fields):
                problems.add(f"{path}, line {number}", *wrong, CORRECT_LINE)
                continue
            chrom, _, kind, start, end, _, strand, _, attributes = fields
            place = chrom.decode(errors="replace"), int(start) - 1, int(end)
            yield kind, *place, strand.decode(), attributes


def _fault(fields: list[bytes]) -> tuple[str, str] | None:
    """What is wrong with a record, and what is expected; None if it is sound."""
    if len(fields) < 9:
        return f"{len(fields)} fields", "the 9 of a GTF"
    start, end, strand = fields[3], fields[4], fields[6]
    if not (start.isdigit() and end.isdigit() and 0 < int(start) <= int(end)):
        found = b"-".join((start, end)).decode(errors="replace")
        return found, "a start of 1 or more, and an end not before it"
    if strand not in (b"+", b"-", b".", b"?"):
        return f"strand {strand.decode(errors='replace')!r}", "+, - or ."
    return None if b"gene_id" in fields[8] else ("no gene_id", 'gene_id "…" in the last field')


def _reads(*names: str) -> Callable[[bytes], str]:
    """Reads the first of these attributes that a record has; empty if it has none."""
    word = "|".join(names)
    find = re.compile(rf'(?:^|[;\s])(?:{word})[ =]+"?([^";]*)'.encode()).search

    def read(attributes: bytes) -> str:
        found = find(attributes)
        text = found[1].strip().decode(errors="replace") if found else ""
        return text[1:-1] if text[:1] == text[-1:] == "'" else text

    return read


_IDS = re.compile(rb'gene_id "([^"]+)"; transcript_id "([^"]+)"')  # as most begin
_gene_id, _transcript_id = _reads("gene_id"), _reads("transcript_id")
_name, _biotype = _reads("gene_name"), _reads("gene_biotype", "gene_type")
_DETAILS = _name, _biotype, _reads("transcript_biotype")


def _listed(path: pathlib.Path, kind: bytes) -> pd.DataFrame:
    """The records of one kind, as `gtf_extents` returns them."""
    rows = [
        (_gene_id(text), _name(text), chrom, start, end, strand, _biotype(text))
        for _, chrom, start, end, strand, text in _records(path, {kind})
    ]
    return pd.DataFrame(rows, columns=_EXTENT_COLUMNS).astype({"start": np.int64, "end": np.int64})


def _joined(path: pathlib.Path) -> pd.DataFrame:
    """Transcripts, joined from their records, exons and CDS: of each a row for every copy.

    Returns:
        `_EXTENT_COLUMNS`, `transcript_id`, `transcript_biotype`, `spliced_bp` and `coding_bp`, and
        `copy`: which of several places of its gene on the contig it is of.
    """
    found: dict[tuple, list] = {}
    copies: list[tuple[tuple, list]] = []
    for kind, chrom, start, end, strand, text in _records(path, _OF_TRANSCRIPTS):
        ids = _IDS.match(text)
        key = ids.groups() if ids else (_gene_id(text).encode(), _transcript_id(text).encode())
        own = found.get(key := (*key, chrom, strand))
        if own is None:
            own = found[key] = [start, end, 0, 0, text]
        elif start > own[1] + _APART_BP or end < own[0] - _APART_BP:
            copies.append((key, own))
            own = found[key] = [start, end, 0, 0, text]
        elif start < own[0]:
            own[0] = start
        if end > own[1]:
            own[1] = end
        if kind != b"transcript":
            own[2 if kind == b"exon" else 3] += end - start
    rows = [
        (_gene_id(text), _transcript_id(text), *place, *own, *(read(text) for read in _DETAILS))
        for (_, _, *place), (*own, text) in [*copies, *found.items()]
    ]
    columns = ["gene_id", "transcript_id", "chrom", "strand", "start", "end"]
    columns += ["spliced_bp", "coding_bp", "name", "biotype", "transcript_biotype"]
    table = pd.DataFrame(rows, columns=columns).astype({"start": np.int64, "end": np.int64})
    by_start = table.sort_values("start", kind="stable")
    reached = by_start.groupby(_PLACE, sort=False)["end"].cummax() + _APART_BP
    apart = by_start["start"] > reached.groupby([by_start[name] for name in _PLACE]).shift()
    return table.assign(copy=apart.groupby([by_start[name] for name in _PLACE]).cumsum())


def _gene_extents(path: pathlib.Path) -> pd.DataFrame:
    genes = _listed(path, b"gene")
    if len(genes):
        return genes
    # Old GTFs, and UCSC's, list no genes.
    transcripts = _joined(path)
    if transcripts.empty:
        raise InputError(
            str(path),
            "no gene",
            "records of genes, transcripts or exons",
            "give a complete GTF, or a table gene_id,chrom,tss,strand",
        )
    rule = {"start": "min", "end": "max", "name": "first", "biotype": "first"}
    genes = transcripts.groupby([*_PLACE, "copy"], sort=False)
    return genes.agg(rule).reset_index()


def _canonical_extents(path: pathlib.Path) -> pd.DataFrame:
    transcripts = _joined(path)
    if transcripts.empty:
        raise InputError(
            str(path),
            "no transcripts",
            "transcript, exon and CDS records, to choose the canonical transcript",
            "give --tss=gene_5p, or a complete GTF",
        )
    # A transcript subject to nonsense-mediated decay has a CDS, too, but makes no protein.
    transcripts["coding_bp"] *= transcripts["transcript_biotype"].isin(["protein_coding", ""])
    spliced, genomic = transcripts["spliced_bp"], transcripts["end"] - transcripts["start"]
    transcripts["spliced_bp"] = spliced.where(spliced > 0, genomic)
    return (
        transcripts.sort_values("transcript_id")  # breaks ties, always in the same way
        .sort_values(["coding_bp", "spliced_bp"], ascending=False, kind="stable")
        .drop_duplicates([*_PLACE, "copy"])
    )


def _transcript_extents(path: pathlib.Path) -> pd.DataFrame:
    transcripts = _listed(path, b"transcript")
    return transcripts if len(transcripts) else _joined(path)


_READERS = {
    "gene": _gene_extents,
    "canonical": _canonical_extents,
    "transcript": _transcript_extents,
}
