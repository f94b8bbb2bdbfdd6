"""Files of another kind than is asked for: what they are, and how to turn them into what is read.

The readers of public files open them here, so that each names such files alike.
"""

import contextlib
import io
import pathlib
import re
from collections.abc import Iterator, Sequence
from typing import IO, cast

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import opened

_TO_BAM = "samtools view -b -o reads.bam"
_CSV = "save it as CSV (UTF-8) or as text between tabs"
_TO_TEXT = (
    "write it in R as text: write.table(x, 'table.tsv', sep='\\t', quote=FALSE, col.names=NA)"
)
_NOT_TEXT = "export it as text from the program that wrote it"
_MAP = "make contacts from it: python -m data_prep.contacts_from_map --help"
_TO_MCOOL = f"turn it into a .mcool: hictk convert FILE FILE.mcool; {_MAP}"
_OF_HDF5 = f"{_NOT_TEXT}; of a .cool, {_MAP}"
_AGAIN = "download it again, from the address of the file itself"
_TO_BIGWIG = "turn it into a bigWig: bedGraphToBigWig signal.bedGraph genome.chrom.sizes signal.bw"

OLD_MAC = "text with the line ends of old Macs"  # which `text.read_text` reads

# First bytes, what the file is, and what to do. Of several that fit the first counts.
_FIRST_BYTES: tuple[tuple[bytes, str, str], ...] = (
    (b"\x1f\x8b", "a gzip file within a gzip file", "unpack it once: gunzip FILE"),
    (b"BAM\1", "a BAM", "turn it into BED: bedtools bamtobed -i FILE"),
    (b"CRAM", "a CRAM", f"turn it into a BAM: {_TO_BAM} -T genome.fa FILE"),
    (b"\x26\xfc\x8f\x88", "a bigWig", "give it in the track sheet"),
    (b"\x88\x8f\xfc\x26", "a big-endian bigWig", "make it again on a common machine"),
    (b"\xeb\xf2\x89\x87", "a bigBed", "turn it into BED: bigBedToBed FILE FILE.bed"),
    (b"\x87\x89\xf2\xeb", "a big-endian bigBed", "turn it into BED: bigBedToBed FILE FILE.bed"),
    (b"HIC\0", "a .hic contact map", _TO_MCOOL),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file (.h5, .h5ad, .cool, .loom)", _OF_HDF5),
    (b"\xd0\xcf\x11\xe0", "an old Excel workbook (.xls)", _CSV),
    (b"BZh", "a file packed with bzip2", "unpack it: bunzip2 FILE"),
    (b"\xfd7zXZ", "a file packed with xz", "unpack it: unxz FILE"),
    (b"\x28\xb5\x2f\xfd", "a file packed with zstd", "unpack it: unzstd FILE"),
    (b"RDX", "R's workspace (.RData)", _TO_TEXT),
    (b"X\n\0\0\0", "R's .rds", _TO_TEXT),
    (b"A\n2\n", "R's .rds", _TO_TEXT),
    (b"A\n3\n", "R's .rds", _TO_TEXT),
    (b"\xff\xfe", "text in UTF-16", "turn it into UTF-8: iconv -f UTF-16 -t UTF-8 FILE"),
    (b"\xfe\xff", "text in UTF-16", "turn it into UTF-8: iconv -f UTF-16 -t UTF-8 FILE"),
    (b"PAR1", "a Parquet table", "write it as CSV: pandas.read_parquet(FILE).to_csv('table.csv')"),
    (b"\x93NUMPY", "a NumPy array (.npy)", "write it as CSV, with ids and a header"),
    (b"SQLite format 3", "an SQLite database", "give the GTF that it was made from"),
    (b"%PDF", "a PDF", "look for the table as text, such as in the supplement"),
    (b"version https://git-lfs", "a pointer of Git LFS", "fetch the file itself: git lfs pull"),
    (b"##gff-version 3", "a GFF3", "turn it into a GTF: gffread FILE -T -o genes.gtf"),
    (b"##gff-version\t3", "a GFF3", "turn it into a GTF: gffread FILE -T -o genes.gtf"),
    (b"##fileformat=VCF", "a VCF", "give a BED of the intervals"),
    (b">", "a FASTA of sequences", "give the table or annotation that belongs to it"),
)  # fmt: skip
_TEXTS: tuple[tuple[re.Pattern[bytes], str, str], ...] = (
    (re.compile(rb"\s*<(!doctype|html|\?xml|head|body)", re.I), "a page of HTML or XML", _AGAIN),
    (re.compile(rb"@(HD|SQ|RG|PG|CO)\t"), "a SAM", f"turn it into a BAM: {_TO_BAM} FILE"),
    (re.compile(rb"@[^\n]*\n[A-Za-z.]+\r?\n\+"), "a FASTQ", "align the reads first"),
    (
        re.compile(rb"(track type=wiggle_0|(fixed|variable)Step )"),
        "a wiggle file",
        "turn it into a bigWig: wigToBigWig FILE genome.chrom.sizes signal.bw",
    ),
    (re.compile(rb"track type=bedGraph"), "a bedGraph", _TO_BIGWIG),
    (
        re.compile(rb"(#[^\n]*\n)*([^\t\n]+\t){3}\d+\t\d+\t[^\t\n]*\t[^\t\n]*\t[^\t\n]*\t[^\n]*\bID="),
        "a GFF3",
        "turn it into a GTF: gffread FILE -T -o genes.gtf",
    ),
    (
        re.compile(rb"#?(bin\t)?name\tchrom\tstrand\ttxStart"),
        "a table of UCSC's genes (genePred)",
        "turn it into a GTF: cut -f 2- FILE | genePredToGtf file stdin genes.gtf",
    ),
)  # fmt: skip


