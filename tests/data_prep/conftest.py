"""What tests of data_prep share: a small track, a bad server, a command line."""

import pytest
from absl import flags

from tests.data_prep.bad_server import serving
from tests.data_prep.tracks import write_track


@pytest.fixture
def track(tmp_path):
    """On chr1 (1,000 bp): 2 over 100-200, 4 over 200-250; on chr2 (300 bp): 1 everywhere."""
    runs = [("chr1", 100, 200, 2.0), ("chr1", 200, 250, 4.0), ("chr2", 0, 300, 1.0)]
    return write_track(tmp_path / "track.bw", {"chr1": 1000, "chr2": 300}, runs)


@pytest.fixture
def server():
    with serving() as server:
        yield server


@pytest.fixture
def command_line():
    """`command_line(define, *texts)`: define flags and parse these texts; undone in the end."""
    before, parsed = set(flags.FLAGS), flags.FLAGS.is_parsed()

    def parse(define, *texts):
        define()
        flags.FLAGS(["program", *texts])

    yield parse
    for name in set(flags.FLAGS) - before:
        delattr(flags.FLAGS, name)
    if not parsed:
        flags.FLAGS.unparse_flags()
