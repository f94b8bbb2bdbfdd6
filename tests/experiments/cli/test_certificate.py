"""A certificate proves what was there when it was made, and nothing of what has changed since."""

import json
import shutil

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.study import tables
from epi2expr_jax.training import checkpoint
from experiments.cli.certificate import CERTIFICATE, Claim, read_certificate
from experiments.verify import verify


@pytest.fixture(scope="module")
def verified(finished, tmp_path_factory):
    run_dir = shutil.copytree(finished, tmp_path_factory.mktemp("runs") / "run")
    assert read_certificate(run_dir).changed, "it has been evaluated since it was verified"
    verify(run_dir, quick=True)
    return run_dir


@pytest.fixture
def run_dir(verified, tmp_path):
    return shutil.copytree(verified, tmp_path / "run")


def test_it_names_every_file_that_changes_goes_or_comes(run_dir):
    card = checkpoint.read_card(run_dir)
    assert read_certificate(run_dir).changed == ()
    known = tables.checksums(run_dir, card)
    assert len(known) > 10
    for name in known:
        path = run_dir / name
        file = path if path.is_file() else next(p for p in path.rglob("*") if p.is_file())
        before = file.read_bytes()
        file.write_bytes(before + b" ")
        assert read_certificate(run_dir).changed == (name,)
        file.write_bytes(before)
    assert read_certificate(run_dir).changed == ()
    (run_dir / "metrics.parquet").unlink()
    (run_dir / "across_cells.csv").write_text("new")
    assert read_certificate(run_dir).changed == ("across_cells.csv", "metrics.parquet")


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"claims": 3}', '{"claims": [{"a": 1}]}'])
def test_a_damaged_one_is_refused(run_dir, text):
    (run_dir / CERTIFICATE).write_text(text)
    with pytest.raises(InputError, match=r"verify\.json.*python -m experiments\.verify --run="):
        read_certificate(run_dir)


def test_one_of_version_0_1_names_no_files_and_proves_nothing(run_dir):
    content = json.loads((run_dir / CERTIFICATE).read_text())
    del content["files"]
    (run_dir / CERTIFICATE).write_text(json.dumps(content))
    assert "predictions.parquet" in read_certificate(run_dir).changed
    (run_dir / CERTIFICATE).unlink()
    assert read_certificate(run_dir) is None


def test_what_was_not_checked_does_not_say_ok(run_dir):
    claims = {claim.name: claim for claim in read_certificate(run_dir).claims}
    assert claims["quality"].holds is None
    assert str(claims["quality"]).startswith("not checked")
    assert str(Claim("splits", True, "3 folds")).split() == ["ok", "splits", "3", "folds"]
