import gzip
import io
import zipfile

import pytest

from data_prep.formats.foreign import is_url, opened_as, recognise, require_none_other
from epi2expr_jax.errors import InputError


def zipped(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr(name, "x")
    return packed.getvalue()


GFF3 = b'chr1\tx\tgene\t5\t9\t.\t+\t.\tID=gene1;Name="A"\n'


@pytest.mark.parametrize(
    ("content", "what", "remedy"),
    [
        (zipped("xl/workbook.xml"), "an Excel workbook (.xlsx)", "save it as CSV"),
        (zipped("reads.bed"), "a zip archive", "unzip file.txt"),
        ("a\tb\n".encode("utf-16"), "text in UTF-16", "iconv -f UTF-16 -t UTF-8 file.txt"),
        (("abc" * 20).encode("utf-16-le"), "text in UTF-16", "iconv"),
        (b"##gff-version 3\n" + GFF3, "a GFF3", "gffread file.txt -T -o genes.gtf"),
        (b"# by hand\n" + GFF3, "a GFF3", "gffread"),
        (b"@HD\tVN:1.6\n@SQ\tSN:chr1\tLN:9\n", "a SAM", "samtools view -b"),
        (b"\n<!DOCTYPE html>\n<html>", "a page of HTML or XML", "download it again"),
        (b"@read1\nACGTN\n+\nIIIII\n", "a FASTQ", "align"),
        (b"#bin\tname\tchrom\tstrand\ttxStart\n", "a table of UCSC's genes", "genePredToGtf"),
    ],
)
def test_what_a_file_is_and_what_to_do(tmp_path, content, what, remedy):
    path = tmp_path / "file.txt"
    for packed in (content, gzip.compress(content)):
        path.write_bytes(packed)
        with pytest.raises(InputError) as caught, opened_as(path, "a table"):
            pass
        (problem,) = caught.value.problems
        assert (problem.where, problem.expected) == (str(path), "a table")
        assert problem.found.startswith(what)
        assert remedy in problem.remedy


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x00",
        b"gene_id\tE003\n",
        b"chr1\t5\t9\n",
        b"@cell\tE1\n",
        b'chr1\tx\tgene\t5\t9\t.\t+\t.\tgene_id "A";\n',
        b"track name=reads\nchr1\t5\t9\n",
    ],
)
def test_tables_and_beds_are_not_foreign(tmp_path, content):
    path = tmp_path / "file.txt"
    path.write_bytes(content)
    assert recognise(content) is None
    with opened_as(path, "a table") as file:
        assert file.read() == content


def test_a_kind_that_the_caller_reads_is_let_pass():
    require_none_other("x.BAM", b"BAM\1", "reads", "a BAM")
    with pytest.raises(InputError, match=r"found a BAM; expected reads; turn it into BED"):
        require_none_other("x.BAM", b"BAM\1", "reads")


def test_a_url_is_told_to_be_downloaded():
    url = "ftp://ftp.ebi.ac.uk/genes.gtf.gz"
    assert is_url(url)
    assert not is_url("/data/genes.gtf.gz")
    with (
        pytest.raises(InputError, match=rf"found a URL; .*curl -LO {url}"),
        opened_as(url, "a GTF"),
    ):
        pass
