"""Files that are not what their names say."""

import gzip

import pytest

from data_prep.work.content import require_content
from epi2expr_jax.errors import InputError

PACKED = gzip.compress(b"chr1\t0\t9\n" * 100, mtime=0)  # the same in every worker
BAM_END = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.gz", b"<html>Please log in</html>", "a web page instead of the file"),
        ("a.tsv", b"\xef\xbb\xbf\n <!-- x --> <!DOCTYPE HTML><p>", "a web page"),
        ("a.bw", b"login first", "no bigWig: first bytes b'login"),
        ("a.bigWig", b"", "no bigWig: an empty file"),
        ("a.txt", b"", "an empty file"),
        ("a.tagAlign.gz", PACKED[:-9], "a damaged gzip file"),
        ("a.tagAlign.gz", PACKED[:30] + b"??" + PACKED[32:], "a damaged gzip file"),
        ("a.tagAlign.gz", b"chr1\t0\t9\n", "no gzip file: first bytes b'chr1"),
        ("a.bam", PACKED, "no whole BAM"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, name, content, said):
    (tmp_path / "x.part").write_bytes(content)
    with pytest.raises(InputError, match=said):
        require_content(tmp_path / "x.part", name)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.gz", PACKED),
        ("a.bam", PACKED + BAM_END),
        ("a.html", b"<html>"),
        ("a.xml", b"<?xml version='1.0'?>"),
        ("a.pickle", b"\x80\x04N."),
    ],
)
def test_what_is_right_is_not_refused(tmp_path, name, content):
    (tmp_path / "x.part").write_bytes(content)
    require_content(tmp_path / "x.part", name)
