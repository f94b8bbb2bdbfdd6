"""A trial: a command meets a fault in a folder of its own, and what came of it is classified.

A trial is a generator of children to wait for, so that several can be under way in one thread.
"""

import contextlib
import dataclasses
import os
import pathlib
import random
import re
import shutil
import time
from collections.abc import Collection, Iterator

from tests.torture import faults
from tests.torture.commands import Command
from tests.torture.outcome import Outcome
from tests.torture.process import Child, probe
from tests.torture.workshop import HANG_S, Workshop, bad, refused

_IN_SIGNAL = {"KILL": -9, "TERM": 143, "Ctrl-C": 130}
_SOON_S = {"KILL": 5, "TERM": 60, "Ctrl-C": 12}  # with as many trials at once as cores
OWN = "own result "  # before the damage to what the command made itself, earlier
KILLED = "killed, then "  # before the damage to what a killed command left

# The user's own files, without a checksum: another whole one is another input.
_USERS = re.compile(r"^(reads|counts|npy|eqtl|screen)/|\.pt$")

Waiting = Iterator[Child | None]


@dataclasses.dataclass(frozen=True)
class Trial:
    """A command and what happens to it.

    Attributes:
        kind: of the fault: damage to `target`, a signal, a limit, or another by its name.
        target: file that is damaged, relative to the folder.
    """

    number: int
    command: Command
    kind: str
    target: str = ""

    def __str__(self) -> str:
        return f"{self.number}: {self.command.name}, {self.kind} {self.target}".rstrip()


