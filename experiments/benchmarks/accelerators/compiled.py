"""What the epoch's program is once compiled for a device that need not be there.

`--what=compiled` of `experiments.benchmark`. XLA compiles for an H100 from a description of it
(`h100.txtpb`), for TPUs from their topology. A process of its own compiles, and is ended as soon as
the optimised program is known: to make the code of an H100 takes minutes more and tells nothing.
"""

import dataclasses
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

import jax
import numpy as np
from absl import flags
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import scratch
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.training.lanes import Lanes, epoch, packed_shapes
from epi2expr_jax.training.one_run import Trainer
from epi2expr_jax.training.runs import RunInputs
from experiments.benchmarks.accelerators.hlo import Program
from experiments.benchmarks.made_up import (
    ASSAYS,
    OneCell,
    OneTrack,
    region_trainer,
    window_trainer,
)
from experiments.benchmarks.scaling import GENE_STEPS

FLAGS = flags.FLAGS
GENES, TRAIN = 18_900, 14_200
_BATCH = {"cnn": 128, "promoter_cnn": 64, "chromoformer": 64}
_TEXT, _MEMORY = "program.txt", "temporaries"


@dataclasses.dataclass(frozen=True)
class Target:
    """A device, and the rates with which its time is estimated.

    Attributes:
        topology: as XLA names it.
        bytes_per_s, flop_per_s: of kernels as they are, the second by precision: not of data
            sheets, of which `assumes` says the share.
        launch_s: the least that a kernel takes.
        needs: what pip installs for it.
    """

    platform: str
    topology: str = ""
    bytes_per_s: float = 0.0
    flop_per_s: dict[str, float] = dataclasses.field(default_factory=dict)
    launch_s: float = 0.0
    assumes: str = ""
    needs: str = "jax"


def _tpu(topology: str, gb_per_s: float, tflop_per_s: float) -> Target:
    """A TPU with half of its data sheet's products and three quarters of its bandwidth."""
    bfloat16 = 0.5e12 * tflop_per_s  # "highest" is six such products, "tensorfloat32" three
    rates = {"bfloat16": bfloat16, "tf32": bfloat16 / 3, "float32": bfloat16 / 6}
    assumes = "0.75 of the bandwidth and 0.5 of the products of the data sheet, 1 us a kernel"
    return Target("tpu", topology, 0.75e9 * gb_per_s, rates, 1e-6, assumes, "jax libtpu")


TARGETS = {
    "h100": Target(
        "cuda", "1x1x1", 2.4e12, {"bfloat16": 400e12, "tf32": 200e12, "float32": 45e12}, 1.8e-6,
        "2.4 TB/s; 400, 200, 45 TFLOP/s in bfloat16, tf32, float32; 1.8 us a kernel", "jax[cuda13]",
    ),
    "v5e": _tpu("v5e:2x2", 819, 197),
    "v5p": _tpu("v5p:2x2x1", 2765, 459),
    "v6e": _tpu("v6e:2x2", 1640, 918),
    "cpu": Target("cpu"),
}  # fmt: skip


def compiled(_: int) -> dict:
    """Kernels, bytes and products of a training step for `--target`, and the time they take."""
    return figures(FLAGS.target, FLAGS.model, FLAGS.lanes, FLAGS.precision)


def figures(
    name: str, model: str, lanes: int, precision: str, genes: int = GENES, train: int = TRAIN
) -> dict[str, Any]:
    """The figures of one program.

    Args:
        name: of `TARGETS`.
        lanes: models side by side, `L`.
        genes: of the made-up cell, of which the first `train` train.

    Raises:
        InputError: if XLA cannot compile for the target here.
    """
    target = TARGETS[name]
    with scratch("epi2expr-compiled-") as folder:
        seconds = _start(pathlib.Path(folder), name, (model, lanes, precision, genes, train))
        text = pathlib.Path(folder, _TEXT).read_text()
        temporaries = float(pathlib.Path(folder, _MEMORY).read_text())
    step = Program(text).loops()[0]
    in_step = lanes * _BATCH[model]
    found = {
        "what": "compiled",
        "target": name,
        "model": model,
        "lanes": lanes,
        "precision": precision,
        "batch": _BATCH[model],
        "kernels_a_step": step.count,
        "mb_a_gene": round(step.bytes / in_step / 1e6, 2),
        "mflop_a_gene": round(step.flop / in_step / 1e6, 1),
        "temporaries_mb_a_lane": round(temporaries / lanes / 1e6, 1),
        "compile_s": round(seconds, 1),
        "jax": jax.__version__,
    }
    if not target.flop_per_s:
        return found
    rates = target.bytes_per_s, target.flop_per_s[precision], target.launch_s
    pace = in_step / step.seconds(*rates)
    found["gene_steps_per_s"] = round(pace)
    if model in GENE_STEPS:
        found["study_minutes"] = round(GENE_STEPS[model] / pace / 60, 1)
    return found | {
        "assumes": f"each kernel the longest of bytes, products, launch; {target.assumes}"
    }


