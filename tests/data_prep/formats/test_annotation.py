import gzip
import pathlib

import pyensembl
import pytest

from data_prep.formats.annotation import read_genes, read_tss
from data_prep.formats.assembly import load_assembly
from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import GENE_COLUMNS
from tests.data_prep.gtf_lines import GENES, record, transcript

SIZES = {"chr1": 10_000, "chr2": 5_000, "chrX": 1_000}

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def write(tmp_path):
    def write_file(lines, name="genes.gtf"):
        path = tmp_path / name
        path.write_text("\n".join(lines) + "\n")
        return path

    return write_file


def tss(path, rule="gene_5p", sizes=SIZES) -> dict[str, int]:
    genes = read_genes(path, tss=rule, chrom_sizes=sizes)
    return dict(zip(genes.gene_id, genes.tss, strict=True))


def problems(path, rule="gene_5p", sizes=SIZES) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_genes(path, tss=rule, chrom_sizes=sizes)
    return [str(problem) for problem in caught.value.problems]


def test_a_gtf_becomes_a_table_in_genome_order(write):
    genes = read_genes(write(["#!build GRCh37", *GENES]), chrom_sizes=SIZES)
    details = ["start", "end", "biotype"]
    assert list(genes.columns) == ["gene_id", "name", "chrom", "tss", "strand", *details]
    assert genes.loc[1, details].tolist() == [1000, 2000, ""]
    assert genes.gene_id.tolist() == ["ENSG01", "ENSG02", "ENSG03"]
    assert genes.name.tolist() == ["name-ENSG01", "name-ENSG02", "name-ENSG03"]
    assert genes.chrom.tolist() == ["chr1", "chr1", "chrX"]
    # 1-based and closed in the GTF, 0-based here
    assert genes.tss.tolist() == [100, 1999, 10]
    assert genes.tss.dtype == "int64"
    assert genes.attrs["off_assembly"] == {"chr9": 1}


def test_gene_start_is_the_lowest_position_whatever_the_strand(write):
    assert tss(write(GENES), "gene_start") == {"ENSG01": 100, "ENSG02": 1000, "ENSG03": 10}


def test_a_canonical_tss_is_that_of_the_transcript_with_the_longest_cds(write):
    lines = [
        record("gene", 101, 900, "-", "ENSG01"),
        *transcript("T1", [(101, 900)], [(201, 300)], "-"),
        *transcript("T2", [(301, 800)], [(301, 500)], "-"),
    ]
    assert tss(write(lines), "canonical") == {"ENSG01": 799}
    assert tss(write(lines)) == {"ENSG01": 899}


def test_chromosomes_are_spelled_as_the_assembly_spells_them(write):
    path = write([line.removeprefix("chr") for line in GENES])
    assert set(read_genes(path, chrom_sizes=SIZES).chrom) == {"chr1", "chrX"}
    bare = {name.removeprefix("chr"): size for name, size in SIZES.items()}
    assert set(read_genes(write(GENES), chrom_sizes=bare).chrom) == {"1", "X"}


def all_tss(path, **changes) -> list[tuple]:
    genes = read_genes(path, chrom_sizes=SIZES, **changes)
    found = read_tss(path, genes, chrom_sizes=SIZES)
    assert list(found.columns) == ["gene_id", "chrom", "tss"]
    assert found.tss.dtype == "int64"
    return list(found.itertuples(index=False, name=None))


def test_all_tss_are_the_five_prime_ends_of_all_transcripts_and_the_genes_own(write):
    lines = [
        *GENES,
        *transcript("T1", [(101, 120), (151, 200)], []),
        *transcript("T2", [(141, 150)], [], gene="ENSG01.12"),
        *transcript("T3", [(141, 180)], [], gene="ENSG01.12"),
        *transcript("T4", [(1001, 1100), (1201, 1900)], [], "-", "ENSG02.1"),
        record("transcript", 5, 20, "+", "ENSG04.2", "T5", chrom="chr9"),
    ]
    own = [("ENSG01", "chr1", 100), ("ENSG02", "chr1", 1999), ("ENSG03", "chrX", 10)]
    more = [("ENSG01", "chr1", 140), ("ENSG02", "chr1", 1899)]
    expected = sorted(own + more, key=lambda row: row[1:])
    assert all_tss(write(lines)) == expected
    # records of exons alone, and chromosomes in Ensembl's spelling
    exons = [line for line in lines if "\ttranscript\t" not in line]
    assert all_tss(write([line.removeprefix("chr") for line in exons])) == expected
    # another rule moves the gene's own TSS, not its transcripts'
    assert ("ENSG02", "chr1", 1000) in all_tss(write(lines), tss="gene_start")


def test_without_transcripts_each_gene_has_its_own_tss_alone(write):
    own = [("ENSG01", "chr1", 100), ("ENSG02", "chr1", 1999), ("ENSG03", "chrX", 10)]
    assert all_tss(write(GENES)) == own
    table = write(["gene_id,chrom,tss,strand", "B,2,7,-", "A,1,5,+"], "genes.csv")
    assert all_tss(table) == [("A", "chr1", 5), ("B", "chr2", 7)]


