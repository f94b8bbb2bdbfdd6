"""Downloads from a local server that drops, truncates, stalls, lies and refuses."""

import dataclasses
import hashlib
import json
import os
import time

import pytest

from data_prep.work.lock_file import LOCK, LockFile
from data_prep.work.transfer import Download, download, fetch
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer
from tests.data_prep.bad_server import CONTENT, QUICK


@pytest.mark.parametrize("mode", ["good", "drop", "stall", "503", "norange"])
def test_bad_servers_are_borne(server, tmp_path, mode):
    url = f"{server.url}/{mode}/a.bin"
    download([Download(tmp_path / "a.bin", (url,))], tmp_path, QUICK)
    assert (tmp_path / "a.bin").read_bytes() == CONTENT
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.bin", LOCK]
    record = LockFile(tmp_path).get(url)
    assert record == {"bytes": len(CONTENT), "sha256": hashlib.sha256(CONTENT).hexdigest()}
    if mode in ("drop", "stall"):
        assert server.asked[0][1] is None
        assert all(asked for _, asked in server.asked[1:])  # it went on, and did not begin again


def test_a_server_that_says_when_is_asked_then(server, tmp_path):
    begin = time.monotonic()
    download([Download(tmp_path / "a.bin", (f"{server.url}/429/a.bin",))], tmp_path, QUICK)
    assert time.monotonic() - begin > 2, "refused twice, for a second each"
    assert (tmp_path / "a.bin").read_bytes() == CONTENT


def test_a_file_asked_for_twice_is_fetched_once_and_what_fails_its_check_is_no_file(
    server, tmp_path
):
    item = Download(tmp_path / "a.bin", (f"{server.url}/good/a.bin",))
    download([item, item], tmp_path, QUICK)
    assert len(server.asked) == 1

    def refuse(path):
        raise InputError("a", "no such thing", "a thing", "look")

    checked = dataclasses.replace(item, target=tmp_path / "b.bin", check=refuse)
    with pytest.raises(InputError, match="no such thing"):
        download([checked], tmp_path, QUICK)
    assert {path.name for path in tmp_path.iterdir()} == {"a.bin", LOCK}


def test_all_connections_keep_to_one_pace(server, tmp_path):
    items = [Download(tmp_path / n, (f"{server.url}/good/{n}",)) for n in "ab"]
    limits = dataclasses.replace(QUICK, bytes_per_s=2 * len(CONTENT))
    begin = time.monotonic()
    download(items, tmp_path, limits)
    # What the last connection took is not waited for.
    assert 0.5 < time.monotonic() - begin < 5


def test_all_that_fail_are_named_and_the_others_are_whole(server, tmp_path):
    digest = hashlib.sha256(CONTENT).hexdigest()
    names = ("404", "long", "short", "good")
    items = [Download(tmp_path / n, (f"{server.url}/{n}/x.bin",), digest) for n in names]
    with pytest.raises(InputError) as caught:
        download(items, tmp_path, QUICK)
    text = "\n".join(map(str, caught.value.problems))
    assert len(caught.value.problems) == 3
    assert "HTTP 404" in text
    assert "sha256" in text
    assert [n for n in names if (tmp_path / n).exists()] == ["good"]
    assert sum("/404/" in path for path, _ in server.asked) == 1


def test_a_mirror_serves_and_the_lock_is_enforced(server, tmp_path):
    urls = (f"{server.url}/404/a.bin", f"{server.url}/good/a.bin")
    item = Download(tmp_path / "a.bin", urls)
    download([item], tmp_path, QUICK)
    (tmp_path / "a.bin").write_bytes(CONTENT[:-1])
    with pytest.raises(InputError, match="sha256"):
        download([item], tmp_path, QUICK)
    (tmp_path / "a.bin").unlink()
    server.files["a.bin"] = CONTENT[::-1]
    with pytest.raises(InputError, match="sha256") as caught:
        download([item], tmp_path, QUICK)
    assert f"delete its entry in {LOCK}" in caught.value.problems[0].remedy
    assert not (tmp_path / "a.bin").exists()


