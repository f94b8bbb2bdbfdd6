"""A cache of indexed annotations of a test's own."""

import pytest


@pytest.fixture
def cache(tmp_path, monkeypatch):
    folder = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))
    monkeypatch.setenv("PYENSEMBL_CACHE_DIR", str(folder))
    return folder
