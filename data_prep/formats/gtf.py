"""GTF files, and where pyensembl keeps Ensembl's: the extents of genes and of transcripts.

pyensembl indexes a GTF into an SQLite database. Asked for a whole `Genome` it also makes up one
transcript for each gene of a GTF that lists only genes, which took 46 of 48 s on GENCODE v10;
its `Database`, told which records to index, takes 1.5 s. The result is kept as a small Parquet
table under the user's cache folder, by the GTF's checksum and with its own, so that this is paid
once.
"""

import contextlib
import os
import pathlib
import re
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyensembl
from absl import logging

from data_prep.formats.assembly import recognise_assembly
from data_prep.formats.cache import keep_table, kept_table
from data_prep.formats.text import MOST_LINES
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import opened, scratch, sha256
from epi2expr_jax.genome import listing

ENSEMBL_RELEASE = 75  # the last on GRCh37 (hg19), which the Roadmap tracks refer to
CORRECT_LINE = "correct the line, or leave it out"

_EXTENT_COLUMNS = ["gene_id", "name", "chrom", "start", "end", "strand"]
_CACHE_FORMAT = 2  # raise when the cached table's columns or meaning change


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


def _gtf_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """The numbered records of a GTF, or of any text file."""
    with opened(path, "a GTF or a gene table") as file:
        for number, line in enumerate(file, start=1):
            if line.strip() and not line.startswith(b"#"):
                yield number, line.decode(errors="replace").rstrip("\r\n")


def looks_like_gtf(path: pathlib.Path) -> bool:
    first = next(_gtf_lines(path), (0, ""))[1].split("\t")
    return len(first) == 9 and first[3].isdecimal() and first[4].isdecimal()


def gtf_extents(path: pathlib.Path, kind: str) -> pd.DataFrame:
    """Extents of genes or transcripts, read from the cache if this GTF has been seen before.

    Args:
        path: the GTF.
        kind: `gene`: one row a gene; `canonical`: one row a gene, its canonical transcript;
            `transcript`: one row a transcript, none if the GTF lists neither them nor exons.

    Returns:
        Columns `gene_id` (as in the file), `name`, `chrom`, `start`, `end` (0-based, half-open)
        and `strand`.

    Raises:
        InputError: naming the malformed lines; or if `kind` is `canonical` and the GTF lists no
            transcripts.
    """
    cached = _cache_folder() / f"{sha256(path)}.{kind}.v{_CACHE_FORMAT}.parquet"
    if (kept := kept_table(cached)) is not None:
        return kept
    logging.info("indexing %s with pyensembl, once", path)
    # A folder of its own: two builds that start together must not write one database.
    with scratch("epi2expr-annotation-") as folder:
        extents = _READERS[kind](path, folder)
    extents = extents[_EXTENT_COLUMNS].assign(start=extents["start"] - 1)
    if not ((extents["start"] >= 0) & (extents["start"] < extents["end"])).all():
        raise _malformed(path, "a start below 1, or an end before the start")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        keep_table(cached, extents)
    except OSError as error:
        raise InputError(
            str(cached.parent),
            f"a cache folder that refuses writing ({error.strerror or error})",
            "room for one small table",
            "set XDG_CACHE_HOME to another folder",
        ) from None
    return extents


def coding_ids(path: pathlib.Path) -> set[str] | None:
    """Ids of a GTF's protein-coding genes, as in the file; None if it does not say which are."""
    found: set[str] = set()
    typed = False
    for _, line in _gtf_lines(path):
        fields = line.split("\t")
        if len(fields) == 9 and fields[2] == "gene":
            gene = re.search(r'gene_id "([^"]*)"', fields[8])
            kind = re.search(r'gene_(?:bio)?type "([^"]*)"', fields[8])
            typed |= kind is not None
            if gene and kind and kind[1] == "protein_coding":
                found.add(gene[1])
    return found if typed else None


def _cache_folder() -> pathlib.Path:
    root = os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache"
    return pathlib.Path(root) / "epi2expr_jax" / "annotation"


def _gene_extents(path: pathlib.Path, folder: str) -> pd.DataFrame:
    # Old GTFs list exons alone; then pyensembl joins them to genes, which takes longer.
    records = {"gene"} if _has_record(path, {"gene"}) else {"gene", "exon", "CDS"}
    with _index(path, folder, records) as database:
        return _query(database, "gene", ["gene_id"])


