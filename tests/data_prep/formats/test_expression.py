import gzip

import numpy as np
import pytest

from data_prep.formats.expression import read_expression
from epi2expr_jax.errors import collect
from tests.data_prep.problems import problems_of

# As Roadmap writes it: a tab at the end of every row, none at the end of the header.
TRAP = "gene_id\tE001\tE002\nENSG01\t1.5\t2\t\nENSG02\t0\t3\t\n"


@pytest.fixture
def write(tmp_path):
    def write_table(text: str):
        path = tmp_path / "expression.txt"
        path.write_text(text)
        return path

    return write_table


def read(path, cells=None, unit="auto"):
    with collect() as problems:
        return read_expression(path, cells, problems, unit)


def problems(path, cells=None, unit="auto") -> list[str]:
    return list(map(str, problems_of(read, path, cells, unit)))


def test_the_roadmap_matrix_is_not_shifted(shared_data):
    path = shared_data / "expression" / "57epigenomes.RPKM.pc.gz"
    whole = read(path)
    table = whole.table
    assert (whole.unit, whole.doubts) == ("RPKM", ())
    assert table.shape == (19_795, 57)
    assert table.index.name == "gene_id"
    assert table.loc["ENSG00000116213", "E003"] == 4.554
    assert table["E128"].notna().all()
    with gzip.open(path, "rt") as lines:
        cells = next(lines).split()[1:]
        first = next(lines).split()
    assert list(table.columns) == cells
    assert table.index[0] == first[0]
    np.testing.assert_array_equal(table.iloc[0], np.array(first[1:], float))
    one = read(path, ["E128"]).table
    np.testing.assert_array_equal(one["E128"], table["E128"])


def test_a_tab_at_the_end_of_every_row_shifts_nothing(write):
    table = read(write(TRAP)).table
    assert list(table.columns) == ["E001", "E002"]
    np.testing.assert_array_equal(table, [[1.5, 2], [0, 3]])
    assert (table.dtypes == np.float64).all()


PLAIN = TRAP.replace("\t\n", "\n")
# Other spellings of the same table: what writes it so, and its text.
SPELLINGS = {
    "the Roadmap": TRAP,
    "a tab at the end of every line": TRAP.replace("E002\n", "E002\t\n"),
    "tabs": PLAIN,
    "commas": PLAIN.replace("\t", ","),
    "quotes": '"gene","E001","E002"\n"ENSG01",1.5,2\n"ENSG02",0,3\n',
    "a comment": "# made by hand\n" + TRAP + "\n\n",
    "a comment among the genes": PLAIN.replace("ENSG02", "# silent\nENSG02"),
    "Windows": TRAP.replace("\n", "\r\n"),
    "a byte order mark": "\ufeff" + PLAIN,
    "no name of the first column": TRAP.replace("gene_id", ""),
    "R's write.table": '"E001" "E002"\n"ENSG01" 1.5 2\n"ENSG02" 0 3\n',
    "R with tabs": PLAIN.replace("gene_id\t", ""),
    "R with rows in quotes": 'E001,E002\n"ENSG01",1.5,2\n"ENSG02",0,3\n',
    "a header that begins with #": "#" + PLAIN,
    "comments, then such a header": "# v1\tof\tthree\n# " + PLAIN,
    "a GCT": "#1.2\n2\t2\nName\tDescription\tE001\tE002\n"
             "ENSG01.3\tA B\t1.5\t2\nENSG02.1\t5'\t0\t3\n",
    "Excel's commas": PLAIN.replace("\t", ",").replace("\n", ",,,\n") + ",,,,,\n",
    "Excel's commas in some lines": "gene,E001,E002,,\nENSG01,1.5,2,,\nENSG02,0,3\n",
    "Excel abroad": PLAIN.replace("\t", ";").replace("1.5", "1,5"),
    "points and semicolons": PLAIN.replace("\t", ";"),
    "decimal commas and tabs": PLAIN.replace("1.5", "1,5").replace("\t3", "\t3,0"),
    "a symbol with a quote": PLAIN.replace("gene_id\t", "gene_id\tsymbol\t").replace(
        "ENSG01", 'ENSG01\t"A').replace("ENSG02", "ENSG02\tB"),
    "blanks around fields": PLAIN.replace("\t", " \t "),
}  # fmt: skip


@pytest.mark.parametrize("text", SPELLINGS.values(), ids=SPELLINGS)
def test_spellings_of_one_table(write, text):
    table = read(write(text), ["E001", "E002"]).table
    if "ENSG01" in text:
        assert list(table.index) == ["ENSG01", "ENSG02"]
    np.testing.assert_array_equal(table, [[1.5, 2], [0, 3]])


def test_the_columns_of_a_gct_are_its_samples(write):
    assert list(read(write(SPELLINGS["a GCT"])).table.columns) == ["E001", "E002"]
    (problem,) = problems(write(SPELLINGS["a GCT"].replace("2\t2\nN", "3\t2\nN")))
    assert "found 2 genes; expected 3, as its second line says" in problem


