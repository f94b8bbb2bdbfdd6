"""The figures of `--what=device`: for each stage, what it measures, the most telling first."""

import datetime
import functools
import importlib
import importlib.metadata
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from epi2expr_jax.models import ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import to_torch
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.predict.inference import predict_runs
from epi2expr_jax.training.one_run import PRECISIONS
from epi2expr_jax.training.pieces import Pieces
from experiments.benchmarks import chromoformer, cnn
from experiments.benchmarks.accelerators.training import (
    BATCH,
    FEW,
    NARROW,
    STEPS,
    Task,
    kernels,
    parity,
    runs_of,
    training,
)
from experiments.benchmarks.host import trainings
from experiments.benchmarks.made_up import ASSAYS, OneCell
from experiments.benchmarks.turns import paces, seconds

ROOT = pathlib.Path(__file__).resolve().parents[3]

# A sixteenth of the study of 660 CNNs that docs/accelerators.md speaks of.
_SIXTEENTH = {"runs": 40, "genes": 19_000, "epochs": 40}


# -- the machine -----------------------------------------------------------------------------


def _machine(small: bool) -> Iterator[Task]:
    yield Task({}, _versions)
    for precision in PRECISIONS:
        size = 512 if small else 8192
        yield Task({"matmul": precision}, functools.partial(_matmul, precision, size))
    yield Task({"copy": "float32"}, functools.partial(_copy, 1 << (20 if small else 29)))
    yield Task({}, _imports)


