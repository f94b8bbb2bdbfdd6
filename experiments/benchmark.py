"""Speed, side by side with the peers, in one run, as ratios. One JSON line.

    python -m experiments.benchmark --what=windows
    python -m experiments.benchmark --what=cnn

windows: windows/s of our bigWig reader against the original's route (pyBigWig, Python lists) and
    against pybigtools, on one core, 10 kb windows in bins of 25 bp.
cnn: training gene-steps/s of a population of the full CNN against one Keras 3 model after the
    other on JAX, batch 128, dropout included, and the share of this machine's own rate of float32
    matrix products at 177.5 MFLOP a gene-step.

Both sides take turns (ABAB), and the median ratio counts: absolute figures drift with the machine.
Needs the extra `peers`:  pip install 'epi2expr_jax[peers]'
"""

import importlib.util
import json
import pathlib
import platform
import statistics
import tempfile
import time
from collections.abc import Callable

import numpy as np
import pyBigWig
from absl import flags
from tqdm import tqdm

from data_prep.bigwig import window_means
from data_prep.program import start
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import WindowSpec

FLAGS = flags.FLAGS


def require_peers(*names: str) -> None:
    """Refuse to measure against what is not installed, naming it."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            Problem(
                "this Python environment",
                f"no {', '.join(missing)}",
                "the peers that are measured side by side",
                "pip install 'epi2expr_jax[peers]', or make benchmark",
            )
        )


def take_turns(
    sides: dict[str, Callable[[], float]], rounds: int
) -> tuple[dict[str, float], dict[str, float]]:
    """Measure every side once a round, in turns.

    Args:
        sides: name to a function that returns a rate; the first one is ours.

    Returns:
        The median rate of each side, and the median over rounds of ours / theirs.
    """
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in tqdm(range(rounds), desc="rounds", disable=None):
        for name, measure in sides.items():
            rates[name].append(measure())
    ours = next(iter(sides))
    ratios = {
        name: statistics.median(a / b for a, b in zip(rates[ours], rates[name], strict=True))
        for name in sides
        if name != ours
    }
    return {name: statistics.median(values) for name, values in rates.items()}, ratios


# -- windows ---------------------------------------------------------------------------------

_CHROMOSOMES = {"chr1": 60_000_000, "chr2": 40_000_000}
_WINDOW = WindowSpec(10_000, 25)


def _write_track(path: pathlib.Path, random: np.random.Generator) -> None:
    """Run-length signal like a Roadmap p-value track: short runs in peaks, long ones between."""
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(_CHROMOSOMES.items()))
        for chrom, length in _CHROMOSOMES.items():
            lengths = np.where(
                random.random(length // 50) < 0.7,
                random.integers(1, 30, length // 50),
                random.integers(30, 300, length // 50),
            )
            ends = np.cumsum(lengths)
            ends = ends[ends < length]
            starts = np.concatenate([[0], ends[:-1]])
            values = np.round(random.exponential(1.5, len(ends)), 4)
            for i in range(0, len(ends), 1 << 18):
                part = slice(i, i + (1 << 18))
                file.addEntries(
                    [chrom] * len(ends[part]),
                    starts[part].tolist(),
                    ends=ends[part].tolist(),
                    values=values[part].tolist(),
                )


def _list_route(path: str, chroms: list[str], starts: np.ndarray) -> np.ndarray:
    """The original's: every base as a Python float, then bin means."""
    out = np.zeros((len(starts), _WINDOW.bins), np.float32)
    with pyBigWig.open(path) as file:
        for i, (chrom, begin) in enumerate(zip(chroms, starts.tolist(), strict=True)):
            bases = np.array(file.values(chrom, begin, begin + _WINDOW.window_bp))
            out[i] = np.nan_to_num(bases).reshape(_WINDOW.bins, -1).mean(1)
    return out


def _pybigtools_route(path: str, chroms: list[str], starts: np.ndarray) -> np.ndarray:
    """Its own exact bin means, which are faster than binning its bases."""
    import pybigtools  # pyright: ignore[reportMissingImports]

    out = np.zeros((len(starts), _WINDOW.bins), np.float32)
    with pybigtools.open(path) as file:
        for i, (chrom, begin) in enumerate(zip(chroms, starts.tolist(), strict=True)):
            end = begin + _WINDOW.window_bp
            out[i] = file.values(chrom, begin, end, _WINDOW.bins, "mean", exact=True, fillna=0)
    return out


def windows(rounds: int, number: int = 1000) -> dict:
    """Windows/s on one core, with the same numbers checked on all sides."""
    require_peers("pybigtools")
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = str(pathlib.Path(folder) / "track.bigwig")
        _write_track(pathlib.Path(path), random)
        # TSSs cluster: half of them within a few kb of another one.
        chroms, starts = [], []
        for chrom, length in _CHROMOSOMES.items():
            alone = random.integers(20_000, length - 40_000, number // 4)
            near = alone + random.integers(-5_000, 5_000, len(alone))
            starts += np.sort(np.concatenate([alone, near])).tolist()
            chroms += [chrom] * (2 * len(alone))
        starts = np.array(starts)
        routes: dict[str, Callable[[], np.ndarray]] = {
            "ours": lambda: window_means(path, chroms, starts, _WINDOW)[0],
            "list": lambda: _list_route(path, chroms, starts),
            "pybigtools": lambda: _pybigtools_route(path, chroms, starts),
        }
        results = {name: route() for name, route in routes.items()}
        for name, result in results.items():
            np.testing.assert_allclose(result, results["ours"], rtol=1e-5, err_msg=name)

        def rate(route: Callable[[], np.ndarray]) -> Callable[[], float]:
            def measure() -> float:
                begin = time.process_time()
                route()
                return len(starts) / (time.process_time() - begin)

            return measure

        sides = {name: rate(route) for name, route in routes.items()}
        rates, ratios = take_turns(sides, rounds)
    return {
        "what": "windows",
        "ratio_vs_list": round(ratios["list"], 2),
        "ratio_vs_pybigtools": round(ratios["pybigtools"], 2),
        "windows_per_s": {name: round(value) for name, value in rates.items()},
    }


BENCHMARKS: dict[str, Callable[[int], dict]] = {"windows": windows}


def define_flags() -> None:
    flags.DEFINE_enum("what", None, list(BENCHMARKS), "What to measure.", required=True)
    flags.DEFINE_integer("rounds", 5, "Rounds; the median counts.", lower_bound=1)


def main() -> None:
    result = BENCHMARKS[FLAGS.what](FLAGS.rounds)
    print(json.dumps({**result, "machine": platform.processor() or platform.machine()}))


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
