"""A whole study from one file: build, train, evaluate, alter, verify, and a page that compares.

    python -m experiments.study STUDY.toml --dry_run     what it will do, and what that takes
    python -m experiments.study STUDY.toml
    python -m experiments.study --study=demo             one that ships: demo, approach_1, …
    epi2expr study STUDY.toml

A study file names the inputs of a store, the models to train, and what to ask of them; the keys are
the flags of the commands that do it (data_prep.build_store, experiments.train, …; each has --help).
experiments/studies/demo.toml is the shortest. Its paths are relative to the file; of a study that
ships, to the folder one stands in.

Misspelt flags are named before anything begins. Run again, it skips the steps that are done, and
begins the others again, whose commands resume what they can. Steps are also done again if their
flags, the files that these name, their results or a step before them changed; a command refuses
what it cannot change: for other inputs or another training, give another --out, or delete what is
there.
"""

import contextlib
import hashlib
import importlib
import os
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

from absl import flags

from epi2expr_jax.ending import sparing_children
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import only_writer, read_json, sha256, write_json
from epi2expr_jax.genome import listing
from epi2expr_jax.program import WITHIN_STUDY, flags_alone, require, start
from epi2expr_jax.study.request import TrainRequest
from experiments.cli.certificate import DAMAGED, store_now
from experiments.cli.flags import request_of_flags
from experiments.cli.study_file import Step, StudyFile, read_study
from experiments.cli.study_plan import naming_table, plan

FLAGS = flags.FLAGS

_CODE = pathlib.Path(__file__).resolve().parent.parent
_PLACES = ("--run", "--out")
_TRAIN = ("experiments.train", "experiments.select", "experiments.sweep")
_NEW = "not done yet"
_OTHERS = "its flags were others"
# By size alone: weights and arrays, which are large, and which whoever reads them checks.
_LARGE = re.compile(r"(^|/)checkpoints/|\.zarr/")
_NO_RESULT = re.compile(r"\.lock$|\.partial(/|$)|(^|/)study\.json$")


def check(study: StudyFile) -> dict[str, TrainRequest]:
    """Have every command read its flags; returns what each step that trains is asked for.

    Raises:
        InputError: naming every flag that a command does not take.
    """
    requests = {}
    with collect() as problems:
        for step in study.steps:
            # As it will run: some flags may name a file.
            with problems.part(), naming_table(study, step), contextlib.chdir(study.folder):
                program = importlib.import_module(step.module)
                with flags_alone(program.run, step.arguments):
                    if step.module in _TRAIN:
                        requests[step.name] = request_of_flags()
    return requests


