"""How bad input is reported: every problem at once, each with its remedy."""

import contextlib
import dataclasses
import difflib
import errno
import pathlib
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any


@dataclasses.dataclass(frozen=True)
class Problem:
    """One thing wrong with an input.

    Attributes:
        where: the file, and the record in it (line, row, gene, chromosome).
        found: what is there.
        expected: what should be there.
        remedy: what the user can do about it.
        kind: a short name of what is wrong, for programs; empty where nobody has named it.
    """

    where: str
    found: str
    expected: str
    remedy: str
    kind: str = ""

    def __str__(self) -> str:
        return f"{self.where}: found {self.found}; expected {self.expected}; {self.remedy}"


class InputError(ValueError):
    """Bad input: one problem as it is raised here, or several gathered by `collect`.

    Args:
        where, found, expected, remedy, kind: as in `Problem`.

    Attributes:
        problems: every problem, so that one run shows them all.
    """

    problems: tuple[Problem, ...]

    def __init__(self, where: str, found: str, expected: str, remedy: str, kind: str = ""):
        self._set((Problem(where, found, expected, remedy, kind),))

    @classmethod
    def of(cls, problems: Problem | Iterable[Problem]) -> "InputError":
        """One error of one or several problems."""
        error = cls.__new__(cls)
        error._set((problems,) if isinstance(problems, Problem) else tuple(problems))
        return error

    def _set(self, problems: tuple[Problem, ...]) -> None:
        self.problems = problems
        self.args = ("\n".join(map(str, problems)),)

    def __reduce__(self):
        # Exceptions pickle by their args (a string here); worker processes need the problems.
        return type(self).of, (self.problems,)


def nearest(found: str | Iterable[str], choices: Iterable[str]) -> str:
    """A remedy for names that are none of the choices: the nearest ones; empty if none is near.

    Case does not count.
    """
    known = {choice.lower(): choice for choice in choices}
    near = []
    for name in [found] if isinstance(found, str) else found:
        near += difflib.get_close_matches(name.lower(), known, n=1)
    names = dict.fromkeys(known[name] for name in near)
    return f"did you mean {', '.join(names)}?" if names else ""


class OutOfMemory(RuntimeError):
    """A device had too little memory for what was asked of it."""


class Problems:
    """Gathers problems; see `collect`."""

    def __init__(self, most: int | None = None) -> None:
        self.found: list[Problem] = []
        self._most = most

    def add(self, where: str, found: str, expected: str, remedy: str, kind: str = "") -> None:
        """One more, as in `Problem`."""
        self.found.append(Problem(where, found, expected, remedy, kind))

    def extend(self, problems: Iterable[Problem]) -> None:
        """Several more."""
        self.found.extend(problems)

    def part(self, kind: str = "") -> "_Part":
        """For work whose `InputError` must not end what comes after it.

        Args:
            kind: given to the problems found inside that have none.
        """
        return _Part(self, kind)

    def __bool__(self) -> bool:
        return bool(self.found)

    def __enter__(self) -> "Problems":
        return self

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> None:
        if isinstance(error, InputError):
            self.found.extend(error.problems)
        elif error is not None:
            return
        if self.found:
            raise InputError.of(self._shown()) from None

    def _shown(self) -> list[Problem]:
        """Each problem once, and how many more there are beyond the most to show."""
        found = list(dict.fromkeys(self.found))
        if self._most and len(found) > self._most + 1:
            first, *more = found[self._most :]
            rest = f"{first.found}, and {len(more)} more problems"
            found[self._most :] = [dataclasses.replace(first, found=rest)]
        return found


class _Part:
    def __init__(self, problems: Problems, kind: str):
        self._problems, self._kind = problems, kind

    def __enter__(self) -> None:
        self._before = len(self._problems.found)

    def __exit__(self, _: Any, error: BaseException | None, __: Any) -> bool:
        found = self._problems.found
        if isinstance(error, InputError):
            found.extend(error.problems)
        found[self._before :] = [
            dataclasses.replace(problem, kind=problem.kind or self._kind)
            for problem in found[self._before :]
        ]
        return isinstance(error, InputError)


