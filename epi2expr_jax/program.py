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

_HELP, _FLAGS = "see --help", "flags of this program"
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

    FLAGS, other = flags.FLAGS, []
    try:
        rest = FLAGS(argv)
    except (flags.Error, ValueError) as error:  # absl lets some of its parsers' own errors through
        rest, other = argv[:1], [Problem("command line", str(error), _FLAGS, _HELP)]
    except SystemExit:
        raise SystemExit(0) from None  # absl leaves with 1 after --help
    if found := _wrong(argv[1:], FLAGS) or other:
        raise InputError.of(found)
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


def _wrong(words: Sequence[str], known: Any) -> list[Problem]:
    """All that is wrong with a command line.

    Args:
        words: without the program.
        known: absl's flags.
    """
    from absl import flags

    problems, stray, ignored = [], [], set()
    try:
        words = known.read_flags_from_files(words, force_gnu=False)
    except flags.Error as error:
        problems.append(Problem("command line", str(error), "a file of flags", _HELP))
    for word, after in itertools.zip_longest(words, words[1:], fillvalue=""):  # wherever it stands
        name, assigned, value = word.lstrip("-").partition("=")
        if name == "undefok":
            ignored |= {item.strip() for item in (value if assigned else after).split(",")}
    left = [*words]
    while left:
        word = left.pop(0)
        name, assigned, value = word.removeprefix("-").removeprefix("-").partition("=")
        if word == "--":
            stray += left
            break
        if word[:1] != "-" or not name:
            stray.append(word)
        elif name in ("flagfile", "undefok"):
            left = left if assigned else left[1:]
        elif name in known and (assigned or not known[name].boolean):
            lacks = not assigned and (bool(_alone) or not left or _name(left[0]) in known)
            if not assigned and not lacks:
                value = left.pop(0)
            problems += _bad_value(known[name], value, lacks, next(iter(left), ""))
        elif name not in known and not {name, name.removeprefix("no")} & ignored:
            flag = known[name[2:]] if name[:2] == "no" and name[2:] in known else None
            if flag is None:
                problems.append(_unknown(name, known))
            elif assigned or not flag.boolean:
                problems.append(_not_negated(word, flag))
            if flag is None and not assigned and left and left[0][:1] != "-":
                del left[0]  # most likely its value
    if stray:
        found, expected = f"unexpected arguments: {' '.join(stray)}", "flags alone, as --NAME=VALUE"
        problems.append(Problem("command line", found, expected, _HELP))
    return [*dict.fromkeys(problems)]


def _name(word: str) -> str:
    """Of the flag that a word of a command line is; empty if it is none."""
    return found[1] if (found := _FLAG.match(word)) else ""


def _unknown(name: str, known: Iterable[str]) -> Problem:
    """A flag that a program does not have, with the nearest that it has."""
    remedy = "; ".join(filter(None, [nearest(name, known), _HELP]))
    return Problem("command line", f"unknown flag --{name}", _FLAGS, remedy, UNKNOWN_FLAG)


def _not_negated(word: str, flag: Any) -> Problem:
    """`--noNAME` of a flag that takes a value, or with one; keys of a study file are false so."""
    if _alone and not flag.boolean:
        return Problem("command line", f"--{flag.name}=false", _taken(flag), _HELP, BAD_VALUE)
    usual = f"--{flag.name}, --no{flag.name}" if flag.boolean else f"--{flag.name}=VALUE"
    return Problem("command line", word, usual, _HELP)


def _bad_value(flag: Any, value: str, lacks: bool, after: str) -> list[Problem]:
    """What is wrong with the value of a flag, if anything.

    Args:
        lacks: there is none; a key of a study file is true then.
        after: the next word.
    """
    if lacks and not _alone:
        follows = f" ({after} follows)" if after else ""
        found, usual = f"--{flag.name} without a value{follows}", f"--{flag.name}=VALUE"
        return [Problem("command line", found, f"{usual}: {_taken(flag)}", _HELP)]
    if not lacks:
        try:
            flag.parser.parse(value)
        except (ValueError, TypeError):
            pass
        else:
            return []
    choices = getattr(flag.parser, "enum_values", ())
    remedy = "; ".join(filter(None, [nearest(value, choices), _HELP]))
    given = f"--{flag.name}={'true' if lacks else value}"
    return [Problem("command line", given, _taken(flag), remedy, BAD_VALUE)]


def _taken(flag: Any) -> str:
    """What a flag takes, in words."""
    if choices := getattr(flag.parser, "enum_values", ()):
        return f"one of {', '.join(choices)}"
    return "true or false" if flag.boolean else flag.parser.syntactic_help or "a text"


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
