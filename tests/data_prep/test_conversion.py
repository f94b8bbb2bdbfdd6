"""Many files, one result each: what is done, what fails, and what may not share a name."""

import os
import pathlib

import pytest

from data_prep.catalogue import Source, Track, TrackSheet
from data_prep.conversion import convert, of_files, of_sheet
from epi2expr_jax.errors import InputError, Problem


def shout(source: pathlib.Path, target: pathlib.Path, *, progress: bool) -> int:
    """A conversion: to upper case. Files that say "bad" are bad."""
    text = source.read_text()
    if "bad" in text:
        raise InputError(Problem(str(source), text, "good", "mend it"))
    target.write_text(text.upper())
    return len(text)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.txt", "b.txt.gz"):
        (tmp_path / name).write_text(name)
    return tmp_path


def given(folder):
    return of_files("--files", [str(folder / "?.txt*")], folder / "out", ".loud")


def test_what_is_done_is_skipped_unless_its_source_is_newer(folder):
    out = folder / "out"
    assert convert(given(folder), shout) == {out / "a.loud": 5, out / "b.loud": 8}
    assert convert(given(folder), shout) == {}
    late = (out / "b.loud").stat().st_mtime + 5
    os.utime(folder / "b.txt.gz", (late, late))
    assert list(convert(given(folder), shout)) == [out / "b.loud"]
    unlike = convert(given(folder), shout, is_current=lambda target: target.name != "a.loud")
    assert out / "a.loud" in unlike


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_are_named_and_the_others_are_done(folder, workers):
    (folder / "c.txt").write_text("bad c")
    (folder / "d.txt").write_text("bad d")
    with pytest.raises(InputError) as error:
        convert(given(folder), shout, workers=workers)
    assert sorted(problem.found for problem in error.value.problems) == ["bad c", "bad d"]
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.loud", "b.loud"]


def test_no_two_files_become_one_and_no_pattern_is_empty(folder):
    (folder / "other").mkdir()
    (folder / "other" / "a.txt").write_text("a")
    texts = [str(folder / "*.txt"), str(folder / "other" / "*.txt"), str(folder / "*.none")]
    with pytest.raises(InputError) as error:
        of_files("--files", texts, folder / "out", ".loud")
    assert "several files that would become a.loud" in str(error.value)
    assert "*.none" in str(error.value)


def test_replicates_of_a_sheet_keep_their_names_apart(tmp_path):
    sources = tuple(Source(str(tmp_path / rep / "reads.bed"), replicate=rep) for rep in "12")
    sheet = TrackSheet("s", (Track("E003", "DNase", sources, "counts"),))
    conversion = of_sheet(sheet, tmp_path, ".depth.bw", "depth")
    names = ["E003-DNase-1.depth.bw", "E003-DNase-2.depth.bw"]
    assert [path.name for path in conversion.targets.values()] == names
    assert conversion.sheet.tracks[0].unit == "depth"