def recognise(head: bytes) -> tuple[str, str] | None:
    """What a file is that the package does not read as a table, and what to do with it; or None.

    Args:
        head: its first bytes, unpacked if it is gzipped; some thousand are enough.
    """
    if head.startswith(b"PK\3\4"):
        if b"xl/" in head or b"[Content_Types].xml" in head:
            return "an Excel workbook (.xlsx)", _CSV
        return "a zip archive", "unpack it: unzip FILE"
    for magic, what, remedy in _FIRST_BYTES:
        if head.startswith(magic):
            return what, remedy
    text = head.removeprefix(b"\xef\xbb\xbf")
    for pattern, what, remedy in _TEXTS:
        if pattern.match(text):
            return what, remedy
    if b"\r" in head and b"\n" not in head:
        return OLD_MAC, "give it others: tr '\\r' '\\n' < FILE > FILE.txt"
    if head[1:40:2].count(0) > 15 or head[:40:2].count(0) > 15:
        return "text in UTF-16", "turn it into UTF-8: iconv -f UTF-16 -t UTF-8 FILE"
    return None


def is_url(location: str | pathlib.Path) -> bool:
    """Whether a location is a URL, not a path."""
    return re.match(r"(https?|ftp)://", str(location)) is not None


@contextlib.contextmanager
def opened_as(path: str | pathlib.Path, what: str, *reads: str) -> Iterator[IO[bytes]]:
    """A file to read, unpacked if it is gzip by its content, that is not known to be another.

    Args:
        what: the kind of file expected, for the error.
        reads: what of `recognise` the caller reads, such as "a BAM".

    Raises:
        InputError: if it is a URL, cannot be opened, is damaged, or is recognised as another kind
            of file, with how to turn that into what is read.
    """
    url = re.sub(r"^(\w+):/+", r"\1://", str(path))  # which a path has one slash of
    if is_url(url):
        remedy = f"download it first: curl -LO {url}"
        raise InputError(url, "a URL", f"{what}, as a local file", remedy)
    with opened(path, what) as file:
        require_none_other(path, cast(io.BufferedReader, file).peek(4096), what, *reads)
        yield file