def test_what_a_run_left_the_next_one_goes_on_with(server, tmp_path):
    once = dataclasses.replace(QUICK, attempts=1)
    item = Download(tmp_path / "a.bin", (f"{server.url}/drop/a.bin",))
    for _ in range(2):
        (problem,) = fetch([item], tmp_path, once)[item.target].problems
        assert problem.where == f"a.bin ({server.url}/drop/a.bin)"
        assert problem.expected == "the whole file"
        assert "run the same command again" in problem.remedy
    assert (tmp_path / "a.bin.part").stat().st_size == 600_000
    assert fetch([item], tmp_path, once) == {}
    assert [asked for _, asked in server.asked] == [None, "bytes=300000-", "bytes=600000-"]
    assert item.target.read_bytes() == CONTENT


def test_a_part_of_unknown_origin_is_begun_again(server, tmp_path):
    (tmp_path / "a.bin.part").write_bytes(b"?" * 1000)
    item = Download(tmp_path / "a.bin", (f"{server.url}/good/a.bin",))
    assert fetch([item], tmp_path, QUICK) == {}
    assert server.asked == [("/good/a.bin", None)]
    assert item.target.read_bytes() == CONTENT


def test_a_file_that_is_there_is_not_asked_for_but_recorded(server, tmp_path):
    item = Download(tmp_path / "a.bin", (f"{server.url}/good/a.bin",))
    item.target.write_bytes(b"abc")
    assert fetch([item], tmp_path, QUICK) == {}
    assert server.asked == []
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2
    record = LockFile(tmp_path).get(item.urls[0])
    assert record == {"bytes": 3, "sha256": sha256}
    other = dataclasses.replace(item, sha256="0" * 64)
    (problem,) = fetch([other], tmp_path, QUICK)[item.target].problems
    assert problem.where == item.urls[0]
    assert problem.found == f"sha256 {'0' * 64} in the sheet, {sha256} in the lock file"
    assert problem.expected == "one checksum"
    assert LOCK in problem.remedy


def test_addresses_of_other_kinds_are_refused(tmp_path):
    item = Download(tmp_path / "a.bin", ("ftp://example.org/a.bin",))
    with pytest.raises(InputError, match=r"a\.bin.*no http or https address"):
        download([item], tmp_path, QUICK)


def test_what_is_not_what_its_name_says_is_neither_kept_nor_recorded(server, track, tmp_path):
    """Sent, or put there by the user, or recorded by a version that did not look."""
    whole = track.read_bytes()
    server.files = {"a.bw": b"<html>Please log in</html>", "b.bw": whole[: len(whole) // 2]}
    folder = tmp_path / "new"
    items = [Download(folder / name, (f"{server.url}/good/{name}",)) for name in server.files]
    sent = fetch(items, folder, QUICK)
    assert list(folder.iterdir()) == []
    for item, content in zip(items, server.files.values(), strict=True):
        LockFile(folder).record(item.urls[0], len(content), hashlib.sha256(content).hexdigest())
    for item in items:
        item.target.write_bytes(server.files[item.target.name])
    there = fetch(items, folder, QUICK)
    for errors in (sent, there):
        page, half = (str(errors[item.target]) for item in items)
        assert "a web page instead of the file" in page
        assert "a truncated bigWig" in half
    assert f"its entry in {LOCK}" in str(there[items[0].target])


def test_two_programs_share_a_folder_but_not_a_file(server, tmp_path):
    """Another program is at one file, and records a third meanwhile."""
    first, second = (Download(tmp_path / n, (f"{server.url}/good/{n}",)) for n in "ab")
    other = LockFile(tmp_path)

    def record(path):
        other.record("https://x/c", 1, "00")

    second = dataclasses.replace(second, check=record)
    with only_writer(first.target):
        found = fetch([first, second], tmp_path, QUICK)
    assert list(found) == [first.target]
    assert f"found process {os.getpid()} on" in str(found[first.target])
    assert set(json.loads((tmp_path / LOCK).read_text())) == {"https://x/c", second.urls[0]}
    assert fetch([first, second], tmp_path, QUICK) == {}
