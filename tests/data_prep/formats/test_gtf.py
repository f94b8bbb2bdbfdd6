import gzip
import pathlib

import pandas as pd
import pyensembl
import pytest

from data_prep.formats import gtf
from data_prep.formats.assembly import load_assembly
from data_prep.formats.gtf import coding_ids, ensembl_gtf, gtf_extents, looks_like_gtf
from epi2expr_jax.errors import InputError
from tests.data_prep.gtf_lines import GENES, record, transcript

pytestmark = pytest.mark.usefixtures("cache")


@pytest.fixture
def write(tmp_path):
    def write_file(lines):
        path = tmp_path / "genes.gtf"
        path.write_text("\n".join(lines) + "\n")
        return path

    return write_file


def extents(path, kind="gene") -> set[tuple]:
    found = gtf_extents(path, kind)[["gene_id", "chrom", "start", "end", "strand"]]
    assert not found.duplicated().any()
    return set(found.itertuples(index=False, name=None))


def problems(call, *args) -> list[str]:
    with pytest.raises(InputError) as caught:
        call(*args)
    return [str(problem) for problem in caught.value.problems]


def test_extents_of_genes_count_from_0_and_leave_out_the_end(write):
    path = write(["#!build GRCh37", *GENES, *transcript("T1", [(101, 120)], [])])
    found = gtf_extents(path, "gene").set_index("gene_id")
    assert list(found.columns) == ["name", "chrom", "start", "end", "strand", "biotype"]
    assert found.loc["ENSG02.1"].tolist() == ["name-ENSG02", "chr1", 1000, 2000, "-", ""]
    assert found.loc["ENSG03.2"].tolist() == ["name-ENSG03", "chrX", 10, 20, "+", ""]
    assert (found["start"].dtype, len(found)) == ("int64", 4)


def test_a_gtf_is_indexed_once(write, cache, monkeypatch):
    first = gtf_extents(write(GENES), "gene")
    assert len(list(cache.rglob("*.parquet"))) == 1
    assert not list(cache.rglob("*.partial*"))

    def no_second_time(*_):
        raise AssertionError("indexed again")

    monkeypatch.setattr(gtf, "_records", no_second_time)
    assert gtf_extents(write(GENES), "gene").equals(first)
    with pytest.raises(AssertionError, match="indexed again"):
        gtf_extents(write(GENES[:2]), "gene")


def test_a_cached_table_that_was_changed_is_made_again(write, cache):
    path = write(GENES)
    found = gtf_extents(path, "gene")
    (cached,) = cache.rglob("*.parquet")
    found.assign(start=7).to_parquet(cached, index=False)
    pd.testing.assert_frame_equal(gtf_extents(path, "gene"), found)
    cached.write_bytes(b"PAR1")
    pd.testing.assert_frame_equal(gtf_extents(path, "gene"), found)


@pytest.mark.parametrize("attribute", ["gene_biotype", "gene_type"])
def test_the_biotype_of_a_gene_by_either_name(write, attribute):
    kind = {attribute: "lincRNA"}
    lines = [record("gene", 1, 9, "+", "ENSG01", **kind), record("gene", 5, 9, "+", "ENSG02")]
    assert set(gtf_extents(write(lines), "gene").biotype) == {"lincRNA", ""}


def test_a_cache_that_cannot_be_written_is_reported(write, cache):
    cache.write_text("a file where the folder should be")
    (problem,) = problems(gtf_extents, write(GENES), "gene")
    assert f"{cache}/" in problem
    assert "set XDG_CACHE_HOME" in problem


def test_a_gzipped_gtf_needs_no_telling_name(tmp_path):
    path = tmp_path / "annotation"
    path.write_bytes(gzip.compress("\n".join(GENES).encode()))
    assert looks_like_gtf(path)
    assert ("ENSG01.12", "chr1", 100, 200, "+") in extents(path)


@pytest.mark.parametrize("read", [looks_like_gtf, coding_ids, lambda path: extents(path)])
def test_a_damaged_gzip_is_named(tmp_path, read):
    path = tmp_path / "genes.gtf.gz"
    packed = gzip.compress("\n".join(GENES * 99).encode())
    for damaged in (packed[:20], packed[:12] + b"\xff" * 30 + packed[42:]):
        path.write_bytes(damaged)
        assert f"{path}: found a damaged gzip file" in problems(read, path)[0]


def test_what_looks_like_a_gtf(write, tmp_path):
    assert looks_like_gtf(write(["# made by hand", "", *GENES]))
    assert not looks_like_gtf(write(["gene_id,chrom,tss,strand", "A,chr1,5,+"]))
    assert not looks_like_gtf(write(["chr1\t10\t20\tA\t0\t+\t1\t2\t3"]))  # a BED of 9 fields
    assert not looks_like_gtf(write([]))
    (problem,) = problems(looks_like_gtf, tmp_path / "absent.gtf")
    assert "absent.gtf: found nothing that can be read (No such file" in problem