def test_a_table_of_tss_is_taken_as_it_is(write):
    path = write(
        ["gene_id,chrom,tss,strand,name,note", "ENSG02.1,2,4999,-,B,x", "ENSG01,chr1,0,+,,y"],
        "genes.csv",
    )
    genes = read_genes(path, chrom_sizes=SIZES)
    assert genes[[*GENE_COLUMNS]].values.tolist() == [
        ["ENSG01", "ENSG01", "chr1", 0, "+"],
        ["ENSG02", "B", "chr2", 4999, "-"],
    ]


def test_a_bed_like_table_has_its_tss_at_the_five_prime_end(write):
    lines = ["chrom start end gene_id strand", "chr1 10 20 A +", "1 10 20 B -"]
    path = write([line.replace(" ", "\t") for line in lines], "genes.tsv")
    assert tss(path) == {"A": 10, "B": 19}
    assert tss(path, "gene_start") == {"A": 10, "B": 10}


def test_chromoformers_demo_table_works_as_it_is(shared_data):
    sizes = load_assembly("hg19").chrom_sizes
    path = shared_data / "chromoformer_demo" / "demo_meta.csv"
    genes = read_genes(path, chrom_sizes=sizes)
    assert len(genes) == 100
    assert genes.chrom.value_counts().to_dict() == {
        "chr1": 34, "chr5": 22, "chr6": 25, "chr8": 8, "chr14": 10, "chrY": 1,
    }  # fmt: skip
    assert genes.set_index("gene_id").tss["ENSG00000116213"] == 3_566_667


def test_gencode_v10_is_read_whole(shared_data):
    sizes = load_assembly("hg19").chrom_sizes
    path = shared_data / "annotation" / "gencode_v10_genes.gtf.gz"
    genes = read_genes(path, chrom_sizes=sizes).set_index("gene_id")
    assert len(genes) == 43_575
    assert genes.loc["ENSG00000257938", "tss"] == 149_563_300
    assert genes.loc["ENSG00000259382", "tss"] == 32_153_658


@pytest.mark.parametrize(
    ("lines", "found"),
    [
        (["gene_id,chrom,strand", "A,chr1,+"], "without start, end"),
        (["gene_id,chrom,tss,strand", "A,chr1,1.5,+"], "line 2: found '1.5'"),
        (["gene_id,chrom,tss,strand", "A,chr1,-5,+", ",chr1,1,+"], "line 3: found an empty field"),
        (["gene_id,chrom,start,end,strand", "A,chr1,9,9,+"], "line 2: found 9-9"),
        (["gene_id,chrom,tss,strand", "A,chr1,5"], "line 2: found 3 fields"),
        (["gene_id,chrom,tss,strand", "A,chr1,5,."], "1 genes without a strand (A at chr1:5)"),
        (["gene_id,chrom,tss,strand", "A,chr1,5,x"], "strand ['x'] (A)"),
        (["gene_id,chrom,tss,strand", "A,chr1,10000,+"], "off the end of their chromosome (A)"),
        (["gene_id,chrom,tss,strand", "A,chr7,5,+"], "1 genes, on chr7"),
        (["gene_id,chrom,tss,strand", "ENSG1.1,1,5,+", "ENSG1.2,1,6,+"], "listed twice (ENSG1)"),
        (["chr1\t10\t20\tA\t0\t+"], "without gene_id"),
        ([""], "no header"),
    ],
)
def test_bad_tables_are_refused(write, lines, found):
    assert found in " ".join(problems(write(lines, "genes.csv")))


def test_a_column_named_twice_is_refused(write):
    table = write(["gene_id,chrom,chrom,tss,strand", "g,chr1,chr2,5,+"], "genes.csv")
    assert problems(table)[0].startswith(f"{table}, header: found columns named twice: chrom")


def test_only_ensembl_ids_carry_versions(write):
    lines = ["gene_id,chrom,tss,strand", "AT1.1,chr1,5,+", "AT1.2,chr1,6,+"]
    assert tss(write(lines, "genes.csv")) == {"AT1.1": 5, "AT1.2": 6}


def left_out(path, rule="gene_5p") -> dict[str, list[str]]:
    return read_genes(path, tss=rule, chrom_sizes=SIZES).attrs["left_out"]


COPIES = "copies of a gene, elsewhere"


