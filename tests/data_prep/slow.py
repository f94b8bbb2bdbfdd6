"""A conversion that begins, and takes longer than any test."""

import pathlib
import time


def make(source: pathlib.Path, target: pathlib.Path, *, progress: bool) -> None:
    target.with_suffix(".begun").touch()
    time.sleep(300)
    target.touch()