def test_canonical_is_the_protein_coding_transcript_with_the_longest_cds(write):
    coding = {"transcript_biotype": "protein_coding"}
    decay = {"transcript_biotype": "nonsense_mediated_decay"}
    lines = [
        record("gene", 101, 900, "+", "ENSG01"),
        *transcript("T1", [(101, 200), (301, 800)], [(151, 200)], **coding),
        *transcript("T2", [(201, 300), (401, 500)], [(221, 300), (401, 450)], **coding),
        *transcript("T3", [(301, 900)], [(301, 900)], **decay),
        record("gene", 2001, 2900, "-", "ENSG02"),
        *transcript("T4", [(2001, 2100), (2801, 2900)], [], "-", "ENSG02"),
        *transcript("T6", [(2001, 2400)], [], "-", "ENSG02"),
        *transcript("T5", [(2101, 2500)], [], "-", "ENSG02"),
    ]
    # ENSG02 codes for nothing: T5 and T6 are longest when spliced, and the name decides
    canonical = {("ENSG01", "chr1", 200, 500, "+"), ("ENSG02", "chr1", 2100, 2500, "-")}
    assert extents(write(lines), "canonical") == canonical
    whole = {("ENSG01", "chr1", 100, 900, "+"), ("ENSG02", "chr1", 2000, 2900, "-")}
    assert extents(write(lines)) == whole


def test_without_biotypes_any_cds_counts(write):
    lines = transcript("T1", [(101, 900)], []) + transcript("T2", [(301, 400)], [(311, 390)])
    assert extents(write(lines), "canonical") == {("ENSG01", "chr1", 300, 400, "+")}


@pytest.mark.parametrize("kind", ["gene", "canonical", "transcript"])
def test_old_gtfs_list_exons_alone(write, kind):
    lines = transcript("T1", [(101, 200), (301, 400)], [], "-")[1:]
    assert extents(write(lines), kind) == {("ENSG01", "chr1", 100, 400, "-")}


def test_transcripts_are_all_listed_if_there_are_any(write):
    lines = transcript("T1", [(101, 200), (301, 400)], []) + transcript("T2", [(151, 190)], [])
    ends = {("ENSG01", "chr1", 100, 400, "+"), ("ENSG01", "chr1", 150, 190, "+")}
    assert extents(write(GENES + lines), "transcript") == ends
    assert extents(write(GENES), "transcript") == set()


def test_canonical_needs_transcripts(write):
    (problem,) = problems(gtf_extents, write(GENES), "canonical")
    assert "genes.gtf: found no transcripts; expected transcript, exon and CDS" in problem
    assert "give --tss=gene_5p" in problem


def test_malformed_lines_are_named(write):
    lines = [
        *GENES,
        "chr1\ttoo short",
        record("gene", "x", 20, "+", "ENSG05"),
        record("gene", 10, 20, "x", "ENSG06"),
        record("gene", 10, 20, "+", "ENSG07").replace("gene_id", "id"),
    ]
    found = problems(gtf_extents, write(lines), "gene")
    assert [problem.split(": ")[0].rpartition(" ")[2] for problem in found] == ["5", "6", "7", "8"]
    assert (
        "found x-20; expected a start of 1 or more, and an end not before it; correct the line"
        in found[1]
    )
    assert extents(write([*GENES, GENES[0]])) == extents(write(GENES))
    for start, end in ((30, 20), (0, 20), ("²", 20)):
        lines = [*GENES, record("gene", start, end, "+", "ENSG05")]
        (problem,) = problems(gtf_extents, write(lines), "gene")
        assert f"line 5: found {start}-{end}; expected a start of 1 or more" in problem
        path = write([record("gene", "²", 20, "+", "A")])
    assert looks_like_gtf(path)
    assert "line 1: found ²-20" in problems(gtf_extents, path, "gene")[0]


def test_coding_genes_by_either_name_of_the_attribute(write):
    genes = [
        record("gene", 1, 9, "+", "A.1", gene_type="protein_coding"),
        record("gene", 11, 19, "+", "B", gene_biotype="protein_coding"),
        record("gene", 21, 29, "+", "C", gene_type="lincRNA"),
        record("transcript", 31, 39, "+", "D", "T", gene_type="protein_coding"),
    ]
    assert coding_ids(write(genes)) == {"A.1", "B"}
    assert coding_ids(write(genes[2:])) == set()
    assert coding_ids(write(GENES)) is None  # it does not say


def test_ensembl_75_that_is_not_installed_comes_with_the_command():
    (problem,) = problems(ensembl_gtf, load_assembly("hg19").chrom_sizes)
    assert "pyensembl install --release 75 --species human" in problem


def test_ensembl_75_is_found_where_pyensembl_has_put_it():
    release = pyensembl.EnsemblRelease(75, species="human")
    path = next(pathlib.Path(file) for file in release.required_local_files() if ".gtf" in file)
    path.parent.mkdir(parents=True)
    path.write_text("")
    assert ensembl_gtf(load_assembly("hg19").chrom_sizes) == path


def test_ensembl_75_is_no_annotation_of_another_assembly():
    (problem,) = problems(ensembl_gtf, load_assembly("mm10").chrom_sizes)
    assert "not hg19" in problem
    assert "give --genes=GTF" in problem
