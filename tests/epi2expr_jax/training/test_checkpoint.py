import importlib.metadata
import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore as ts

from epi2expr_jax.errors import InputError
from epi2expr_jax.store.arrays import CONTEXT
from epi2expr_jax.training import checkpoint

TREE = {
    "state": {"w": jnp.arange(6.0).reshape(2, 3), "n": jnp.int32(7)},
    "key": np.array([1, 2**32 - 1], np.uint32),
}


def test_any_tree_comes_back_bit_for_bit(tmp_path):
    checkpoint.save(tmp_path / "a", TREE)
    template = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), TREE)
    back = checkpoint.restore(tmp_path / "a", template)
    assert jax.tree.structure(back) == jax.tree.structure(TREE)
    for a, b in zip(jax.tree.leaves(back), jax.tree.leaves(TREE), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)


def test_saving_again_replaces(tmp_path):
    checkpoint.save(tmp_path / "a", TREE)
    checkpoint.save(tmp_path / "a", jax.tree.map(lambda x: x + 1, TREE))
    assert checkpoint.restore(tmp_path / "a", TREE)["state"]["n"] == 8


def test_saves_and_restores_use_the_threads_of_the_one_context(tmp_path, monkeypatch):
    """A context that goes while threads of its own still work can take the process with it."""
    made, original = [], ts.Context
    monkeypatch.setattr(ts, "Context", lambda *given: made.append(original(*given)) or made[-1])
    checkpoint.save(tmp_path / "a", TREE)
    checkpoint.restore(tmp_path / "a", TREE)
    assert len(made) >= 2
    for context in made:
        for threads in ("file_io_concurrency", "data_copy_concurrency"):
            assert context[threads] is CONTEXT[threads]


def test_what_does_not_fit_is_listed_together(tmp_path):
    checkpoint.save(tmp_path / "a", TREE)
    other = {"state": {"w": jnp.zeros((2, 4)), "m": jnp.int32(0)}, "key": TREE["key"]}
    with pytest.raises(InputError, match="3 arrays") as caught:
        checkpoint.restore(tmp_path / "a", other)
    for part in ("state/w (2, 3) for (2, 4)", "state/n", "state/m absent"):
        assert part in str(caught.value)


def test_a_disk_that_refuses_is_reported(tmp_path):
    """A process that may write no file larger than 1 kB stands in for a full disk.

    Many arrays fail at once: what Orbax hears of the others comes when it has given up.
    """
    script = f"""
import resource, signal, pathlib
import numpy as np
from epi2expr_jax.training import checkpoint
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_json
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    values = np.random.default_rng(0).random((60, 3000))
    arrays = {{f"a{{i}}": row for i, row in enumerate(values)}}
    checkpoint.save(pathlib.Path({str(tmp_path / "a")!r}), arrays)
except InputError as error:
    print("reported:", error)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "reported:" in done.stdout, done.stderr
    assert "free space" in done.stdout
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "a").exists()


def test_run_card_round_trip_and_versions(tmp_path):
    checkpoint.write_card(tmp_path, {"status": "complete", "request": {"b": 1, "a": 2}})
    assert list(checkpoint.read_card(tmp_path)["request"]) == ["b", "a"]
    assert checkpoint.read_card(tmp_path)["status"] == "complete"
    (tmp_path / checkpoint.RUN_CARD).write_text(json.dumps({"version": 99}))
    with pytest.raises(InputError, match="version 99"):
        checkpoint.read_card(tmp_path)
    with pytest.raises(InputError, match="no readable run card"):
        checkpoint.read_card(tmp_path / "nothing")
    assert {"jax", "flax", "device"} <= checkpoint.versions().keys()


def test_a_checkout_that_was_not_installed_trains_too(monkeypatch):
    found = importlib.metadata.version

    def version(name):
        if name == "epi2expr_jax":
            raise importlib.metadata.PackageNotFoundError(name)
        return found(name)

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert checkpoint.versions()["epi2expr_jax"] == "not installed"


@pytest.mark.parametrize("content", [b"\xff\xfe", b"[]", b"{"])
def test_a_damaged_card_is_refused_by_name(tmp_path, content):
    (tmp_path / checkpoint.RUN_CARD).write_bytes(content)
    with pytest.raises(InputError) as caught:
        checkpoint.read_card(tmp_path)
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / checkpoint.RUN_CARD)
    assert "made by experiments.train" in problem.remedy