class _Journal:
    """What was done, by which command line, from which files, and what it left.

    What a step of a run or a question left is known by checksum (weights by size), so that it is
    done again if a result is gone or changed. What it read is known by size and time, or else by
    checksum: the copy of a folder is as good as the folder. A store is read whole where its files
    have other sizes or times than before; what else is prepared is too much to read: its commands
    look.
    """

    def __init__(self, study: StudyFile):
        self.study = study
        self.path = study.folder / study.out / "study.json"
        self.done: dict[str, Any] = {}
        self._before: dict[str, list[int]] = {}
        self.looked = False  # at what a store holds
        if self.path.exists():
            self.done = _read_journal(self.path)

    def _stat(self, name: str) -> list[int]:
        with contextlib.suppress(FileNotFoundError):  # the command itself says so
            found = (self.study.folder / name).stat()
            return [found.st_size, found.st_mtime_ns]
        return []

    def _results(self, step: Step) -> dict[str, list[int]]:
        """Size and time of every file where the step writes."""
        if not step.module.startswith("experiments."):
            return {}
        words = [word.partition("=") for word in step.arguments]
        places = [self.study.folder / value for flag, _, value in words if flag in _PLACES]
        files = [path for place in places for path in sorted(place.rglob("*")) if path.is_file()]
        names = [os.path.relpath(path, self.study.folder) for path in files]
        return {name: self._stat(name) for name in names if not _NO_RESULT.search(name)}

    def _sum(self, name: str) -> str | int:
        path = self.study.folder / name
        return path.stat().st_size if _LARGE.search(name) else sha256(path)

    def _same(self, name: str, written: str | int) -> bool:
        return (self.study.folder / name).is_file() and self._sum(name) == written

    def _as_read(self, name: str, before: list[int | str]) -> bool:
        """Whether a file is as it was; records of older versions have no checksum of it."""
        now = self._stat(name)
        if now == before[:2]:
            return True
        same_size = bool(now and before) and now[0] == before[0]
        return same_size and before[2:] == [sha256(self.study.folder / name)]

    def due(self, step: Step) -> str:
        """Why a step is to be done; nothing where what it did holds."""
        if step.name not in self.done:
            return _NEW
        known = {"arguments": [], "read": {}, "made": {}, **self.done[step.name]}  # of older ones
        gone = [name for name in step.makes if not (self.study.folder / name).exists()]
        made = [name for name, written in known["made"].items() if not self._same(name, written)]
        read = [name for name in {**dict.fromkeys(step.reads), **known["read"]}
                if not self._as_read(name, known["read"].get(name, []))]  # fmt: skip
        stores = step.makes if step.module == "data_prep.build_store" else ()
        if gone:
            return f"{listing(gone)} is gone"
        for path in ((self.study.folder / name).parent for name in stores):
            if self._store_damaged(step, path):
                return f"{path.name} is damaged"
        if known["arguments"] != list(step.arguments):
            other = {*known["arguments"]} ^ {*step.arguments}
            kept = f"; {unaltered}" if (unaltered := _unaltered(step)) else ""
            return f"{_OTHERS} ({listing(sorted(other))}){kept}"
        if lost := [name for name in read if not self._stat(name)]:
            return f"{listing(lost)}, which it read, is gone"
        if read:
            return f"{listing(read)} changed since it was read"
        return f"{listing(made)}, which it made, is gone or changed" if made else ""

    def _store_damaged(self, step: Step, path: pathlib.Path) -> bool:
        if store_now(path) == DAMAGED:  # what nobody may read any more
            return True
        known, now = self.done[step.name], _files_of(path)
        if known.get("store") == now:
            return False
        print(f"{path.name} has changed since it was built, or was copied: reading it ...")
        if store_now(path, whole=True) == DAMAGED:
            return True
        known["store"], self.looked = now, True
        return False

    def begin(self, step: Step) -> None:
        """Forget it, and all that rests on it: what it made before may change now."""
        self._before = self._results(step)
        known = self.done.get(step.name, {})
        asked = known.get("arguments") == list(step.arguments)
        if asked and not all(self._stat(name) for name in known.get("read", {})):
            return  # an input is gone: the command refuses, and changes nothing
        gone = {step.name}
        for later in self.study.steps:
            if gone & set(later.needs):
                gone.add(later.name)
        if gone & self.done.keys():
            self.done = {name: state for name, state in self.done.items() if name not in gone}
            self.write()

    def end(self, step: Step) -> None:
        now = self._results(step).items()
        changed = [name for name, state in now if self._before.get(name) != state]
        made = {name: self._sum(name) for name in changed}
        for earlier in self.done.values():  # a file that two steps write is the later one's
            known = earlier.get("made", {})
            known |= {name: made[name] for name in known.keys() & made.keys()}
        read = {name: [*state, sha256(self.study.folder / name)]
                for name in step.reads if (state := self._stat(name))}  # fmt: skip
        self.done[step.name] = {"arguments": list(step.arguments), "read": read, "made": made}
        if step.module == "data_prep.build_store":
            store = (self.study.folder / step.makes[0]).parent
            self.done[step.name]["store"] = _files_of(store)
        self.write()

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_json(self.path, self.done)


def _unaltered(step: Step) -> str:
    """What to do where a command refuses to alter what it made; nothing of those that do not."""
    if step.module == "experiments.train":
        return (
            "train adds seeds, cells, assays, folds and epochs to a finished training, and changes "
            f"nothing else: for another training rename [train.{step.run}]"
        )
    if step.module == "data_prep.build_store":
        place = pathlib.PurePath(step.makes[0]).parent
        return (
            "build_store does not change a finished store: for another one delete "
            f"{place}, or give another --out"
        )
    return ""


def _files_of(store: pathlib.Path) -> str:
    """What tells that a file of a store was written again: a digest of their sizes and times."""
    files = sorted(path for path in store.rglob("*") if path.is_file())
    names = {str(path.relative_to(store)): path.stat() for path in files}
    states = [(name, state) for name, state in names.items() if not _NO_RESULT.search(name)]
    words = [f"{name} {state.st_size} {state.st_mtime_ns}" for name, state in states]
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def _is_state(state: Any) -> bool:
    """Whether it is what a journal keeps of a step; `made` came later."""
    if not isinstance(state, dict):
        return False
    words, read = state.get("arguments", []), state.get("read", {})
    if not (isinstance(words, list) and isinstance(read, dict)):
        return False
    named = all(isinstance(word, str) for word in words) and not any("\0" in name for name in read)
    kept = all(isinstance(known, list) for known in read.values())
    return named and kept and isinstance(state.get("made", {}), dict)


