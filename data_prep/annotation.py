"""Genes and their TSSs: from a GTF through pyensembl, or from a plain table.

GTF positions are 1-based and closed; here everything is 0-based and half-open, and a TSS is the
0-based position of the first transcribed base.

pyensembl indexes a GTF into an SQLite database. Asked for a whole `Genome` it also makes up one
transcript for each gene of a GTF that lists only genes, which took 46 of 48 s on GENCODE v10;
its `Database`, told which records to index, takes 1.5 s. The result is kept as a small Parquet
table under the user's cache folder, by the GTF's checksum, so that this is paid once.
"""

import contextlib
import gzip
import hashlib
import os
import pathlib
import tempfile
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyensembl
from absl import logging

from data_prep.assembly import recognise_assembly
from data_prep.expression import read_delimited
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import (
    GENE_COLUMNS,
    check_gene_table,
    gene_order,
    listing,
    match_chromosomes,
    strip_version,
)

ENSEMBL_RELEASE = 75  # the last on GRCh37 (hg19), which the Roadmap tracks refer to
TSS_RULES = ("gene_5p", "canonical", "gene_start")

_EXTENT_COLUMNS = ["gene_id", "name", "chrom", "start", "end", "strand"]
_CACHE_FORMAT = 1  # raise when the cached table's columns or meaning change
_MOST_LINES = 20


def read_genes(
    source: str | pathlib.Path | None, *, tss: str = "gene_5p", chrom_sizes: dict[str, int]
) -> pd.DataFrame:
    """Read the genes that lie on an assembly, in genome order.

    Args:
        source: a GTF (plain or gzipped); or a table, tab- or comma-separated, with the columns
            `gene_id,chrom,tss,strand` (TSS 0-based) or `gene_id,chrom,start,end,strand` (0-based,
            half-open), and maybe `name`, others being ignored; or nothing: Ensembl 75 as
            installed by pyensembl.
        tss: which position is the TSS. `gene_5p`: the 5′ end of the gene, strand respected;
            `gene_start`: its lowest position whatever the strand (what the original study used);
            `canonical`: the 5′ end of the protein-coding transcript with the longest coding
            sequence, or, in a gene without one, of the longest spliced transcript.
        chrom_sizes: length of each chromosome of the assembly, in bp; `1` and `chr1` match.

    Returns:
        Columns `gene_id` (without version), `name`, `chrom` (as the assembly spells it), `tss`
        (0-based, int64) and `strand`. `attrs["off_assembly"]` counts the genes left out because
        the assembly lacks their chromosome, by chromosome.

    Raises:
        InputError: with all problems of the annotation.
    """
    if tss not in TSS_RULES:
        raise InputError(
            Problem("--tss", repr(tss), f"one of {', '.join(TSS_RULES)}", "correct the flag")
        )
    if source is None or str(source) == "":
        path = _ensembl_gtf(chrom_sizes)
    else:
        path = pathlib.Path(source)
    if _looks_like_gtf(path):
        genes = _place_tss(_gtf_extents(path, tss), tss)
    else:
        genes = _read_table(path, tss)
    return _on_assembly(genes, chrom_sizes, str(path))


def _place_tss(extents: pd.DataFrame, rule: str) -> pd.DataFrame:
    last = extents["end"] - 1
    downstream = (extents["strand"] == "-") & (rule != "gene_start")
    return extents.assign(tss=extents["start"].where(~downstream, last).astype(np.int64))


