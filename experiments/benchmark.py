"""Speed compared with other programs, as ratios measured in one run. One JSON line.

    python -m experiments.benchmark --what=windows
    python -m experiments.benchmark --what=binning
    python -m experiments.benchmark --what=roadmap
    python -m experiments.benchmark --what=store
    python -m experiments.benchmark --what=cnn
    python -m experiments.benchmark --what=chromoformer
    python -m experiments.benchmark --what=scaling
    python -m experiments.benchmark --what=grid --precision=bfloat16
    python -m experiments.benchmark --what=perturb --store=demo.zarr
    python -m experiments.benchmark --what=device --seconds=470
    python -m experiments.benchmark --what=compiled --target=h100 --model=cnn --lanes=8
    python -m experiments.benchmark --what=host --runs=660

windows: windows/s and Mb/s of one core, 10 kb windows in bins of 25 bp: our bigWig reader against
    the original's route (pyBigWig, Python lists), pyBigWig's stats(exact=True) and pybigtools; and
    ours against the size of the track, the width of the window, the number of workers: a table and
    a plot in ./throughput.
binning: Mb/s of one core from a bigWig to one of 25 bp, against the same three.
roadmap: what made-up tracks of full size cost to build, bin and count, and so all of the Roadmap's:
    hours, disk, memory. One round; takes some 6 GB of disk and 6 minutes.
store: what checksums cost when signal is read, whole and in parts: MB/s of a store with them and
    of one without.
cnn: training gene-steps/s of a population of the full CNN against one Keras 3 model after the
    other on JAX, batch 128, dropout included, and the share of this machine's own rate of float32
    matrix products at 177.5 MFLOP a gene-step; and both once more with equal allocators (huge
    pages), which Keras gains more from.
chromoformer: training and inference genes/s and peak memory against chromoformer 1.1.3 on PyTorch:
    the same weights and inputs, batch 64 (and the reference also at 16, its best), contacts drawn
    as in its demo, and the share of the rate of matrix products at 196 MFLOP a gene trained.

scaling: seconds a run and epoch of the CNN against the number of runs, of genes, and the share of
    runs that still live; a table and a plot in ./scaling.
perturb: gene-edits/s of the original study's distal preset (17 bins x 11 factors, four models)
    against its PyTorch network on one gene and edit at a time.
grid: what 660 CNNs and 308 Chromoformers cost on this device, and the estimate for one H100.
device: one shot at an accelerator, a line of JSON for every figure, in --out as well: its own rates
    of matrix products and copies, training of each model by lanes and precision, results against
    those of the CPU, the peers, what the host costs, inference, some tests. --small tries it out.
compiled: a training step of --model, --lanes models side by side, compiled for --target, which
    need not be there: kernels, bytes, products, memory, and an estimate of the pace. It needs an
    environment with jax[cuda13] (some 7 GB) or libtpu: docs/accelerators.md.
host: --runs trainings, for --epochs on --genes genes, of models so small that the host decides: its
    share of the time, memory, bytes kept, seconds until training begins.

Where there are two sides they take turns (ABAB), and the median ratio counts: absolute figures
drift with the machine. Rounds during which other processes ran are dropped and measured again.
Needs a checkout of the repository (an installed package holds no benchmarks) and, for the peers,
the extra `peers`:  pip install -e '.[peers]'
"""

import importlib
import json
import os
import platform
from collections.abc import Callable

from absl import flags

from epi2expr_jax.errors import InputError
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.program import start
from epi2expr_jax.training.one_run import PRECISIONS
from experiments.cli.flags import define_store

FLAGS = flags.FLAGS

# --what: the file of `benchmarks` that measures it, and its function.
BENCHMARKS = {
    "windows": ("bigwig", "windows"),
    "binning": ("bigwig", "binning"),
    "roadmap": ("roadmap", "roadmap"),
    "store": ("roadmap", "store"),
    "cnn": ("cnn", "cnn"),
    "chromoformer": ("chromoformer", "chromoformer"),
    "scaling": ("scaling", "scaling"),
    "grid": ("scaling", "whole_study"),
    "perturb": ("perturb", "perturbation"),
    "device": ("accelerators.device", "device"),
    "compiled": ("accelerators.compiled", "compiled"),
    "host": ("host", "host"),
}


def benchmark(what: str) -> Callable[[int], dict]:
    """The function that measures `what`, given how many rounds.

    Raises:
        InputError: outside a checkout.
    """
    file, name = BENCHMARKS[what]
    try:
        return getattr(importlib.import_module(f"experiments.benchmarks.{file}"), name)
    except ModuleNotFoundError as error:
        if error.name != "experiments.benchmarks":
            raise
        raise InputError(
            "experiments.benchmark",
            "an installed package, which holds no benchmarks",
            "a checkout of the repository",
            "clone it, and run python -m experiments.benchmark in its root",
        ) from None


def define_flags() -> None:
    flags.DEFINE_enum("what", None, list(BENCHMARKS), "What to measure.", required=True)
    define_store()
    flags.DEFINE_integer("rounds", 5, "Rounds; the median counts.", lower_bound=1)
    flags.DEFINE_enum("precision", "float32", list(PRECISIONS), "grid, compiled: of products.")
    flags.DEFINE_enum("model", "cnn", list(REGISTRY), "compiled: which model.")
    flags.DEFINE_integer("lanes", 8, "compiled: models side by side.", lower_bound=1)
    targets = ["h100", "v5e", "v5p", "v6e", "cpu"]
    flags.DEFINE_enum("target", "h100", targets, "compiled: for which device.")
    flags.DEFINE_integer("runs", 660, "host: models to train.", lower_bound=1)
    flags.DEFINE_integer("genes", 220, "host: genes, of ten chromosomes.", lower_bound=50)
    flags.DEFINE_integer("epochs", 4, "host: of each model.", lower_bound=1)
    flags.DEFINE_float("seconds", 470, "device: seconds in all.", lower_bound=10)
    flags.DEFINE_integer(
        "ahead",
        (os.cpu_count() or 1) // 4,
        "device: processes that compile programs before the stages begin; 0: none.",
        lower_bound=0,
    )
    flags.DEFINE_list("stages", [], "device: which stages, in turn; default: all.")
    flags.DEFINE_boolean("small", False, "device: small models, few steps; to try it on a CPU.")
    flags.DEFINE_string("out", os.environ.get("OUT", "device"), "device: folder of results.jsonl.")


def main() -> None:
    result = benchmark(FLAGS.what)(FLAGS.rounds)
    print(json.dumps({**result, "machine": platform.processor() or platform.machine()}))


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
