import pytest

from epi2expr_jax.training.runs import Run
from experiments.cli.shares import Share

RUNS = [Run("E003", ("DNase",), "fold1", seed) for seed in range(11)]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 11, 13])
def test_shares_hold_every_run_once_and_in_order(count):
    parts = [Share(index, count).of(RUNS) for index in range(count)]
    assert [run for part in parts for run in part] == RUNS
    sizes = [len(part) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_neighbours_stay_together():
    assert [run.seed for run in Share(1, 4).of(RUNS)] == [2, 3, 4]


def test_one_process_alone_has_every_run():
    assert Share().of(RUNS) == RUNS


def test_names_tell_shares_apart():
    assert [Share(index, 2).name for index in range(2)] == ["0-of-2", "1-of-2"]
