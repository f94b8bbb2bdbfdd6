"""Tables are read by the end of their name, or refused."""

import gzip

import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from experiments.cli.given_table import read_table


def test_parquet_tabs_commas_and_gzip_give_the_same(tmp_path):
    table = pd.DataFrame({"gene_id": ["1", "2"], "chrom": ["1", "X"], "n": [3, 4]})
    table.to_parquet(tmp_path / "t.parquet")
    table.to_csv(tmp_path / "t.csv", index=False)
    table.to_csv(tmp_path / "t.tsv", sep="\t", index=False)
    table.to_csv(tmp_path / "semicolons.csv", sep=";", index=False)
    with gzip.open(tmp_path / "t.csv.gz", "wt") as file:
        table.to_csv(file, index=False)
    for name in ("t.parquet", "t.csv", "t.tsv", "t.csv.gz", "semicolons.csv"):
        pd.testing.assert_frame_equal(read_table(tmp_path / name), table)


@pytest.mark.parametrize(
    "text",
    [
        "## made by hand\n#chrom\tn\nchr1\t3\nchrX\t4\n",
        "\ufeff# chrom,n\r\nchr1,3\r\nchrX,4\r\n",
        'sep=;\nchrom;n\n"chr1";3\n\nchrX;4\n',
        "chrom,n\rchr1,3\rchrX,4\r",
        "chrom,n\nchr1,3,\nchrX,4,,\n",
        "chrom,n,\nchr1,3,\nchrX,4,\n",
    ],
)
def test_spellings_of_one_table(tmp_path, text):
    (tmp_path / "t.txt").write_bytes(text.encode())
    expected = pd.DataFrame({"chrom": ["chr1", "chrX"], "n": [3, 4]})
    pd.testing.assert_frame_equal(read_table(tmp_path / "t.txt"), expected)


def test_a_quotation_mark_swallows_no_lines(tmp_path):
    text = 'chrom\tname\nchr1\t"a\nchr2\tb\nchr3\tc"\n'
    (tmp_path / "t.tsv").write_text(text)
    with pytest.raises(InputError, match=r"t\.tsv: .*line 2: a quotation mark"):
        read_table(tmp_path / "t.tsv")


def test_what_is_no_table_is_named(tmp_path):
    (tmp_path / "t.tsv.gz").write_bytes(b"no gzip")
    (tmp_path / "t.xlsx").write_bytes(b"PK\x03\x04 xl/workbook.xml")
    (tmp_path / "empty.csv").write_bytes(b"")
    for name in ("t.tsv.gz", "none.csv", "t.xlsx", "empty.csv"):
        with pytest.raises(InputError, match=name):
            read_table(tmp_path / name)
