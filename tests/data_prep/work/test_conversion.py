"""Many files, one result each: what is done, what fails, and what may not share a name."""

import dataclasses
import errno
import os
import pathlib
import signal
import subprocess
import sys
import time

import psutil
import pytest

from data_prep.formats.track_sheet import Source, Track, TrackSheet
from data_prep.work.conversion import convert, of_files, of_sheet
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer


def shout(source: pathlib.Path, target: pathlib.Path, *, progress: bool) -> int:
    """A conversion: to upper case. Files that say "bad" are bad."""
    text = source.read_text()
    if "deadly" in text:
        os.kill(os.getpid(), signal.SIGKILL)
    if "full" in text:
        raise OSError(errno.ENOSPC, "No space left on device")
    if "bad" in text:
        raise InputError(str(source), text, "good", "correct it")
    target.write_text(text.upper())
    return len(text)


@pytest.fixture
def folder(tmp_path):
    for name in ("a.txt", "b.txt.gz"):
        (tmp_path / name).write_text(name)
    return tmp_path


def given(folder):
    return of_files("--files", [str(folder / "?.txt*")], folder / "out", ".loud")


def test_what_is_done_is_skipped_and_nothing_else_is(folder):
    """A result counts if it is as it was made, of the same file, with the same settings."""
    out = folder / "out"
    both = {out / "a.loud": 5, out / "b.loud": 8}
    assert convert(given(folder), shout) == both
    assert convert(given(folder), shout) == {}
    os.utime(folder / "a.txt", (5, 5))  # copied, say
    assert convert(given(folder), shout) == {}

    def again(damage):
        damage()
        made = convert(given(folder), shout)
        assert (out / "a.loud").read_text() == (folder / "a.txt").read_text().upper()
        assert convert(given(folder), shout) == {}
        return list(made)

    a, record = out / "a.loud", out / "a.loud.json"
    for damage in (
        lambda: a.write_text(""),
        lambda: a.write_text("A.TXt"),
        lambda: a.unlink(),
        lambda: record.unlink(),
        lambda: record.write_text('{"source": 3'),
        lambda: record.write_text('{"source": 3, "settings": {}}'),
        lambda: ((folder / "a.txt").write_text("b.txt"), os.utime(folder / "a.txt", (5, 5))),
    ):
        assert again(damage) == [a]
    assert convert(dataclasses.replace(given(folder), settings={"loud": 2}), shout) == both


def test_a_file_that_is_not_that_of_the_sheet_or_changes_gives_no_result(folder):
    sheets = dataclasses.replace(given(folder), digests={folder / "a.txt": "0" * 64})
    with pytest.raises(InputError, match="as the track sheet says"):
        convert(sheets, shout)

    def change(source, target, *, progress):
        source.write_text("another")
        return shout(source, target, progress=progress)

    with pytest.raises(InputError, match="changed while it was read") as error:
        convert(given(folder), change)
    (problem,) = error.value.problems
    assert problem.where == str(folder / "a.txt")
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["b.loud", "b.loud.json"]


def test_one_program_at_a_time_writes_a_folder_and_what_the_last_left_is_removed(folder):
    out = folder / "out"
    out.mkdir()
    (out / "a.loud.0123.partial.reads").mkdir()
    (out / "b.loud.4567.partial.loud").touch()
    with only_writer(out), pytest.raises(InputError, match=f"out: found process {os.getpid()} on"):
        convert(given(folder), shout)
    assert len(list(out.iterdir())) == 2, "a refused program touches nothing"
    convert(given(folder), shout)
    names = ["a.loud", "a.loud.json", "b.loud", "b.loud.json"]
    assert sorted(path.name for path in out.iterdir()) == names


