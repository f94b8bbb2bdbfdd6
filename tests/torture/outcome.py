"""What came of a trial, compared with an undisturbed run."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re

BAD = ("silent", "traceback", "hang", "crash")
OUTCOMES = ("finished_equal", "resumed_equal", "refused", *BAD)

# What differs between two undisturbed runs: times, and where and when something was done.
_VOLATILE = re.compile(r"seconds|written|started|finished|date|command|versions?|host|mtime|built")
_NOT_RESULTS = re.compile(r"(^|/)(checkpoints/|\..*\.lock$|.*\.partial|downloads\.lock)")


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One of `OUTCOMES`, or "unproved", and why."""

    kind: str
    why: str = ""


def digests(folder: pathlib.Path, names: list[str] | None = None) -> dict[str, str]:
    """A digest of what each file says, leaving out times and the folder's own path."""
    paths = [folder / name for name in names] if names is not None else folder.rglob("*")
    return {
        str(path.relative_to(folder)): _digest(path, folder) for path in paths if path.is_file()
    }


def _digest(path: pathlib.Path, folder: pathlib.Path) -> str:
    content = path.read_bytes()
    if path.suffix == ".json":
        with contextlib.suppress(ValueError):  # damaged: as it is
            content = json.dumps(_steady(json.loads(content)), sort_keys=True).encode()
    if path.suffix == ".svg":
        content = re.sub(rb"<dc:date>.*?</dc:date>", b"", content)
    content = content.replace(str(folder).encode(), b".")
    return hashlib.sha256(content).hexdigest()


def _steady(content):
    if isinstance(content, dict):
        items = content.items()
        return {key: _steady(value) for key, value in items if not _VOLATILE.search(key)}
    return [_steady(each) for each in content] if isinstance(content, list) else content


def judged(one, work: pathlib.Path, ended, said: str) -> Outcome:
    """What a command that ended by itself has come to.

    Args:
        one: the undisturbed run (`ground.Ground`).
        ended: how it ended (`process.Ended`).
        said: all it printed.
    """
    if ended.hung:
        return Outcome("hang", f"no end after {ended.seconds:.0f} s")
    if ended.status < 0 or "Fatal Python error" in said:
        return Outcome("crash", f"killed by signal {-ended.status}")
    if "Traceback (most recent call last)" in said:
        return Outcome("traceback", _last_line(said))
    if ended.status == 2 and all(word in said for word in ("found:", "expected:", "remedy:")):
        return Outcome("refused", _found(said))
    if ended.status == 1 and one.command.module == "experiments.verify":
        return Outcome("refused", "a claim does not hold")
    if ended.status:
        return Outcome("traceback", f"status {ended.status}: {_last_line(said)}")
    results = [name for name in one.made if not _NOT_RESULTS.search(name)]
    there = digests(work, results)
    for name in results:
        if name not in there:
            return Outcome("silent", f"status 0 without {name}")
        if there[name] != one.made[name]:
            return Outcome("silent", f"status 0 with another {name}")
    return Outcome("finished_equal")


def _last_line(said: str) -> str:
    lines = [line for line in said.strip().splitlines() if line.strip()]
    return lines[-1].strip()[:200] if lines else "not a word"


def _found(said: str) -> str:
    found = re.search(r"found:\s*(.*)", said)
    return found[1][:200] if found else ""
