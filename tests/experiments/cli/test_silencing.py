"""Flags that say which models silence what."""

import pytest
from absl import flags

from epi2expr_jax.errors import InputError
from experiments.cli.flags import define_run, define_store
from experiments.cli.silencing import NAMES, define_silencing, silencer_of_flags, silencing_models

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
