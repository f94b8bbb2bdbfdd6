"""Every run that is trained here must prove itself; and a made-up one, for what reads one."""

import pytest
from absl import flags

from tests.experiments.made_up import MadeUpRun


@pytest.fixture(scope="session", autouse=True)
def every_run_is_verified(verified_runs):
    """As soon as a training ends."""


@pytest.fixture(scope="session")
def made_up_run():
    """`made_up_run(cells, assays=..., ...).write(folder)`."""
    return MadeUpRun


@pytest.fixture
def parse_flags():
    """`parse_flags(definitions, *arguments)`: a command line as a program reads it; then undone."""
    known = set(flags.FLAGS)

    def forget():
        for name in set(flags.FLAGS) - known:
            delattr(flags.FLAGS, name)

    def parse(definitions, *arguments):
        forget()
        for define in definitions:
            define()
        flags.FLAGS(["program", *arguments])

    yield parse
    forget()
