"""Results that belong together: written as one, and refused where they are not.

A program writes its files into a folder of its own. When all are there they get their names, and a
record, PROGRAM.json, says last what their checksums are. So files of two runs of a program are
never taken for those of one, nor is a damaged file taken for what was written.
"""

import contextlib
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer, read_sealed, whole_folder, write_sealed
from epi2expr_jax.training.checkpoint import files_sha256


@contextlib.contextmanager
def written(folder: pathlib.Path, program: str, **about: Any) -> Iterator[pathlib.Path]:
    """A folder to write the results of a program into; they replace those of before as one.

    After an error those of before stay as they were. Only a kill, or a disk that refuses, while
    files get their names at the very end leaves a mixture: then the record says so.

    Args:
        folder: where they belong; it is made if need be.
        program: as which they are recorded.
        about: what else the record should say.

    Yields:
        Where to write: an empty folder. What lies in it at the end, files and folders, is a result.

    Raises:
        InputError: if another process is writing the results of this program there.
    """
    folder = folder.resolve()
    made = [path for path in (folder, *folder.parents) if not path.exists()]
    record, staged = folder / f"{program}.json", folder / f".{program}.results"
    try:
        with only_writer(record):
            for left in folder.glob(f"{staged.name}*"):  # by a program that was killed
                shutil.rmtree(left, ignore_errors=True)
            with whole_folder(staged) as place:
                yield place
            _publish(staged, record, {"program": program, **about})
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # such as not empty
                path.rmdir()
        raise


def _publish(staged: pathlib.Path, record: pathlib.Path, about: dict[str, Any]) -> None:
    """Give the results their names, remove those of before, and write the record."""
    folder = record.parent
    before = _sums(record) if record.is_file() else {}
    sums = {path.name: files_sha256(path) for path in sorted(staged.iterdir())}
    write_sealed(record, about | {"files": None})
    stale = {name for name in before.keys() - sums.keys() if _is(folder / name, before[name])}
    for name in stale | sums.keys():
        old = folder / name
        if old.is_dir() and not old.is_symlink():
            shutil.rmtree(old)
        elif name not in sums or (staged / name).is_dir():
            old.unlink(missing_ok=True)
        if name in sums:
            (staged / name).replace(old)
    staged.rmdir()
    write_sealed(record, about | {"files": sums})


def _is(path: pathlib.Path, expected: str) -> bool:
    """Whether this is the result that a record speaks of."""
    return path.exists() and files_sha256(path) == expected


def _sums(record: pathlib.Path) -> dict[str, str]:
    """The checksums that a record names; none if it is damaged or was not completed."""
    try:
        sums = _read(record).get("files")
    except InputError:
        return {}
    if not isinstance(sums, dict):
        return {}
    # Whoever made the run directory wrote this: no name may lead out of it.
    return {n: sums[n] for n in sums if n == pathlib.Path(n).name and n not in ("", ".", "..")}


def _read(record: pathlib.Path) -> dict[str, Any]:
    return read_sealed(record, f"record of experiments.{record.stem}", _again(record))


def _again(record: pathlib.Path) -> str:
    return f"run again the experiments.{record.stem} command that wrote it"


def record_of(folder: pathlib.Path, program: str) -> dict[str, Any] | None:
    """What the record of a program's results says; None if there is none.

    Raises:
        InputError: if the record is damaged, or says that the results were not completed.
    """
    record = folder / f"{program}.json"
    if not record.exists():  # version 0.1 wrote none
        return None
    content = _read(record)
    if not isinstance(content.get("files"), dict):
        found = f"unfinished results: experiments.{program} was stopped while it replaced them"
        raise InputError(str(record), found, "complete results", _again(record))
    return content


def complete(folder: pathlib.Path, program: str) -> bool:
    """Whether all results of a program are there, as it wrote them."""
    try:
        record = record_of(folder, program)
    except InputError:  # stopped while it wrote them, or damaged since
        return False
    return record is not None and all(_is(folder / n, sum) for n, sum in record["files"].items())


def checked(path: pathlib.Path, program: str) -> pathlib.Path | None:
    """A result, compared with its record; None if it is not one of the program's last results.

    Without a record (version 0.1 wrote none) any file of that name is taken.

    Raises:
        InputError: if it is not what the program wrote, or the results are not complete.
    """
    record = record_of(path.parent, program)
    if record is None:
        return path if path.exists() else None
    expected = record["files"].get(path.name)
    if expected is None:
        return None
    remedy = _again(path.parent / f"{program}.json")
    if not path.exists():
        raise InputError(str(path), "no such file", f"what experiments.{program} wrote", remedy)
    if files_sha256(path) != expected:
        other = f"other content than experiments.{program} wrote"
        raise InputError(str(path), other, f"sha256 {expected[:12]}… as in its record", remedy)
    return path
