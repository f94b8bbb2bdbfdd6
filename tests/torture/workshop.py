"""The folders of all trials, what undisturbed commands leave, and how an end is judged by it."""

import dataclasses
import pathlib
import re
import shutil
from collections.abc import Iterator

from tests.torture import inputs
from tests.torture.commands import Command
from tests.torture.outcome import Outcome, digests
from tests.torture.process import ENVIRONMENT, Child, Ended, start

HANG_S = 150.0
_WORDS = re.compile(r"found: .*expected: .*remedy: ", re.DOTALL)
# Files that a command reads and nobody can check: text of the user's own, without a checksum.
_UNCHECKED = re.compile(r"\.(bed|txt|sizes|csv|bedpe|gtf|tagAlign|npy|pt|tsv)$")
# What no command reads.
_UNREAD = re.compile(r"truth|\.(png|svg|html)$|(^|/)\.[^/]*\.lock$")
# What a report says on its page, of a certificate and of a store, and of that on the terminal.
_VOID, _LOST, _WITHOUT = "not as it is now", "could not be read: ", "page is without tracks"
# Files of checkpoints have names by lot, and run cards and what a study has done have their
# checksums; weights are compared.
_BY_LOT = re.compile(r"/checkpoints/|(run_card|study).json$")


@dataclasses.dataclass
class Undisturbed:
    """What a command leaves when nothing happens to it.

    Attributes:
        seconds: how long it took.
        made: files that it makes or changes, in `Workshop.after`.
        results: those that are the same every time → their digests.
        weights: a digest of what it trained, if it did.
    """

    seconds: float
    made: list[str] = dataclasses.field(default_factory=list)
    results: dict[str, str] = dataclasses.field(default_factory=dict)
    weights: str = ""


