"""What came of a trial, compared with an undisturbed run."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import re
import sys

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
            read = _steady(json.loads(content))
            if isinstance(read, dict):
                read.pop("sha256", None)  # of all else, times too
            content = json.dumps(read, sort_keys=True).encode()
    if path.suffix == ".svg":
        content = re.sub(rb"<dc:date>.*?</dc:date>", b"", content)
    # The folder, and that of the command whose results it was given.
    content = re.sub(re.escape(str(folder.parent)).encode() + rb"/[\w.]+", b".", content)
    content = content.replace(f"{folder.name}/".encode(), b"./")  # as a page names its run
    return hashlib.sha256(content).hexdigest()


def _steady(content):
    if isinstance(content, dict):
        items = content.items()
        return {key: _steady(value) for key, value in items if not _VOLATILE.search(key)}
    return [_steady(each) for each in content] if isinstance(content, list) else content


def run() -> None:
    """As a program: print a digest of what a run, or every run below a folder, has learned."""
    import jax
    import numpy as np

    from epi2expr_jax.errors import exit_on_bad_input
    from epi2expr_jax.predict.loading import load

    (folder,) = sys.argv[1:]
    with exit_on_bad_input():
        digest = hashlib.sha256()
        for card in sorted(pathlib.Path(folder).rglob("run_card.json")):
            for member in load(card.parent).members:
                for leaf in jax.tree.leaves(member.weights):
                    digest.update(np.ascontiguousarray(leaf).tobytes())
        print(digest.hexdigest())


if __name__ == "__main__":
    run()
