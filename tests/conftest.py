"""Strict settings for all tests: types of arrays checked at run time, rank promotion refused."""

import fcntl
import functools
import gc
import importlib
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import tempfile

# A shell that starts the tests in the background lets nobody interrupt them; what they start is.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# Before JAX is imported: no test may depend on a GPU that happens to be there. What the caller sets
# counts: experiments.benchmark --what=device runs tests on accelerators.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("KERAS_BACKEND", "jax")
# Tests and the programs they start share caches (compiled programs, indexed annotations): a private
# folder, gone afterwards.
if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share that of the process that starts them
    _cache = tempfile.TemporaryDirectory(prefix="epi2expr-cache-")
    os.environ["XDG_CACHE_HOME"] = _cache.name
    os.environ["JAX_COMPILATION_CACHE_DIR"] = f"{_cache.name}/jax"
    # Most tests compile longer than they run: few optimisations here, all under `make trials`.
    if "EPI2EXPR_TRIALS" not in os.environ:
        os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "1"
        # JAX 0.10 halves it once more by an option that later versions lack.
        if importlib.metadata.version("jax") < "0.11":
            _given = os.environ.get("XLA_FLAGS", "")
            os.environ["XLA_FLAGS"] = f"{_given} --xla_cpu_use_fusion_emitters=false"
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # a worker has a core

import jax
import jaxtyping
import pytest

from tests.one_worker import one_worker

if importlib.util.find_spec("beartype"):  # bare accelerator machines do without
    jaxtyping.install_import_hook("epi2expr_jax", "beartype.beartype")

jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


def pytest_collection_finish():
    """What is loaded by now stays: no later collection of garbage need look at it."""
    gc.freeze()


def pytest_collection_modifyitems(items):
    """Files with trials first: of several workers none shall begin a long one last."""
    trials = {item.path for item in items if item.get_closest_marker("trial")}
    items.sort(key=lambda item: item.path not in trials)


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Excerpts of real Roadmap data, where this checkout has them next to it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real Roadmap excerpts at ../shared/data of {REPOSITORY.name}")
    return folder


@pytest.fixture(scope="session")
def trial_size():
    """`trial_size(small, full)`: how much of a trial to run; all of it under `make trials`."""
    full = os.environ.get("EPI2EXPR_TRIALS") == "full"
    return lambda small, large: large if full else small


@pytest.fixture
def full_compile():
    """Programs of one test compiled as users have them, for what other software computed."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", before)
    jax.clear_caches()  # nothing else shall meet these programs


@pytest.fixture
def program(monkeypatch, capfd):
    """`program(module, *arguments)`: `python -m` of it, but in this process, which has all loaded.

    Gives what `subprocess.run` gives. Of each program one test starts a process.
    """
    from absl import app, flags

    app.define_help_flags()  # once a process: they stay

    def run(module, *arguments):
        known, status = set(flags.FLAGS), None
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        capfd.readouterr()
        try:
            importlib.import_module(module).run()
        except SystemExit as left:
            status = left.code
        finally:
            for name in set(flags.FLAGS) - known:
                delattr(flags.FLAGS, name)
            flags.FLAGS.unparse_flags()
        said = capfd.readouterr()
        if isinstance(status, str):
            return subprocess.CompletedProcess(sys.argv, 1, said.out, said.err + status)
        return subprocess.CompletedProcess(sys.argv, status or 0, said.out, said.err)

    return run


@pytest.fixture
def x64():
    """Double precision within one test."""
    with jax.enable_x64(True):
        yield


def _content(folder: pathlib.Path) -> dict[str, list[int]]:
    """Size and time of the last change of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    states = [(path, path.stat()) for path in files]
    return {str(path.relative_to(folder)): [s.st_size, s.st_mtime_ns] for path, s in states}


@pytest.fixture(scope="session")
def once(tmp_path_factory):
    """`once(name, make)`: the folder that `make(folder)` fills, made by one worker for all.

    Tests read it; a test that changes something does so in a copy. In the end every worker sees
    whether anyone did not.
    """
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has a folder within that of all
        base = base.parent
    shared: list[pathlib.Path] = []

    def once(name, make):
        folder = base / "shared" / name
        folder.parent.mkdir(exist_ok=True)
        made = folder.with_name(f"{name}.json")
        with open(folder.with_name(f"{name}.lock"), "w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # the others wait here
            if not made.exists():
                shutil.rmtree(folder, ignore_errors=True)  # what a worker that failed left
                make(folder)
                made.write_text(json.dumps(_content(folder)))
        shared.append(folder)
        return folder

    yield once
    for folder in shared:
        before = json.loads(folder.with_name(f"{folder.name}.json").read_text())
        assert _content(folder) == before, f"a test changed {folder}, which others read"


@pytest.fixture(scope="session")
def verified_runs():
    """Every run that is trained must prove itself as it ends, before a test may tamper with it."""
    from epi2expr_jax.study import run_card
    from experiments.verify import verify

    original = run_card.finish

    @functools.wraps(original)
    def finish(study, run_dir, card, seconds):
        missing = original(study, run_dir, card, seconds)
        if not missing:
            claims = verify(run_dir, str(study.store.path), quick=True)
            assert all(claim.holds is not False for claim in claims), claims
        return missing

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_card, "finish", finish)
        yield


