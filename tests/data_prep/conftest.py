"""A small track that tests of bigWigs share."""

import pytest

from tests.data_prep.tracks import write_track


@pytest.fixture
def track(tmp_path):
    """On chr1 (1,000 bp): 2 over 100-200, 4 over 200-250; on chr2 (300 bp): 1 everywhere."""
    runs = [("chr1", 100, 200, 2.0), ("chr1", 200, 250, 4.0), ("chr2", 0, 300, 1.0)]
    return write_track(tmp_path / "track.bw", {"chr1": 1000, "chr2": 300}, runs)
