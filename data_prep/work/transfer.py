"""Files over the network: resumed, retried, paced, checked. Which files: `sources`.

A file is whole or absent: it grows as NAME.part and is renamed when its length, sha256 and content
are as they should be. Several programs may download into one folder. The sha256 that a URL gave
first is kept in a lock file and required from then on.
"""

import contextlib
import dataclasses
import json
import pathlib
import queue
import random
import re
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import requests
import urllib3
from tqdm import tqdm

from data_prep.work.content import require_content
from data_prep.work.lock_file import LOCK, LockFile
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import only_writer, sha256, write_json

_PIECE = 1 << 18
_LONGEST_PAUSE_S = 60.0
_PASSING = (408, 425, 429)  # besides 5xx: errors that may be gone on the next attempt


@dataclasses.dataclass(frozen=True)
class Download:
    """One file to have.

    Attributes:
        target: where it will lie.
        urls: where to get it; the first is its name in the lock file, others are mirrors.
        sha256: what its checksum must be, if known beforehand.
        check: checks what was downloaded before it becomes the file. Raises InputError.
    """

    target: pathlib.Path
    urls: tuple[str, ...]
    sha256: str | None = None
    check: Callable[[pathlib.Path], None] = lambda path: None


@dataclasses.dataclass(frozen=True)
class Limits:
    """How to treat the network.

    Attributes:
        connections: files at a time.
        bytes_per_s: of all connections together; 0: as fast as it comes.
        attempts: of one file in a row without a new byte before it is given up.
        timeout_s: of connecting, and of silence within a transfer.
        pause_s: before the second attempt; doubled for each further one.
    """

    connections: int = 4
    bytes_per_s: float = 0.0
    attempts: int = 6
    timeout_s: float = 60.0
    pause_s: float = 1.0


def download(
    downloads: Sequence[Download], folder: pathlib.Path, limits: Limits | None = None
) -> None:
    """Have all files, as `fetch`.

    Raises:
        InputError: naming every file that could not be downloaded, after all others are whole.
    """
    with collect() as problems:
        for error in fetch(downloads, folder, limits).values():
            problems.extend(error.problems)


def fetch(
    downloads: Sequence[Download], folder: pathlib.Path, limits: Limits | None = None
) -> dict[pathlib.Path, InputError]:
    """Have all files, several at a time; of those that are there already the sha256 is compared.

    Args:
        downloads: what to have.
        folder: where the lock file lies.
        limits: of the network.

    Returns:
        The targets that are not the files they should be, and why; all others are.

    Raises:
        InputError: if the lock file cannot be read.
    """
    limits = limits or Limits()
    folder.mkdir(parents=True, exist_ok=True)
    lock = LockFile(folder)
    pace = _Pace(limits.bytes_per_s)
    stop = threading.Event()
    wanted = list({item.target: item for item in downloads}.values())
    # One line of progress for all bytes, one for the files, and one for each connection.
    lines: queue.SimpleQueue[int] = queue.SimpleQueue()
    for line in range(limits.connections):
        lines.put(2 + line)
    with (
        tqdm(desc="downloading", unit="B", unit_scale=True, disable=None) as overall,
        tqdm(total=len(wanted), desc="files", unit="file", position=1, disable=None) as files,
        ThreadPoolExecutor(limits.connections) as pool,
    ):

        def one(item: Download) -> InputError | None:
            line = lines.get()
            try:
                with tqdm(
                    desc=item.target.name, unit="B", unit_scale=True, position=line,
                    leave=False, disable=None,
                ) as own:  # fmt: skip
                    _Transfer(item, lock, limits, pace, _Meter(own, overall), stop).run()
            except InputError as error:
                return error
            finally:
                lines.put(line)
                files.update()
            return None

        try:
            found = list(pool.map(one, wanted))
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return {item.target: error for item, error in zip(wanted, found, strict=True) if error}


