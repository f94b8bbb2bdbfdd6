"""What the commands of preparation say to run next; `experiments/test_assemblies.py` runs it."""

import dataclasses

import numpy as np
import pytest

from data_prep.checks import next_command
from data_prep.checks.next_command import print_training, train_command
from epi2expr_jax.program import WITHIN_STUDY
from epi2expr_jax.store.window_store import WindowStore
from tests.epi2expr_jax.store.toy import EXPRESSION, GENES, MANIFEST

WIDE = {"window_bp": 10_000, "bin_bp": 25}
CONTACTS = {"E003": {"name": "contacts.bedpe"}}
OF_200_BP = " --model=chromoformer --resolutions=2000,400,200 --model_window_bp=40000"
COUNTS = {"window_bp": 20_000, "bin_bp": 100}  # of DeepChrome's kind


@pytest.mark.parametrize(
    ("changes", "chromosomes", "flags"),
    [
        (WIDE, 22, ""),
        (WIDE, 4, " --cv=chromosomes_4"),
        (COUNTS, 22, " --model=promoter_cnn"),
        ({"window_bp": 40_000, "bin_bp": 100, "contacts": CONTACTS}, 22, " --model=chromoformer"),
        ({"window_bp": 40_000, "bin_bp": 200, "contacts": CONTACTS}, 22, OF_200_BP),
        # 199 bins have no middle: no even number of them lies in the centre.
        ({"window_bp": 39_800, "bin_bp": 200, "contacts": CONTACTS}, 22, " --model=promoter_cnn"),
        ({**WIDE, "given_labels": True, "expression_unit": ""}, 22, " --task=classification"),
    ],
)
def test_a_training_has_the_flags_that_a_store_needs(tmp_path, changes, chromosomes, flags):
    names = [f"chr{i % chromosomes + 1}" for i in range(len(GENES))]
    sizes = dict.fromkeys(sorted(set(names)), 1_000_000)
    manifest = dataclasses.replace(
        MANIFEST, **{"chrom_sizes": sizes, "chromosomes": [*sizes], "blind": ["chr3"], **changes}
    )
    labels = np.zeros(EXPRESSION.shape, bool) if manifest.given_labels else None
    given = EXPRESSION if manifest.expression_unit else None
    genes = GENES.assign(chrom=names)
    store = WindowStore.create(tmp_path / "a b.zarr", manifest, genes, given, labels=labels)
    command = f"python -m experiments.train '--store={tmp_path}/a b.zarr' '--run=runs/a b'"
    assert train_command(store) == command + flags


def test_other_stores(tmp_path):
    store = WindowStore.create(tmp_path / "few.zarr", MANIFEST, GENES, EXPRESSION)
    assert train_command(store) == ""  # one chromosome
    blank = dataclasses.replace(MANIFEST, expression_unit="")
    store = WindowStore.create(tmp_path / "blank.zarr", blank, GENES, None)
    assert train_command(store).startswith("python -m experiments.predict --store=")


def test_within_a_study_no_training_is_called_next(monkeypatch, capsys):
    monkeypatch.setattr(next_command, "train_command", lambda _: "python -m experiments.train")
    print_training(None)
    monkeypatch.setenv(WITHIN_STUDY, "1")
    print_training(None)
    assert capsys.readouterr().out == "next: python -m experiments.train\n"