def _canonical_extents(path: pathlib.Path, folder: str) -> pd.DataFrame:
    if not _has_record(path, {"transcript", "exon", "CDS"}):
        raise InputError(
            str(path),
            "no transcripts",
            "transcript, exon and CDS records, to choose the canonical transcript",
            "give --tss=gene_5p, or a complete GTF",
        )
    with _index(path, folder, {"transcript", "exon", "CDS"}) as database:
        transcripts = _query(
            database, "transcript", ["gene_id", "transcript_id", "transcript_biotype"]
        )
        coding_bp = _lengths(database, "CDS")
        spliced_bp = _lengths(database, "exon")
    ids, biotype = transcripts["transcript_id"], transcripts["transcript_biotype"]
    # A transcript subject to nonsense-mediated decay has a CDS, too, but makes no protein.
    coding = biotype.isin(["protein_coding", ""])
    transcripts["coding_bp"] = coding_bp.reindex(ids).fillna(0).to_numpy() * coding
    spliced = spliced_bp.reindex(ids).to_numpy()
    genomic = (transcripts["end"] - transcripts["start"] + 1).to_numpy()
    transcripts["spliced_bp"] = np.where(np.isnan(spliced), genomic, spliced)
    return (
        transcripts.sort_values("transcript_id")  # breaks ties, always in the same way
        .sort_values(["coding_bp", "spliced_bp"], ascending=False, kind="stable")
        .drop_duplicates("gene_id")
    )


def _transcript_extents(path: pathlib.Path, folder: str) -> pd.DataFrame:
    if not _has_record(path, {"transcript", "exon"}):
        return pd.DataFrame({name: [] for name in _EXTENT_COLUMNS}).astype(
            {"start": np.int64, "end": np.int64}
        )
    # As for genes: where there are exons alone, pyensembl joins them to transcripts.
    records = {"transcript"} if _has_record(path, {"transcript"}) else {"transcript", "exon"}
    with _index(path, folder, records) as database:
        return _query(database, "transcript", ["gene_id"])


_READERS = {
    "gene": _gene_extents,
    "canonical": _canonical_extents,
    "transcript": _transcript_extents,
}


def _has_record(path: pathlib.Path, kinds: set[str]) -> bool:
    return any(not kinds.isdisjoint(line.split("\t", 3)[2:3]) for _, line in _gtf_lines(path))


@contextlib.contextmanager
def _index(path: pathlib.Path, folder: str, records: set[str]) -> Iterator[pyensembl.Database]:
    """The records of these kinds, in an SQLite database inside `folder`."""
    database = pyensembl.Database(
        gtf_path=str(path.absolute()),
        cache_directory_path=folder,
        restrict_gtf_columns={
            *("seqname", "source", "feature", "start", "end", "strand"),
            *("gene_id", "gene_name", "transcript_id", "transcript_biotype"),
        },
        restrict_gtf_features=records,
    )
    try:
        database.connect_or_create()
    except Exception as error:  # whatever the parser and SQLite raise on a malformed GTF
        raise _malformed(path, str(error)) from error
    with database:
        yield database


def _query(database: pyensembl.Database, record: str, ids: list[str]) -> pd.DataFrame:
    """These columns and the extents (1-based, closed, as in the GTF); what it lacks is empty."""
    sources = {name: name for name in (*ids, "start", "end", "strand")}
    sources |= {"name": "gene_name", "chrom": "seqname"}
    known = database.columns(record)
    terms = (column if column in known else "''" for column in sources.values())
    rows = database.run_sql_query(f"SELECT {', '.join(terms)} FROM {record}")
    return pd.DataFrame(rows, columns=list(sources)).astype({"start": np.int64, "end": np.int64})


def _lengths(database: pyensembl.Database, record: str) -> pd.Series:
    """Summed length in bp of the records of a kind, by transcript."""
    if not database.columns(record):
        return pd.Series(dtype=np.float64)
    query = f"SELECT transcript_id, SUM(end - start + 1) FROM {record} GROUP BY transcript_id"
    return pd.Series(dict(database.run_sql_query(query)), dtype=np.float64)


def _malformed(path: pathlib.Path, reason: str) -> InputError:
    """The error of a GTF that cannot be indexed; raised where its malformed lines can be named."""
    with collect(most=MOST_LINES) as problems:
        for number, line in _gtf_lines(path):
            fields = line.split("\t")
            where = f"{path}, line {number}"
            if len(fields) != 9:
                problems.add(where, f"{len(fields)} fields", "the 9 of a GTF", CORRECT_LINE)
                continue
            start, end = fields[3:5]
            if not (start.isdecimal() and end.isdecimal() and 1 <= int(start) <= int(end)):
                expected = "a start of 1 or more, and an end not before it"
                problems.add(where, f"{start}-{end}", expected, CORRECT_LINE)
            elif fields[6] not in ("+", "-"):
                problems.add(where, f"strand {fields[6]!r}", "+ or -", CORRECT_LINE)
            elif 'gene_id "' not in fields[8]:
                expected = 'gene_id "…" in the last field'
                problems.add(where, "no gene_id", expected, CORRECT_LINE)
    return InputError(
        str(path),
        f"a GTF that cannot be indexed ({reason})",
        "gene_id on every line, and each gene and transcript once",
        "correct the GTF, or give a table gene_id,chrom,tss,strand instead",
    )