def collect(most: int | None = None) -> Problems:
    """Gather problems, and raise them together at the end: the one way to report several.

        with collect() as problems:
            if not rows:
                problems.add(path, "no rows", "a row a gene", "add them")
            for track in tracks:
                with problems.part():  # goes on with the next track
                    read(track)

    Args:
        most: how many to show at most, and one more that counts the rest: a file with hundreds of
            bad lines has one fault.

    Raises:
        InputError: at the end, of all that was found, each once.
    """
    return Problems(most)


@contextlib.contextmanager
def reworded(change: Callable[[Problem], Problem]) -> Iterator[None]:
    """Problems raised within are passed through `change`, for a caller that knows an input by
    another name.
    """
    try:
        yield
    except InputError as error:
        raise InputError.of(map(change, error.problems)) from None


def describe(problems: Iterable[Problem]) -> str:
    """Problems for a reader, four lines each."""
    return "\n".join(
        f"  {problem.where}\n"
        f"    found:    {problem.found}\n"
        f"    expected: {problem.expected}\n"
        f"    remedy:   {problem.remedy}"
        for problem in problems
    )


# What a program that is free of faults may still be told by the system.
_THE_USERS = {
    errno.EACCES, errno.EBUSY, errno.EDQUOT, errno.EEXIST, errno.EFBIG, errno.EIO, errno.EISDIR,
    errno.ELOOP, errno.EMFILE, errno.ENAMETOOLONG, errno.ENFILE, errno.ENODEV, errno.ENOENT,
    errno.ENOLCK, errno.ENOSPC, errno.ENOTDIR, errno.ENOTEMPTY, errno.ENXIO, errno.EPERM,
    errno.EROFS, errno.ESTALE, errno.ETXTBSY,
}  # fmt: skip
_OF_MEMORY = ("RESOURCE_EXHAUSTED", "can't start new thread")  # as JAX and Python report it


@contextlib.contextmanager
def exit_on_bad_input() -> Iterator[None]:
    """For programs: print the problems and leave with status 2 instead of a traceback.

    Files, folders and memory that refuse what is asked of them are reported the same way: only the
    user can help there, and a traceback does not.
    """
    try:
        yield
    except InputError as error:
        problems = error.problems
    except OSError as error:
        problems = (_refused(error),)
    except (MemoryError, RuntimeError) as error:
        problems = (_too_little(error),)
    else:
        return
    count = len(problems)
    print(f"\n{count} problem{'s' if count != 1 else ''} with the input:", file=sys.stderr)
    print(describe(problems), file=sys.stderr)
    raise SystemExit(2)


def _refused(error: OSError) -> Problem:
    """What the system refused; an error that is this program's fault is raised again."""
    if error.errno == errno.ENOMEM:
        return _too_little(error)
    if error.errno not in _THE_USERS:
        raise error
    where, found = str(error.filename or "a file"), error.strerror or str(error)
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return Problem(where, found, "room for more open files", "raise the limit: ulimit -n 4096")
    if error.errno == errno.ENOENT:
        expected = "a file or folder that is there, and stays while this runs"
        return Problem(where, found, expected, "check the path, then run the same command again")
    return Problem(
        where,
        found,
        "room and permission to read and write there",
        "free room, or name another place, then run the same command again",
    )


def _too_little(error: Exception) -> Problem:
    """Where memory ran out; an error that is this program's fault is raised again."""
    named = isinstance(error, (MemoryError, OutOfMemory, OSError))
    if not named and not any(sign in str(error) for sign in _OF_MEMORY):
        raise error
    found = (str(error) or "none left").splitlines()[0][:300]
    remedy = "close other programs or raise the limit (ulimit -v), or take less at once"
    return Problem("memory", found, "enough for this command", remedy)


def write_failed(path: str | pathlib.Path, found: str, remedy: str) -> InputError:
    """The error of a disk that refuses.

    Args:
        found: what came of it, with the reason.
        remedy: what to do besides freeing space.
    """
    return InputError(str(path), found, "room and permission to write", f"free space{remedy}")