def _read_journal(path: pathlib.Path) -> dict[str, Any]:
    remedy = "delete it: every step is begun again, and resumes what it can"
    done = read_json(path, "record of a study", remedy)
    for state in done.values():
        if not _is_state(state):
            found = f"no readable record of a study ({str(state)[:60]})"
            raise InputError(str(path), found, "what was done, by step", remedy)
    return done


def to_do(study: StudyFile, journal: _Journal | None = None) -> list[tuple[Step, str]]:
    """The steps, and why each has yet to be done; nothing for what is done."""
    journal, again, steps = journal or _Journal(study), set(), []
    for step in study.steps:
        due, before = journal.due(step), [name for name in step.needs if name in again]
        if before and not due:
            due = f"it rests on: {listing(before)}"
        if due:
            again.add(step.name)
        steps.append((step, due))
    return steps


def _built(study: StudyFile) -> bool:
    """Whether the store was built of what the file names now, with the flags it has now."""
    journal = _Journal(study)
    for step in study.steps:
        if step.name == "store" and (known := journal.done.get(step.name)):
            read = known.get("read", {})
            same = all(journal._as_read(name, read.get(name, [])) for name in step.reads)
            return same and known.get("arguments") == list(step.arguments)
    return False


def carry_out(study: StudyFile) -> bool:
    """Do what is left to do; returns whether every check held.

    Raises:
        SystemExit: with the status of a command that failed.
    """
    began, journal, held = time.monotonic(), _Journal(study), True
    environment = {**os.environ, "PYTHONPATH": _path(), WITHIN_STUDY: "1"}
    steps = to_do(study, journal)
    if journal.looked:
        journal.write()  # a copied store is read once
    for number, (step, due) in enumerate(steps, 1):
        print(f"\n[{number}/{len(steps)}] {_typed(step)}", flush=True)
        if not due:
            print("done before")
            continue
        if due != _NEW:
            print(f"again: {due}", flush=True)
        journal.begin(step)
        command = [sys.executable, "-m", step.module, *step.arguments]
        status = _status(command, study.folder, environment)
        if status == 1 and step.module == "experiments.verify":
            held = False  # the page says so, too
            continue
        if status:
            there = any((study.folder / name).exists() for name in step.makes)
            # A store may also be refused for its inputs: then it need not go.
            unlike = step.module in _TRAIN or due.startswith(_OTHERS) or "changed" in due
            if status == 2 and there and unlike and (kept := _unaltered(step)):
                print(f"in a study: {kept}", file=sys.stderr)
            raise SystemExit(status)
        journal.end(step)
    pages = [name for step in study.steps for name in step.makes if name.endswith(".html")]
    print(f"\n{', '.join(pages)} ({time.monotonic() - began:.0f} s in all)")
    return held


def _status(command: list[str], folder: pathlib.Path, environment: dict[str, str]) -> int:
    """The exit status of a command, which does not outlive this process."""
    with sparing_children():
        child = subprocess.Popen(command, cwd=folder, env=environment)
    try:
        return child.wait()
    except BaseException:
        child.terminate()  # a training saves first, also where this process ends before it
        child.wait()
        raise


def _path() -> str:
    """Commands run in the folder of the study, where a checkout would not be found."""
    return os.pathsep.join([str(_CODE), *filter(None, [os.environ.get("PYTHONPATH")])])


def _typed(step: Step) -> str:
    return f"python -m {step.module} {' '.join(step.arguments)}"


def main() -> None:
    require("study")
    study = read_study(FLAGS.study, FLAGS.out)
    dry = FLAGS.dry_run
    requests = check(study)
    print(f"{study.source} → {study.folder / study.out}")
    print("\n".join(plan(study, requests, _built(study))))
    if dry:
        for step, due in to_do(study):
            why = f"  (again: {due})" if due not in ("", _NEW) else ""
            print(f"{'to do' if due else 'done':<6} {_typed(step)}{why}")
        return
    with only_writer(study.folder / study.out):
        if not carry_out(study):
            raise SystemExit("a check did not hold: see what experiments.verify said above")


def define_study() -> None:
    """The flags of this program."""
    flags.DEFINE_string("study", None, "A study file, or the name of one that ships.")
    flags.DEFINE_string("out", "", "Folder of all that is made; default: as the file says.")
    flags.DEFINE_boolean("dry_run", False, "Say what would be done, and do nothing.")


def run() -> None:
    if sys.argv[1:] and not sys.argv[1].startswith("-"):
        sys.argv[1] = f"--study={sys.argv[1]}"
    start(main, define_study)


if __name__ == "__main__":
    run()
