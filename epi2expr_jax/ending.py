"""How a process ends when it is told to: in time, with one line, and its children with it."""

import atexit
import contextlib
import gc
import logging
import multiprocessing
import multiprocessing.resource_tracker
import multiprocessing.util
import os
import pathlib
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from typing import NoReturn

_GRACE = 1.2  # seconds to put away what was begun
_TO_SAVE = 25.0  # seconds to save what was trained
_SAID = {
    signal.SIGINT: "stopped by Ctrl-C",
    signal.SIGTERM: "stopped by SIGTERM",
}

_STATUSES = [128 + number for number in _SAID]

_unsaid = threading.Lock()  # taken by whichever thread says it
_saving: list[list[int]] = []  # of what would save if asked to end


def while_importing() -> None:
    """Ctrl-C and SIGTERM end a command at once: there is nothing yet to put away.

    For the folders of commands, where a command begins; whoever imports them otherwise is left
    alone.
    """
    called = pathlib.PurePath(sys.argv[0] if sys.argv else "")
    ours = called.parent.name if called.name == "__main__.py" else called.name
    begins = ours == "-m" or ours.startswith("epi2expr")
    if begins:  # before JAX is loaded: XLA's banners and hints go, its errors stay
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
        # What is imported stays to the end: looking for garbage in it costs a second in all.
        gc.disable()  # until `program.start`
        atexit.register(gc.freeze)
    if begins and multiprocessing.parent_process() is None:
        for number in _SAID:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, _at_once)


def _at_once(number: int, _: object) -> NoReturn:
    _say(_SAID[signal.Signals(number)])
    os._exit(128 + number)


@contextlib.contextmanager
def in_time() -> Iterator[None]:
    """Ctrl-C and SIGTERM end this process: `SystemExit` of 130 or 143 is raised in what runs here.

    Where that takes more than a second or two, or nothing can be raised since it computes outside
    of Python (XLA while it compiles), the process and its children are ended without it.
    """
    numbers = [n for n in _SAID if signal.getsignal(n) is not signal.SIG_IGN]  # nohup, `&`
    before = {number: signal.signal(number, _on_signal) for number in numbers}
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    fd = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    with contextlib.suppress(RuntimeError):  # too little memory: then as fast as Python hears
        threading.Thread(target=_watch, args=[reader], daemon=True).start()
    try:
        yield
    except SystemExit as left:
        if left.code in [128 + number for number in _SAID]:
            # Not by way of the interpreter's own end, which waits for XLA to have compiled.
            _leave(left.code)
        raise
    finally:
        signal.set_wakeup_fd(fd)
        writer.close()
        for number, handler in before.items():
            # A command has ended: as Python does too, its status shall not become another.
            signal.signal(number, signal.SIG_IGN if handler is _at_once else handler)


def _on_signal(number: int, _: object) -> NoReturn:
    for each in _SAID:
        signal.signal(each, signal.SIG_IGN)  # told once is enough
    # What other threads, finalisers and logs make of the end is nobody's concern.
    sys.unraisablehook = threading.excepthook = lambda _: None
    logging.disable()
    _say(_SAID[signal.Signals(number)])
    raise SystemExit(128 + number)


def _watch(reader: socket.socket) -> None:
    """Wait in a thread of its own, which runs whatever the main one computes."""
    with reader:
        status, end = 0, float("inf")
        while time.monotonic() < end:
            reader.settimeout(max(end - time.monotonic(), 0.01) if status else None)
            try:
                byte = reader.recv(1)
            except TimeoutError:
                break
            if not byte:
                return
            number = signal.Signals(byte[0])
            if number not in _SAID:
                continue
            to_save = number == signal.SIGTERM and bool(_saving)
            status = 128 + number
            end = min(end, time.monotonic() + (_TO_SAVE if to_save else _GRACE))
            _say(f"{_SAID[number]}{': saving' if to_save else ''}")
            if not to_save:
                _end_children()  # first, for whoever waits for them
    _end_children()
    os._exit(status)


def _say(line: str) -> None:
    if _unsaid.acquire(blocking=False):
        start = "\n" if os.isatty(2) else ""  # after ^C
        os.write(2, f"{start}{line}\n".encode())


def _leave(status: int) -> NoReturn:
    """End at once, whatever other threads are at."""
    _end_children()
    # Else the process that tracks what several share says that some of it is left.
    multiprocessing.util._exit_function()  # pyright: ignore[reportAttributeAccessIssue]
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _end_children() -> None:
    for child in multiprocessing.active_children():
        child.kill()


@contextlib.contextmanager
def saving() -> Iterator[list[int]]:
    """A list that is no longer empty once the process was asked to end (SIGTERM, preemption).

    What runs here then has half a minute to save and leave. The list stays empty outside of the
    main thread: whoever runs that handles signals.
    """
    asked: list[int] = []
    try:
        before = signal.signal(signal.SIGTERM, lambda number, _: asked.append(number))
    except ValueError:  # not the main thread
        yield asked
        return
    _saving.append(asked)
    try:
        yield asked
    finally:
        _saving.remove(asked)
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def sparing_children() -> Iterator[None]:
    """Processes that are started here never see Ctrl-C, which a terminal sends to all of them.

    Threads that are started here, and their processes, neither. Their parent ends them.
    """
    # Started with the first of them, it would let the signal through again.
    multiprocessing.resource_tracker.ensure_running()
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
