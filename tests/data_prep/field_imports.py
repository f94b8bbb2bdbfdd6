"""Rows of `field_cases`: window counts, Chromoformer's metadata, names of chromosomes."""
# ruff: noqa: E501 (a row is a line)

import gzip

READ = "read"
CUT = gzip.compress(b"chr1\t10\t60\n" * 500, mtime=0)[:-20]
COUNT_TEXT = "ENSG01.2_A_1,2,1\nENSG01.2_A_2,3,2\nENSG02_B_1,4,0\nENSG02_B_2,5,7\n"
COUNTS = {"ENSG01": [[2, 1], [3, 2]], "ENSG02": [[4, 0], [5, 7]]}
COUNT_FILES = (
    ("between commas", READ, COUNT_TEXT, COUNTS),
    ("between tabs", READ, COUNT_TEXT.replace(",", "\t"), COUNTS),
    ("between semicolons", READ, COUNT_TEXT.replace(",", ";"), COUNTS),
    ("a header", READ, "gene,H3K4me1,H3K4me3\n" + COUNT_TEXT, COUNTS),
    ("comments", READ, "# x\n" + COUNT_TEXT, COUNTS),
    ("trailing commas and a byte order mark", READ, "\ufeff" + COUNT_TEXT.replace("\n", ",\n"), COUNTS),
    ("lines end in CR LF", READ, COUNT_TEXT.replace("\n", "\r\n"), COUNTS),
    ("blanks around commas", READ, COUNT_TEXT.replace(",", " , "), COUNTS),
    ("genes without a symbol", READ, COUNT_TEXT.replace("_A_", "_").replace("_B_", "_"), COUNTS),
    ("counts such as 2.0 and 3e0", READ, COUNT_TEXT.replace(",2,", ",2.0,").replace(",3,", ",3e0,"), COUNTS),
    ("gzip under another name", READ, gzip.compress(COUNT_TEXT.encode()), COUNTS),
    ("DeepChrome's own layout (gene, bin, counts, label)", "refused, with how to write it", "000003,1,4,3,0,8,4,0\n000003,2,4,3,0,8,4,0\n", "awk"),
    ("bins out of order", "refused, by gene", "ENSG01_A_2,2,1\nENSG01_A_1,2,1\n", "out of order (ENSG01)"),
    ("a gene twice", "refused, by gene", COUNT_TEXT * 2, "genes twice (ENSG01, ENSG02)"),
    ("a missing count", "refused, by line", COUNT_TEXT.replace(",3,", ",,"), "no number (line 2)"),
    ("counts of other marks than --assays", "refused", COUNT_TEXT.replace("\n", ",5\n"), "3 counts a line"),
    ("a gzip cut short", "refused", CUT, "a damaged gzip file"),
)  # fmt: skip
_HEAD = "gene_id,expression,eid,label,chrom,start,end,strand,split,neighbors,scores\n"
META_TEXT = _HEAD + "ENSG01.7,1.5,E1,1,chr1,100,101,-,1,chr1:5-9;chr2:6-99,4;3\n"
META = {
    "genes": [["ENSG01", "chr1", 100, "-"]],
    "expression": [[1.5]],
    "labels": [[True]],
    "contacts": [["chr1", 5, 9, 4.0], ["chr2", 6, 99, 3.0]],
}
META_FILES = (
    ("as published", READ, META_TEXT, META),
    ("between tabs", READ, META_TEXT.replace(",", "\t"), META),
    ("lines end in CR LF, with a byte order mark", READ, "\ufeff" + META_TEXT.replace("\n", "\r\n"), META),
    ("chromosomes without chr", READ, META_TEXT.replace("chr1", "1").replace("chr2", "2"), META),
    ("columns in another order", READ, "eid,label,gene_id,expression,chrom,start,end,strand,neighbors,scores\nE1,1,ENSG01,1.5,chr1,100,101,-,chr1:5-9;chr2:6-99,4;3\n", META),
    ("without neighbors and scores", READ, "gene_id,expression,eid,label,chrom,start,end,strand\nENSG01,1.5,E1,1,chr1,100,101,-\n", META | {"contacts": []}),
    ("labels without expression", READ, META_TEXT.replace("expression,", "").replace("1.5,", ""), META | {"expression": None}),
    ("expression without labels", READ, META_TEXT.replace("label,", "").replace("E1,1,", "E1,"), META | {"labels": None}),
    ("a pCRE listed twice", "read; the first, the others counted", META_TEXT.replace("chr2:6-99,", "chr2:6-99;chr1:5-9,").replace("4;3", "4;3;2"), META),
    ("a gene twice", "refused, by gene", META_TEXT + META_TEXT.partition("\n")[2], "listed twice in a cell (ENSG01)"),
    ("a chromosome that the assembly lacks", "refused, by line", META_TEXT.replace("chr1,100", "chr9,100"), "line 2: found chrom 'chr9'"),
    ("scores that rise", "refused, by line", META_TEXT.replace("4;3", "3;4"), "scores '3;4' that rise"),
    ("a gzip cut short", "refused", CUT, "a damaged gzip file"),
)  # fmt: skip
NAMES = {
    "NC_1.1": "chr1",
    "1": "chr1",
    "chr1": "chr1",
    "NC_2.1": "chr2",
    "2": "chr2",
    "chr2": "chr2",
}
ALIASES = (
    ("UCSC's chromAlias.txt", READ, "# ucsc\tassembly\trefseq\nchr1\t1\tNC_1.1\nchr2\t2\tNC_2.1\nchr9\t9\t\n", NAMES),
    ("UCSC's old chromAlias.txt", READ, "1\tchr1\tensembl,assembly\nNC_1.1\tchr1\trefseq\n2\tchr2\tensembl\nNC_2.1\tchr2\trefseq\n", NAMES),
    ("between commas", READ, "alias,chrom\nNC_1.1,chr1\n1,chr1\nNC_2.1,chr2\n2,chr2\n", NAMES),
    ("NCBI's report of an assembly", READ, "# Sequence-Name\tRole\n1\tassembled-molecule\t1\tChromosome\tNC_1.1\t=\tNC_1.1\tPrimary Assembly\t1000\tchr1\n2\tassembled-molecule\t2\tChromosome\tna\t=\tNC_2.1\tPrimary Assembly\t300\tchr2\n", NAMES),
    ("one name of two chromosomes", "refused", "a\tchr1\na\tchr2\n", "a, chr1, chr2 as one chromosome"),
    ("no chromosome of the assembly", "refused", "a\tb\n", "no chromosome of the assembly"),
)  # fmt: skip
