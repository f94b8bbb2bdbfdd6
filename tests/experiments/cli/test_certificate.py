"""A certificate proves what was there when it was made, and nothing of what has changed since."""

import json
import shutil

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_sealed
from epi2expr_jax.predict.training_store import places
from epi2expr_jax.study import tables
from epi2expr_jax.training import checkpoint
from experiments.cli.certificate import CERTIFICATE, DAMAGED, Claim, read_certificate, store_now
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


@pytest.mark.parametrize("array", ["coverage", "signal"])
def test_damage_within_a_store_is_found_by_reading_it(small_store, tmp_path, array):
    store = shutil.copytree(small_store.path, tmp_path / "store.zarr")
    assert store_now(store, whole=True) == store_now(store) == small_store.checksum()
    file = next(path for path in (store / array / "c").rglob("*") if path.is_file())
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 1
    file.write_bytes(content)
    assert store_now(store) == small_store.checksum()
    assert store_now(store, whole=True) == DAMAGED


def test_it_is_of_a_store_too(run_dir, tmp_path):
    before = json.loads((run_dir / CERTIFICATE).read_text())
    store = shutil.copytree(before["store"]["path"], tmp_path / "store.zarr")
    assert not read_certificate(run_dir).without_store
    of_copy = before["store"] | places(store, run_dir)
    write_sealed(run_dir / CERTIFICATE, before | {"store": of_copy})
    assert read_certificate(run_dir).changed == ()
    shards = sorted(path for path in (store / "signal/c").rglob("*") if path.is_file())
    shutil.copyfile(shards[0], shards[-1])
    assert read_certificate(run_dir).changed == ("the store",)
    shutil.rmtree(store)
    gone = read_certificate(run_dir)
    assert (gone.changed, gone.without_store) == ((), True)


def test_one_that_was_changed_is_refused(run_dir):
    text = (run_dir / CERTIFICATE).read_text()
    (run_dir / CERTIFICATE).write_text(text.replace('"holds": true', '"holds": null', 1))
    with pytest.raises(InputError, match="changed after it was written"):
        read_certificate(run_dir)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"claims": 3}', '{"claims": [{"a": 1}]}'])
def test_a_damaged_one_is_refused(run_dir, text):
    (run_dir / CERTIFICATE).write_text(text)
    with pytest.raises(InputError, match=r"verify\.json.*python -m experiments\.verify --run="):
        read_certificate(run_dir)


def test_one_of_version_0_1_names_no_files_and_proves_nothing(run_dir):
    content = json.loads((run_dir / CERTIFICATE).read_text())
    del content["files"]
    write_sealed(run_dir / CERTIFICATE, content)
    assert "predictions.parquet" in read_certificate(run_dir).changed
    (run_dir / CERTIFICATE).unlink()
    assert read_certificate(run_dir) is None


def test_what_was_not_checked_does_not_say_ok(run_dir):
    claims = {claim.name: claim for claim in read_certificate(run_dir).claims}
    assert claims["quality"].holds is None
    assert str(claims["quality"]).startswith("not checked")
    assert str(Claim("splits", True, "3 folds")).split() == ["ok", "splits", "3", "folds"]
