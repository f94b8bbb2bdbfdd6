"""The figures of `--what=device`: for each stage, what it measures, the most telling first."""

import dataclasses
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

from epi2expr_jax.inputs.device_tracks import signal_of
from epi2expr_jax.inputs.track_cache import TrackCache
from epi2expr_jax.models import REGISTRY, ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import to_torch
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.predict.inference import predict_runs
from epi2expr_jax.training.lanes import Lanes
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.one_run import PRECISIONS
from epi2expr_jax.training.pieces import Pieces
from experiments.benchmarks import chromoformer, cnn
from experiments.benchmarks.made_up import (
    ASSAYS,
    OneCell,
    OneTrack,
    population,
    region_trainer,
    window_trainer,
)
from experiments.benchmarks.scaling import GENE_STEPS, MFLOP
from experiments.benchmarks.turns import paces, seconds

ROOT = pathlib.Path(__file__).resolve().parents[3]

# A figure: what it is of, and the function that measures it.
Task = tuple[dict[str, Any], Callable[[], dict[str, Any]]]

_BATCH = {"cnn": 128, "promoter_cnn": 64, "chromoformer": 64}
_STEPS = {"cnn": 64, "promoter_cnn": 64, "chromoformer": 48}  # an epoch
_NARROW = 0.05  # width of the models under --small
_FEW = 8, 3  # genes a batch and batches an epoch under --small


# -- the machine -----------------------------------------------------------------------------


def _machine(small: bool) -> Iterator[Task]:
    yield {}, _versions
    yield {}, _imports
    for precision in PRECISIONS:
        yield {"matmul": precision}, functools.partial(_matmul, precision, 512 if small else 8192)
    yield {"copy": "float32"}, functools.partial(_copy, 1 << (20 if small else 29))


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


# -- training --------------------------------------------------------------------------------


def _training(model: str, settings: tuple[tuple[int, str], ...], small: bool) -> Iterator[Task]:
    """Training of a model at lanes and precisions, the most telling first; two lanes if small."""
    for lanes, precision in settings[:1] if small else settings:
        width = 2 if small else lanes
        of = {"model": model, "lanes": width, "precision": precision}
        yield of, functools.partial(_pace, model, width, precision, small)


def _runs(
    model: str, runs: int, precision: str, small: bool, sizes: tuple[int, int] | None = None
) -> tuple[Population, int]:
    """A population of `runs` in as many lanes, and the genes that one of its runs trains on.

    Args:
        sizes: genes a batch, and batches an epoch; one more validates.
    """
    batch, steps = sizes or (_FEW if small else (_BATCH[model], _STEPS[model]))
    genes, train = batch * (steps + 1), batch * steps
    width = _NARROW if small else 1.0
    lanes = Lanes(runs, (jax.local_devices()[0],))
    if model == "chromoformer":
        data, config = OneCell(genes), ChromoformerConfig(assays=ASSAYS, width=width)
        if small:
            config = dataclasses.replace(config, pairwise_layers=1, regulation_layers=1)
        trainer = region_trainer(config, data, train, batch, precision)
    else:
        config = REGISTRY[model](width=width)
        data = OneTrack(genes, config.window.bins)
        trainer = window_trainer(config, batch, precision)
    return population(trainer, TrackCache(data), genes, train, runs, lanes), train


def _pace(model: str, runs: int, precision: str, small: bool) -> dict[str, Any]:
    """Gene-steps a second of a full chunk, and what the whole study would take at that."""
    trained, genes = _runs(model, runs, precision, small)
    compile_s = seconds(trained.compile)
    # To validate a gene costs a third of a gene-step.
    steps = runs * (genes + (len(trained.inputs.target[0]) - genes) / 3)
    found = paces(trained.train_epoch, steps)
    rate = found.pop("per_s")
    found = {
        "gene_steps_per_s": rate,
        "compile_s": round(compile_s, 1),
        **found,
        "losses": [round(loss, 4) for loss in trained.logs[0].train_loss],
    }
    if model in GENE_STEPS and not small:
        found["study_minutes"] = round(GENE_STEPS[model] / rate / 60, 1)
        found["tflops"] = round(rate * MFLOP[model] / 1e6, 2)
    memory = jax.local_devices()[0].memory_stats() or {}
    if "peak_bytes_in_use" in memory:  # of the stage so far
        found["peak_gb"] = round(memory["peak_bytes_in_use"] / 1e9, 2)
    return found


def _cnn(small: bool) -> Iterator[Task]:
    at_eight = tuple((8, precision) for precision in ("bfloat16", "float32", "tf32"))
    wider = ((32, "bfloat16"), (16, "bfloat16"), (1, "bfloat16"), (32, "tf32"), (1, "float32"))
    return _training("cnn", (*at_eight, *wider), small)