class Bench:
    """Where trials are made.

    Args:
        shop: of the undisturbed runs.
        seed: of all that is random in a trial, with its number.
    """

    def __init__(self, shop: Workshop, seed: int):
        self.shop, self.seed = shop, seed

    def run(self, trial: Trial) -> Waiting:
        """Yields children to wait for, or None to be asked again soon; returns the outcome."""
        draw = random.Random(f"{self.seed} {trial}")
        place = self.shop.folder / f"trial{trial.number}"
        self.shop.copy(trial.command, place, done=trial.kind.startswith(OWN))
        own, pid = self._of(trial), os.getpid()
        try:
            return (yield from own(trial, place, draw))
        finally:
            if os.getpid() == pid:  # a child leaves this frame, too
                for path in [place, *place.rglob("*")]:
                    with contextlib.suppress(OSError):
                        path.chmod(0o755)
                shutil.rmtree(place, ignore_errors=True)

    def _of(self, trial: Trial):
        kind = trial.kind
        if kind.startswith(KILLED):
            return self._killed
        if kind.removeprefix(OWN) in faults.DAMAGE:
            return self._damaged
        if kind in faults.SIGNALS:
            return self._told
        if kind in faults.LIMITS:
            return self._limited
        return getattr(self, "_" + kind.replace(" ", "_"))

    # -- files ----------------------------------------------------------------------------------

    def _damaged(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        kept = (place / trial.target).read_bytes()
        if not faults.damage(trial.kind.removeprefix(OWN), place / trial.target, draw, place):
            return Outcome("unproved")
        own = trial.kind.startswith(OWN)
        child = self.shop.start(trial.command, place)
        yield child
        outcome = yield from self.shop.judge(trial.command, place, child, trial.target)
        once = own and trial.command.module == "experiments.convert"  # what is there is kept
        if outcome.kind == "refused" and not once and draw.random() < 0.2:  # nothing is lost
            (place / trial.target).write_bytes(kept)
            again = yield from self._again(trial, place)
            return outcome if again.kind == "resumed_equal" else _but(again)
        if outcome.kind == "finished_equal" and own:
            return Outcome("resumed_equal")
        return outcome

    def _killed(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        """Damage to what a killed command left behind; then it is run again."""
        before = {path for path in place.rglob("*") if path.is_file()}
        child = self.shop.start(trial.command, place)
        yield from self._while(child, self._moment(trial, draw))
        if child.poll():
            return Outcome("unproved")
        os.kill(child.pid, faults.SIGNALS["KILL"])  # it may have no group yet
        yield child
        left = sorted({path for path in place.rglob("*") if path.is_file()} - before)
        left = [path for path in left if path.stat().st_size]
        if not left:
            return Outcome("unproved")
        target = draw.choice(left)
        if not faults.damage(trial.kind.removeprefix(KILLED), target, draw, place):
            return Outcome("unproved")
        child = self.shop.start(trial.command, place, "again")
        yield child
        outcome = yield from self.shop.judge(trial.command, place, child)
        if outcome.kind == "finished_equal":
            return Outcome("resumed_equal")
        return dataclasses.replace(outcome, why=f"{target.relative_to(place)}: {outcome.why}")

    # -- signals, limits ------------------------------------------------------------------------

    def _moment(self, trial: Trial, draw: random.Random) -> float:
        return time.monotonic() + self.shop.undisturbed[trial.command.name].seconds * draw.random()

    def _while(self, child: Child, until: float) -> Waiting:
        while time.monotonic() < until and not child.poll():
            yield None

    def _told(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        child = self.shop.start(trial.command, place)
        yield from self._while(child, self._moment(trial, draw))
        if child.poll():
            return Outcome("unproved")
        os.kill(child.pid, faults.SIGNALS[trial.kind])
        told = time.monotonic()
        yield child
        took = time.monotonic() - told
        if found := bad(child.ended, child.text(), killed=trial.kind == "KILL"):
            return found
        if took > _SOON_S[trial.kind] * max(1, os.getloadavg()[0] / (os.cpu_count() or 1)):
            return Outcome("hang", f"{took:.1f} s until it ended")
        if child.ended.status not in (0, _IN_SIGNAL[trial.kind]):
            return Outcome("traceback", f"status {child.ended.status}: {child.text()[-300:]}")
        again = yield from self._again(trial, place)
        return dataclasses.replace(again, why=f"{took:.1f} s until it ended; {again.why}")

    def _limited(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        limit = faults.LIMITS[trial.kind]
        value = limit.draw(draw)
        if probe(lambda: limit.attempt(self.shop.folder, value), {limit.kind: value}):
            return Outcome("unproved")
        child = self.shop.start(trial.command, place, limits={limit.kind: value})
        yield child
        return (yield from self._then(trial, place, child))

    def _disk_full(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        """The folder is a file system of its own, on which little is left."""
        with faults.small_disk(place, draw.choice([0, 4, 16, 64, 200])) as full:
            if full is None or probe(lambda: full("probe", 1 << 20)):
                return Outcome("unproved")
            child = self.shop.start(trial.command, place)
            yield child
            (place / faults.FILLER).unlink(missing_ok=True)
            return (yield from self._then(trial, place, child))

    # -- places ---------------------------------------------------------------------------------

    def _output_not_writable(self, trial: Trial, place: pathlib.Path, draw) -> Waiting:
        for folder in [place, *(path for path in place.iterdir() if path.is_dir())]:
            folder.chmod(0o555)
        if probe(lambda: (place / "probe").write_bytes(b"")):
            return Outcome("unproved")
        child = self.shop.start(trial.command, place)
        yield child
        for folder in [place, *(path for path in place.iterdir() if path.is_dir())]:
            folder.chmod(0o755)
        return (yield from self._then(trial, place, child))

    def _input_not_readable(self, trial: Trial, place: pathlib.Path, draw) -> Waiting:
        target = place / trial.target
        target.chmod(0)
        if probe(target.read_bytes):
            return Outcome("unproved")
        child = self.shop.start(trial.command, place)
        yield child
        if target.exists():
            target.chmod(0o644)
        return (yield from self._then(trial, place, child))

    def _input_moved(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        command = trial.command  # where its own run directory is not, it begins another
        own = {f"--run={name}": name for name in command.needs if command.trains}
        mine = [own[word] for word in command.arguments if word in own]
        name = draw.choice([name for name in command.needs if name not in mine])
        (place / name).rename(place / f"{name}.elsewhere")
        child = self.shop.start(trial.command, place)
        yield child
        outcome = yield from self.shop.judge(trial.command, place, child)
        if outcome.kind != "refused":
            return outcome
        if (place / name).exists():
            return Outcome("silent", f"refused, but left a new {name}")
        (place / f"{name}.elsewhere").rename(place / name)
        again = yield from self._again(trial, place)
        return outcome if again.kind == "resumed_equal" else _but(again)

    def _moved_meanwhile(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        """A folder is renamed under the running command, and back when that has ended."""
        child = self.shop.start(trial.command, place)
        yield from self._while(child, self._moment(trial, draw))
        folders = sorted(path for path in place.iterdir() if path.is_dir())
        if child.poll() or not folders:
            return Outcome("unproved")
        moved = draw.choice(folders)
        moved.rename(place / "elsewhere")
        if draw.random() < 0.5:
            moved.mkdir()  # replaced
        yield child
        if found := bad(child.ended, child.text()):
            return found
        if child.ended.status and not refused(child):
            return Outcome("traceback", f"status {child.ended.status}: {child.text()[-300:]}")
        shutil.rmtree(moved, ignore_errors=True)
        (place / "elsewhere").rename(moved)
        return (yield from self._again(trial, place))

    def _two_at_once(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        first = self.shop.start(trial.command, place)
        yield from self._while(first, time.monotonic() + draw.random() * 0.5)
        if first.poll():
            return Outcome("unproved")
        second = self.shop.start(trial.command, place, "second")
        yield first
        yield second
        for child in (first, second):
            if found := bad(child.ended, child.text()):
                return found
            if child.ended.status and not refused(child):
                return Outcome("traceback", f"status {child.ended.status}: {child.text()[-300:]}")
        if first.ended.status and second.ended.status:
            return Outcome("silent", "neither finished")
        return (yield from self.shop.compared(trial.command, place))

    def _closed_pipe(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        child = self.shop.start(trial.command, place, closed_pipe=True)
        yield child
        if child.ended.status != -13 and (found := bad(child.ended, child.text())):
            return found
        if child.ended.status not in (0, 1, 2, 141, -13):
            return Outcome("traceback", f"status {child.ended.status}: {child.text()[-300:]}")
        return (yield from self._again(trial, place))

    def _no_home(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        lost = {"HOME": "/nowhere", "XDG_CACHE_HOME": "/nowhere/x"}
        return (yield from self._elsewhere(trial, place, lost))

    def _no_tmp(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        return (yield from self._elsewhere(trial, place, {"TMPDIR": "/nowhere"}))

    def _read_only_home(self, trial: Trial, place: pathlib.Path, draw) -> Waiting:
        home = self.shop.folder / "home"
        home.mkdir(exist_ok=True)
        home.chmod(0o555)
        if probe(lambda: (home / "probe").write_bytes(b"")):
            return Outcome("unproved")
        closed = {"HOME": str(home), "XDG_CACHE_HOME": str(home / "x"), "TMPDIR": str(home)}
        return (yield from self._elsewhere(trial, place, closed))

    def _elsewhere(self, trial: Trial, place: pathlib.Path, environment) -> Waiting:
        child = self.shop.start(trial.command, place, environment=environment, anew=True)
        yield child
        return (yield from self._then(trial, place, child))

    # -- after a fault --------------------------------------------------------------------------

    def _again(self, trial: Trial, place: pathlib.Path) -> Waiting:
        """The same command, undisturbed: it must come to the same end."""
        child = self.shop.start(trial.command, place, "again")
        yield child
        outcome = yield from self.shop.judge(trial.command, place, child)
        return Outcome("resumed_equal") if outcome.kind == "finished_equal" else outcome

    def _then(self, trial: Trial, place: pathlib.Path, child: Child) -> Waiting:
        """How a command that had the fault for its own ended, and whether it goes without."""
        outcome = yield from self.shop.judge(trial.command, place, child)
        if outcome.kind != "refused":
            return outcome
        again = yield from self._again(trial, place)
        return outcome if again.kind == "resumed_equal" else _but(again)


def _but(again: Outcome) -> Outcome:
    """Of a command that refused, and did not come to its end once the fault was gone."""
    kind = "silent" if again.kind == "refused" else again.kind
    return Outcome(kind, f"refused; then, without the fault: {again.kind} {again.why}")


OF_PROCESS = (
    *faults.SIGNALS, *faults.LIMITS, "disk full", "output not writable", "two at once",
    "closed pipe", "moved meanwhile", "no home", "no tmp", "read only home",
    *(KILLED + kind for kind in ("bit flipped", "cut short")),
)  # fmt: skip


def drawn(
    shop: Workshop,
    count: int,
    seed: int,
    commands: Collection[str] = (),
    kinds: Collection[str] = (),
    most_trainings: int = 300,
) -> list[Trial]:
    """So many trials, every fault for every command about as often.

    Args:
        commands, kinds: draw of these alone; empty: of all.
        most_trainings: trials that may train to the end.
    """
    draw = random.Random(seed)
    names = [command.name for command in shop.commands]
    files = dict(zip(names, map(shop.targets, shop.commands), strict=True))
    own = {command.name: shop.targets(command, done=True) for command in shop.commands}
    pairs: list[tuple[Command, str]] = []
    for command in shop.commands:
        if command.name == "simulate" or (commands and command.name not in commands):
            continue
        reads = [*faults.DAMAGE, "input not readable"] if files[command.name] else []
        made = [OWN + kind for kind in faults.DAMAGE] if own[command.name] else []
        moved = ["input moved"] if command.needs else []
        # Damage to files is what differs most from trial to trial.
        pairs += [(command, kind) for kind in [*reads, *reads, *made, *OF_PROCESS, *moved]]
    pairs = [pair for pair in pairs if not kinds or pair[1] in kinds]
    trials: list[Trial] = []
    trainings = 0
    while len(trials) < count and pairs:
        draw.shuffle(pairs)
        for command, kind in pairs:
            if len(trials) == count:
                break
            if command.trains and kind not in faults.DAMAGE:
                if trainings >= most_trainings:
                    continue
                trainings += 1
            of = own if kind.startswith(OWN) else files
            of_file = kind.removeprefix(OWN) in faults.DAMAGE or kind == "input not readable"
            names = of[command.name]
            if kind == "swapped":
                names = [name for name in names if not _USERS.search(name)]
            target = _target(names, draw) if of_file and names else ""
            if of_file and not target:
                continue
            trials.append(Trial(len(trials), command, kind, target))
    return trials


def _target(names: list[str], draw: random.Random) -> str:
    """A file, of each kind as often."""
    kinds: dict[str, list[str]] = {}
    for name in names:
        path = pathlib.PurePath(name)
        place = path.parts[1] if len(path.parts) > 2 else ""
        kinds.setdefault(f"{path.parts[0]} {place} {path.suffix or path.name[:1]}", []).append(name)
    return draw.choice(kinds[draw.choice(sorted(kinds))])


__all__ = ["HANG_S", "Bench", "Trial", "drawn"]
