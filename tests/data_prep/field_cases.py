"""Inputs as people have them: a trait, what comes of it, and a small file that has it.

`docs/what_we_read.md` is made of this table: `python -m tests.data_prep.field_cases`.
"""
# ruff: noqa: E501 (a row is a line)

import dataclasses
import gzip
import io
import pathlib
import zipfile
from typing import Any

from data_prep.formats.foreign import recognise
from tests.data_prep.contact_texts import BAIT, CONTACTS, bedpe, ibed
from tests.data_prep.field_imports import ALIASES, COUNT_FILES, CUT, META_FILES, READ
from tests.data_prep.gtf_lines import record, transcript

PAGE = pathlib.Path(__file__).parents[2] / "docs" / "what_we_read.md"


@dataclasses.dataclass(frozen=True)
class Case:
    """A file of a kind.

    Attributes:
        kind: which reader it is given to, a key of `KINDS`.
        trait: what is special about it.
        outcome: what comes of it, in words.
        content: of the file.
        expected: what the reader returns; or, if it refuses the file, what its error says.
        name: of the file; by default that of `KINDS`.
    """

    kind: str
    trait: str
    outcome: str
    content: str | bytes
    expected: Any
    name: str = ""

    @property
    def data(self) -> bytes:
        return self.content if isinstance(self.content, bytes) else self.content.encode()


# What each kind of input is called on the page, and a name for its file.
KINDS = {
    "annotation": ("Annotation (`--genes`)", "genes.gtf"),
    "expression": ("Expression (`--expression`)", "expression.tsv"),
    "sheet": ("Track sheet (`--tracks`)", "tracks.csv"),
    "bigwig": ("Tracks (bigWig)", "track.bw"),
    "bed": ("Intervals (`--blacklist`, edits)", "black.bed"),
    "reads": ("Reads (`data_prep.depth`)", "reads.bed"),
    "contacts": ("Promoter contacts (`--interactions`)", "contacts.txt"),
    "sizes": ("Assembly (`--assembly`)", "toy.chrom.sizes"),
    "counts": ("Window counts (`data_prep.import_window_counts`)", "E1.train.csv"),
    "meta": ("Chromoformer's metadata (`data_prep.import_chromoformer`)", "meta.csv"),
    "aliases": ("Other names of chromosomes (`--aliases`)", "chromAlias.txt"),
}


def _zip(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, "x")
    return packed.getvalue()


# Files of another kind: what they are called, what the remedy names, and their first bytes.
FOREIGN = (
    ("an Excel workbook (.xlsx)", "save it as CSV", _zip("xl/workbook.xml")),
    ("an old Excel workbook (.xls)", "save it as CSV", b"\xd0\xcf\x11\xe0\xa1\xb1"),
    ("a zip archive", "unzip", _zip("table.tsv")),
    ("text in UTF-16", "iconv", "gene_id\tE1\nA\t1\n".encode("utf-16")),
    ("R's .rds", "write.table", gzip.compress(b"X\n\0\0\0\3\0\4\3\1", mtime=0)),
    ("R's workspace (.RData)", "write.table", gzip.compress(b"RDX3\nX\n", mtime=0)),
    ("a file packed with bzip2", "bunzip2", b"BZh91AY&SY"),
    ("a file packed with xz", "unxz", b"\xfd7zXZ\0"),
    ("a file packed with zstd", "unzstd", b"\x28\xb5\x2f\xfd"),
    ("a CRAM", "samtools view", b"CRAM\3\0"),
    ("a SAM", "samtools view", b"@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:9\n"),
    ("a FASTQ", "align", b"@read\nACGT\n+\nIIII\n"),
    ("a FASTA of sequences", "table or annotation", b">chr1\nACGT\n"),
    ("a bigBed", "bigBedToBed", b"\xeb\xf2\x89\x87" + bytes(60)),
    ("a .hic contact map", "contacts_from_map", b"HIC\0\7\0\0\0"),
    ("an HDF5 file (.h5, .h5ad, .cool, .loom)", "as text", b"\x89HDF\r\n\x1a\n"),
    ("a Parquet table", "to_csv", b"PAR1\x15\4"),
    ("a NumPy array (.npy)", "as CSV", b"\x93NUMPY\1\0"),
    ("an SQLite database", "GTF", b"SQLite format 3\0"),
    ("a PDF", "as text", b"%PDF-1.7\n"),
    ("a page of HTML or XML", "download it again", b"<!DOCTYPE html>\n<html><body>404"),
    ("a pointer of Git LFS", "git lfs pull", b"version https://git-lfs.github.com/spec/v1\n"),
    ("a VCF", "BED", b"##fileformat=VCFv4.2\n"),
    ("a GFF3", "gffread", b"##gff-version 3\nchr1\tx\tgene\t1\t9\t.\t+\t.\tID=a\n"),
    ("a wiggle file", "wigToBigWig", b"track type=wiggle_0\nfixedStep chrom=chr1 start=1 step=1\n"),
    ("a bedGraph", "bedGraphToBigWig", b"track type=bedGraph\nchr1\t0\t9\t1\n"),
    (
        "a table of UCSC's genes (genePred)",
        "genePredToGtf",
        b"#bin\tname\tchrom\tstrand\ttxStart\ttxEnd\n0\tNM_1\tchr1\t+\t1\t9\n",
    ),
)