class Workshop:
    """The folders of all trials, and what undisturbed commands leave.

    Args:
        folder: an empty one.
        commands: in an order in which each finds what it needs.
    """

    def __init__(self, folder: pathlib.Path, commands: list[Command]):
        self.folder, self.commands = folder, commands
        self.base = folder / "base"
        self.undisturbed: dict[str, Undisturbed] = {}
        self.processor = 0.0

    def prepare(self, url: str) -> Iterator[Child]:
        """Run every command in order, twice: what differs then is not compared.

        Args:
            url: of a server of the folder `base/data`.

        Yields:
            Children to wait for.
        """
        self.base.mkdir(parents=True)
        for command in self.commands:
            # Elsewhere than what is kept, so that no trial finds a store by its absolute path.
            kept = self.after(command)
            places = [self.folder / f"{kept.name}.{time}" for time in ("once", "twice")]
            self._gather(command, self.before(command))
            for place in places:
                self.copy(command, place)
            before = digests(places[0])
            children = [self.start(command, place) for place in places]
            found = []
            for place, child in zip(places, children, strict=True):
                yield child
                if child.ended.status:
                    raise SystemExit(f"undisturbed, {command.name} fails:\n{child.text()[-3000:]}")
                now = digests(place).items()
                found.append({name: digest for name, digest in now if before.get(name) != digest})
            one = Undisturbed(children[0].ended.seconds)
            self._keep(places[0], found[0])
            if command.name == "simulate":
                inputs.write(self.base, url)
            if command.trains:
                weighed = self.weigh(command, places[0])
                yield weighed
                one.weights = _last(weighed)
            shutil.rmtree(places[1])
            kept.parent.mkdir(exist_ok=True)
            places[0].rename(kept)
            one.made = [*found[0]]
            same = {k: v for k, v in found[0].items() if found[1].get(k) == v}
            one.results = {k: v for k, v in same.items() if not _BY_LOT.search(k)}
            self.undisturbed[command.name] = one
            vary = sorted(found[0].keys() - same.keys())
            if vary := [name for name in vary if not _BY_LOT.search(name)]:
                print(f"{command.name}: two undisturbed runs differ in {', '.join(vary)}")

    def after(self, command: Command) -> pathlib.Path:
        """What the command needs and what it has made of it."""
        return self.folder / "after" / re.sub(r"\W+", "_", command.name)

    def before(self, command: Command) -> pathlib.Path:
        """What the command needs, as it was when its turn came."""
        return self.folder / "before" / re.sub(r"\W+", "_", command.name)

    def _keep(self, place: pathlib.Path, made: dict[str, str]) -> None:
        for name in made:
            target = self.base / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(place / name, target)

    def _gather(self, command: Command, place: pathlib.Path) -> None:
        place.mkdir(parents=True)
        for name in command.needs:
            source = self.base / name
            if source.is_dir():
                shutil.copytree(source, place / name)
            else:
                shutil.copyfile(source, place / name)

    def copy(self, command: Command, place: pathlib.Path, *, done: bool = False) -> None:
        """A folder with what the command needs; `done`: also with what it makes."""
        shutil.copytree(self.after(command) if done else self.before(command), place)

    def start(self, command: Command, place: pathlib.Path, log: str = "log", **options) -> Child:
        """Start the command in a folder."""
        return self._start(command.module, command.arguments, place, log, **options)

    def weigh(self, command: Command, place: pathlib.Path) -> Child:
        """Start what prints a digest of the weights that a command has trained in a folder."""
        (run,) = (word for word in command.arguments if word.startswith("--run="))
        path = place / run.removeprefix("--run=")
        return self._start("tests.torture.outcome", [str(path)], place, "weights")

    def _start(self, module, arguments, place, log, **options) -> Child:
        cache = {"XDG_CACHE_HOME": str(self.folder / "cache"),
                 "JAX_COMPILATION_CACHE_DIR": str(self.folder / "cache/jax")}  # fmt: skip
        environment = {**ENVIRONMENT, **cache, **options.pop("environment", {})}
        path = self.folder / "logs" / f"{place.name}.{log}"
        path.parent.mkdir(exist_ok=True)
        path.unlink(missing_ok=True)
        return start(module, arguments, place, path, environment, **options)

    def targets(self, command: Command, *, done: bool = False) -> list[str]:
        """Files that the command may read, of which something tells whether they are whole.

        Args:
            done: of those that it makes itself.
        """
        if done:
            names = self.undisturbed[command.name].made
        else:
            place = self.before(command)
            paths = sorted(path for path in place.rglob("*") if path.is_file())
            names = [str(path.relative_to(place)) for path in paths]
            names = [name for name in names if not _UNCHECKED.search(name) or ".zarr/" in name]
        return [name for name in names if not _UNREAD.search(name)]

    # -- judging --------------------------------------------------------------------------------

    def judge(self, command: Command, place: pathlib.Path, child: Child, target: str = ""):
        """Yields children; returns the outcome of a command that has ended.

        Args:
            target: a damaged file, which need not be whole again.
        """
        if found := bad(child.ended, child.text()):
            return found
        if child.ended.status == 0:
            outcome = yield from self.compared(command, place, target)
            if outcome.kind != "silent":
                return outcome
            words = "start their shares again" in child.text()
            if command.module == "experiments.report":
                page = (place / "run/report.html").read_text()
                words = _VOID in page or (_LOST in page and _WITHOUT in child.text())
            return Outcome("refused", f"in words: {outcome.why}") if words else outcome
        if refused(child):
            return Outcome("refused")
        return Outcome("traceback", f"status {child.ended.status}: {child.text()[-300:]}")

    def compared(self, command: Command, place: pathlib.Path, target: str = ""):
        """Yields children; returns whether the results are those of the undisturbed run."""
        one = self.undisturbed[command.name]
        found = digests(place, [*one.results])
        differ = sorted(name for name in one.results if one.results[name] != found.get(name))
        if target not in one.results:
            differ = [name for name in differ if name != target]
        if differ:
            return Outcome("silent", f"{len(differ)} results differ: {', '.join(differ[:4])}")
        if command.trains and command.module == "experiments.train":
            weighed = self.weigh(command, place)
            yield weighed
            if _last(weighed) != one.weights:
                return Outcome("silent", f"other weights: {_last(weighed)}")
        return Outcome("finished_equal")


def _last(child: Child) -> str:
    return (child.text().strip().splitlines() or [""])[-1][-300:]


def bad(ended: Ended, text: str, killed: bool = False) -> Outcome | None:
    """What must not be, whatever the results.

    Args:
        killed: whether the trial itself killed it.
    """
    if ended.hung:
        return Outcome("hang", text[-300:])
    if "Traceback (most recent call last)" in text:
        return Outcome("traceback", text[text.index("Traceback (most") :][-1500:])
    if ended.status < 0 and not (killed and ended.status == -9):
        return Outcome("crash", f"signal {-ended.status}: {text[-300:]}")
    return None


def refused(child: Child) -> bool:
    """In words: what, where, what was expected, what to do; or a check that does not hold."""
    text = child.text()
    if child.ended.status == 2:
        return bool(_WORDS.search(text))
    return child.ended.status == 1 and ("does not hold" in text or "FAILED" in text)
