"""The table of predictions, as the program writes it."""

import sys

import pandas as pd
import pytest
from absl import flags

from epi2expr_jax.errors import InputError
from epi2expr_jax.predict.gene_table import predict_genes
from epi2expr_jax.predict.loading import load
from experiments import predict as program


def test_the_program_writes_what_is_asked(
    finished, small_store, tmp_path, parse_flags, monkeypatch, capsys
):
    genes, cell = small_store.genes, small_store.manifest.cells[1]
    out = tmp_path / "two.parquet"
    parse_flags(
        [program.define_predict],
        f"--run={finished}", f"--genes={genes.name[3]},{genes.gene_id[0]}.4", f"--cell={cell}",
        f"--out={out}",
    )  # fmt: skip
    monkeypatch.setattr(sys, "argv", ["program"])
    program.main()
    table = pd.read_parquet(out)
    expected = predict_genes(load(finished), small_store, genes.gene_id[[3, 0]].tolist(), cell=cell)
    pd.testing.assert_frame_equal(table, expected)
    assert set(table.cell) == {cell}
    said = "16 rows; genes: 2 held-out chromosome; predicted: log2(RPKM + 1)"
    assert said in capsys.readouterr().out
    with pytest.raises(InputError, match=r"found \.xlsx; expected \.csv or \.parquet"):
        program.predict(finished, tmp_path / "two.xlsx")
    assert flags.FLAGS.include_seen is False
