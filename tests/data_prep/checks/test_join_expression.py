import numpy as np
import pandas as pd
import pytest

from data_prep.checks.build_inputs import gather_inputs
from data_prep.checks.join_expression import candidates, each_gene_once, first_look
from data_prep.formats.expression import Expression
from epi2expr_jax.errors import InputError, Problems

GENES = pd.DataFrame(
    [("ENSG01", "TP53", "chr1", 10), ("ENSG02", "MYC", "chr1", 5), ("ENSG03", "Y_RNA", "chr2", 3),
     ("ENSG04", "Y_RNA", "chr2", 9), ("ENSG05", "ENSG05", "chr3", 1)],
    columns=["gene_id", "name", "chrom", "tss"],
).assign(strand="+")  # fmt: skip


def table(*lines):
    names, *values = zip(*lines, strict=True)
    index = pd.Index(names, name="gene_id", dtype=object)
    columns = {f"E{i}": np.array(column, float) for i, column in enumerate(values, 1)}
    return Expression(pd.DataFrame(columns, index=index), "TPM", notes=("read",))


def test_genes_are_found_by_their_names_where_one_gene_has_them():
    lines = [("MYC", 1), ("ENSG01", 2), ("Y_RNA", 3), ("ENSG05", 4), ("nobody", 5), ("", 6)]
    read, left_out = each_gene_once(table(*lines), GENES, "t.tsv")
    found = {"ENSG02": 1, "ENSG01": 2, "ENSG05": 4, "nobody": 5}
    assert read.table["E1"].to_dict() == found
    assert left_out == {"no gene named": 1, "name of several genes": 1}
    assert read.notes == ("read", "1 genes found by the names that the annotation gives them")
    (doubt,) = read.doubts
    assert (doubt.kind, doubt.where) == ("ambiguous_names", "t.tsv")
    assert "(Y_RNA)" in doubt.found
    assert read.unit == "TPM"


def test_lines_that_agree_are_one_and_others_are_left_out():
    lines = [("ENSG01", 1, np.nan), ("ENSG02", 2, 2), ("ENSG01", 1, np.nan), ("MYC", 2, 3)]
    read, left_out = each_gene_once(table(*lines), GENES, "t.tsv")
    assert list(read.table.index) == ["ENSG01"]
    assert left_out == {"listed twice, with other values": 1}
    assert "1 lines that repeat a gene with the same values" in read.notes
    (doubt,) = read.doubts
    assert (doubt.kind, "(ENSG02)" in doubt.found) == ("duplicate_genes", True)


def test_a_table_of_ids_passes_as_it_is():
    before = table(("ENSG02", 1), ("ENSG09", 2))
    read, left_out = each_gene_once(before, GENES, "t.tsv")
    assert read.table is not None
    pd.testing.assert_frame_equal(read.table, before.table)
    assert (left_out, read.doubts, read.notes) == ({}, (), ("read",))


def test_candidates_are_in_genome_order_and_complete():
    read = table(("ENSG01", 1, 2), ("ENSG02", 3, 4), ("ENSG03", 5, np.nan), ("ENSG05", 7, 8))
    genes, values, left_out = candidates(GENES, read.table, ("E2", "E1"), ["chr1", "chr2"])
    assert genes.gene_id.tolist() == ["ENSG02", "ENSG01"]
    np.testing.assert_array_equal(values, [[4, 2], [3, 1]])
    assert list(left_out.values()) == [0, 1, 1]


def test_a_study_whose_table_names_genes_by_symbol(study):
    lines = ["gene_id,name,chrom,tss,strand", "A,alpha,chr1,3000,+", "B,beta,chr1,6000,-"]
    lines += ["C,twin,chr2,2000,+", "D,twin,chr3,2000,-"]
    (study.folder / "genes.csv").write_text("\n".join(lines))
    (study.folder / "rpkm.csv").write_text("g,E1,E2\nbeta,2,20\nalpha,1,10\ntwin,3,30\n")
    problems = Problems()
    inputs = gather_inputs(study.config(expression_unit="TPM"), problems)
    assert inputs
    assert not problems.found
    assert inputs.genes.gene_id.tolist() == ["A", "B"]
    np.testing.assert_array_equal(inputs.expression, [[1, 2], [10, 20]])
    assert inputs.left_out["name of several genes"] == 1
    assert [doubt.kind for doubt in inputs.read.doubts] == ["ambiguous_names"]
    assert inputs.manifest().expression_unit == "TPM"


def test_spike_ins_and_numbers_are_no_genes_beside_genes():
    names = ["ENSG01", "ENSG02", "ENSG03", "ENSG05", "10904", "gSpikein_ERCC-00002"]
    read, left_out = each_gene_once(table(*((name, 1) for name in names)), GENES, "t.tsv")
    assert read.table.index.tolist() == names[:4]
    assert left_out == {"no genes but spike-ins, or tRNAs by number": 2}
    _, left_out = each_gene_once(table(("7157", 1), ("4609", 2)), GENES, "t.tsv")
    assert left_out == {}  # Entrez's ids


def test_a_first_look_says_the_unit_and_refuses_a_table_without_the_cells(tmp_path):
    path = tmp_path / "expression.tsv"
    assert first_look(path, ["E1"]) == []
    path.write_text("g\tE1\nA\t1\n")
    (line,) = first_look(path, ["E1"])
    assert "unit of expression: RPKM, assumed" in line
    assert first_look(path, ["E1"], "TPM") == [
        "  unit of expression: TPM, as --expression_unit says"
    ]
    with pytest.raises(InputError, match="no column E2"):
        first_look(path, ["E1", "E2"])