def _on_assembly(genes: pd.DataFrame, chrom_sizes: dict[str, int], where: str) -> pd.DataFrame:
    """Gene ids without versions, chromosomes as the assembly spells them, in genome order."""
    spelling = match_chromosomes(genes["chrom"].unique(), chrom_sizes)
    elsewhere = genes.loc[~genes["chrom"].isin(list(spelling)), "chrom"]
    if len(elsewhere) == len(genes):
        raise InputError(
            Problem(
                where,
                f"{len(genes)} genes, on {listing(elsewhere.unique()) or 'no chromosome'}",
                f"genes on the assembly's chromosomes ({listing(chrom_sizes)})",
                "give the --assembly the annotation belongs to",
            )
        )
    gene_id = genes["gene_id"].map(strip_version)
    genes = genes.assign(
        gene_id=gene_id, name=genes["name"].where(genes["name"] != "", gene_id)
    ).drop(index=elsewhere.index)
    genes["chrom"] = [spelling[chrom] for chrom in genes["chrom"]]
    # The same record twice is harmless; two TSSs of one gene are not, and are reported.
    genes = pd.DataFrame(genes, columns=list(GENE_COLUMNS)).drop_duplicates(ignore_index=True)
    check_gene_table(genes, chrom_sizes, where)
    order = gene_order(list(genes["chrom"]), list(genes["tss"]))
    genes = genes.iloc[order].reset_index(drop=True)
    genes.attrs["off_assembly"] = elsewhere.value_counts().to_dict()
    return genes


def _ensembl_gtf(chrom_sizes: dict[str, int]) -> pathlib.Path:
    """The GTF of Ensembl 75, where `pyensembl install` has put it. Nothing is downloaded."""
    if recognise_assembly(chrom_sizes) != "hg19":
        raise InputError(
            Problem(
                "--genes",
                f"no annotation, and an assembly that is not hg19 ({listing(chrom_sizes)})",
                f"an annotation; the default, Ensembl {ENSEMBL_RELEASE}, is of hg19",
                "give --genes=GTF of the assembly",
            )
        )
    release = pyensembl.EnsemblRelease(ENSEMBL_RELEASE, species="human")
    path = next(pathlib.Path(file) for file in release.required_local_files() if ".gtf" in file)
    if not path.is_file():
        raise InputError(
            Problem(
                f"Ensembl {ENSEMBL_RELEASE}",
                f"not installed ({path})",
                "the annotation, downloaded once by pyensembl",
                f"run `pyensembl install --release {ENSEMBL_RELEASE} --species human`, "
                "or give --genes=GTF",
            )
        )
    return path


def _gtf_lines(path: pathlib.Path) -> Iterator[tuple[int, str]]:
    """The numbered records of a GTF, or of any text file."""
    try:
        with path.open("rb") as file:
            packed = file.read(2) == b"\x1f\x8b"
        opener = gzip.open if packed else open
        with opener(path, "rt", encoding="utf-8", errors="replace") as text:
            for number, line in enumerate(text, start=1):
                if line.strip() and not line.startswith("#"):
                    yield number, line.rstrip("\r\n")
    except (OSError, EOFError) as error:
        raise InputError(
            Problem(
                str(path),
                f"an unreadable file ({getattr(error, 'strerror', None) or error})",
                "a GTF or a gene table",
                "check the path, or download the file again",
            )
        ) from None


def _looks_like_gtf(path: pathlib.Path) -> bool:
    first = next(_gtf_lines(path), (0, ""))[1].split("\t")
    return len(first) == 9 and first[3].isdigit() and first[4].isdigit()


def _gtf_extents(path: pathlib.Path, rule: str) -> pd.DataFrame:
    """Start and end of each gene, or of its canonical transcript, 0-based and half-open.

    Read from the cache if this GTF has been seen before.
    """
    kind = "canonical" if rule == "canonical" else "gene"
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    cached = _cache_folder() / f"{digest}.{kind}.v{_CACHE_FORMAT}.parquet"
    if cached.exists():
        return pd.read_parquet(cached)
    logging.info("indexing %s with pyensembl, once", path)
    # A folder of its own: two builds that start together must not write one database.
    with tempfile.TemporaryDirectory(prefix="epi2expr-annotation-") as folder:
        read = _canonical_extents if kind == "canonical" else _gene_extents
        extents = read(path, folder)
    extents = extents[_EXTENT_COLUMNS].assign(start=extents["start"] - 1)
    backwards = extents.loc[extents["end"] <= extents["start"], "gene_id"]
    if len(backwards):
        found = f"{listing(backwards)} with an end before the start"
        raise InputError(_bad_line(str(path), found, "start and end in ascending order"))
    partial = cached.with_name(f"{cached.name}.{os.getpid()}.partial")
    try:
        cached.parent.mkdir(parents=True, exist_ok=True)
        extents.to_parquet(partial, index=False)
        partial.replace(cached)
    except OSError as error:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise InputError(
            Problem(
                str(cached.parent),
                f"a cache folder that refuses writing ({error.strerror or error})",
                "room for one small table",
                "set XDG_CACHE_HOME to another folder",
            )
        ) from None
    return extents


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
            Problem(
                str(path),
                "no transcripts",
                "transcript, exon and CDS records, to choose the canonical transcript",
                "give --tss=gene_5p, or a complete GTF",
            )
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
        transcripts.sort_values("transcript_id")  # the last resort, so that ties are no accident
        .sort_values(["coding_bp", "spliced_bp"], ascending=False, kind="stable")
        .drop_duplicates("gene_id")
    )


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
        raise InputError(_gtf_problems(path) or _malformed(path, error)) from error
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


