"""The undisturbed runs: every command once, with what was there before and after it."""

import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

from tests.torture import inputs, process
from tests.torture.commands import COMMANDS, Command
from tests.torture.outcome import digests

LONGEST = 120.0  # seconds after which a command hangs


@dataclasses.dataclass(frozen=True)
class Ground:
    """A command and its undisturbed run.

    Attributes:
        folder: holds `before` and `after`: what the command needs, and that with what it makes.
        made: files that it makes or changes → their digests.
        seconds: that it took.
        said: what it printed.
    """

    command: Command
    folder: pathlib.Path
    made: dict[str, str]
    seconds: float
    said: str

    @property
    def tops(self) -> list[str]:
        """The outputs: the highest files and folders that are new after the command."""
        before = self.folder / "before"
        tops = {}
        for name in self.made:
            path = pathlib.PurePosixPath(name)
            while path.parent.name and not (before / path.parent).exists():
                path = path.parent
            tops[str(path)] = None
        return list(tops)


def environment(base: pathlib.Path, folder: pathlib.Path) -> dict[str, str]:
    """What a command sees: a home, a temporary folder and a cache of its own."""
    home = folder.with_name(f"{folder.name}.home")
    (home / "tmp").mkdir(parents=True, exist_ok=True)
    return {
        "HOME": str(home),
        "TMPDIR": str(home / "tmp"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "JAX_COMPILATION_CACHE_DIR": str(base / "programs"),
        "DASK_LOGGING__DISTRIBUTED": "critical",
    }


def prepare(base: pathlib.Path, names: list[str] | None = None) -> dict[str, Ground]:
    """Run these commands, and what they need, or take those that an earlier call has run.

    Raises:
        RuntimeError: if one fails undisturbed.
    """
    now = base / "now"
    if not now.exists():
        now.mkdir(parents=True)
        (base / "ground").mkdir()
    grounds = {}
    for number, command in enumerate(COMMANDS):
        if names is not None and command.name not in names:
            continue
        folder = base / "ground" / str(number)
        if not (folder / "ground.json").exists():
            _run(base, now, command, folder)
            if command.name == "simulate":
                inputs.write(now)
        grounds[command.name] = _read(command, folder)
    return grounds


def _read(command: Command, folder: pathlib.Path) -> Ground:
    kept = json.loads((folder / "ground.json").read_text())
    return Ground(command, folder, **kept)


def _run(base: pathlib.Path, now: pathlib.Path, command: Command, folder: pathlib.Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    place = folder / "work"
    place.mkdir(parents=True)
    copy(now, place, command.needs)
    copy(now, folder / "before", command.needs)
    before = digests(place)
    ended, said = once(base, place, command)
    if ended.status:
        raise RuntimeError(f"{command.typed}\n{said}\nundisturbed: status {ended.status}")
    after = digests(place)
    made = {name: digest for name, digest in after.items() if before.get(name) != digest}
    place.rename(folder / "after")
    for top in {name.split("/")[0] for name in made}:
        remove(now / top)
        copy(folder / "after", now, [top])
    kept = {"made": made, "seconds": ended.seconds, "said": said}
    (folder / "ground.json").write_text(json.dumps(kept))


def once(base: pathlib.Path, folder: pathlib.Path, command: Command) -> tuple[process.Ended, str]:
    """The command in a folder, undisturbed: how it ended and what it said."""
    log = folder.with_name(f"{folder.name}.undisturbed.log")
    log.unlink(missing_ok=True)
    around = environment(base, folder)
    child = process.start(command.module, command.arguments, folder, log, around)
    return child.wait(LONGEST), child.text()


def copy(source: pathlib.Path, target: pathlib.Path, tops) -> None:
    """Copy these files and folders."""
    target.mkdir(parents=True, exist_ok=True)
    for top in tops:
        if (source / top).is_dir():
            shutil.copytree(source / top, target / top, symlinks=True, dirs_exist_ok=True)
        elif (source / top).exists():
            shutil.copy2(source / top, target / top)


def remove(path: pathlib.Path) -> None:
    """A file or a folder, whatever its permissions, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def served(folder: pathlib.Path) -> Iterator[str]:
    """The URL of a server of the files in a folder."""
    command = [sys.executable, "-m", "tests.torture.server", str(folder)]
    server = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        yield server.stdout.readline().strip()
    finally:
        os.kill(server.pid, signal.SIGTERM)
        server.wait()
