"""Records of GTFs, written by hand."""


def record(kind, start, end, strand, gene, transcript=None, *, chrom="chr1", **attributes):
    names = {"gene_id": gene, "gene_name": f"name-{gene.partition('.')[0]}"}
    if transcript:
        names["transcript_id"] = transcript
    text = " ".join(f'{key} "{value}";' for key, value in (names | attributes).items())
    return "\t".join([chrom, "test", kind, str(start), str(end), ".", strand, ".", text])


def transcript(name, exons, cds, strand="+", gene="ENSG01", **attributes):
    spans = [("transcript", exons[0][0], exons[-1][1])]
    spans += [("exon", *span) for span in exons] + [("CDS", *span) for span in cds]
    return [record(kind, a, b, strand, gene, name, **attributes) for kind, a, b in spans]


GENES = [
    record("gene", 1001, 2000, "-", "ENSG02.1"),
    record("gene", 101, 200, "+", "ENSG01.12"),
    record("gene", 11, 20, "+", "ENSG03.2", chrom="chrX"),
    record("gene", 1, 20, "+", "ENSG04.2", chrom="chr9"),
]