class _Pace:
    """A rate that all connections share."""

    def __init__(self, bytes_per_s: float):
        self._rate = bytes_per_s
        self._guard = threading.Lock()
        self._free_at = 0.0

    def take(self, count: int) -> None:
        """Wait until `count` more bytes are due."""
        if not self._rate:
            return
        with self._guard:
            begin = max(time.monotonic(), self._free_at)
            self._free_at = begin + count / self._rate
        time.sleep(max(0.0, begin - time.monotonic()))


@dataclasses.dataclass(frozen=True)
class _Meter:
    """Progress of one file, and of all."""

    own: tqdm
    overall: tqdm

    def begin(self, have: int, total: int | None) -> None:
        """So many bytes of the file are there as an attempt begins."""
        self.own.reset(total)
        self.own.update(have)

    def add(self, count: int) -> None:
        self.own.update(count)
        self.overall.update(count)


class _Refused(Exception):
    """An attempt that failed. `final`: this URL need not be asked again."""

    def __init__(self, found: str, *, final: bool = False, wait_s: float = 0.0):
        super().__init__(found)
        self.final = final
        self.wait_s = wait_s


class _Transfer:
    """One file on its way."""

    def __init__(
        self,
        item: Download,
        lock: LockFile,
        limits: Limits,
        pace: _Pace,
        meter: _Meter,
        stop: threading.Event,
    ):
        self.item, self.lock, self.limits, self.pace = item, lock, limits, pace
        self.meter, self.stop = meter, stop
        self.part = item.target.with_name(item.target.name + ".part")
        self.note = item.target.with_name(item.target.name + ".part.json")  # what the part is of
        self.known = known = lock.get(item.urls[0])
        self.expected = item.sha256 or (known["sha256"] if known else None)
        self.size = known["bytes"] if known else None
        if known and item.sha256 and known["sha256"] != item.sha256:
            raise InputError(
                item.urls[0],
                f"sha256 {item.sha256} in the sheet, {known['sha256']} in the lock file",
                "one checksum",
                f"correct the sheet, or delete its entry in {LOCK}",
            )

    def run(self) -> None:
        """Have the file. Raises InputError."""
        try:
            with only_writer(self.item.target):  # others may download into the same folder
                if self.item.target.exists():
                    self._check_there()
                else:
                    self._fetch()
        except OSError as error:
            raise self._problem(
                f"a file that cannot be read or written: {error}", "free space, or give permission"
            ) from None

    def _check_there(self) -> None:
        size = self.item.target.stat().st_size
        digest = sha256(self.item.target)
        if self.expected not in (None, digest):
            raise InputError(
                str(self.item.target),
                f"{size:,} bytes of sha256 {digest}",
                f"sha256 {self.expected}, as the sheet or {LOCK} says",
                "remove the file and run the same command again",
            )
        try:
            require_content(self.item.target, self.item.target.name)
            self.item.check(self.item.target)
        except InputError as error:
            found = error.problems[0].found
            remedy = f"remove the file, and its entry in {LOCK} if it has one"
            raise self._problem(found, remedy) from None
        self.lock.record(self.item.urls[0], size, digest)

    def _fetch(self) -> None:
        urls = [url for url in self.item.urls if url.startswith(("http://", "https://"))]
        if not urls:
            raise self._problem("no http or https address", "give one in the sheet")
        failures, farthest, tries, said = 0, self._have(), 0, ""
        while failures < self.limits.attempts and not self.stop.is_set():
            url = urls[tries % len(urls)]
            tries += 1
            try:
                self._attempt(url)
                return
            except _Refused as refused:
                said = f"{url}: {refused}"
                if refused.final:
                    urls.remove(url)
                    if not urls:
                        break
                    continue
                wait = refused.wait_s
            except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
                said, wait = f"{url}: {type(error).__name__}: {error}", 0.0
            if self._have() > farthest:  # new bytes: the server is alive
                failures, farthest = 0, self._have()
            failures += 1
            if failures < self.limits.attempts:
                pause = self.limits.pause_s * 2 ** (failures - 1) * random.uniform(0.5, 1.0)
                self.stop.wait(min(max(pause, wait), _LONGEST_PAUSE_S))
        remedy = "check the URL and the network, or give a --mirror"
        if self.known and LOCK in said:
            remedy = f"if the file itself has changed, delete its entry in {LOCK}"
        raise self._problem(said, remedy)

    def _problem(self, found: str, remedy: str) -> InputError:
        return InputError(
            f"{self.item.target.name} ({self.item.urls[0]})",
            found,
            "the whole file",
            f"{remedy}, then run the same command again: it goes on where it stopped",
        )

    def _have(self) -> int:
        return self.part.stat().st_size if self.part.exists() else 0

    def _attempt(self, url: str) -> None:
        """Ask for what is missing, append it, and finish the file if it is whole."""
        note = _read_note(self.note)
        have = self._have() if note.get("total") is not None else 0
        headers = {"Accept-Encoding": "identity"}
        if have:
            headers["Range"] = f"bytes={have}-"
            if note["validator"] and note["url"] == url:
                headers["If-Range"] = note["validator"]
        with requests.get(
            url, headers=headers, stream=True, timeout=self.limits.timeout_s
        ) as response:
            begin, total = self._begin(response, have, note)
            if begin == 0:
                self.part.unlink(missing_ok=True)
                validator = response.headers.get("ETag", "")
                if validator.startswith("W/") or not validator:
                    validator = response.headers.get("Last-Modified", "")
                write_json(self.note, {"url": url, "total": total, "validator": validator})
            if begin is not None:
                self.meter.begin(begin, total)
                with self.part.open("ab") as file:
                    for piece in response.raw.stream(_PIECE, decode_content=False):
                        if self.stop.is_set():
                            raise _Refused("the program is ending")
                        self.pace.take(len(piece))
                        file.write(piece)
                        self.meter.add(len(piece))
        self._finish(total)

    def _begin(
        self, response: requests.Response, have: int, note: dict
    ) -> tuple[int | None, int | None]:
        """First byte of an answer (None: nothing is missing) and the whole file's length."""
        status = response.status_code
        if status == 416 and have and have == note["total"]:
            return None, have
        if status == 416 and have:
            self._drop()
            raise _Refused(f"no byte after the {have:,}th of {note['total']:,}")
        if status == 206:
            found = re.fullmatch(
                r"bytes (\d+)-\d+/(\d+)", response.headers.get("Content-Range", "")
            )
            if found and int(found[1]) == have and int(found[2]) == note["total"]:
                return have, note["total"]
            self._drop()
            raise _Refused("another file than the one begun: it changed, or the mirrors differ")
        if status != 200:
            wait = response.headers.get("Retry-After", "")
            raise _Refused(
                f"HTTP {status} {response.reason}",
                final=status < 500 and status not in _PASSING,
                wait_s=float(wait) if wait.isdecimal() else 0.0,
            )
        length = response.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None

    def _finish(self, total: int | None) -> None:
        have = self._have()
        for wanted, whose in ((total, "announced"), (self.size, f"in {LOCK}")):
            if wanted is not None and have < wanted == total:
                raise _Refused(f"the first {have:,} of {wanted:,} bytes")
            if wanted is not None and have != wanted:
                self._drop()
                raise _Refused(f"{have:,} bytes, {wanted:,} {whose}")
        try:
            require_content(self.part, self.item.target.name)
            self.item.check(self.part)
        except InputError as error:
            self._drop()
            raise _Refused(error.problems[0].found) from None
        digest = sha256(self.part)
        if self.expected not in (None, digest):
            self._drop()
            raise _Refused(f"sha256 {digest}, not {self.expected} as the sheet or {LOCK} says")
        # Recorded before the name is there: a file without a record is one the user brought.
        self.lock.record(self.item.urls[0], have, digest)
        self.part.replace(self.item.target)
        self.note.unlink(missing_ok=True)

    def _drop(self) -> None:
        self.part.unlink(missing_ok=True)
        self.note.unlink(missing_ok=True)


def _read_note(path: pathlib.Path) -> dict:
    """What a part is of; empty if that is not known, and the part therefore worthless."""
    with contextlib.suppress(FileNotFoundError, ValueError):
        note = json.loads(path.read_text())
        if isinstance(note, dict) and {"url", "total", "validator"} <= set(note):
            return note
    return {}