@pytest.fixture(scope="session")
def same_weights():
    """`same_weights(run_dir, other)`: both hold the same runs, with the same weights to the bit."""
    import numpy as np

    from epi2expr_jax import predict

    def weights_of(run_dir):
        ensemble = predict.load(run_dir)
        return {
            run.run_id: [np.asarray(leaf[i]) for leaf in jax.tree.leaves(member.weights)]
            for member in ensemble.members
            for i, run in enumerate(member.runs)
        }

    def compare(run_dir, other):
        found, expected = weights_of(run_dir), weights_of(other)
        assert found.keys() == expected.keys()
        for run_id, leaves in expected.items():
            for a, b in zip(found[run_id], leaves, strict=True):
                np.testing.assert_array_equal(a, b)

    return compare


@pytest.fixture(scope="session")
def roadmap(once) -> pathlib.Path:
    """A small simulated Roadmap: 2 cells x 3 assays, 220 genes on 22 chromosomes."""
    from data_prep.simulate import simulate

    return once("roadmap", lambda folder: simulate(folder, genes=220, cells=2, assays=3))


@pytest.fixture
def worker_here(monkeypatch):
    """Stores are built in this process: to start workers takes longer than their work."""
    from data_prep.work import cluster

    monkeypatch.setattr(cluster, "local", one_worker)


@pytest.fixture(scope="session")
def build():
    """`build(config)`: a store for tests of what is done with one, built in this process."""
    from data_prep import build_store
    from data_prep.work import cluster

    def build(config):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(cluster, "local", one_worker)
            return build_store.build(config)

    return build


@pytest.fixture(scope="session")
def build_config(roadmap):
    """`build_config(store, **changes)`: how to build a store of the small Roadmap."""
    from data_prep.checks.build_inputs import BuildConfig

    def config(store, **changes):
        fields = {
            "tracks": str(roadmap / "tracks.csv"),
            "expression": str(roadmap / "RPKM.pc.gz"),
            "genes": str(roadmap / "genes.gtf.gz"),
            "assembly": str(roadmap / "genome.chrom.sizes"),
            "store": str(store),
            "window_bp": 6000,
            "bin_bp": 50,
        }
        return BuildConfig(**{**fields, **changes})

    return config


@pytest.fixture(scope="session")
def distal_store(build, build_config, roadmap, once):
    """A store of 40 kb windows and the regions that its genes touch."""
    from epi2expr_jax.store.window_store import WindowStore

    wide = {"window_bp": 40_000, "bin_bp": 100, "interactions": str(roadmap / "contacts.bedpe")}
    return WindowStore.open(once("distal.zarr", lambda store: build(build_config(store, **wide))))


@pytest.fixture(scope="session")
def small_store(build, build_config, once):
    """Its window store."""
    from epi2expr_jax.store.window_store import WindowStore

    return WindowStore.open(once("small.zarr", lambda store: build(build_config(store))))


@pytest.fixture(scope="session")
def request_for():
    """`request_for(store, assays=..., ...)`: two epochs of a tiny model.

    Whoever asks for the same model and settings meets a program that is compiled already.
    """
    from epi2expr_jax.study.request import TrainRequest
    from epi2expr_jax.training.one_run import TrainConfig

    def request(store, **changes):
        fields = {
            "model": "promoter_cnn",
            "model_options": {"width": 0.02},
            "cv": "chromosomes_3",
            "train_config": TrainConfig(epochs=2, batch_size=32),
        }
        return TrainRequest(**{**fields, "store": str(store.path), **changes})

    return request


@pytest.fixture(scope="session")
def finished(small_store, request_for, once, verified_runs):
    """A run of single assays and one set of all, trained and evaluated."""
    from epi2expr_jax.study import evaluate, train

    def make(run_dir):
        train(request_for(small_store, assays=["each", "all"]), run_dir)
        evaluate(run_dir)

    return once("finished", make)
