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
    found = json.loads((tmp_path / LOCK).read_text())
    assert found == {
        f"https://x/{i}{j}": {"bytes": i, "sha256": f"{j}"} for i in range(4) for j in range(5)
    }
    assert [path.name for path in tmp_path.iterdir()] == [LOCK]


def test_what_a_url_gave_another_program_is_required(tmp_path):
    first, second = LockFile(tmp_path), LockFile(tmp_path)
    first.record("https://x/a", 1, "00")
    with pytest.raises(InputError, match="https://x/a: found sha256 11; expected 00, as in"):
        second.record("https://x/a", 1, "11")
    assert second.get("https://x/a") == {"bytes": 1, "sha256": "00"}
    assert LockFile(tmp_path).get("https://x/b") is None


@pytest.mark.parametrize("text", ["{", "[]", '{"https://x/a": {"bytes": 1}}'])
def test_broken_lock_files_are_refused(tmp_path, text):
    (tmp_path / LOCK).write_text(text)
    with pytest.raises(InputError, match=f"{LOCK}: found no readable lock file"):
        LockFile(tmp_path)