def _versions() -> dict[str, Any]:
    here = jax.local_devices()[0]
    libraries = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy", "torch", "keras")
    return {
        "device": here.device_kind,
        "platform": here.platform,
        "devices": jax.local_device_count(),
        "cores": os.cpu_count(),
        "python": sys.version.split()[0],
        "versions": {name: _version(name) for name in libraries},
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _imports() -> dict[str, Any]:
    """Which modules of the library and of the programs do not import here."""
    folders = ("epi2expr_jax", "experiments")
    files = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    failed = {}
    for path in files:
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        try:
            importlib.import_module(name)
        except Exception as error:
            failed[name] = repr(error)[:120]
    return {"imported": len(files) - len(failed), "failed": failed}


def _matmul(precision: str, size: int) -> dict[str, Any]:
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    with jax.default_matmul_precision(PRECISIONS[precision]):
        multiply = jax.jit(lambda a: a @ a).lower(matrix).compile()
    found = paces(lambda: jax.block_until_ready([multiply(matrix) for _ in range(8)]), 8)
    return {"size": size, "tflops": round(found.pop("per_s") * 2 * size**3 / 1e12, 2), **found}


def _copy(numbers: int) -> dict[str, Any]:
    source = jnp.zeros(numbers, jnp.float32)
    add = jax.jit(lambda x: x + 1)
    found = paces(lambda: jax.block_until_ready([add(source) for _ in range(4)]), 4)
    moved = 2 * source.nbytes  # read and written
    return {"tb_per_s": round(found.pop("per_s") * moved / 1e12, 3), **found}


# -- training: at which lanes and precisions ---------------------------------------------------


def _cnn(small: bool) -> Iterator[Task]:
    at_eight = tuple((8, precision) for precision in ("bfloat16", "tf32", "float32"))
    wider = ((16, "bfloat16"), (32, "bfloat16"), (1, "bfloat16"))
    return training("cnn", (*at_eight, *wider), small)


def _chromoformer(small: bool) -> Iterator[Task]:
    settings = ((16, "bfloat16"), (32, "bfloat16"), (8, "bfloat16"), (16, "tf32"), (1, "bfloat16"))
    return training("chromoformer", settings, small)


def _promoter_cnn(small: bool) -> Iterator[Task]:
    settings = ((8, "bfloat16"), (16, "bfloat16"), (8, "tf32"), (32, "bfloat16"))
    return training("promoter_cnn", settings, small)


# -- peers -----------------------------------------------------------------------------------


def _peers(small: bool) -> Iterator[Task]:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # PyTorch needs memory too
    batch, steps = FEW if small else (BATCH["cnn"], STEPS["cnn"])
    config = CnnConfig(width=NARROW if small else 1.0)
    for name, epoch in (("PyTorch", cnn.torch_epoch), ("Flax", cnn.flax_epoch)):
        for precision in ("float32",) if small else PRECISIONS:
            yield Task(
                {"peer": f"one CNN at a time, {name}", "precision": precision},
                functools.partial(_one_cnn, epoch, config, precision, batch, steps),
            )
    for size in (FEW[0],) if small else (64, 256):
        for tf32 in (True, False):
            yield Task(
                {"peer": "chromoformer 1.1.3", "batch": size, "tf32": tf32},
                functools.partial(_original, size, tf32),
            )
    for policy in () if small else ("mixed_bfloat16", "float32"):  # of full width alone
        yield Task(
            {"peer": "one CNN at a time, Keras", "policy": policy},
            functools.partial(_keras, policy),
        )


def _one_cnn(
    make: Callable[..., Callable[[], object]],
    config: CnnConfig,
    precision: str,
    batch: int,
    steps: int,
) -> dict[str, Any]:
    random = np.random.default_rng(0)
    windows = random.standard_normal((batch * steps, config.window.bins, 1), np.float32)
    target = random.standard_normal(len(windows), np.float32)
    found = paces(make(config, precision, batch, windows, target), len(target))
    return {"gene_steps_per_s": found.pop("per_s"), **found}


def _keras(policy: str) -> dict[str, Any]:
    import keras  # pyright: ignore[reportMissingImports]

    keras.config.set_dtype_policy(policy)
    found = paces(cnn.keras_epochs(), cnn.GENE_STEPS)
    return {"gene_steps_per_s": found.pop("per_s"), "keras": keras.__version__, **found}


def _original(size: int, tf32: bool) -> dict[str, Any]:
    """The published Chromoformer's training and inference, on one batch."""
    config = ChromoformerConfig(assays=ASSAYS)
    _, params = nnx.split(config.build(rngs=nnx.Rngs(0)), nnx.Param)
    with chromoformer.on_its_device() as where:
        import torch  # pyright: ignore[reportMissingImports]

        torch.backends.cuda.matmul.allow_tf32 = tf32
        original = chromoformer.Original(to_torch(config, params), where)
        inputs = chromoformer.torch_inputs(chromoformer.batch_of(OneCell(size), size), where)
        trained = paces(functools.partial(original.train, inputs), size)
        inferred = paces(functools.partial(original.infer, inputs), size)
    rate = trained.pop("per_s")
    return {"gene_steps_per_s": rate, "inferred_genes_per_s": inferred["per_s"], **trained}


# -- a study, the host, inference and the tests ----------------------------------------------


def _study(small: bool) -> Iterator[Task]:
    """A sixteenth of a study of 660 CNNs, the whole way from its store to saved weights."""
    sizes = {"runs": 5, "genes": 80, "epochs": 2} if small else _SIXTEENTH
    options = {"width": NARROW} if small else {}
    of = {"model": "cnn", "precision": "bfloat16"}
    yield Task(
        of, functools.partial(trainings, **sizes, **of, options=options, window=(400, 25), rounds=5)
    )


def _host(small: bool) -> Iterator[Task]:
    for model in ("cnn", "chromoformer"):
        given = model, 2 if small else 8, small
        yield Task({"model": model}, functools.partial(_host_costs, *given))


def _host_costs(model: str, runs: int, small: bool) -> dict[str, Any]:
    """Seconds that runs cost apart from training: weights drawn, chunks filled, states written."""
    trained, _ = runs_of(model, runs, "bfloat16", small, (8, 2))
    keys = trained.inputs.model_key
    state = trained.trainer.init(keys)
    draw = seconds(lambda: trained.trainer.init(keys)) / runs
    fill = seconds(trained._fill)
    gb = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / 1e9
    snapshot = seconds(lambda: list(trained.states(range(runs))))
    ((members, states),) = trained.states(range(runs))
    part = "state", [{"run_id": str(member)} for member in members], states
    with tempfile.TemporaryDirectory() as folder:
        pieces = Pieces(pathlib.Path(folder))
        blocked = seconds(lambda: pieces.save(part))
        saved = blocked + seconds(pieces.close)
    return {
        "state_mb_a_run": round(1e3 * gb / runs, 1),
        "draw_s_a_run": round(draw, 3),
        "fill_s_a_chunk": round(fill, 3),
        "snapshot_s_a_gb": round(snapshot / gb, 2),
        "save_blocks_s_a_gb": round(blocked / gb, 2),
        "save_s_a_gb": round(saved / gb, 2),
    }


def _inference(small: bool) -> Iterator[Task]:
    for model in ("cnn", "chromoformer"):
        given = model, 2 if small else 8, small
        yield Task({"model": model}, functools.partial(_predicted, *given))


def _predicted(model: str, runs: int, small: bool) -> dict[str, Any]:
    """Genes that the models of several runs predict a second, all runs counted."""
    trained, _ = runs_of(model, runs, "float32", small)
    states = [trained.trainer.init(key) for key in trained.inputs.model_key]
    weights = jax.tree.map(
        lambda *leaves: np.stack(leaves), *({"params": s.params, "stats": s.stats} for s in states)
    )
    wanted = np.ones(trained.inputs.target.shape, bool)
    config = trained.trainer.model_config
    found = paces(
        lambda: predict_runs(config, weights, trained.runs, trained.cache, wanted), wanted.size
    )
    return {"runs": runs, "genes_per_s": found.pop("per_s"), **found}


_TESTS = (
    "models/test_layers.py",
    "models/test_weights.py",
    "training/test_targets.py",
    "inputs/test_batch_plan.py",
    "inputs/test_device_tracks.py",
)


def _tests(small: bool) -> Iterator[Task]:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the tests have a process of their own
    for name in _TESTS[:2] if small else _TESTS:
        yield Task({"test": name}, functools.partial(_test, name))


def _test(name: str) -> dict[str, Any]:
    """A test file on this device, its products in float32: the tests compare to that."""
    platform = {"gpu": "cuda,cpu"}.get(jax.default_backend(), jax.default_backend())
    own = {"JAX_PLATFORMS": platform, "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    command = ["-m", "pytest", "-q", "--maxfail=5", "-p", "no:cacheprovider"]
    command += ["-o", "filterwarnings=default"]
    done = subprocess.run(
        [sys.executable, *command, str(ROOT / "tests" / "epi2expr_jax" / name)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, **own},
    )
    return {"status": done.returncode, "last": done.stdout[-300 if done.returncode else -80 :]}


# Stages in turn: the share of the time, of 470 seconds, and the figures.
STAGES: dict[str, tuple[float, Callable[[bool], Iterator[Task]]]] = {
    "machine": (25, _machine),
    "cnn": (70, _cnn),
    "chromoformer": (100, _chromoformer),
    "promoter_cnn": (40, _promoter_cnn),
    "study": (60, _study),
    "kernels": (40, kernels),
    "parity": (45, parity),
    "peers": (45, _peers),
    "host": (15, _host),
    "inference": (15, _inference),
    "tests": (15, _tests),
}