@pytest.mark.parametrize("workers", [1, 2])
def test_bad_files_are_named_and_the_others_are_done(folder, workers):
    (folder / "c.txt").write_text("bad c")
    (folder / "d.txt").write_text("full")
    with pytest.raises(InputError) as error:
        convert(given(folder), shout, workers)
    bad, full = sorted(error.value.problems, key=lambda problem: problem.where)
    assert bad.found == "bad c"
    assert full.where.endswith("d.txt")
    assert "No space left" in full.found
    assert sorted(path.name for path in (folder / "out").glob("*.loud")) == ["a.loud", "b.loud"]


def test_a_worker_that_is_killed_costs_no_problem_that_was_found(folder):
    (folder / "c.txt").write_text("deadly")
    conversion = given(folder)
    failed = {folder / "0.txt": InputError("0.txt", "HTTP 404", "a file", "check the URL")}
    with pytest.raises(InputError) as error:
        convert(dataclasses.replace(conversion, fetch=lambda sources: failed), shout, 2)
    where = {pathlib.Path(problem.where).name: problem for problem in error.value.problems}
    assert where["0.txt"].found == "HTTP 404"
    assert "fewer --workers" in where["c.txt"].remedy
    (folder / "c.txt").write_text("c")
    convert(conversion, shout, 2)
    assert len(list((folder / "out").glob("*.loud"))) == 3


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_program_that_ends_leaves_no_worker_behind(tmp_path, how):
    """It would go on with what a rerun makes, too. Ctrl-C reaches all processes of a terminal."""
    for name in "ab":
        (tmp_path / f"{name}.bed").write_text("chr1\t0\t10\n")
    program = (
        "import pathlib, sys, time, tests.data_prep.slow as slow\n"
        "from data_prep.work.conversion import convert, of_files\n"
        "if __name__ == '__main__':\n"
        "    try:\n"
        f"        convert(of_files('--x', [{str(tmp_path / '*.bed')!r}], pathlib.Path("
        f"{str(tmp_path / 'out')!r}), '.x'), slow.make, 2)\n"
        "    except KeyboardInterrupt:\n"
        "        sys.exit('interrupted')\n"
    )
    (tmp_path / "program.py").write_text(program)
    process = subprocess.Popen(
        [sys.executable, str(tmp_path / "program.py")],
        env=os.environ | {"PYTHONPATH": os.getcwd()},
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    out, deadline = tmp_path / "out", time.time() + 60
    while len(list(out.glob("*.begun"))) < 2 and time.time() < deadline:
        time.sleep(0.05)
    workers = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, how) if how == signal.SIGINT else process.kill()
    begin = time.monotonic()
    said = process.communicate()[1]
    took = time.monotonic() - begin
    _, alive = psutil.wait_procs(workers, timeout=20)
    assert len(workers) >= 2
    assert not alive
    assert not list(out.glob("*.x"))
    if how == signal.SIGINT:
        assert said == b"interrupted\n"
        assert took < 2


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


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("E1", "DNase", "a", "1"), ("E1", "DNase-1", "b", "")], "would become E1-DNase-1.x"),
        ([("E1", "DNase", "a", ""), ("E2", "DNase", "a", "")], "several tracks of one file: a"),
    ],
)
def test_results_that_would_be_one_are_refused(tmp_path, rows, said):
    tracks = tuple(
        Track(cell, assay, (Source(str(tmp_path / file), replicate=replicate),))
        for cell, assay, file, replicate in rows
    )
    with pytest.raises(InputError, match=said):
        of_sheet(TrackSheet("s", tracks), tmp_path / "out", ".x")


def test_the_given_sheet_is_never_replaced(tmp_path):
    given = tmp_path / "tracks.25bp.csv"
    given.touch()
    sheet = TrackSheet(str(given), (Track("E1", "DNase", (Source(str(tmp_path / "a")),)),))
    with pytest.raises(InputError, match="another --out"):
        of_sheet(sheet, tmp_path, ".25bp.bw")
    assert of_sheet(sheet, tmp_path / "out", ".25bp.bw").sheet is not None
