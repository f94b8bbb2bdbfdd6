"""Time that passes only when a test says so."""

import pytest

from experiments.benchmarks import turns


class Clock:
    """Stands for the module `time`."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        return self.now

    def taking(self, *seconds):
        """Work that takes so long, call by call, and then as long as the last."""
        left = list(seconds)

        def work(*_):
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return work


@pytest.fixture
def clock(monkeypatch):
    """The clock of measurements, on a machine where nothing else runs."""
    clock = Clock()
    monkeypatch.setattr(turns, "time", clock)
    monkeypatch.setattr(turns, "_seconds_of_others", lambda: 0.0)
    return clock
