"""A trial: one command under one fault, then what came of it."""

import dataclasses
import os
import pathlib
import random
import re
import shutil
import time

from tests.torture import faults, ground, process
from tests.torture.faults import Unproved
from tests.torture.ground import LONGEST, Ground
from tests.torture.outcome import Outcome, digests, judged

DAMAGE = ("truncated", "deleted", "flipped", "swapped")


@dataclasses.dataclass(frozen=True)
class Trial:
    """What is to be done; the number seeds everything random in it.

    Attributes:
        target: the file that is damaged, if one is.
        again: whether the outputs of an undisturbed run are there already.
    """

    number: int
    command: str
    fault: str
    target: str = ""
    again: bool = False

    def __str__(self) -> str:
        again = " (again)" if self.again else ""
        return f"{self.number}: {self.command}{again}, {self.fault} {self.target}".rstrip()


class Bench:
    """Where trials are made: a folder for each, removed where nothing bad came of it."""

    def __init__(self, base: pathlib.Path, grounds: dict[str, Ground], seed: int):
        self.base, self.grounds, self.seed = base, grounds, seed

    def make(self, trial: Trial) -> Outcome:
        """Make the trial and judge it."""
        one = self.grounds[trial.command]
        folder = self.base / "trials" / str(trial.number)
        ground.remove(folder)
        work = folder / "work"
        shutil.copytree(one.folder / ("after" if trial.again else "before"), work, symlinks=True)
        try:
            outcome = self._damaged(trial, one, work)
        except Unproved as error:
            outcome = Outcome("unproved", str(error))
        if outcome.kind not in ("silent", "traceback", "hang", "crash"):
            shutil.rmtree(folder, ignore_errors=True)
        return outcome

    def _damaged(self, trial: Trial, one: Ground, work: pathlib.Path) -> Outcome:
        dice = random.Random(f"{self.seed} {trial.number}")
        kept = (work / trial.target).read_bytes()
        faults.damage(work, trial.target, trial.fault, dice)
        hurt = digests(work)
        ended, said = self.run(one, work)
        outcome = judged(one, work, ended, said)
        if outcome.kind != "refused":
            return outcome
        # Nothing is lost: what was there is there, and once the file is whole again, so is the end.
        lost = [name for name in hurt if not (work / name).exists() and "partial" not in name]
        if lost and not trial.again:
            return Outcome("silent", f"refused, but {lost[0]} is gone")
        if dice.random() < 0.25:
            (work / trial.target).parent.mkdir(parents=True, exist_ok=True)
            (work / trial.target).write_bytes(kept)
            ended, said = self.run(one, work)
            then = judged(one, work, ended, said)
            if then.kind != "finished_equal":
                return Outcome(
                    then.kind if then.kind != "refused" else "silent",
                    f"refused; with the file whole again: {then.kind}, {then.why}",
                )
        return outcome

    def run(self, one: Ground, work: pathlib.Path) -> tuple[process.Ended, str]:
        """The command in the folder, with its output kept next to it."""
        log = work.parent / f"output-{time.monotonic_ns()}.txt"
        around = ground.environment(self.base, work)
        command = one.command
        child = process.start(command.module, command.arguments, work, log, around)
        return child.wait(LONGEST), child.text()
