"""A file is there whole, or as it was before; a damaged one is refused by name."""

import contextlib
import errno
import gzip
import json
import os
import resource
import stat
import subprocess
import sys
import threading

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import files
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import opened, read_bytes, whole, write_json


def test_content_comes_back_in_a_form_that_does_not_depend_on_its_order(tmp_path):
    path = tmp_path / "card.json"
    write_json(path, {"b": [2.5], "a": None})
    assert path.read_text() == '{\n "a": null,\n "b": [\n  2.5\n ]\n}\n'
    first = path.read_bytes()
    write_json(path, {"a": None, "b": [2.5]})
    assert path.read_bytes() == first
    assert json.loads(first) == {"a": None, "b": [2.5]}


def test_nothing_but_the_file_stays(tmp_path):
    for content in ("first", "second"):
        write_json(tmp_path / "card.json", content)
    write_json(tmp_path / "card", "no suffix")
    with whole(tmp_path / "array.npy") as place:
        np.save(place, np.arange(3))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["array.npy", "card", "card.json"]
    assert json.loads((tmp_path / "card.json").read_text()) == "second"
    assert np.load(tmp_path / "array.npy").tolist() == [0, 1, 2]


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "card.json"
    write_json(path, "old")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"a": 1, "b": object()})
    with contextlib.suppress(ZeroDivisionError), whole(path) as place:
        place.write_text("half")
        raise ZeroDivisionError
    assert json.loads(path.read_text()) == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["card.json"]


def test_while_it_is_written_the_old_file_stands_and_the_new_one_is_known_as_partial(tmp_path):
    path = tmp_path / "table.csv"
    path.write_text("old")
    with whole(path) as place:
        place.write_text("new")
        assert path.read_text() == "old"
        assert files.is_partial(place)
        assert place.suffix == ".csv"
    assert path.read_text() == "new"
    assert not files.is_partial(path)


def test_what_a_killed_program_left_goes_after_an_hour(tmp_path):
    for name, age in (("old", 3700), ("young", 60)):
        left = tmp_path / f"card.json.{name}.partial.json"
        left.write_text("half")
        os.utime(left, (left.stat().st_mtime - age,) * 2)
    write_json(tmp_path / "card.json", "new")
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["card.json", "card.json.young.partial.json"]


def test_what_is_not_a_file_is_not_replaced(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    for name in ("pipe", "folder"):
        with pytest.raises(InputError, match=f"{name}: found not a regular file"):
            write_json(tmp_path / name, 1)
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)
    assert len(list(tmp_path.iterdir())) == 2


def test_links_and_permissions_stay(tmp_path):
    real, link = tmp_path / "real.json", tmp_path / "link.json"
    write_json(real, 1)
    real.chmod(0o440)
    link.symlink_to(real)
    with whole(link) as place:
        assert place.stat().st_mode & stat.S_IWUSR  # also where the file itself is read-only
        place.write_text("2")
    assert link.is_symlink()
    assert json.loads(real.read_text()) == 2
    assert stat.S_IMODE(real.stat().st_mode) == 0o440


def test_a_new_file_has_the_permissions_that_the_user_gives_new_files(tmp_path):
    (tmp_path / "plain").write_text("")
    write_json(tmp_path / "card.json", 1)
    assert (tmp_path / "card.json").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_several_may_write_one_file(tmp_path):
    path = tmp_path / "card.json"
    contents = [[n] * 2000 for n in range(8)]
    writers = [threading.Thread(target=write_json, args=(path, each)) for each in contents]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert json.loads(path.read_text()) in contents
    assert [file.name for file in tmp_path.iterdir()] == ["card.json"]


def test_tables_come_back(tmp_path):
    table = pd.DataFrame({"assay": ["H3K27ac", "DNase"], "r": [0.123456789, np.nan]})
    files.write_csv(tmp_path / "table.csv", table)
    files.write_parquet(tmp_path / "table.parquet", table)
    assert (tmp_path / "table.csv").read_text() == "assay,r\nH3K27ac,0.123457\nDNase,\n"
    pd.testing.assert_frame_equal(pd.read_parquet(tmp_path / "table.parquet"), table)


