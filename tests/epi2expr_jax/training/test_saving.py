"""How often runs are saved, by a clock that only saving and training move."""

import collections

import numpy as np
import pytest

from epi2expr_jax.training import pieces
from epi2expr_jax.training.lanes import Lanes
from epi2expr_jax.training.many_runs import Population
from epi2expr_jax.training.pieces import Pieces, Saver
from epi2expr_jax.training.planning import MemoryPlan
from epi2expr_jax.training.runs import Log


class Training(Population, Pieces):
    """Ten chunks of two runs, whose epoch takes 1 s each; a save of a chunk takes 0.5 s."""

    chunks, alive = 10, 20
    lanes = Lanes(2, (None,))
    logs = [Log()] * 100
    seconds = 0.0  # of writing in the background

    def __init__(self, monkeypatch, minutes, state_bytes=pieces._PIECE):
        monkeypatch.setattr(pieces.time, "monotonic", lambda: self.now)
        self.now = self.saving = 0.0
        self.saved = collections.Counter()
        self.files, self.ended = [], []
        memory = MemoryPlan(self.lanes, 20, 20, state_bytes, 0, 0, 0, None)
        self.saver = Saver(self, self, memory, self.records, minutes)

    def records(self, runs, _):
        return [{"run": run} for run in runs]

    def states(self, runs):
        for first in sorted({run // 2 * 2 for run in runs}):
            self.now, self.saving = self.now + 0.5, self.saving + 0.5
            yield [first, first + 1], np.zeros(2)

    def take_ended(self):
        ended, self.ended = self.ended, []
        return ended, None

    def take_last(self):
        return [], None

    def save(self, *parts):
        self.files.append([row["run"] for _, rows, _ in parts for row in rows])
        self.saved.update(self.files[-1])

    def epochs(self, count):
        for _ in range(count):
            for chunk in range(self.chunks):
                self.now += 1
                self.saver.advanced([2 * chunk, 2 * chunk + 1])
            self.saver.epoch_ends()


def test_saving_takes_a_twentieth_of_the_time_and_forgets_no_run(monkeypatch):
    training = Training(monkeypatch, None)
    training.epochs(400)
    assert 0.03 < training.saving / training.now <= 0.05
    assert max(training.saved.values()) - min(training.saved.values()) <= 1
    assert sorted(training.saved) == list(range(20))


@pytest.mark.parametrize(("minutes", "times"), [(0.0, 13), (0.5, 4)])
def test_minutes_between_saves_are_kept(monkeypatch, minutes, times):
    """Thirteen epochs of 10 s."""
    training = Training(monkeypatch, minutes)
    monkeypatch.setattr(training, "states", lambda runs: [(sorted(runs), np.zeros(2))])
    training.epochs(13)
    assert set(training.saved.values()) == {times}


def test_small_states_share_a_file_and_what_ended_goes_with_them(monkeypatch):
    training = Training(monkeypatch, 0.0, state_bytes=1)
    training.ended = [99]
    training.epochs(1)
    assert training.files == [[99, *range(20)]]


def test_before_an_end_all_is_saved_that_was_not(monkeypatch):
    training = Training(monkeypatch, 60.0)
    training.epochs(3)
    assert training.files == []
    training.saver.everything()
    assert sorted(run for file in training.files for run in file) == list(range(20))
    training.files.clear()
    training.saver.everything()
    assert training.files == [[]]
