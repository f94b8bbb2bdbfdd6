"""What each URL gave first: kept in a file, and required from then on."""

import hashlib
import pathlib
import threading
import warnings
from typing import Any

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer, read_json, write_json
from epi2expr_jax.genome import listing

LOCK = "downloads.lock.json"


class LockFile:
    """A file of `bytes` and `sha256` by URL, to which several programs may add at a time.

    Args:
        folder: where it lies, once something is recorded.

    Raises:
        InputError: if it cannot be read.
    """

    def __init__(self, folder: pathlib.Path):
        self._path = folder / LOCK
        self._guard = threading.Lock()
        self._known = self._read()

    def _read(self) -> dict[str, dict[str, Any]]:
        if not self._path.exists():
            return {}
        remedy = "restore it, or delete it to record the checksums again"
        known = read_json(self._path, "lock file", remedy)
        unsealed = []
        for url, record in known.items():
            if not _is_record(record):
                found, expected = f"no readable lock file ({record})", "bytes and sha256 a URL"
                raise InputError(str(self._path), found, expected, remedy)
            own = {"bytes": record["bytes"], "sha256": record["sha256"]}
            if "seal" not in record:
                unsealed.append(url)
            elif record["seal"] != _seal(url, own):
                found, expected = f"a changed record of {url}", "what was written there"
                raise InputError(str(self._path), found, expected, remedy)
            known[url] = own
        if 0 < len(unsealed) < len(known):  # all are sealed whenever one is written
            found = f"records that lost their seal ({listing(unsealed)})"
            remedy = "restore it, or delete these records: what they were of is checked anew"
            raise InputError(str(self._path), found, "what was written there", remedy)
        if unsealed:
            warnings.warn(
                f"{self._path}: of an older version, whose records do not prove themselves; files "
                "are checked against them as they stand",
                stacklevel=3,
            )
        return known

    def get(self, url: str) -> dict[str, Any] | None:
        """What a URL gave; None if nobody knows."""
        return self._known.get(url)

    def record(self, url: str, size: int, sha256: str) -> None:
        """Keep what a URL gave.

        Raises:
            InputError: if it has given another program something else meanwhile.
        """
        new = {"bytes": size, "sha256": sha256}
        if self._known.get(url) == new:
            return
        with self._guard, only_writer(self._path, wait=True):
            self._known = self._read()
            if self._known.setdefault(url, new) != new:
                found, expected = f"sha256 {sha256}", f"{self._known[url]['sha256']}, as in {LOCK}"
                remedy = "if the file itself has changed, delete its entry there"
                raise InputError(url, found, expected, remedy)
            sealed = {url: {**own, "seal": _seal(url, own)} for url, own in self._known.items()}
            write_json(self._path, sealed)


def _is_record(record: Any) -> bool:
    """Whether it says a size and a checksum."""
    if not isinstance(record, dict):
        return False
    size, sha256 = record.get("bytes"), record.get("sha256")
    return isinstance(size, int) and size >= 0 and isinstance(sha256, str)


def _seal(url: str, record: dict[str, Any]) -> str:
    """A checksum of each record, not of the file: entries may be deleted by hand."""
    return hashlib.sha256(f"{url} {record['bytes']} {record['sha256']}".encode()).hexdigest()[:16]