def require_none_other(path: str | pathlib.Path, head: bytes, what: str, *reads: str) -> None:
    """Check that the first bytes of a file are not those of another kind; as `opened_as`.

    Raises:
        InputError: if they are, with how to turn it into what is read.
    """
    known = recognise(head)
    if known and known[0] not in reads:
        remedy = known[1].replace("FILE", pathlib.Path(path).name)
        raise InputError(str(path), known[0], what, remedy, kind="other_format")


# Tables of one sample: what each is called, and columns that tell it, in small letters.
_SAMPLES = (
    ("RSEM's quantification", {"expected_count", "effective_length", "tpm"}),
    ("salmon's quantification", {"effectivelength", "tpm", "numreads"}),
    ("kallisto's quantification", {"eff_length", "est_counts", "tpm"}),
    ("StringTie's gene abundances", {"gene id", "coverage", "fpkm", "tpm"}),
)
_TRANSCRIPT = re.compile(r"ENS[A-Z]*T\d{6,}|[NX][MR]_\d+")
_BY_GENE = (
    "give the table by gene: RSEM's .genes.results (ENCODE: gene quantifications), salmon's "
    "quant.genes.sf (quant --geneMap genes.gtf), or tximport's in R"
)


def sample_column(
    path: str | pathlib.Path,
    header: Sequence[str],
    ids: Sequence[str],
    cells: Sequence[str] | None,
    unit: str,
) -> tuple[str, str, str] | None:
    """The column to read of a table that a program wrote of one sample; None of other tables.

    Args:
        header: names of its columns.
        ids: what its first column says, by line.
        cells: of the track sheet; None if that is not known.
        unit: that is asked for, or `auto`.

    Returns:
        The name of the column, its unit, and what the table is.

    Raises:
        InputError: if it is of transcripts, if there are several cells, or for a unit, or a cell
            of a name, that it has not.
    """
    known = {name.lower(): name for name in header}
    what = next((what for what, some in _SAMPLES if some <= known.keys()), "")
    if not what:
        return None
    found = f"{what}, a table of one sample ({', '.join(header[:8])})"
    expected = "genes x cells: a column for each cell of the track sheet"
    names = [name for name in ids if name]
    transcripts = sum(_TRANSCRIPT.match(name) is not None for name in names)
    if header[0].lower() == "transcript_id" or 2 * transcripts > len(names) > 0:
        of = f"{what}, by transcript ({', '.join(names[:3])})"
        raise InputError(str(path), of, "a table by gene", _BY_GENE, kind="transcripts")
    if cells is not None and len(cells) != 1:
        files = ", ".join(f"'{cell}': '{cell}.tsv'" for cell in cells)
        join = (
            f'join such files, one a cell: python -c "import pandas as pd; '
            f"pd.DataFrame({{c: pd.read_csv(f, sep='\\t', index_col=0)['{known['tpm']}'] "
            f"for c, f in {{{files}}}.items()}}).to_csv('expression.TPM.tsv', sep='\\t')\""
        )
        raise InputError(str(path), found, expected, join, kind="one_sample")
    cell = cells[0] if cells else ""
    wanted = unit if unit != "auto" else cell if cell in ("TPM", "FPKM") else "TPM"
    if cell in header[1:] and cell not in ("TPM", "FPKM"):
        remedy = "name the cell after what was measured: TPM is read as its expression"
        of = f"{what}, and a cell named like its column {cell}"
        raise InputError(str(path), of, "another name of the cell", remedy, kind="one_sample")
    if wanted.upper() not in ("TPM", "FPKM") or wanted.lower() not in known:
        remedy = "leave out --expression_unit: its TPM are read"
        raise InputError(str(path), f"{found}, asked for {wanted}", "TPM", remedy)
    return known[wanted.lower()], wanted.upper(), what