def _start(folder: pathlib.Path, name: str, program: tuple) -> float:
    """Compile in a process of its own, which writes into the folder; the seconds it took."""
    target = TARGETS[name]
    environment = dict(os.environ, JAX_SKIP_CUDA_CONSTRAINTS_CHECK="1")
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    if target.platform == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    else:  # the device is not there; arrays that are made on the way are the host's
        environment.pop("JAX_PLATFORMS", None)
    dump = folder / "dump"
    if target.platform == "cuda":
        wanted = f"--xla_dump_to={dump} --xla_dump_hlo_as_text --xla_dump_hlo_module_re=jit_epoch"
        environment["XLA_FLAGS"] = f"{environment.get('XLA_FLAGS', '')} {wanted}"
    here = "experiments.benchmarks.accelerators.compiled"
    call = f"from {here} import write; write({str(folder)!r}, {name!r}, {program!r})"
    begin = time.perf_counter()
    with open(folder / "said", "w+") as said:
        process = subprocess.Popen([sys.executable, "-c", call], env=environment, stderr=said)
        while process.poll() is None and not _dumped(dump, folder):
            time.sleep(0.2)
        process.kill()
        process.wait()
        said.seek(0)
        lines = said.read().strip().splitlines()
    if not (folder / _MEMORY).exists():
        where = f"--target={name}"
        found = f"no compiled program ({lines[-1][:300] if lines else 'it was ended'})"
        expected = f"an environment that compiles for it: pip install {target.needs}"
        raise InputError(where, found, expected, "see docs/accelerators.md")
    return time.perf_counter() - begin


def _dumped(dump: pathlib.Path, folder: pathlib.Path) -> bool:
    """Whether XLA has written the optimised program, and its memory, which are then kept."""
    texts = sorted(dump.glob("*jit_epoch*after_optimizations.txt"))
    memory = sorted(dump.glob("*jit_epoch*buffer-assignment.txt"))
    if not texts or not memory:
        return False
    sizes = -1
    while sizes != (sizes := sum(path.stat().st_size for path in (texts[-1], memory[-1]))):
        time.sleep(1)
    allocations = re.findall(r"size (\d+),.* preallocated-temp", memory[-1].read_text())
    (folder / _TEXT).write_text(texts[-1].read_text())
    (folder / _MEMORY).write_text(str(sum(map(int, allocations))))
    return True


def write(folder: str, name: str, program: tuple) -> None:
    """Compile here, and write the optimised program and the bytes of its temporaries."""
    ready = _lowered(TARGETS[name], *program).compile()
    pathlib.Path(folder, _TEXT).write_text(ready.as_text() or "")
    analysis = ready.memory_analysis()
    assert analysis is not None
    pathlib.Path(folder, _MEMORY).write_text(str(analysis.temp_size_in_bytes))


def _lowered(target: Target, model: str, lanes: int, precision: str, genes: int, train: int) -> Any:
    """The epoch of published models, of shapes alone."""
    where = Lanes(lanes, (_device(target),))
    sharding = NamedSharding(where.mesh, PartitionSpec("run"))

    def shaped(count: int, x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((count, *x.shape), x.dtype, sharding=sharding)

    trainer, data = _trainer(model, precision, genes, train)
    one = tuple(data.track("cell", assay) for assay in data.assays), data.regions("cell")
    tracks = tuple(jax.tree.map(lambda x: shaped(1, x), one) for _ in range(lanes))
    state = packed_shapes(trainer, where)
    key = np.zeros(2, np.uint32)
    chosen = np.zeros(genes, bool)
    inputs = RunInputs(np.zeros(genes, np.float32), chosen, chosen, key, key)
    inputs = jax.tree.map(lambda x: shaped(lanes, x), inputs)
    return epoch.lower(trainer, where, state, inputs, tracks)


def _trainer(model: str, precision: str, genes: int, train: int) -> tuple[Trainer, Any]:
    batch = _BATCH[model]
    if model == "chromoformer":
        data = OneCell(genes)
        config = REGISTRY[model](assays=ASSAYS)
        return region_trainer(config, data, train, batch, precision), data
    config = REGISTRY[model](assays=1)
    trainer = window_trainer(config, batch, precision, (train, genes - train))
    return trainer, OneTrack(genes, config.window.bins)


def _device(target: Target) -> Any:
    if target.platform == "cpu":
        return jax.devices("cpu")[0]
    more = {}
    if target.platform == "cuda":
        more["target_config"] = pathlib.Path(__file__).with_name("h100.txtpb").read_text()
        more["topology"] = target.topology
    else:
        more["topology_name"] = target.topology
    return topologies.get_topology_desc(platform=target.platform, **more).devices[0]