def test_columns_of_users_are_numbers_whatever_their_size():
    column = pd.Series([1, "x", 10**400, None, "2.5"], dtype=object)
    assert files.numbers(column).fillna(-1).tolist() == [1, -1, np.inf, -1, 2.5]


def test_the_checksum_is_that_of_the_bytes(tmp_path):
    (tmp_path / "a").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sha256(tmp_path / "a") == expected


def test_gzip_is_known_by_its_content(tmp_path):
    (tmp_path / "packed.txt").write_bytes(gzip.compress(b"one\n") + gzip.compress(b"two\n"))
    (tmp_path / "plain.gz").write_bytes(b"one\n")
    (tmp_path / "empty").write_bytes(b"")
    assert read_bytes(tmp_path / "packed.txt") == b"one\ntwo\n"
    assert read_bytes(tmp_path / "plain.gz") == b"one\n"
    assert read_bytes(tmp_path / "empty") == b""
    with opened(tmp_path / "packed.txt") as file:
        assert list(file) == [b"one\n", b"two\n"]


@pytest.mark.parametrize("damage", ["cut", "bits", "head", "missing", "folder"])
def test_a_damaged_file_is_refused_by_name(tmp_path, damage):
    path = tmp_path / "genes.bed"
    packed = bytearray(gzip.compress(os.urandom(4000)))
    if damage == "cut":
        del packed[2000:]
    elif damage == "bits":
        packed[1000:1100] = bytes(100)
    elif damage == "head":
        packed[2] = 99
    if damage == "folder":
        path.mkdir()
    elif damage != "missing":
        path.write_bytes(packed)
    with pytest.raises(InputError) as caught:
        read_bytes(path, "a BED file")
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert problem.expected == "a BED file"


def test_errors_of_the_reader_stay_what_they_are(tmp_path):
    (tmp_path / "a").write_bytes(gzip.compress(b"abc"))
    with pytest.raises(OSError, match="No space"), opened(tmp_path / "a"):
        raise OSError("No space left on device")


def test_a_folder_is_whole_or_absent(tmp_path):
    path = tmp_path / "runs" / "store.zarr"
    with files.whole_folder(path) as place:
        (place / "deep").mkdir()
        (place / "deep" / "a").write_text("content")
        assert files.is_partial(place)
        assert not path.exists()
    assert (path / "deep" / "a").read_text() == "content"
    with pytest.raises(KeyError), files.whole_folder(tmp_path / "other"):
        raise KeyError("a fault")
    with pytest.raises(OSError, match="not empty"), files.whole_folder(path) as place:
        (place / "b").write_text("another")
    assert [each.name for each in path.parent.iterdir()] == ["store.zarr"]
    assert [each.name for each in tmp_path.iterdir()] == ["runs"]


def test_what_cannot_be_removed_does_not_hide_why_it_ended(tmp_path, monkeypatch):
    """Ctrl-C while other threads still write into the folder: it is not empty again."""

    def not_empty(path, **_):
        raise OSError(errno.ENOTEMPTY, "Directory not empty", str(path))

    monkeypatch.setattr(os, "rmdir", not_empty)
    with pytest.raises(SystemExit), files.whole_folder(tmp_path / "store.zarr") as place:
        raise SystemExit(130)
    assert files.is_partial(place)
    assert not (tmp_path / "store.zarr").exists()


