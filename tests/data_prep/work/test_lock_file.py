"""Checksums by URL, recorded by several programs at a time."""

import json
import threading

import pytest

from data_prep.work.lock_file import LOCK, LockFile
from epi2expr_jax.errors import InputError


def test_no_record_of_several_programs_is_lost(tmp_path):
    programs = [LockFile(tmp_path) for _ in range(4)]

    def record(i):
        for j in range(5):
            programs[i].record(f"https://x/{i}{j}", i, f"{j}")

    threads = [threading.Thread(target=record, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = LockFile(tmp_path)
    assert len(json.loads((tmp_path / LOCK).read_text())) == 20
    for i in range(4):
        for j in range(5):
            assert found.get(f"https://x/{i}{j}") == {"bytes": i, "sha256": f"{j}"}
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_what_a_url_gave_another_program_is_required(tmp_path):
    first, second = LockFile(tmp_path), LockFile(tmp_path)
    first.record("https://x/a", 1, "00")
    with pytest.raises(InputError, match="https://x/a: found sha256 11; expected 00, as in"):
        second.record("https://x/a", 1, "11")
    assert second.get("https://x/a") == {"bytes": 1, "sha256": "00"}
    assert LockFile(tmp_path).get("https://x/b") is None


def test_a_changed_record_is_refused_and_a_deleted_one_is_recorded_again(tmp_path):
    lock = LockFile(tmp_path)
    lock.record("https://x/a", 1, "0a")
    lock.record("https://x/b", 2, "0b")
    path = tmp_path / LOCK
    written = path.read_text()
    for old, new in (("x/a", "x/e"), ('"bytes": 2', '"bytes": 3'), ("0b", "1b")):
        assert old in written
        path.write_text(written.replace(old, new))
        with pytest.raises(InputError, match=r"a changed record of https://x/"):
            LockFile(tmp_path)
    kept = json.loads(written)
    del kept["https://x/a"]
    path.write_text(json.dumps(kept))
    assert LockFile(tmp_path).get("https://x/a") is None


def test_records_without_a_seal_are_of_an_older_version_or_lost_it(tmp_path):
    lock = LockFile(tmp_path)
    lock.record("https://x/a", 1, "0a")
    lock.record("https://x/b", 2, "0b")
    path = tmp_path / LOCK
    kept = json.loads(path.read_text())
    del kept["https://x/b"]["seal"]
    path.write_text(json.dumps(kept))
    with pytest.raises(InputError, match=r"lost their seal \(https://x/b\)"):
        LockFile(tmp_path)
    del kept["https://x/a"]["seal"]  # older versions wrote none
    path.write_text(json.dumps(kept))
    with pytest.warns(UserWarning, match="of an older version"):
        older = LockFile(tmp_path)
    assert older.get("https://x/b") == {"bytes": 2, "sha256": "0b"}
    with pytest.warns(UserWarning, match="of an older version"):
        older.record("https://x/c", 3, "0c")
    assert LockFile(tmp_path).get("https://x/b") == {"bytes": 2, "sha256": "0b"}  # sealed now


@pytest.mark.parametrize("text", ["{", "[]", '{"https://x/a": {"bytes": 1}}',
                                  '{"https://x/a": {"bytes": null, "sha256": "0a"}}'])  # fmt: skip
def test_broken_lock_files_are_refused(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(InputError, match=f"{LOCK}: found no readable lock file"):
        LockFile(tmp_path)