def test_an_empty_last_value_is_missing(write):
    table = read(write("g\tE1\tE2\nENSG01\t1\t\nENSG02\t1\t2\n")).table
    np.testing.assert_array_equal(table, [[1, np.nan], [1, 2]])


def test_a_header_of_r_whose_last_column_is_empty(write):
    """As the Roadmap's: lines of one field more, the last empty."""
    text = "E003\tE114\tE115\nA\t9\t2\t\nB\t8\t1\t\n"
    table = read(write(text), ["E003", "E114"]).table
    np.testing.assert_array_equal(table, [[9, 2], [8, 1]])
    (problem,) = problems(write(text), ["E114"])
    assert "header: found 3 names, and lines of 4 fields of which the last is empty" in problem
    assert "write gene_id in place of 'E003'" in problem
    (problem,) = problems(write(text), ["E115"])[:1]
    assert "write gene_id in place of 'E003'" in problem
    named = read(write(text.replace("E003", "Ensembl ID")), ["E114"]).table
    np.testing.assert_array_equal(named["E114"], [9, 8])


def test_what_cannot_be_decimal_commas_is_not_read_so(write):
    (problem,) = problems(write("g\tE1\nA\t1,234\nB\t2\n"))
    assert "1 values that are not finite numbers (A '1,234' in line 2)" in problem
    read_so = read(write("g\tE1\nA\t1,234\nB\t0,5\n"))
    assert read_so.table["E1"].tolist() == [1.234, 0.5]
    assert "commas in numbers are decimal commas" in read_so.notes


def test_versions_are_stripped_and_lines_kept(write):
    path = write("g,E1\nENSG01.4,1\nAT1G01010.1,2\nENSG02.12_4,3\nENSG03.1_PAR_Y,4\nENSG01.5,5\n")
    ids = ["ENSG01", "AT1G01010.1", "ENSG02", "ENSG03_PAR_Y", "ENSG01"]
    assert list(read(path).table.index) == ids


@pytest.mark.parametrize(
    ("name", "comment", "asked", "unit", "words"),
    [
        ("57epigenomes.RPKM.pc.txt", "", "auto", "RPKM", "as the table says"),
        ("gene_tpm_v8.txt", "", "auto", "TPM", "as the table says"),
        ("x.txt", "# FPKM, featureCounts", "auto", "FPKM", "as the table says"),
        ("x.txt", "# CPMs", "auto", "CPM", "as the table says"),
        ("x.txt", "", "auto", "RPKM", "assumed: the table does not say"),
        ("rpkm_and_tpm.txt", "", "auto", "RPKM", "assumed: the table says several (RPKM, TPM)"),
        ("outpmost.txt", "", "auto", "RPKM", "assumed: the table does not say"),
        ("rpkm.txt", "", "TPM", "TPM", "as --expression_unit says; the table says RPKM"),
        ("x.txt", "", "none", "none", "as --expression_unit says"),
        ("x.txt", "", "log2_TPM", "TPM", "TPM, made of log2(TPM + 1), as --expression_unit says"),
        ("x.txt", "", "label", "", "labels alone"),
    ],
)
def test_the_unit_is_what_the_table_or_the_flag_says(write, name, comment, asked, unit, words):
    path = write(f"{comment}\ng,E1\nA,1\nB,0\n")
    path = path.rename(path.with_name(name))
    found = read(path, unit=asked)
    assert (found.unit, found.labels) == (unit, asked == "label")
    assert words in found.notes[0]


def test_logarithms_draw_a_word_and_are_undone_if_said_so(write):
    values = np.round(np.random.default_rng(0).exponential(2, 40), 3)
    logs = write("g,E1\n" + "".join(f"G{i},{v}\n" for i, v in enumerate(values)))
    (doubt,) = read(logs).doubts
    assert (doubt.kind, doubt.where) == ("log_expression", str(logs))
    assert f"highest value {values.max():g}" in doubt.found
    assert "--expression_unit=log2_TPM" in doubt.remedy
    np.testing.assert_array_equal(read(logs).table["E1"], values)
    undone = read(logs, unit="log2_TPM")
    np.testing.assert_allclose(undone.table["E1"], [2**v - 1 for v in values], rtol=1e-12)
    assert undone.doubts == ()
    assert read(logs, unit="TPM").doubts == ()  # then it is no logarithm
    raw = write("g,E1\n" + "".join(f"G{i},{2**v + 20}\n" for i, v in enumerate(values)))
    assert [doubt.kind for doubt in read(raw).doubts] == ["unit_assumed"]
    (problem,) = problems(raw, unit="log2_TPM")
    assert "40 values too high for a logarithm" not in problem
    assert "values too high for a logarithm" in problem
    counts = write("g,E1\n" + "".join(f"G{i},{i % 9}\n" for i in range(40)))
    assert [doubt.kind for doubt in read(counts).doubts] == ["unit_assumed"]


def test_labels_are_0_and_1_and_said_to_be(write):
    path = write("g,E1\n" + "".join(f"G{i},{i % 2}\n" for i in range(40)))
    (doubt,) = read(path).doubts
    assert doubt.kind == "labels_as_expression"
    assert "--expression_unit=label" in doubt.remedy
    (problem,) = problems(write("g,E1\nA,1\nB,0.5\nC,\n"), unit="label")
    assert "1 values that are no labels (B '0.5' in line 3); expected 0 or 1" in problem


