"""Whose models silence elements; elements by a chain file: moved, turned, unmapped, split."""

import gzip

import pandas as pd
import pytest
from absl import flags

from epi2expr_jax.errors import InputError
from experiments.cli.elements import (
    NAMES,
    define_silencing,
    lift,
    silencer_of_flags,
    silencing_models,
)
from experiments.cli.flags import define_run, define_store

DEFINED = (define_run, define_store, define_silencing)


def test_flags_name_models_and_marks(finished, parse_flags):
    parse_flags(DEFINED, f"--run={finished}", "--cell=E003", "--flank_bp=100", "--single_marks")
    found = silencer_of_flags()
    assert set(NAMES) <= set(flags.FLAGS)
    assert {run.cell for run in found.ensemble.runs} == {"E003"}
    assert found.silencing.marks == found.ensemble.runs[0].assays
    assert (found.silencing.flank_bp, found.silencing.apart) == (100, True)
    assert found.store.checksum() == found.ensemble.card["store_checksum"]
    one, two, _ = found.silencing.marks
    assert silencing_models(finished, cell="E003", marks=f"{two}+{one}").silencing.marks == (
        two,
        one,
    )
    assert silencing_models(finished, cell="E003", assays=two).silencing.marks == (two,)
    with pytest.raises(InputError, match="unknown assay"):
        silencing_models(finished, cell="E003", assays=two, marks=one)


# 1,000 bases of chr1 lie 500 further on; then a gap of 100; then 300 more. 400 bases of chr2 are on
# the other strand of chr9, whose last base is 999.
CHAIN = """chain 900 chr1 5000 + 0 1400 chr1 6000 + 500 1800 1
1000 100 0
300

chain 400 chr2 2000 + 0 400 chr9 1000 - 100 500 2
400

"""


@pytest.fixture
def chain(tmp_path):
    path = tmp_path / "some.over.chain.gz"
    path.write_bytes(gzip.compress(CHAIN.encode()))
    return path


def elements(*rows):
    return pd.DataFrame(rows, columns=["chrom", "start", "end", "name"])


def test_elements_move_turn_and_are_counted_where_they_cannot(chain):
    given = elements(
        ("chr1", 10, 60, "moved"),
        ("chr1", 1050, 1120, "its first base in the gap"),
        ("chr1", 900, 1200, "a third of it lost"),
        ("chr2", 0, 30, "turned"),
        ("chr3", 0, 30, "of no chain"),
        ("2", 30, 40, "spelled without chr"),
    )
    found, said = lift(chain, given)
    assert found.to_numpy().tolist() == [
        ["chr1", 510, 560, "moved"],
        ["chr9", 870, 900, "turned"],
        ["chr9", 860, 870, "spelled without chr"],
    ]
    assert found.index.tolist() == [0, 3, 5]
    assert said == "3 of 6 elements lifted; left out: 2 without a place, 1 split"


def test_what_is_no_chain_or_of_another_assembly_is_refused(chain, tmp_path):
    broken = tmp_path / "broken.chain"
    for text, found in (
        (CHAIN.replace("300", "200"), "do not match"),
        ("chr1\t0\t9\n", "no place"),
    ):
        broken.write_text(text)
        with pytest.raises(InputError, match=found):
            lift(broken, elements(("chr1", 10, 60, "")))
    with pytest.raises(InputError, match="no place"):
        lift(chain, elements(("chr7", 10, 60, "")))
    with pytest.raises(InputError, match="nothing that can be read"):
        lift(tmp_path / "none.chain", elements(("chr1", 10, 60, "")))