def _gtf_problems(path: pathlib.Path) -> list[Problem]:
    """The first malformed lines of a GTF that could not be indexed."""
    problems = []
    for number, line in _gtf_lines(path):
        fields = line.split("\t")
        where = f"{path}, line {number}"
        if len(fields) != 9:
            problems.append(_bad_line(where, f"{len(fields)} fields", "the 9 of a GTF"))
        elif not (fields[3].isdigit() and fields[4].isdigit()):
            problems.append(_bad_line(where, f"{fields[3]}-{fields[4]}", "a start and an end"))
        elif fields[6] not in ("+", "-"):
            problems.append(_bad_line(where, f"strand {fields[6]!r}", "+ or -"))
        elif 'gene_id "' not in fields[8]:
            problems.append(_bad_line(where, "no gene_id", 'gene_id "…" in the last field'))
        if len(problems) == _MOST_LINES:
            break
    return problems


def _bad_line(where: str, found: str, expected: str) -> Problem:
    return Problem(where, found, expected, "correct the line, or leave it out")


def _malformed(path: pathlib.Path, error: Exception) -> Problem:
    return Problem(
        str(path),
        f"a GTF that pyensembl cannot index ({error})",
        "gene_id on every line, and each gene and transcript once",
        "mend the GTF, or give a table gene_id,chrom,tss,strand instead",
    )


def _read_table(path: pathlib.Path, rule: str) -> pd.DataFrame:
    lines = read_delimited(path)
    header = next(lines)[1]
    positions = ["tss"] if "tss" in header else ["start", "end"]
    missing = [name for name in ("gene_id", "chrom", *positions, "strand") if name not in header]
    if missing:
        raise InputError(
            Problem(
                f"{path}, header",
                f"columns {listing(header, most=20)}, without {', '.join(missing)}",
                "gene_id, chrom, strand, and tss (0-based) or start and end (0-based, half-open)",
                "name the columns so, or give a GTF",
            )
        )
    if rule == "canonical" or (rule == "gene_start" and positions == ["tss"]):
        raise InputError(
            Problem(
                f"--tss={rule}",
                f"{path}, a table of {' and '.join(positions)}",
                "a GTF, for a choice of TSS",
                "leave out --tss, or give a GTF",
            )
        )
    records, problems = [], []
    for number, fields in lines:
        record = dict(zip(header, fields, strict=True))
        where = f"{path}, line {number}"
        numbers = [record[name] for name in positions]
        if not record["gene_id"] or not record["chrom"]:
            problems.append(_bad_line(where, "an empty field", "a gene_id and a chrom"))
        if not all(text.isdecimal() for text in numbers):
            found = ", ".join(map(repr, numbers))
            problems.append(_bad_line(where, found, f"whole numbers as {' and '.join(positions)}"))
        elif positions == ["start", "end"] and int(numbers[0]) >= int(numbers[1]):
            problems.append(_bad_line(where, "-".join(numbers), "a start below its end"))
        records.append(record)
    if problems:
        raise InputError(problems[:_MOST_LINES])
    genes = pd.DataFrame(records, columns=header)
    genes[positions] = genes[positions].astype(np.int64)
    if "name" not in header:
        genes["name"] = ""
    return genes if positions == ["tss"] else _place_tss(genes, rule)
