import gzip
import types

import numpy as np
import pandas as pd
import pytest
from absl import flags

from epi2expr_jax.errors import InputError
from epi2expr_jax.training.runs import Run
from experiments.cli.genes import define_genes, genes_of, names_in

RPKM = {"E003": [0.0, 1.0, 5.0, 9.0], "E116": [8.0, 0.0, 7.0, 1.0]}


def ensemble_of(*cells):
    """Models of these cells, none of which tests the last gene."""
    runs = [Run(cell, ("DNase",), "fold1", 0) for cell in cells]
    wanted = np.array([[True, True, True, False]] * len(runs))
    return types.SimpleNamespace(runs=runs, wanted=lambda store, rows, seen: wanted[:, rows])


def store_of(labels=None):
    return types.SimpleNamespace(
        genes=pd.DataFrame({"gene_id": ["g0", "g1", "g2", "g3"]}),
        read_labels=lambda cells: labels,
        read_expression=lambda cells: np.array([RPKM[cell] for cell in cells]),
    )


def test_nothing_asked_for_is_every_gene(parse_flags):
    parse_flags([define_genes])
    assert genes_of(flags.FLAGS.genes, ensemble_of("E003"), store_of()) is None


def test_ids_come_from_the_command_line_or_a_file(tmp_path):
    ids = tmp_path / "ids.txt"
    ids.write_text("g2\ng0\n")
    for text in ("g2,g0", str(ids)):
        assert genes_of(text, ensemble_of("E003"), store_of()) == ["g2", "g0"]
    ids.write_text("g2,TP53;g0\n\ng2\tBRCA1")
    assert names_in(str(ids), "--test_genes") == ["g2", "TP53", "g0", "BRCA1"]
    ids.write_text('# mine\n"gene_id"\tname\n"g2"\n"g0"\n')
    assert names_in(str(ids), "--test_genes") == ["g2", "g0"]
    with pytest.raises(InputError, match=r"absent\.txt: found nothing that can be read"):
        names_in("absent.txt", "--test_genes")
    assert genes_of("no_such_file", ensemble_of("E003"), store_of()) == ["no_such_file"]


def test_a_file_of_ids_may_be_gzipped_repeat_them_but_not_be_empty(tmp_path):
    packed, empty = tmp_path / "ids.gz", tmp_path / "none.txt"
    packed.write_bytes(gzip.compress(b"g2\ng0\ng2\n"))
    empty.write_text("\n")
    assert genes_of(str(packed), ensemble_of("E003"), store_of()) == ["g2", "g0"]
    with pytest.raises(InputError, match=r"none\.txt: found no gene"):
        genes_of(str(empty), ensemble_of("E003"), store_of())


@pytest.mark.parametrize(
    ("cells", "expressed", "silent"),
    [
        (["E003"], ["g2"], ["g0", "g1"]),  # the median is 3; no model tests g3
        (["E003", "E116"], ["g0", "g2"], ["g0", "g1"]),  # g0 is silent in one, not in the other
    ],
)
def test_expressed_genes_reach_the_median_of_a_cell(cells, expressed, silent):
    assert genes_of("expressed", ensemble_of(*cells), store_of()) == expressed
    assert genes_of("silent", ensemble_of(*cells), store_of()) == silent


def test_a_stores_own_labels_go_first():
    store = store_of(np.array([[True, False, False, True]]))
    assert genes_of("expressed", ensemble_of("E003"), store) == ["g0"]
    assert genes_of("silent", ensemble_of("E003"), store) == ["g1", "g2"]
