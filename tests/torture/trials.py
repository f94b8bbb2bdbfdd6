"""A trial: a command meets a fault in a folder of its own, and what came of it is classified.

A trial is a generator of children to wait for, so that several can be under way in one thread.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import random
import re
import shutil
import time
from collections.abc import Collection, Iterator

from tests.torture import faults
from tests.torture.commands import COMMANDS, Command
from tests.torture.outcome import Outcome, digests
from tests.torture.process import ENVIRONMENT, Child, Ended, probe, start

HANG_S = 150.0
_WORDS = re.compile(r"found: .*expected: .*remedy: ", re.DOTALL)
_IN_SIGNAL = {"KILL": -9, "TERM": 143, "Ctrl-C": 130}
# Files that a command reads and nobody can check: text of the user's own, without a checksum.
_UNCHECKED = re.compile(r"\.(bed|txt|sizes|csv|bedpe|gtf|tagAlign|npy|pt|tsv)$")


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


@dataclasses.dataclass
class Undisturbed:
    """What a command leaves when nothing happens to it.

    Attributes:
        results: digest by file.
        seconds: how long it took.
    """

    results: dict[str, str]
    seconds: float


Waiting = Iterator[Child]


class Workshop:
    """The folders of all trials, and what undisturbed commands leave.

    Args:
        folder: an empty one.
    """

    def __init__(self, folder: pathlib.Path, commands: list[Command]):
        self.folder, self.commands = folder, commands
        self.base = folder / "base"
        self.undisturbed: dict[str, Undisturbed] = {}
        self.processor = 0.0

    # -- undisturbed ----------------------------------------------------------------------------

    def prepare(self, make_inputs) -> Iterator[Child]:
        """Run every command in order, twice: what differs then is not compared."""
        self.base.mkdir(parents=True)
        for command in self.commands:
            found = []
            for again in ("", " again"):
                place = self.folder / f"{command.name}{again}".replace(" ", "_").replace(",", "")
                self._copy(command, place)
                before = digests(place)
                child = self._start(command, place)
                yield child
                if child.ended.status:
                    raise SystemExit(f"undisturbed, {command.name} fails:\n{child.text()[-3000:]}")
                after = digests(place)
                found.append({k: v for k, v in after.items() if before.get(k) != v})
                self.undisturbed[command.name] = Undisturbed({}, child.ended.seconds)
                if not again:
                    self._keep(place, found[0])
                    if command.name == "simulate":
                        make_inputs(self.base)
                shutil.rmtree(place)
                if command.name == "simulate":
                    break
            same = {k: v for k, v in found[0].items() if found[-1].get(k) == v}
            if vary := sorted(found[0].keys() - same.keys()):
                print(
                    f"{command.name}: two undisturbed runs differ in {', '.join(vary)}", flush=True
                )
            self.undisturbed[command.name].results = same

    def _keep(self, place: pathlib.Path, made: dict[str, str]) -> None:
        for name in made:
            target = self.base / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place / name, target)

    def _copy(self, command: Command, place: pathlib.Path) -> None:
        place.mkdir()
        for name in command.needs:
            source = self.base / name
            if source.is_dir():
                own = {f"{need}/" for need in command.needs}
                shutil.copytree(source, place / name, dirs_exist_ok=True)
                del own
            else:
                (place / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, place / name)

    def _start(self, command: Command, place: pathlib.Path, log: str = "log", **options) -> Child:
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache"),
                 "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache/jax")}  # fmt: skip
        environment = {**ENVIRONMENT, **cache, **options.pop("environment", {})}
        path = self.folder / "logs" / f"{place.name}.{log}"
        path.parent.mkdir(exist_ok=True)
        return start(command.module, command.arguments, place, path, environment, **options)

    # -- trials ---------------------------------------------------------------------------------

    def run(self, trial: Trial, seed: int) -> Waiting:
        """Yields children; returns the outcome."""
        draw = random.Random(f"{seed} {trial}")
        place = self.folder / f"trial{trial.number}"
        self._copy(trial.command, place)
        try:
            if trial.kind in faults.DAMAGE:
                return (yield from self._damaged(trial, place, draw))
            if trial.kind in faults.SIGNALS:
                return (yield from self._told(trial, place, draw))
            if trial.kind in faults.LIMITS:
                return (yield from self._limited(trial, place, draw))
            return (
                yield from getattr(self, "_" + trial.kind.replace(" ", "_"))(trial, place, draw)
            )
        finally:
            for path in [place, *place.rglob("*")]:
                with contextlib.suppress(OSError):
                    path.chmod(0o755)
            shutil.rmtree(place, ignore_errors=True)

    def targets(self, command: Command) -> list[str]:
        """Files that the command may read, of which something tells whether they are whole."""
        names = [
            str(path.relative_to(self.base))
            for need in command.needs
            for path in ([self.base / need] if (self.base / need).is_file()
                         else sorted((self.base / need).rglob("*")))
            if path.is_file()
        ]  # fmt: skip
        return [name for name in names if not _UNCHECKED.search(name) or ".zarr/" in name]

    def _damaged(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        if not faults.damage(trial.kind, place / trial.target, draw, place):
            return Outcome("unproved")
        child = self._start(trial.command, place)
        yield child
        outcome = self._judge(trial, place, child)
        if outcome.kind == "silent" and trial.target.endswith("verify.json"):
            page = (place / "run/report.html").read_text() if child.ended.status == 0 else ""
            if "void" in page or "not verified" in page.lower():
                return Outcome("refused", "the page says that the certificate is void")
        return outcome

    def _told(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        whole = self.undisturbed[trial.command.name].seconds
        child = self._start(trial.command, place)
        wait = time.monotonic() + whole * draw.random() ** 1.5
        while time.monotonic() < wait and not child.poll():
            yield None
        if child.poll():
            return Outcome("unproved")
        os.kill(child.pid, faults.SIGNALS[trial.kind])
        told = time.monotonic()
        yield child
        took, limit = time.monotonic() - told, 12 if trial.kind == "Ctrl-C" else 60
        bad = _bad(child.ended, child.text(), killed=trial.kind == "KILL")
        if bad:
            return bad
        if took > limit:
            return Outcome("hang", f"{took:.1f} s until it ended")
        if child.ended.status not in (0, _IN_SIGNAL[trial.kind]):
            return Outcome("traceback", f"status {child.ended.status} after {trial.kind}")
        return (yield from self._again(trial, place))

    def _again(self, trial: Trial, place: pathlib.Path) -> Waiting:
        """The same command, undisturbed: it must come to the same end."""
        child = self._start(trial.command, place, "again")
        yield child
        outcome = self._judge(trial, place, child)
        return Outcome("resumed_equal") if outcome.kind == "finished_equal" else outcome

    def _limited(self, trial: Trial, place: pathlib.Path, draw: random.Random) -> Waiting:
        limit = faults.LIMITS[trial.kind]
        value = limit.draw(draw)
        limits = {limit.kind: value}
        if probe(lambda: limit.attempt(self.folder, value), limits):
            return Outcome("unproved")
        child = self._start(trial.command, place, limits=limits)
        yield child
        return (yield from self._then(trial, place, child))

    def _then(self, trial: Trial, place: pathlib.Path, child: Child) -> Waiting:
        """How a command that had the fault for its own ended, and whether it goes without."""
        outcome = self._judge(trial, place, child)
        if outcome.kind != "refused":
            return outcome
        again = yield from self._again(trial, place)
        return outcome if again.kind in ("resumed_equal", "refused") else again

    def _output_not_writable(self, trial, place, draw) -> Waiting:
        place.chmod(0o555)
        if probe(lambda: (place / "probe").write_bytes(b"")):
            return Outcome("unproved")
        child = self._start(trial.command, place)
        yield child
        place.chmod(0o755)
        return (yield from self._then(trial, place, child))

    def _input_not_readable(self, trial, place, draw) -> Waiting:
        target = place / trial.target
        target.chmod(0)
        if probe(target.read_bytes):
            return Outcome("unproved")
        child = self._start(trial.command, place)
        yield child
        target.chmod(0o644)
        return (yield from self._then(trial, place, child))

    def _two_at_once(self, trial, place, draw) -> Waiting:
        first = self._start(trial.command, place)
        wait = time.monotonic() + draw.random() * 0.5
        while time.monotonic() < wait:
            yield None
        if first.poll():
            return Outcome("unproved")
        second = self._start(trial.command, place, "second")
        yield first
        yield second
        for child in (first, second):
            if bad := _bad(child.ended, child.text()):
                return bad
            if child.ended.status and not _refused(child):
                return Outcome("traceback", f"status {child.ended.status}: {child.text()[-300:]}")
        if first.ended.status and second.ended.status:
            return Outcome("silent", "neither finished")
        return self._compared(trial, place)

    def _input_moved(self, trial, place, draw) -> Waiting:
        name = draw.choice(trial.command.needs)
        (place / name).rename(place / f"{name}.elsewhere")
        child = self._start(trial.command, place)
        yield child
        outcome = self._judge(trial, place, child)
        if outcome.kind != "refused":
            return outcome
        if (place / name).exists():
            return Outcome("silent", f"refused, but left a new {name}")
        (place / f"{name}.elsewhere").rename(place / name)
        again = yield from self._again(trial, place)
        return outcome if again.kind == "resumed_equal" else again

    def _closed_pipe(self, trial, place, draw) -> Waiting:
        child = self._start(trial.command, place, closed_pipe=True)
        yield child
        if bad := _bad(child.ended, child.text()):
            return bad
        if child.ended.status not in (0, 1, 2, 141):
            return Outcome("traceback", f"status {child.ended.status}")
        return (yield from self._again(trial, place))

    def _no_home(self, trial, place, draw) -> Waiting:
        return (
            yield from self._elsewhere(
                trial, place, {"HOME": "/nowhere", "XDG_CACHE_HOME": "/nowhere/x"}
            )
        )

    def _no_tmp(self, trial, place, draw) -> Waiting:
        return (yield from self._elsewhere(trial, place, {"TMPDIR": "/nowhere"}))

    def _read_only_home(self, trial, place, draw) -> Waiting:
        home = self.folder / "home"
        home.mkdir(exist_ok=True)
        home.chmod(0o555)
        if probe(lambda: (home / "probe").write_bytes(b"")):
            return Outcome("unproved")
        found = yield from self._elsewhere(
            trial,
            place,
            {"HOME": str(home), "XDG_CACHE_HOME": str(home / "x"), "TMPDIR": str(home)},
        )
        return found

    def _elsewhere(self, trial, place, environment) -> Waiting:
        child = self._start(trial.command, place, environment=environment)
        yield child
        return (yield from self._then(trial, place, child))

    # -- judging --------------------------------------------------------------------------------

    def _judge(self, trial: Trial, place: pathlib.Path, child: Child) -> Outcome:
        if bad := _bad(child.ended, child.text()):
            return bad
        if child.ended.status == 0:
            return self._compared(trial, place)
        if _refused(child):
            return Outcome("refused")
        return Outcome("traceback", f"status {child.ended.status}: {child.text()[-300:]}")

    def _compared(self, trial: Trial, place: pathlib.Path) -> Outcome:
        expected = self.undisturbed[trial.command.name].results
        found = digests(place, [*expected])
        differ = sorted(name for name in expected if expected[name] != found.get(name))
        differ = [name for name in differ if name != trial.target]
        if differ:
            return Outcome("silent", f"{len(differ)} results differ: {', '.join(differ[:4])}")
        return Outcome("finished_equal")


def _bad(ended: Ended, text: str, killed: bool = False) -> Outcome | None:
    if ended.hung:
        return Outcome("hang")
    if "Traceback (most recent call last)" in text:
        return Outcome("traceback", text[text.index("Traceback (most") :][-1500:])
    if ended.status < 0 and not (killed and ended.status == -9):
        return Outcome("crash", f"signal {-ended.status}")
    return None


def _refused(child: Child) -> bool:
    """In words: what, where, what was expected, what to do; or a check that does not hold."""
    text = child.text()
    if child.ended.status == 2:
        return bool(_WORDS.search(text))
    return child.ended.status == 1 and ("does not hold" in text or "FAILED" in text)


def drawn(
    workshop: Workshop,
    count: int,
    seed: int,
    commands: Collection[str] = (),
    kinds: Collection[str] = (),
    most_trainings: int = 300,
) -> list[Trial]:
    """So many trials, every fault for every command about as often.

    Args:
        commands, kinds: draw of these alone; empty: of all.
    """
    draw = random.Random(seed)
    files = {command.name: workshop.targets(command) for command in workshop.commands}
    of_process = [*faults.SIGNALS, *faults.LIMITS, "output not writable", "two at once",
                  "closed pipe", "no home", "no tmp", "read only home"]  # fmt: skip
    pairs: list[tuple[Command, str]] = []
    for command in workshop.commands:
        if command.name == "simulate" or (commands and command.name not in commands):
            continue
        reads = [*faults.DAMAGE, "input not readable"] if files[command.name] else []
        moved = ["input moved"] if command.needs else []
        # Damage to files is what differs most from trial to trial.
        pairs += [(command, kind) for kind in reads for _ in range(3)]
        pairs += [(command, kind) for kind in [*of_process, *moved]]
    pairs = [pair for pair in pairs if not kinds or pair[1] in kinds]
    trials: list[Trial] = []
    trainings = 0
    while len(trials) < count:
        draw.shuffle(pairs)
        for command, kind in pairs:
            if len(trials) == count:
                break
            if command.trains and kind not in faults.DAMAGE:
                if trainings >= most_trainings:
                    continue
                trainings += 1
            of_file = kind in faults.DAMAGE or kind == "input not readable"
            target = _target(files[command.name], draw) if of_file else ""
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


def summary(outcomes: list[tuple[Trial, Outcome]]) -> dict[str, int]:
    """Counts, as the last line says them."""
    from tests.torture.outcome import OUTCOMES

    kinds = [outcome.kind for _, outcome in outcomes]
    counts = {"trials": sum(kind != "unproved" for kind in kinds)}
    counts |= {kind: kinds.count(kind) for kind in OUTCOMES}
    return counts | {"unproved": kinds.count("unproved")}


def last_line(counts: dict[str, int], **more: object) -> str:
    return json.dumps(counts | more)


__all__ = ["COMMANDS", "Trial", "Workshop", "drawn", "last_line", "summary"]