def test_values_are_checked_with_gene_and_line(write):
    found = problems(write("g,E1,E2,E3\nA,1,x,-1\nB,2,inf,0\nC,3,4,NA\n"))
    assert len(found) == 2
    assert "column E2: found 2 values that are not finite numbers (A 'x' in line 2, B" in found[0]
    assert "column E3: found 1 negative values (A '-1' in line 2)" in found[1]


def test_only_the_cells_asked_for_are_checked(write):
    path = write("g,description,E1,E2,E3\nA,kinase,1,NA,NA\nB,ligase,2,,3\n")
    table = read(path, ["E3", "E1"]).table
    assert list(table.columns) == ["E3", "E1"]
    assert table["E3"].isna().tolist() == [True, False]
    assert "no value for any gene" in problems(path, ["E1", "E2"])[0]


def test_absent_cells_are_listed_with_what_there_is(write):
    (problem,) = problems(write(TRAP), ["E001", "E003", "E128"])
    assert "no column E003, E128" in problem
    assert "E001, E002" in problem


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", "no header"),
        ("g,E1\n", "no gene"),
        ("g\nA\n", "no cell"),
        ("g,E1,E1\nA,1,2\n", "named twice"),
        ("g,E1,,E2\nA,1,2,3\n", "without a name"),
        ("g,E1\n,2\n", "no gene"),
        ("g,E1\nA,1,5\n", "name every column in the header"),
        ("g,E1\nA,1,5\nB,1\n", "found 3 fields; expected 2 fields, as in the header"),
        ('g,E1\n"A,1\nB"C,1\nD,1,\nE,1,2\n', "line 5"),
    ],
)
def test_other_malformed_tables(write, text, found):
    assert found in " ".join(problems(write(text)))


RSEM = (
    "gene_id\ttranscript_id(s)\tlength\teffective_length\texpected_count\tTPM\tFPKM\n"
    "ENSG01.3\tENST01,ENST02\t33.00\t32.00\t3.12\t0.16\t0.12\n"
    "10904\t10904\t93.00\t9.00\t0.00\t2.00\t1.00\n"
)
SALMON = "Name\tLength\tEffectiveLength\tTPM\tNumReads\nENSG01.3\t9\t8\t0.16\t5\n"
STRINGTIE = (
    "Gene ID\tGene Name\tReference\tStrand\tStart\tEnd\tCoverage\tFPKM\tTPM\n"
    "ENSG01.3\tA\tchr1\t+\t1\t9\t5.0\t0.12\t0.16\n"
)


@pytest.mark.parametrize("text", [RSEM, SALMON, STRINGTIE], ids=["RSEM", "salmon", "StringTie"])
def test_a_table_of_one_sample_is_that_of_the_only_cell(write, text):
    for cell in ("GM12878", "TPM"):
        found = read(write(text), [cell])
        assert (found.table.loc["ENSG01", cell], found.unit) == (0.16, "TPM")
        assert f"of one sample: TPM read as {cell}; unit: TPM" in found.notes[0]
        assert not found.doubts


def test_columns_of_one_sample_are_not_taken_for_cells(write, tmp_path, monkeypatch):
    fpkm = read(write(RSEM), ["FPKM"])
    assert (fpkm.table.loc["ENSG01", "FPKM"], fpkm.unit) == (0.12, "FPKM")
    assert "a cell named like its column length" in problems(write(RSEM), ["length"])[0]
    assert "asked for RPKM" in problems(write(RSEM), ["E1"], "RPKM")[0]
    (problem,) = problems(write(RSEM), ["E1", "E2"])
    assert "RSEM's quantification, a table of one sample" in problem
    for cell in ("E1", "E2"):
        (tmp_path / f"{cell}.tsv").write_text(RSEM)
    monkeypatch.chdir(tmp_path)
    exec(problem.partition('python -c "')[2].removesuffix('"'), {})
    joined = read(tmp_path / "expression.TPM.tsv", ["E1", "E2"])
    assert (joined.unit, joined.table.loc["ENSG01"].tolist()) == ("TPM", [0.16, 0.16])


@pytest.mark.parametrize(
    "text",
    [
        SALMON.replace("ENSG01", "ENST00000456328"),
        "target_id\tlength\teff_length\test_counts\ttpm\nENST00000456328.2\t9\t8\t5\t0.1\n",
        RSEM.replace("gene_id\ttranscript_id(s)", "transcript_id\tgene_id"),
    ],
    ids=["salmon", "kallisto", "RSEM"],
)
def test_a_table_of_transcripts_is_refused_with_the_remedy(write, text):
    (problem,) = problems(write(text), ["E1"])
    assert "by transcript" in problem
    assert "quant.genes.sf" in problem


def test_an_assumed_unit_is_a_doubt(write):
    (doubt,) = read(write("g,E1\nA,1\n")).doubts
    assert doubt.kind == "unit_assumed"
    assert "--expression_unit=TPM" in doubt.remedy
