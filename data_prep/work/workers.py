"""Processes that work for this one: none is left when it ends, however it does."""

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Iterator


@contextlib.contextmanager
def no_worker_left() -> Iterator[threading.Event]:
    """Processes that are started inside are killed in the end, whatever they do.

    Yields:
        To be set earlier where what started them closes: from then on they are killed, and those
        that are started yet.
    """
    before = set(multiprocessing.active_children())
    end, closed = threading.Event(), threading.Event()

    def kill() -> None:
        end.wait()
        while True:
            last = closed.is_set()
            for process in set(multiprocessing.active_children()) - before:
                process.kill()
            if last:
                return
            closed.wait(0.05)

    killing = threading.Thread(target=kill, daemon=True)
    killing.start()
    try:
        yield end
    finally:
        closed.set()
        end.set()
        killing.join()


def end_with_parent() -> None:
    """In a worker: a killed parent must not leave it at work on what a rerun makes, too."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
