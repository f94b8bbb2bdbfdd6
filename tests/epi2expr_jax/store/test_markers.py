"""A marker speaks of one slab; damaged, or of another slab, it is refused by name."""

import json

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.store import markers

SOURCES = [{"name": "x.bw", "bytes": 3, "sha256": "ab"}]


@pytest.fixture
def marker(tmp_path):
    path = markers.place(tmp_path, "E003", "H2A.Z")
    markers.write(path, SOURCES, "cd", {"signal": "ef"})
    return path


def test_a_marker_comes_back(marker, tmp_path):
    assert marker == tmp_path / "slabs" / "E003" / "H2A.Z.json"
    record = {"sources": SOURCES, "sha256": "cd", "fingerprints": {"signal": "ef"}}
    assert markers.read(marker, 3) == record
    assert markers.read(marker.with_name("other.json"), 3) is None


@pytest.mark.parametrize("content", ["\xff", "{", "[]", "{}", '{"sources": [1], "sha256": ""}'])
@pytest.mark.parametrize("version", [2, 3])
def test_a_damaged_marker_is_named(marker, content, version):
    marker.write_text(content, encoding="latin1")
    with pytest.raises(InputError, match=r"H2A\.Z\.json: found .*marker.*run again the command"):
        markers.read(marker, version)


def test_every_digit_counts_and_whose_marker_it_is(marker):
    other = markers.place(marker.parents[2], "E004", "H2A.Z")
    other.parent.mkdir()
    other.write_bytes(marker.read_bytes())
    marker.write_text(marker.read_text().replace('"bytes": 3', '"bytes": 2'))
    for path in (marker, other):
        with pytest.raises(InputError, match="changed, or of another track"):
            markers.read(path, 3)
    assert json.loads(other.read_text())["sources"] == SOURCES
