"""How two sides are measured: in turns, in one process, as ratios."""

import importlib.util
import statistics
import time
from collections.abc import Callable

import jax
from tqdm import tqdm

from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.training import PRECISIONS


def require_peers(*names: str) -> None:
    """Refuse to measure against what is not installed, naming it."""
    missing = [name for name in names if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            Problem(
                "this Python environment",
                f"no {', '.join(missing)}",
                "the peers that are measured side by side",
                "pip install 'epi2expr_jax[peers]' and, without its dependencies, "
                "chromoformer==1.1.3; or make benchmark",
            )
        )


def rate(work: Callable[[], object], amount: float) -> Callable[[], float]:
    """A measurement of `amount` of work a second; run once beforehand, to compile."""

    def measure() -> float:
        begin = time.perf_counter()
        work()
        return amount / (time.perf_counter() - begin)

    measure()
    return measure


def matmul_mflops(precision: str = "float32") -> Callable[[], float]:
    """This machine's own rate of matrix products, in MFLOP/s."""
    size, repeats = 2048, 4
    matrix = jax.random.normal(jax.random.key(0), (size, size))
    with jax.default_matmul_precision(PRECISIONS[precision]):
        multiply = jax.jit(lambda a: a @ a).lower(matrix).compile()

    def work() -> object:
        return jax.block_until_ready([multiply(matrix) for _ in range(repeats)])

    return rate(work, repeats * 2 * size**3 / 1e6)


def take_turns(
    sides: dict[str, Callable[[], float]], rounds: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Measure every side once a round, in turns.

    Args:
        sides: name to a function that returns a rate; the first one is ours.

    Returns:
        The median rate of each side, and all its rates, round by round.
    """
    rates: dict[str, list[float]] = {name: [] for name in sides}
    for _ in tqdm(range(rounds), desc="rounds", disable=None):
        for name, measure in sides.items():
            rates[name].append(measure())
    return {name: statistics.median(values) for name, values in rates.items()}, rates


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median over rounds of ours / theirs."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))
