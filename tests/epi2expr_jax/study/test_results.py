"""Results of a program are those of one run of it, whole and undamaged, or they are refused."""

import itertools
import json
import os
import pathlib

import pytest

from epi2expr_jax import files
from epi2expr_jax.errors import InputError
from epi2expr_jax.study import results

PROGRAM = "perturb"


def write(folder, mark, *names):
    with results.written(folder, PROGRAM, mark=mark) as place:
        for name in names:
            (place / name).parent.mkdir(exist_ok=True)
            (place / name).write_text(f"{name} of {mark}")


def shown(folder):
    """What a reader finds, and everything that lies there besides."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_text() for path in paths}


def test_results_replace_those_of_before_as_one(tmp_path):
    out = tmp_path / "new" / "out"
    write(out, "DNase", "a.csv", "b.csv", "tracks/one.png", "tracks/two.png")
    (out / "own.txt").write_text("the user's")
    write(out, "H3K4me3", "a.csv", "tracks/one.png")
    record = results.record_of(out, PROGRAM)
    assert record["mark"] == "H3K4me3"
    assert set(record["files"]) == {"a.csv", "tracks"}
    assert shown(out).keys() == {"a.csv", "tracks/one.png", "own.txt", f"{PROGRAM}.json"}
    assert results.checked(out / "a.csv", PROGRAM).read_text() == "a.csv of H3K4me3"
    assert results.checked(out / "b.csv", PROGRAM) is None
    assert results.checked(out / "own.txt", PROGRAM) is None


@pytest.mark.parametrize("stopped_at", range(1, 7))
def test_a_kill_leaves_one_mark_or_is_told(tmp_path, monkeypatch, stopped_at):
    """At each rename in turn; what a reader then gets is of one mark, or refused with a remedy."""
    out, names = tmp_path / "out", ("a.csv", "b.csv")
    write(out, "DNase", *names, "tracks/one.png")
    renames, rename = itertools.count(1), pathlib.Path.replace

    def killed(*given):
        if next(renames) == stopped_at:
            raise SystemExit
        return rename(*given)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", killed)
        patch.setattr(files, "_remove", lambda path: None)  # nobody tidies up after a kill
        with pytest.raises(SystemExit):
            write(out, "H3K4me3", *names, "tracks/one.png")

    def read():
        return {results.checked(out / name, PROGRAM).read_text() for name in names}

    if stopped_at <= 2:  # the folder with all results, and then the record, get their names first
        assert read() == {"a.csv of DNase", "b.csv of DNase"}
    else:
        with pytest.raises(InputError, match=r"stopped.*run again the experiments\.perturb"):
            read()
    write(out, "H3K4me3", *names, "tracks/one.png")
    assert read() == {"a.csv of H3K4me3", "b.csv of H3K4me3"}
    assert not [path for path in out.iterdir() if path.name.startswith(".")]


def test_an_error_leaves_what_was_there(tmp_path):
    def stopped(folder):
        with results.written(folder, PROGRAM) as place:
            (place / "a.csv").write_text("half")
            raise InputError("edits", "nothing", "something", "give one")

    write(tmp_path / "out", "DNase", "a.csv")
    before = shown(tmp_path / "out")
    for folder in (tmp_path / "out", tmp_path / "new" / "folder"):
        with pytest.raises(InputError, match="found nothing"):
            stopped(folder)
    assert shown(tmp_path / "out") == before
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("lost", ["a.csv", "b.csv", "tracks/one.png", f"{PROGRAM}.json"])
@pytest.mark.parametrize("how", ["deleted", "changed"])
def test_they_are_complete_until_any_of_them_is_lost(tmp_path, lost, how):
    assert not results.complete(tmp_path, PROGRAM)
    write(tmp_path, "DNase", "a.csv", "b.csv", "tracks/one.png")
    assert results.complete(tmp_path, PROGRAM)
    (tmp_path / lost).unlink() if how == "deleted" else (tmp_path / lost).write_text("{}")
    assert not results.complete(tmp_path, PROGRAM)


def test_a_second_writer_is_refused(tmp_path):
    with results.written(tmp_path / "out", PROGRAM):
        with results.written(tmp_path / "out", "attribution"):
            pass  # another program's results
        with pytest.raises(InputError, match="one writer at a time"):
            write(tmp_path / "out", "DNase", "a.csv")


@pytest.mark.parametrize("how", ["changed", "gone", "exchanged"])
def test_a_damaged_result_is_refused(tmp_path, how):
    write(tmp_path, "DNase", "a.csv", "b.csv")
    path = tmp_path / "a.csv"
    if how == "changed":
        path.write_text("a.csv of DNasf")
    elif how == "gone":
        path.unlink()
    else:
        os.replace(tmp_path / "b.csv", path)
    with pytest.raises(InputError, match=r"a\.csv.*command that wrote it"):
        results.checked(path, PROGRAM)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"files": 3}', '{"files": ["a.csv"]}', "{}"])
def test_a_damaged_record_is_refused(tmp_path, text):
    write(tmp_path, "DNase", "a.csv")
    (tmp_path / f"{PROGRAM}.json").write_text(text)
    with pytest.raises(InputError, match=rf"{PROGRAM}\.json.*command that wrote it"):
        results.checked(tmp_path / "a.csv", PROGRAM)
    write(tmp_path, "DNase", "a.csv")
    assert results.checked(tmp_path / "a.csv", PROGRAM)


def test_a_record_that_was_changed_is_refused(tmp_path):
    write(tmp_path, "DNase", "a.csv")
    record = tmp_path / f"{PROGRAM}.json"
    record.write_text(record.read_text().replace("DNase", "DNasf"))
    with pytest.raises(InputError, match=r"record .* that was changed after"):
        results.record_of(tmp_path, PROGRAM)


def test_a_record_removes_nothing_outside_of_its_folder(tmp_path):
    (tmp_path / "precious.txt").write_text("kept")
    out = tmp_path / "out"
    write(out, "DNase", "a.csv")
    record = out / f"{PROGRAM}.json"
    content = json.loads(record.read_text())
    content["files"] |= {"../precious.txt": "0", str(tmp_path / "precious.txt"): "0"}
    files.write_sealed(record, content)
    write(out, "DNase", "a.csv")
    assert (tmp_path / "precious.txt").read_text() == "kept"


def test_without_a_record_files_of_version_0_1_are_taken(tmp_path):
    (tmp_path / "a.csv").write_text("old")
    assert results.record_of(tmp_path, PROGRAM) is None
    assert results.checked(tmp_path / "a.csv", PROGRAM) == tmp_path / "a.csv"
    assert results.checked(tmp_path / "b.csv", PROGRAM) is None


def test_links_lead_where_they_led_or_become_results(tmp_path):
    """The folder may be a link; a link in the place of a result is replaced, not followed."""
    real, elsewhere = tmp_path / "real", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "kept.txt").write_text("kept")
    real.mkdir()
    (tmp_path / "out").symlink_to(real)
    (real / "tracks").symlink_to(elsewhere)
    (real / "a.csv").symlink_to(elsewhere / "kept.txt")
    write(tmp_path / "out", "DNase", "a.csv", "tracks/one.png")
    assert shown(elsewhere) == {"kept.txt": "kept"}
    assert (tmp_path / "out").is_symlink()
    assert results.checked(tmp_path / "out" / "a.csv", PROGRAM)
    assert (real / "tracks" / "one.png").is_file()


@pytest.mark.parametrize("name", ["..", ".", "", "../outside.txt", "weights"])
def test_a_record_makes_nothing_else_be_removed(tmp_path, name):
    """Whoever made a run directory wrote its records, too."""
    out = tmp_path / "run"
    write(out, "DNase", "a.csv")
    (tmp_path / "outside.txt").write_text("precious")
    (out / "weights").write_text("of the training")
    record = out / f"{PROGRAM}.json"
    content = json.loads(record.read_text())
    content["files"][name] = "0" * 64
    files.write_sealed(record, content)
    write(out, "H3K4me3", "a.csv")
    assert (tmp_path / "outside.txt").read_text() == "precious"
    assert (out / "weights").read_text() == "of the training"
    assert results.checked(out / "a.csv", PROGRAM).read_text() == "a.csv of H3K4me3"