def _chromoformer(small: bool) -> Iterator[Task]:
    settings = ((8, "bfloat16"), (16, "bfloat16"), (32, "bfloat16"), (1, "bfloat16"))
    others = ((8, "float32"), (8, "tf32"))
    return _training("chromoformer", (*settings, *others), small)


def _promoter_cnn(small: bool) -> Iterator[Task]:
    return _training("promoter_cnn", ((8, "bfloat16"), (8, "float32"), (32, "bfloat16")), small)


# -- the same on the device and on the CPU ---------------------------------------------------


def _parity(small: bool) -> Iterator[Task]:
    for model in ("promoter_cnn",) if small else ("cnn", "chromoformer", "promoter_cnn"):
        reference: list[Any] = []
        yield (
            {"model": model, "on": "cpu", "precision": "float32"},
            functools.partial(_updated, model, "float32", small, reference, jax.devices("cpu")[0]),
        )
        here = jax.local_devices()[0]
        for precision in PRECISIONS:
            yield (
                {"model": model, "on": here.platform, "precision": precision},
                functools.partial(_updated, model, precision, small, reference, here),
            )


def _updated(
    model: str, precision: str, small: bool, reference: list[Any], where: Any
) -> dict[str, Any]:
    """Losses of two steps of one run, and how far its update is from that of the CPU.

    Args:
        reference: what the CPU found; filled by the first call.
    """
    trained, _ = _runs(model, 1, precision, small, (8, 2))
    trainer, run, data = trained.trainer, trained.runs[0], trained.cache.data
    state = trainer.init(trained.inputs.model_key[0])
    tracks = [data.track(*pair) for pair in run.tracks]
    inputs = jax.tree.map(lambda x: x[0], trained.inputs)
    given = jax.device_put((state, inputs, tracks, data.regions(run.cell)), where)
    epoch = jax.jit(lambda s, i, t, r: trainer.train_epoch(s, i, signal_of(t, r)))
    new, record = jax.device_get(epoch(*given))
    update = _flat(new.params) - _flat(state.params)
    found = {"train": float(record.train_loss), "validation": float(record.validation_loss)}
    if not reference:
        reference.append((update, found))
        return found
    theirs, losses = reference[0]
    return {
        **found,
        "update_difference": float(np.linalg.norm(update - theirs) / np.linalg.norm(theirs)),
        **{f"{name}_difference": abs(found[name] / losses[name] - 1) for name in found},
    }


def _flat(tree: Any) -> np.ndarray:
    return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(tree)])


# -- peers -----------------------------------------------------------------------------------


def _peers(small: bool) -> Iterator[Task]:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # PyTorch needs memory too
    batch, steps = _FEW if small else (_BATCH["cnn"], _STEPS["cnn"])
    config = CnnConfig(width=_NARROW if small else 1.0)
    for name, epoch in (("PyTorch", cnn.torch_epoch), ("Flax", cnn.flax_epoch)):
        for precision in ("float32",) if small else PRECISIONS:
            yield (
                {"peer": f"one CNN at a time, {name}", "precision": precision},
                functools.partial(_one_cnn, epoch, config, precision, batch, steps),
            )
    for size in (_FEW[0],) if small else (64, 256):
        for tf32 in (True, False):
            yield (
                {"peer": "chromoformer 1.1.3", "batch": size, "tf32": tf32},
                functools.partial(_original, size, tf32),
            )
    for policy in () if small else ("mixed_bfloat16", "float32"):  # of full width alone
        yield (
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


# -- the host, inference and the tests -------------------------------------------------------


def _host(small: bool) -> Iterator[Task]:
    for model in ("cnn", "chromoformer"):
        yield {"model": model}, functools.partial(_host_costs, model, 2 if small else 8, small)


def _host_costs(model: str, runs: int, small: bool) -> dict[str, Any]:
    """Seconds that runs cost apart from training: weights drawn, chunks filled, states written."""
    trained, _ = _runs(model, runs, "bfloat16", small, (8, 2))
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
        yield {"model": model}, functools.partial(_predicted, model, 2 if small else 8, small)


def _predicted(model: str, runs: int, small: bool) -> dict[str, Any]:
    """Genes that the models of several runs predict a second, all runs counted."""
    trained, _ = _runs(model, runs, "float32", small)
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
        yield {"test": name}, functools.partial(_test, name)


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


# Stages in turn: the share of the time, of 470 seconds, and the figures. On an H100 the CNN takes
# 22 s (bfloat16) or 50 s (float32) to compile, the Chromoformer 120 s.
STAGES: dict[str, tuple[float, Callable[[bool], Iterator[Task]]]] = {
    "machine": (40, _machine),
    "cnn": (90, _cnn),
    "chromoformer": (140, _chromoformer),
    "parity": (45, _parity),
    "peers": (45, _peers),
    "host": (25, _host),
    "promoter_cnn": (25, _promoter_cnn),
    "inference": (30, _inference),
    "tests": (30, _tests),
}