def _gtf(*lines: str) -> str:
    return "\n".join(lines) + "\n"


def _gene(at: int, gene: str, chrom: str = "chr1", strand: str = "+") -> str:
    return record("gene", at, at + 99, strand, gene, chrom=chrom)


A, B = _gene(101, "ENSG01.1"), _gene(301, "ENSG02.1", strand="-")
BOTH = {"ENSG01": 100, "ENSG02": 399}
ONE = {"ENSG01": 100}
TABLE = "gene_id,chrom,tss,strand\nENSG01,chr1,100,+\nENSG02,chr1,399,-\n"
EXONS = transcript("T1", [(101, 150), (201, 250)], [(111, 150)], gene="ENSG01.1")[1:]
COPY = [line.replace("chr1", "chr2") for line in EXONS]
FIRST = "read; of each id the first copy, the others counted"
COUNTED = "the others read; it is left out and counted"
ANNOTATION = (
    ("GENCODE: gene records, versions in ids", READ, _gtf(A, B), BOTH),
    ("Ensembl: chromosomes without chr", READ, _gtf(A[3:], B[3:]), BOTH),
    ("chromosomes named as NCBI does (`NC_000021.8`)", READ, _gtf(_gene(101, "ENSG01.1", "NC_000021.8")), ONE),
    ("such names of another assembly", "refused", _gtf(_gene(101, "ENSG01.1", "NC_000021.9")), "genes, on NC_000021.9"),
    ("gzip under another name", READ, gzip.compress(_gtf(A, B).encode()), BOTH),
    ("comments, track and browser lines", READ, _gtf("#!x", "track name=x", "browser x", A), ONE),
    ("lines end in CR LF", READ, _gtf(A, B).replace("\n", "\r\n"), BOTH),
    ("a byte order mark", READ, "\ufeff" + _gtf(A, B), BOTH),
    ("lines end in CR alone", "refused, with how to turn them", _gtf(A, B).replace("\n", "\r"), "line ends of old Macs"),
    ("attributes in single quotation marks", READ, _gtf(A, B).replace('"', "'"), BOTH),
    ("chromosomes such as chr01", READ, _gtf(A, B).replace("chr1", "chr01"), BOTH),
    ("a position such as 101.0", "refused, by line", _gtf(A.replace("101", "101.0")), "line 1: found 101.0-200"),
    ("gzip within gzip", "refused, named", gzip.compress(gzip.compress(_gtf(A).encode())), "gzip file within a gzip file"),
    ("attributes without quotation marks", READ, _gtf(A.replace('"', "")), ONE),
    ("transcript records alone", READ, _gtf(record("transcript", 101, 200, "+", "ENSG01", "T")), ONE),
    ("exon records alone (UCSC, iGenomes)", READ, _gtf(*EXONS), ONE),
    ("one id on several contigs", FIRST, _gtf(*EXONS, *COPY), ONE),
    ("copies on X and Y", "read; the one on X", _gtf(_gene(7, "P", "chrY"), _gene(9, "P", "chrX")), {"P": 8}),
    ("copies on alternative contigs", "read; the one on the chromosome", _gtf(_gene(7, "P", "chr1_alt"), _gene(9, "P")), {"P": 8}),
    ("copies on both strands", FIRST, _gtf(A, _gene(101, "ENSG01.1", strand="-")), ONE),
    ("the same record twice", READ, _gtf(A, A), ONE),
    ("two versions of a gene", FIRST, _gtf(A, _gene(501, "ENSG01.2")), ONE),
    ("GENCODE lifted to hg19 (`.12_4`)", READ, _gtf(_gene(101, "ENSG01.12_4")), ONE),
    ("a gene on an unknown contig", COUNTED, _gtf(A, _gene(1, "C", "GL000192.1")), ONE),
    ("a gene without a strand (`.`)", COUNTED, _gtf(A, _gene(1, "C", strand=".")), ONE),
    ("a gene with an empty gene_id", COUNTED, _gtf(A, _gene(1, "")), ONE),
    ("a start after the end", "refused, by line", _gtf(A, A.replace("101", "900")), "line 2: found 900-200"),
    ("a line cut short", "refused, by line", _gtf(A, "chr1\tx\tgene"), "line 2: found 3 fields"),
    ("no gene, transcript or exon", "refused", _gtf(record("start_codon", 5, 7, "+", "A")), "no gene"),
    ("a table instead of a GTF", READ, TABLE, BOTH),
    ("a table between semicolons", READ, TABLE.replace(",", ";"), BOTH),
    ("a table between blanks", READ, TABLE.replace(",", " "), BOTH),
    ("a table with strands 1 and -1 and a header in capitals", READ, TABLE.replace("+", "1").replace(",-", ",-1").replace("gene_id,chrom,tss", "Gene_ID,Chrom,TSS"), BOTH),
    ("a table with comments between its lines", READ, TABLE.replace("ENSG02", "# x\nENSG02"), BOTH),
    ("a table with a header that begins with #", READ, "#" + TABLE, BOTH),
    ("a table with trailing commas and a byte order mark", READ, "\ufeff" + TABLE.replace("\n", ",,\n"), BOTH),
    ("a table with positions such as 100.0", READ, TABLE.replace("100", "100.0"), BOTH),
    ("a table with a gene without a strand", COUNTED, TABLE + "C,chr1,7,.\n", BOTH),
    ("a table with two TSSs of a gene", "refused, by gene", TABLE + "ENSG01,chr1,7,+\n", "listed twice"),
    ("a gzip cut short", "refused", CUT, "a damaged gzip file"),
)  # fmt: skip
VALUES = {"E1": [1.5, 0.5], "E2": [2.0, 3.0]}
RPKM = "gene_id\tE1\tE2\nENSG01\t1.5\t2\nENSG02\t0.5\t3\n"
EXPRESSION = (
    ("between tabs", READ, RPKM, VALUES),
    ("between commas", READ, RPKM.replace("\t", ","), VALUES),
    ("between semicolons, with decimal commas", READ, RPKM.replace(".", ",").replace("\t", ";"), VALUES),
    ("lines that end in a tab (Roadmap's)", READ, RPKM.replace("2\n", "2\t\n").replace("3\n", "3\t\n"), VALUES),
    ("a header without its first name (R's)", READ, RPKM.replace("gene_id\t", ""), VALUES),
    ("a header that begins with #", READ, "#" + RPKM, VALUES),
    ("a first column that R or pandas named (X, V1, Unnamed: 0)", READ, RPKM.replace("gene_id", "X"), VALUES),
    ("such a header of one name fewer than columns", "refused, by line", RPKM.replace("gene_id", "X").replace("01", "01\t9").replace("02", "02\t9"), "name every column in the header"),
    ("between several blanks", READ, RPKM.replace("\t", "   "), VALUES),
    ("Excel's first line, sep=;", READ, "sep=;\n" + RPKM.replace("\t", ";"), VALUES),
    ("columns in another order, and others", READ, "gene_id\tname\tE2\tE1\nENSG01\ta\t2\t1.5\nENSG02\tb\t3\t0.5\n", VALUES),
    ("numbers such as 1.5E0, all in quotation marks", READ, RPKM.replace("1.5", '"1.5E0"').replace("ENSG01", '"ENSG01"'), VALUES),
    ("featureCounts' table", READ, "# Program:featureCounts\nGeneid\tChr\tLength\tE1\tE2\nENSG01\tchr1\t9\t1.5\t2\nENSG02\tchr1\t9\t0.5\t3\n", VALUES),
    ("RSEM's or salmon's table of one sample", "refused where the sheet has several cells, with how to join such tables; of one cell it is read", "gene_id\ttranscript_id(s)\tlength\teffective_length\texpected_count\tTPM\tFPKM\nENSG01\tENST01\t9\t8.5\t7\t1.5\t2\n", "a table of one sample"),
    ("lines end in CR alone", READ, RPKM.replace("\n", "\r"), VALUES),
    ("thousands between commas", "refused, by gene and cell", RPKM.replace("1.5", "1,500.5"), "ENSG01 '1,500.5' in line 2"),
    ("Latin letters that are not UTF-8", "refused, with how to turn them", RPKM.replace("ENSG01", "g\xe8ne").encode("latin1"), "iconv -f LATIN1"),
    ("GCT of GTEx", READ, "#1.2\n2\t2\nName\tDescription\tE1\tE2\nENSG01\tx\t1.5\t2\nENSG02\ty\t0.5\t3\n", VALUES),
    ("versions in ids", READ, RPKM.replace("01\t", "01.7\t"), VALUES),
    ("a byte order mark", READ, "\ufeff" + RPKM, VALUES),
    ("text instead of a number", "refused, by gene and cell", RPKM.replace("0.5", "low"), "not finite numbers"),
    ("a line with too few fields", "refused, by line", RPKM + "ENSG03\t1\n", "line 4: found 2 fields"),
    ("a cell without a column", "refused", RPKM.replace("E2", "E9"), "no column E2"),
    ("a gzip cut short", "refused", CUT, "a damaged gzip file"),
)  # fmt: skip
SHEET_TEXT = "cell,assay,path,unit\nE1,H3K4me3,a.bw,pvalue\nE2,H3K4me3,b.bw,pvalue\n"
TRACKS = [("E1", "H3K4me3", "pvalue"), ("E2", "H3K4me3", "pvalue")]


