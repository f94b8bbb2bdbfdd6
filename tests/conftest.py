"""Strict settings for all tests: types of arrays checked at run time, rank promotion refused."""

import functools
import importlib.util
import os
import pathlib
import tempfile

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
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.2"

import jax
import jaxtyping
import pytest

if importlib.util.find_spec("beartype"):  # bare accelerator machines do without
    jaxtyping.install_import_hook("epi2expr_jax", "beartype.beartype")

jax.config.update("jax_numpy_rank_promotion", "raise")

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """Excerpts of real Roadmap data, where this checkout has them beside it."""
    folder = REPOSITORY.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real Roadmap excerpts at ../shared/data of {REPOSITORY.name}")
    return folder


@pytest.fixture(scope="session")
def trial_size():
    """`trial_size(small, full)`: how much of a trial to run; all of it under `make trials`."""
    full = os.environ.get("EPI2EXPR_TRIALS") == "full"
    return lambda small, large: large if full else small


@pytest.fixture(scope="module")
def quick_compile(trial_size):
    """Programs of a module compiled with few optimisations; under `make trials` with all.

    For modules that compile longer than they run and compare within tolerances, or what one program
    gives with itself.
    """
    jax.config.update("jax_disable_most_optimizations", trial_size(True, False))
    yield
    jax.config.update("jax_disable_most_optimizations", False)
    jax.clear_caches()  # no other module shall meet these programs


@pytest.fixture
def x64():
    """Double precision within one test."""
    with jax.enable_x64(True):
        yield


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
def roadmap(tmp_path_factory) -> pathlib.Path:
    """A small simulated Roadmap: 2 cells x 3 assays, 220 genes on 22 chromosomes."""
    from data_prep.simulate import simulate

    return simulate(tmp_path_factory.mktemp("roadmap") / "data", genes=220, cells=2, assays=3)


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
def distal_store(build_config, roadmap, tmp_path_factory):
    """A store of 40 kb windows and the regions that its genes touch."""
    from data_prep.build_store import build

    store = tmp_path_factory.mktemp("store") / "distal.zarr"
    contacts = str(roadmap / "contacts.bedpe")
    return build(build_config(store, window_bp=40_000, bin_bp=100, interactions=contacts))


@pytest.fixture(scope="session")
def small_store(build_config, tmp_path_factory):
    """Its window store."""
    from data_prep.build_store import build

    return build(build_config(tmp_path_factory.mktemp("store") / "small.zarr"))
