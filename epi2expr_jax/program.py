"""How every program starts and ends: its flags, its --help, bad input, signals, its exit status.

0: done. 1: a check did not hold, or an internal error. 2: bad input. 130: interrupted (Ctrl-C).
143: terminated (SIGTERM); a training saves first. 141: nobody reads what it prints (`| head`).

It lies in the library because both folders of commands use it; nothing else here needs absl.
"""

import contextlib
import gc
import itertools
import os
import re
import resource
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from epi2expr_jax import ending
from epi2expr_jax.errors import InputError, Problem, collect, exit_on_bad_input, nearest

_HELP = "see --help"
UNKNOWN_FLAG, BAD_VALUE = "unknown_flag", "bad_value"  # kinds of such problems
_FLAG = re.compile(r"--?([A-Za-z_][\w-]*)(?:=|$)")
WITHIN_STUDY = "EPI2EXPR_WITHIN_STUDY"  # set in the environment of the commands of a study
_HANDLES = 128  # a training with its store, checkpoints and threads has some 60 files open
_MEMORY = 4 << 30  # bytes; evaluating the demo takes 3.2 GiB of addresses, its plan 3.4


def start(main: Callable[[], None], *definitions: Callable[[], None]) -> None:
    """Define flags, parse the command line, run `main`, leave with a status.

    Flags are defined here and not at import, since programs that share a process (tests) would
    clash: build_store's --genes is a file, simulate's a number.

    Args:
        main: the program; its module's docstring is the text of --help.
        definitions: functions that define its flags.
    """
    from absl import app, flags, logging  # the library itself does without absl

    FLAGS = flags.FLAGS
    before = set(FLAGS)
    for define in definitions:
        define()
    if _alone:
        _parse([_alone[-1].program, *_alone[-1].arguments])
        return
    # absl looks for both under the name of the script, which an installed command does not share.
    sys.modules["__main__"].__doc__ = sys.modules[main.__module__].__doc__
    _own.clear()
    _own.update(set(FLAGS) - before)
    for name in _own:
        FLAGS.register_key_flag_for_module(sys.argv[0], FLAGS[name])
    # Orbax and pyensembl report every step at INFO.
    FLAGS.verbosity = logging.WARNING
    if not gc.isenabled():  # see `ending.while_importing`
        gc.freeze()
        gc.enable()
    with ending.in_time(), ends_where_nobody_reads(), exit_on_bad_input(), _plain_warnings():
        _require_limits()
        try:
            app.run(lambda _: main(), flags_parser=_parse)
        finally:
            sys.stdout.flush()  # here a full disk or a closed pipe is still reported in words


def _parse(argv: list[str]) -> list[str]:
    from absl import flags

    try:
        rest = flags.FLAGS(argv)
    except (flags.Error, ValueError) as error:  # absl lets some of its parsers' own errors through
        other = Problem("command line", str(error), "flags of this program", _HELP)
        found = [*_unknown(argv[1:], flags.FLAGS), *_bad_values(argv[1:], flags.FLAGS)]
        raise InputError.of(found or [other]) from None
    except SystemExit:
        raise SystemExit(0) from None  # absl leaves with 1 after --help
    if rest[1:]:
        found = f"unexpected arguments: {' '.join(rest[1:])}"
        raise InputError("command line", found, "flags alone, as --NAME=VALUE", _HELP)
    return rest


@contextlib.contextmanager
def _plain_warnings() -> Iterator[None]:
    """Warnings are one line of words: where in the code they come from helps no user."""
    before = warnings.formatwarning
    warnings.formatwarning = lambda message, *_, **__: (
        f"warning: {' '.join(f'{message}'.split())}\n"
    )
    try:
        yield
    finally:
        warnings.formatwarning = before


def _unknown(words: Sequence[str], known: Iterable[str]) -> list[Problem]:
    """Every flag that a program does not have, each with the nearest that it has."""
    known, problems = [*known], []
    for word in itertools.takewhile(lambda word: word != "--", words):
        name = found[1] if (found := _FLAG.match(word)) else ""
        if name and not {name, name.removeprefix("no")} & {*known}:
            remedy = "; ".join(filter(None, [nearest(name, known), _HELP]))
            found = f"unknown flag --{name}"
            problems.append(
                Problem("command line", found, "flags of this program", remedy, UNKNOWN_FLAG)
            )
    return problems


