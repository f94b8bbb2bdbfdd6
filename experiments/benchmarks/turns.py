"""How two sides are measured: in turns, in one process, as ratios."""

import contextlib
import importlib.util
import statistics
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import psutil
from tqdm import tqdm

from epi2expr_jax.errors import InputError
from epi2expr_jax.training.one_run import PRECISIONS


def require_peers(*names: str) -> None:
    """Refuse to measure against what is not installed, naming it."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            "this Python environment",
            f"no {', '.join(missing)}",
            "the peers that are measured side by side",
            "pip install 'epi2expr_jax[peers]' and, without its dependencies, "
            "chromoformer==1.1.3; or make benchmark",
        )


def rate(work: Callable[[], object], amount: float) -> Callable[[], float]:
    """A measurement of `amount` of work a second; run once beforehand, to compile."""

    def measure() -> float:
        begin = time.perf_counter()
        work()
        return amount / (time.perf_counter() - begin)

    measure()
    return measure


def seconds(work: Callable[[], object]) -> float:
    """What a call takes."""
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def paces(work: Callable[[], object], amount: float, rounds: int = 3) -> dict[str, float]:
    """The pace of work: its amount a second, the median of some rounds (`per_s`).

    With it the seconds of the first call, and the slowest round over the fastest (`spread`).
    """
    first = seconds(work)
    later = [seconds(work) for _ in range(rounds)]
    return {
        "per_s": round(amount / statistics.median(later), 1),
        "first_s": round(first, 2),
        "spread": round(max(later) / min(later), 2),
    }


def matmul_mflops(precision: str = "float32") -> Callable[[], float]:
    """This machine's own rate of matrix products, in MFLOP/s."""
    size, repeats = 2048, 4
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    with jax.default_matmul_precision(PRECISIONS[precision]):
        multiply = jax.jit(lambda a: a @ a).lower(matrix).compile()

    def work() -> object:
        return jax.block_until_ready([multiply(matrix) for _ in range(repeats)])

    return rate(work, repeats * 2 * size**3 / 1e6)


# A round counts if other processes took less than this of the machine, in processors.
_DISTURBED = 0.1


class Turns(NamedTuple):
    """What `take_turns` measured.

    Attributes:
        median: the median rate of each side.
        rates: the rates of each side, round by round, of the quietest rounds.
        disturbed: during how many rounds other processes ran; they are dropped where others do.
    """

    median: dict[str, float]
    rates: dict[str, list[float]]
    disturbed: int


def take_turns(sides: dict[str, Callable[[], float]], rounds: int) -> Turns:
    """Measure every side once a round, in turns, until so many rounds were undisturbed.

    Args:
        sides: name to a function that returns a rate; the first one is ours.
        rounds: that count. A round during which other processes kept a tenth of a processor busy
            is dropped and measured again, at most as often as that; if the machine is never quiet,
            the quietest rounds count, and `disturbed` says how many of them are not quiet.
    """
    measured: list[tuple[float, dict[str, float]]] = []  # by how busy the others were
    with tqdm(total=rounds, desc="rounds", disable=None) as progress:
        quiet = 0  # not progress.n, which stays 0 where no progress is shown
        while quiet < rounds and len(measured) < 2 * rounds:
            begin, before = time.perf_counter(), _seconds_of_others()
            rates = {name: measure() for name, measure in sides.items()}
            others = (_seconds_of_others() - before) / (time.perf_counter() - begin)
            measured.append((others, rates))
            quiet += others < _DISTURBED
            progress.update(others < _DISTURBED)
    disturbed = len(measured) - quiet
    measured.sort(key=lambda of: of[0])
    by_side = {name: [rates[name] for _, rates in measured[:rounds]] for name in sides}
    return Turns({n: statistics.median(v) for n, v in by_side.items()}, by_side, disturbed)


def _seconds_of_others() -> float:
    """Processor seconds that neither this process nor what it started has taken."""
    machine, this = psutil.cpu_times(), psutil.Process()
    own = 0.0
    for process in (this, *this.children(recursive=True)):
        with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
            times = process.cpu_times()
            own += times.user + times.system
    return sum(machine) - machine.idle - getattr(machine, "iowait", 0) - own


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