def _with_unit(unit: str) -> list[tuple[str, str, str]]:
    return [(cell, assay, unit.lower()) for cell, assay, _ in TRACKS]


SHEET = (
    ("between commas", READ, SHEET_TEXT, TRACKS),
    ("Excel's trailing commas", READ, SHEET_TEXT.replace("\n", ",,\n"), TRACKS),
    ("between semicolons", READ, SHEET_TEXT.replace(",", ";"), TRACKS),
    ("between tabs", READ, SHEET_TEXT.replace(",", "\t"), TRACKS),
    ("between blanks", READ, SHEET_TEXT.replace(",", " "), TRACKS),
    ("Excel's first line, sep=,", READ, "sep=,\n" + SHEET_TEXT, TRACKS),
    ("a header in capitals, columns in another order", READ, "Unit,PATH,Assay,Cell\npvalue,a.bw,H3K4me3,E1\npvalue,b.bw,H3K4me3,E2\n", TRACKS),
    ("a row that is commented out", READ, SHEET_TEXT + "#E3,H3K4me3,c.bw,pvalue\n", TRACKS),
    ("lines end in CR alone", READ, SHEET_TEXT.replace("\n", "\r"), TRACKS),
    ("units as p-value, -log10(p)", READ, SHEET_TEXT.replace("pvalue", "p-value", 1).replace("b.bw,pvalue", "b.bw,-log10(p)"), TRACKS),
    ("units as fold change, FC", "read as fold_change", SHEET_TEXT.replace("pvalue", "fold change", 1).replace("b.bw,pvalue", "b.bw,FC"), [("E1", "H3K4me3", "fold_change"), ("E2", "H3K4me3", "fold_change")]),
    ("a byte order mark", READ, "\ufeff" + SHEET_TEXT, TRACKS),
    ("lines end in CR LF", READ, SHEET_TEXT.replace("\n", "\r\n"), TRACKS),
    ("empty lines, or of commas alone", READ, SHEET_TEXT + "\n,,,\n", TRACKS),
    ("a header that begins with #", READ, "#" + SHEET_TEXT, TRACKS),
    ("fields in quotation marks", READ, SHEET_TEXT.replace("E1", '"E1"'), TRACKS),
    *(
        (f"unit {unit} of deepTools", f"read as {how}", SHEET_TEXT.replace("pvalue", unit), _with_unit(unit))
        for unit, how in (("CPM", "ln(x + 1)"), ("RPGC", "ln(x + 1)"), ("BPM", "ln(x + 1)"),
                          ("RPKM", "ln(x + 1)"), ("log2_ratio", "it is"))
    ),
    ("an unknown unit", "refused, by line", SHEET_TEXT.replace("b.bw,pvalue", "b.bw,reads"), "line 3: found unit 'reads'"),
    ("a quotation mark that is not closed", "refused, by line", SHEET_TEXT.replace("E1", '"E1'), "line 2: found 1 fields"),
    ("a URL as path", "refused, by line", SHEET_TEXT.replace("a.bw", "https://x/a.bw"), "line 2: found a URL as path"),
    ("a file that is not there", "refused, by line", SHEET_TEXT.replace("a.bw", "c.bw"), "line 2: found no file"),
    ("one file for two tracks", "refused, by line", SHEET_TEXT.replace("b.bw", "a.bw"), "lines 2, 3"),
)  # fmt: skip
BED_ROWS = [("chr1", 10, 60), ("chr2", 20, 70)]
BED_TEXT = "chr1\t10\t60\tx\nchr2\t20\t70\ty\n"
BED = (
    ("between tabs", READ, BED_TEXT, BED_ROWS),
    ("between blanks", READ, BED_TEXT.replace("\t", " "), BED_ROWS),
    ("track and browser lines", READ, "browser position chr1\ntrack name=x\n" + BED_TEXT, BED_ROWS),
    ("a header", READ, "chrom\tstart\tend\tname\n" + BED_TEXT, BED_ROWS),
    ("a header that begins with #", READ, "#chrom\tstart\tend\n" + BED_TEXT, BED_ROWS),
    ("a quotation mark in a name", READ, BED_TEXT.replace("x", '"x'), BED_ROWS),
    ("positions such as 10.0", READ, BED_TEXT.replace("10", "10.0"), BED_ROWS),
    ("chromosomes without chr", READ, BED_TEXT.replace("chr", ""), BED_ROWS),
    ("chromosomes such as chr01", READ, BED_TEXT.replace("chr", "chr0"), BED_ROWS),
    ("unsorted, with comments and a row twice", READ, "chr2\t20\t70\n# x\nchr1\t10\t60\nchr2\t20\t70\n", [*BED_ROWS, BED_ROWS[1]]),
    ("between commas", "refused, by line", BED_TEXT.replace("\t", ","), "line 1"),
    ("chromosomes named as NCBI does (`NC_000021.8`)", READ, BED_TEXT.replace("chr2", "NC_000021.8"), [BED_ROWS[0], ("chr21", 20, 70)]),
    ("an interval on an unknown contig", "the others read; it is left out", BED_TEXT + "GL000192.1\t1\t9\n", BED_ROWS),
    ("gzip under another name", READ, gzip.compress(BED_TEXT.encode()), BED_ROWS),
    ("an interval beyond its chromosome", "refused: another assembly", "chr2\t1\t9999\n", "off the chromosome's end"),
    ("no interval on the assembly", "refused", "chr9\t1\t9\n", "no interval"),
    ("a start after the end", "refused, by line", BED_TEXT + "chr1\t9\t5\n", "line 3"),
    ("a gzip cut short", "refused", CUT, "a damaged gzip file"),
)  # fmt: skip
READS = (
    ("tagAlign", READ, "chr1\t10\t60\tN\t1000\t+\nchr2\t20\t70\tN\t1000\t-\n", 2),
    ("quotation marks in names", READ, 'chr1\t10\t60\t"I\nchr1\t20\t70\tJ\nchr2\t20\t70\tI"\n', 3),
    ("track and browser lines", READ, "track name=x\nbrowser x\n" + BED_TEXT, 2),
    ("a header", READ, "chrom\tstart\tend\tname\n" + BED_TEXT, 2),
    ("comments", READ, "# x\n" + BED_TEXT, 2),
    ("gzip under another name", READ, gzip.compress(BED_TEXT.encode()), 2),
    ("reads on an unknown contig", "the others read; they are counted", BED_TEXT + "chrUn\t1\t9\n", 2),
    ("a start after the end", "refused, by read", BED_TEXT + "chr1\t9\t5\n", "read 3"),
    ("a BEDPE of pairs", "refused, with how to write reads", "chr1\t1\t5\tchr1\t9\t20\tx\t1\t+\t-\n", "BEDPE, a line for a pair"),
    ("no reads", "refused", "track name=x\n", "no reads"),
    ("words as positions", "refused", BED_TEXT + "chr1\tx\ty\n", "no readable reads"),
    ("a gzip cut short", "refused", CUT, "a damaged gzip file"),
)  # fmt: skip
PAIRS = [(*bait, *other, score) for bait, other, score in CONTACTS]
TEXT = bedpe(CONTACTS)
BARE = TEXT.partition("\n")[2]
WASHU = "".join(f"{b[0]},{b[1]},{b[2]}\t{o[0]},{o[1]},{o[2]}\t{s}\n" for b, o, s in CONTACTS)
LONGRANGE = "".join(f"{b[0]}\t{b[1]}\t{b[2]}\t{o[0]}:{o[1]}-{o[2]},{s}\n" for b, o, s in CONTACTS)
CONTACT_FILES = (
    ("BEDPE without a header", READ, BARE, PAIRS),
    ("BEDPE with a header", READ, TEXT, PAIRS),
    ("BEDPE with a header that begins with #", READ, bedpe(CONTACTS, mark="#"), PAIRS),
    ("BEDPE of a browser, with a track line", READ, "track name=x\n" + BARE, PAIRS),
    ("positions such as 1000.0", READ, BARE.replace("000\t", "000.0\t"), PAIRS),
    ("positions such as 5e+04", READ, BARE.replace("50000", "5e+04"), PAIRS),
    ("chromosomes without chr", READ, BARE.replace("chr", ""), PAIRS),
    ("chromosomes named as NCBI does (`NC_000021.8`)", READ, "\t".join(["NC_000021.8", "1", "9"] * 2 + ["x", "5\n"]), [("chr21", 1, 9) * 2 + (5.0,)]),
    ("gzip under another name", READ, gzip.compress(BARE.encode()), PAIRS),
    ("CHiCAGO's .ibed", "read, counted from 1", ibed(CONTACTS), PAIRS),
    ("WashU's text", READ, WASHU, PAIRS),
    ("WashU's longrange", READ, LONGRANGE, PAIRS),
    ("a contact on an unknown contig", COUNTED, bedpe([*CONTACTS, (BAIT, ("GL1", 1, 2), 9)]), PAIRS),
    ("a contact without one end (`.`, -1)", COUNTED, bedpe([*CONTACTS, ((".", -1, -1), BAIT, 9)]), PAIRS),
    ("FitHiChIP's table", "refused until `--score_column` names the column", TEXT.replace("score", "Q-Value_Bias"), "--score_column=NAME"),
    ("CHiCAGO's peak matrix", "refused until `--score_column` names the cell", ibed(CONTACTS).replace("bait_chr", "baitChr").replace("bait_start", "baitStart").replace("bait_end", "baitEnd").replace("otherEnd_chr", "oeChr").replace("otherEnd_start", "oeStart").replace("otherEnd_end", "oeEnd").replace("score", "Mon"), "--score_column=NAME"),
    ("CHiCAGO's seqMonk", "refused, named", "chr1\t5\t9\tA\t7\t2.5\nchr1\t50\t90\tB\t7\t2.5\n", "seqMonk"),
    ("contacts of another assembly", "refused", bedpe([(BAIT, ("GL1", 1, 2), 9)]), "no contact on a chromosome of the assembly"),
    ("an end beyond its chromosome", "refused, by line", bedpe([*CONTACTS, (BAIT, ("chr2", 5, 10**9), 9)]), "beyond the end"),
    ("a score that is not a number", "refused, by line", bedpe([*CONTACTS, (BAIT, BAIT, "?")]), "not finite numbers"),
    ("a gzip cut short", "refused", CUT, "a damaged gzip file"),
)  # fmt: skip
LENGTHS = {"chr1": 1000, "chr2": 300}
SIZES_TEXT = "chr1\t1000\nchr2\t300\n"
SIZES_FILES = (
    ("chrom.sizes", READ, SIZES_TEXT, LENGTHS),
    ("a FASTA index (.fai)", READ, "chr1\t1000\t6\t60\t61\nchr2\t300\t9\t60\t61\n", LENGTHS),
    ("between blanks", READ, SIZES_TEXT.replace("\t", " "), LENGTHS),
    ("comments", READ, "# x\n" + SIZES_TEXT, LENGTHS),
    ("a header", READ, "chrom\tlength\n" + SIZES_TEXT, LENGTHS),
    ("names in quotation marks", READ, SIZES_TEXT.replace("chr1", '"chr1"'), LENGTHS),
    ("a byte order mark", READ, "\ufeff" + SIZES_TEXT, LENGTHS),
    ("a chromosome twice", "refused, by line", SIZES_TEXT + "chr1\t5\n", "line 3: found chr1 a second time"),
    ("a length that is not a number", "refused, by line", SIZES_TEXT + "chr3\tx\n", "line 3"),
)  # fmt: skip
BIGWIG = (
    ("an empty file", "refused", b"", "an empty file"),
    ("a bigWig cut short", "refused", b"\x26\xfc\x8f\x88" + bytes(80), "a truncated bigWig"),
    ("a gzipped bigWig", "refused", gzip.compress(b"x"), "a gzip file"),
    ("text", "refused", "chr1\t0\t9\t1\n", "no bigWig: first bytes"),
)
_TABLES = {
    "annotation": ANNOTATION,
    "expression": EXPRESSION,
    "sheet": SHEET,
    "bigwig": BIGWIG,
    "bed": BED,
    "reads": READS,
    "contacts": CONTACT_FILES,
    "sizes": SIZES_FILES,
    "counts": COUNT_FILES,
    "meta": META_FILES,
    "aliases": ALIASES,
}
CASES = [Case(kind, *row) for kind, rows in _TABLES.items() for row in rows]


def _advice(content: bytes) -> str:
    """What the message about such a file says, its command as code."""
    known = recognise(gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content)
    assert known
    words, colon, command = known[1].partition(": ")
    return f"{words}: `{command.replace('|', chr(92) + '|')}`" if colon else words


def page() -> str:
    """The page of documentation."""
    lines = [
        "# What we read",
        "",
        "What comes of files as people have them. Each row is a small file that the tests read. Made by",
        "`python -m tests.data_prep.field_cases`.",
    ]
    for kind, (title, _) in KINDS.items():
        lines += ["", f"## {title}", "", "| trait | outcome |", "|---|---|"]
        lines += [f"| {case.trait} | {case.outcome} |" for case in CASES if case.kind == kind]
    lines += [
        "",
        "## Files of another kind",
        "",
        "The readers of the sections above, given one of these, say what it is, and what to do.",
        "",
        "| file | what to do |",
        "|---|---|",
        *(f"| {what} | {_advice(content)} |" for what, _, content in FOREIGN),
        "| a URL in place of a file | download it first: `curl -LO URL` |",
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