def test_what_a_kill_left_of_a_folder_goes_when_it_is_old(tmp_path):
    old, new = (tmp_path / f"store.{name}.partial" for name in ("0a", "0b"))
    for folder in (old, new):
        folder.mkdir()
        (folder / "a").write_text("half")
    os.utime(old, (0, 0))
    with files.whole_folder(tmp_path / "store"):
        assert not old.exists()
        assert new.exists()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"), (b"\xff{}", "utf-8"), (b'{"a": 1', "Expecting"), (b"", "Expecting"),
        (b"[]", "a list, not a dict"), (b"[" * 100_000, "recursion"),
    ],
)  # fmt: skip
def test_what_is_not_json_is_refused_by_name(tmp_path, content, reason):
    path = tmp_path / "card.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        files.read_json(path, "run card", "train again")
    (problem,) = caught.value.problems
    assert (problem.where, problem.remedy) == (str(path), "train again")
    assert problem.found.startswith("no readable run card")
    assert reason in problem.found


def test_json_comes_back(tmp_path):
    write_json(tmp_path / "a.json", {"b": [1], "a": "ä"})
    assert files.read_json(tmp_path / "a.json", "card", "write it") == {"a": "ä", "b": [1]}
    write_json(tmp_path / "a.json", [1])
    assert files.read_json(tmp_path / "a.json", "list", "write it", list) == [1]


HOLD = """
import pathlib, sys
from epi2expr_jax.files import only_writer
with only_writer(sys.argv[1]):
    print("holds", flush=True)
    sys.stdin.read()
"""


def test_json_that_knows_its_checksum_comes_back_or_is_refused(tmp_path):
    path, content = tmp_path / "a.json", {"b": 1, "a": {"1": [2.5, None]}}
    files.write_sealed(path, content | {"a": {1: (2.5, None)}})
    assert files.read_sealed(path, "record", "write it again") == content
    assert list(json.loads(path.read_text())) == ["b", "a", "sha256"]
    path.write_text(path.read_text().replace("2.5", "2.4"))
    with pytest.raises(InputError, match="a record that was changed after it was written"):
        files.read_sealed(path, "record", "write it again")
    path.write_text(json.dumps(content))  # as older versions wrote it
    assert files.read_sealed(path, "record", "") == content


def test_a_command_line_that_is_not_utf_8_locks(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train", "--run=caf\udce9"])  # as Python reads Latin-1
    (tmp_path / ".run.lock").write_bytes(b"process 1 caf\xe9")  # what a killed one left
    with files.only_writer(tmp_path / "run"):
        assert "caf?" in (tmp_path / ".run.lock").read_text()
        with pytest.raises(InputError, match=r"caf\?"), files.only_writer(tmp_path / "run"):
            pass


def test_one_process_writes_and_the_next_is_told_who(tmp_path):
    place = tmp_path / "new" / "depth.parquet"
    command = [sys.executable, "-c", HOLD, place]
    first = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with first:
        assert first.stdout.readline() == "holds\n"
        told = pytest.raises(InputError, match=f"process {first.pid} on .* one writer at a time")
        with told, files.only_writer(place):
            raise AssertionError("two at once")
        first.kill()
    with files.only_writer(place):  # what the dead process left keeps nobody out
        assert [file.name for file in place.parent.iterdir()] == [".depth.parquet.lock"]
    assert not list(place.parent.iterdir())


def test_an_error_inside_is_not_taken_for_one_of_the_lock(tmp_path):
    with pytest.raises(FileNotFoundError, match="inner"), files.only_writer(tmp_path / "run"):
        raise FileNotFoundError("inner")
    assert not list(tmp_path.iterdir())


def test_no_lock_stays_where_it_cannot_be_written(tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        with pytest.raises(OSError, match="too large"), files.only_writer(tmp_path / "run"):
            raise AssertionError("nobody can say who writes")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("wait", [False, True])
def test_writers_take_turns(tmp_path, wait):
    path, inside, most = tmp_path / "run", [], []

    def write():
        for _ in range(50):
            with contextlib.suppress(InputError), files.only_writer(path, wait=wait):
                inside.append(1)
                most.append(len(inside))
                inside.pop()

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert max(most) == 1
    assert not wait or len(most) == 4 * 50