def _bad_values(words: Sequence[str], known: Any) -> list[Problem]:
    """Every flag with a value that it does not take.

    Args:
        words: a command line without the program.
        known: absl's flags; those of `words` are set.
    """

    problems = []
    words = [*itertools.takewhile(lambda word: word != "--", words)]
    for word, after in itertools.zip_longest(words, words[1:]):
        name = found[1] if (found := _FLAG.match(word)) else ""
        value = word.partition("=")[2] if "=" in word else after
        if name not in known or value is None or (known[name].boolean and "=" not in word):
            continue
        try:
            (parser := known[name].parser).parse(value)
        except (ValueError, TypeError):
            choices = getattr(parser, "enum_values", ())
            expected = f"one of {', '.join(choices)}" if choices else parser.syntactic_help
            expected = "true or false" if known[name].boolean else expected or "as in --help"
            remedy = "; ".join(filter(None, [nearest(value, choices), _HELP]))
            given = f"--{name}={value}"
            problems.append(Problem("command line", given, expected, remedy, BAD_VALUE))
    return problems


class _Alone(NamedTuple):
    """A command line to read, of a program that shall not begin."""

    program: str
    arguments: Sequence[str]


_alone: list[_Alone] = []
_own: set[str] = set()  # names of the flags of the program that runs


@contextlib.contextmanager
def flags_alone(run: Callable[[], None], arguments: Sequence[str]) -> Iterator[None]:
    """Read the flags of another program, which does not begin; within, `absl.flags.FLAGS` has them.

    Args:
        run: the program's, which calls `start`.
        arguments: its command line.

    Raises:
        InputError: for what the program does not take.
    """
    from absl import app, flags, logging  # noqa: F401, with the flags that they define for all

    FLAGS = flags.FLAGS
    own = {name: FLAGS[name] for name in _own if name in FLAGS}  # both may have an --out
    for name in own:
        delattr(FLAGS, name)
    known = set(FLAGS)
    _alone.append(_Alone(run.__module__, arguments))
    try:
        run()
        yield
    finally:
        _alone.pop()
        for name in set(FLAGS) - known:
            delattr(FLAGS, name)
        for name, flag in own.items():
            FLAGS[name] = flag


def _require_limits() -> None:
    """Refuse limits under which libraries fail midway, not in words: XLA aborts the process."""
    with collect() as problems:
        limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        if limit != resource.RLIM_INFINITY and limit < _HANDLES:
            found = f"a limit of {limit} (ulimit -n)"
            problems.add("open files", found, f"{_HANDLES} or more", "ulimit -n 1024")
        for letter, kind in (("v", resource.RLIMIT_AS), ("d", resource.RLIMIT_DATA)):
            limit = resource.getrlimit(kind)[0]
            if limit != resource.RLIM_INFINITY and limit < _MEMORY:
                found = f"a limit of {limit >> 20} MiB (ulimit -{letter})"
                remedy = f"ulimit -{letter} unlimited, or ask the cluster for more memory"
                problems.add("memory", found, f"{_MEMORY >> 20} MiB or more", remedy)


@contextlib.contextmanager
def ends_where_nobody_reads() -> Iterator[None]:
    """A closed pipe under what is printed here, errors too, ends the program with status 141."""
    try:
        yield
    except BrokenPipeError:
        # What is left in the buffers would be written, and fail, once more as Python ends.
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except BrokenPipeError:
                os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise SystemExit(141) from None


def within_study() -> bool:
    """Whether a study runs this program: it runs what comes next, too."""
    return bool(os.environ.get(WITHIN_STUDY))


def print_next(done: str, command: str) -> None:
    """Print what was done, and which command to run next; within a study the first alone.

    Args:
        done: may be empty.
        command: may be empty, too.
    """
    after = f"next: {command}" if command and not within_study() else ""
    if line := "; ".join(filter(None, [done, after])):
        print(line)


def require(*names: str) -> None:
    """Refuse a command line that lacks one of these flags.

    Raises:
        InputError: naming every flag that is missing.
    """
    from absl import flags

    with collect() as problems:
        for name in names:
            if not getattr(flags.FLAGS, name):
                problems.add("command line", f"no --{name}", "a value", f"{_HELP} for an example")
