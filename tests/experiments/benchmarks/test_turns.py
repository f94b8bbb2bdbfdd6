import pytest

from epi2expr_jax.errors import InputError
from experiments.benchmarks import turns


def test_disturbed_rounds_are_measured_again(monkeypatch):
    clock = iter([0, 0, 0, 50, 50, 50, 50, 50])  # the second round is disturbed
    monkeypatch.setattr(turns, "_seconds_of_others", lambda: next(clock))
    rates = {"ours": iter([3.0, 100.0, 4.0, 5.0]), "theirs": iter([1.0, 100.0, 2.0, 2.0])}
    found = turns.take_turns({name: lambda r=r: next(r) for name, r in rates.items()}, 3)
    assert found.rates == {"ours": [3, 4, 5], "theirs": [1, 2, 2]}
    assert found.median == {"ours": 4, "theirs": 2}
    assert found.disturbed == 1
    assert turns.ratio(found.rates["ours"], found.rates["theirs"]) == 2.5


def test_a_machine_that_is_never_quiet_is_named(monkeypatch):
    clock = iter([0, 50, 50, 90, 90, 150, 150, 160])
    monkeypatch.setattr(turns, "_seconds_of_others", lambda: next(clock))
    rates = iter([1.0, 2.0, 3.0, 4.0])
    found = turns.take_turns({"ours": lambda: next(rates)}, 2)
    assert found.disturbed == 4
    assert len(found.rates["ours"]) == 2
    assert 4 in found.rates["ours"]


def test_sides_take_turns_and_their_rates_are_of_the_same_rounds(clock):
    sides = {
        "ours": turns.rate(clock.taking(9, 2, 4, 5), 20),  # the first run compiles
        "theirs": turns.rate(clock.taking(10), 20),
    }
    assert clock.now == 19
    found = turns.take_turns(sides, 3)
    assert found.rates == {"ours": [10, 5, 4], "theirs": [2, 2, 2]}
    assert found.median == {"ours": 5, "theirs": 2}
    assert found.disturbed == 0


def test_a_ratio_is_the_median_of_the_rounds_ratios():
    assert turns.ratio([1, 6, 20], [1, 2, 5]) == 3


def test_a_pace_leaves_out_the_first_call(clock):
    found = turns.paces(clock.taking(9, 2, 4, 5), 20)
    assert found == {"per_s": 5, "first_s": 9, "spread": 2.5}


def test_matrix_products_are_counted_twice_their_multiplications(clock, monkeypatch):
    size, repeats = 2048, 4
    done = []
    monkeypatch.setattr(turns.jax, "block_until_ready", lambda made: clock.taking(2)(made))
    monkeypatch.setattr(turns.jax, "jit", lambda function: Compiled(done))
    measure = turns.matmul_mflops()
    assert len(done) == repeats  # once beforehand
    assert measure() == pytest.approx(repeats * 2 * size**3 / 1e6 / 2)
    assert done == [(size, size)] * 2 * repeats


class Compiled:
    """Stands for a compiled product: notes what it is asked to multiply."""

    def __init__(self, done):
        self.done = done

    def lower(self, matrix):
        return self

    def compile(self):
        return lambda matrix: self.done.append(matrix.shape)


def test_peers_that_are_not_installed_are_named():
    turns.require_peers("json", "numpy")
    with pytest.raises(InputError, match="no no_such_peer, nor_this;"):
        turns.require_peers("no_such_peer", "numpy", "nor_this")