def test_of_a_gene_in_several_places_the_copy_on_a_main_chromosome_or_the_first_is_kept(write):
    # As UCSC writes refGene: exons alone, one id on two contigs.
    here = transcript("T", [(101, 200), (301, 400)], [(151, 200)])
    there = [line.replace("chr1", "chr2") for line in transcript("T_dup1", [(7, 20)], [(9, 12)])]
    path = write([*here[1:], *there[1:]])
    assert tss(path) == tss(path, "canonical") == {"ENSG01": 100}
    assert left_out(path) == left_out(path, "canonical") == {COPIES: ["ENSG01 at chr2:6"]}
    assert all_tss(path) == [("ENSG01", "chr1", 100)]
    # Both strands of one contig are two places.
    path = write([*here[1:], *[line.replace("+", "-") for line in there[1:]]])
    assert left_out(path) == {COPIES: ["ENSG01 at chr2:19"]}
    # PAR: the copy on Y, and alternative contigs, give way to the one on X, whatever comes first.
    sizes = {"chrX": 900, "chrY": 900, "chr6_alt1": 900}
    lines = [record("gene", at, 90, "+", "A", chrom=chrom)
             for at, chrom in ((5, "chr6_alt1"), (7, "chrY"), (9, "chrX"))]  # fmt: skip
    assert tss(write(lines), sizes=sizes) == {"A": 8}
    assert tss(write(lines[:2]), sizes=sizes) == {"A": 6}


def test_of_a_gene_with_two_records_the_transcripts_of_the_first_count_alone(write):
    near, far = ([(101, 200)], [(121, 180)]), ([(5001, 5900)], [(5101, 5800)])
    lines = [
        record("gene", 101, 200, "+", "ENSG01"),
        *transcript("T1", *near),
        record("gene", 5001, 5900, "+", "ENSG01"),
        *transcript("T2", *far),  # the longer CDS
    ]
    path = write(lines)
    assert tss(path) == {"ENSG01": 100}
    assert left_out(path) == {COPIES: ["ENSG01 at chr1:5000"]}
    assert all_tss(path) == [("ENSG01", "chr1", 100)]
    # Its canonical transcript is not the gene's that is kept: no TSS is guessed.
    (problem,) = problems(path, "canonical")
    assert "0 genes" in problem


def test_of_two_versions_of_a_gene_the_first_is_kept_and_the_other_named(write):
    lines = [record("gene", at, 900, "+", f"ENSG00000000001.{version}")
             for at, version in ((101, "12_4"), (301, "13_2"))]  # fmt: skip
    path = write([*lines, record("gene", 9, 20, ".", "B"), record("gene", 9, 20, "+", "")])
    assert tss(path) == {"ENSG00000000001": 100}
    assert left_out(path) == {
        "without an id": [" at chr1:8"],
        "without a strand": ["B at chr1:8"],
        COPIES: ["ENSG00000000001.13_2 at chr1:300"],
    }


def test_transcripts_alone_make_genes(write):
    lines = transcript("T1", [(101, 200)], []) + transcript("T2", [(151, 400)], [])
    records = [line for line in lines if "\ttranscript\t" in line]
    genes = read_genes(write(records), chrom_sizes=SIZES)
    assert genes[["gene_id", "start", "end", "tss"]].values.tolist() == [["ENSG01", 100, 400, 100]]


def test_the_same_record_twice_is_harmless(write):
    lines = ["gene_id,chrom,tss,strand", "ENSG1.1,chr1,5,+", "ENSG1.2,1,5,+"]
    assert tss(write(lines, "genes.csv")) == {"ENSG1": 5}


@pytest.mark.parametrize("rule", ["gene_start", "canonical"])
def test_a_table_of_tss_leaves_no_choice(write, rule):
    path = write(["gene_id,chrom,tss,strand", "A,chr1,5,+"], "genes.csv")
    assert "leave out --tss" in problems(path, rule)[0]


def test_an_unknown_rule_and_a_missing_file_are_refused(write, tmp_path):
    assert "gene_5p, canonical, gene_start" in problems(write(GENES), "first")[0]
    assert "No such file" in problems(tmp_path / "absent.gtf")[0]


def test_ensembl_75_is_read_where_pyensembl_has_put_it(write):
    release = pyensembl.EnsemblRelease(75, species="human")
    path = next(pathlib.Path(file) for file in release.required_local_files() if ".gtf" in file)
    path.parent.mkdir(parents=True)
    path.write_bytes(gzip.compress("\n".join(GENES[:3]).encode()))
    assert tss("", sizes=load_assembly("hg19").chrom_sizes)["ENSG02"] == 1999


@pytest.mark.parametrize("rule", ["gene_5p", "canonical"])
def test_exons_of_one_id_far_apart_are_of_copies(tmp_path, rule):
    """As UCSC's tables list genes that lie on a chromosome twice."""
    first = transcript("T", [(101, 150), (1_500_001, 1_500_050)], [(111, 150)], gene="G")
    second = transcript("T", [(5_000_001, 5_000_900)], [(5_000_001, 5_000_900)], gene="G")
    other = transcript("U", [(9_000_001, 9_000_050)], [], gene="G")
    lines = [line for part in (first, second, other) for line in part[1:]]
    path = tmp_path / "genes.gtf"
    path.write_text("\n".join(lines) + "\n")
    genes = read_genes(path, tss=rule, chrom_sizes={"chr1": 10_000_000})
    assert genes[["gene_id", "tss", "start", "end"]].values.tolist() == [["G", 100, 100, 1_500_050]]
