"""Files that are whole or absent, and what is in them: the one way to write, hash and open."""

import contextlib
import csv
import errno
import fcntl
import functools
import glob
import gzip
import hashlib
import io
import json
import os
import pathlib
import platform
import re
import secrets
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Collection, Iterable, Iterator
from typing import IO, Any, cast

import pandas as pd
import pyarrow as pa

from epi2expr_jax.errors import InputError

_PARTIAL = ".partial"  # in the name of whatever is not whole yet
_ABANDONED = 3600.0  # seconds after which a partial file is what a killed program left
_GZIP = b"\x1f\x8b"
_UNKNOWN = ("", "nan", "NaN", "NA", "N/A")  # as Python, R and people write it
_DECIMAL_COMMA = re.compile(r"\s*-?\d+,\d+\s*")
_SEAL = "sha256"  # of a JSON object, in it


@contextlib.contextmanager
def whole(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A place to write a file, which gets its name only when it is whole and on disk.

    Each writer has a place of its own, so that several may write one file: the last one stays. A
    link keeps pointing where it did, and the file keeps its permissions. After an error nothing of
    it is left; after a kill a partial file is, until a writer finds it more than an hour old.

    Args:
        path: the file, in a folder that exists.

    Yields:
        Where to write: an empty file, whose name ends in the same suffix.

    Raises:
        InputError: if there is something else than a file, such as a folder or a device.
    """
    path = pathlib.Path(path).resolve()
    if path.exists() and not path.is_file():  # such as /dev/null
        raise InputError(str(path), "not a regular file", "a file, or nothing yet", "name another")
    with _becoming(path) as place:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
        yield place
        if path.exists():
            os.chmod(place, path.stat().st_mode)


@contextlib.contextmanager
def whole_folder(path: str | pathlib.Path) -> Iterator[pathlib.Path]:
    """A folder to write into, which gets its name only when all in it is on disk. See `whole`.

    Args:
        path: the folder, which does not exist yet; those above it are made.

    Yields:
        Where to write: an empty folder.
    """
    path = pathlib.Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    with _becoming(path) as place:
        place.mkdir()
        yield place


@contextlib.contextmanager
def _becoming(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A name next to `path`; what has it at the end is renamed, after an error it is removed."""
    for old in path.parent.glob(f"{glob.escape(path.name)}.*{_PARTIAL}{path.suffix}"):
        with contextlib.suppress(OSError):  # another writer has just removed it
            if time.time() - old.stat().st_mtime > _ABANDONED:
                _remove(old)
    place = path.with_name(f"{path.name}.{secrets.token_hex(4)}{_PARTIAL}{path.suffix}")
    try:
        yield place
        for each in [*place.rglob("*"), place]:
            _to_disk(each)
        place.replace(path)
        _to_disk(path.parent)
    finally:
        _remove(place)


@contextlib.contextmanager
def only_writer(path: str | pathlib.Path, *, wait: bool = False) -> Iterator[None]:
    """This process alone writes a folder or file while inside, of all that ask here.

    The lock is a hidden file next to `path` (in it, where the folder above refuses), removed in the
    end. The system lets go of it when the process dies, however it does. Where the file system has
    no locks, nobody is kept out.

    Args:
        path: the output; it need not exist, and the folders above it are made.
        wait: until another process has ended, for work of a moment.

    Raises:
        InputError: if another process is at it, saying which.
    """
    path = pathlib.Path(path).resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = os.access(path.parent, os.W_OK) or not path.is_dir()
    lock = path.with_name(f".{path.name}.lock") if beside else path / ".lock"
    with _locked(lock, path, wait) as file:
        who = f"process {os.getpid()} on {platform.node()}, since {time.strftime('%F %T')}"
        try:
            file.write(f"{who}: {' '.join(sys.argv)[:300]}")
            file.flush()
            yield
        finally:
            lock.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch(prefix: str) -> Iterator[str]:
    """A temporary folder whose name begins so; those that killed programs left are removed."""
    for old in pathlib.Path(tempfile.gettempdir()).glob(f"{glob.escape(prefix)}*"):
        # Locked by the program that uses it, if that is alive.
        with contextlib.suppress(InputError, PermissionError), only_writer(old):
            shutil.rmtree(old, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix) as folder, only_writer(folder):
        yield folder


@contextlib.contextmanager
def _locked(lock: pathlib.Path, path: pathlib.Path, wait: bool) -> Iterator[IO[str]]:
    """The lock file, empty, locked and still there under its name."""
    while True:
        with open(lock, "a+", encoding="utf-8", errors="replace") as file:  # argv may be none
            try:
                fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                file.seek(0)
                who = file.read() or "another process"
                remedy = "wait until it has ended or stop it, or name another place"
                raise InputError(str(path), who, "one writer at a time", remedy) from None
            except OSError as error:
                if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
            # The one before may have removed it between our opening and our locking it.
            if os.fstat(file.fileno()).st_nlink:
                file.truncate(0)
                yield file
                return


def _remove(path: pathlib.Path) -> None:
    """As far as it goes: what stays is known as partial, and says less than an error before it."""
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def as_name(text: str) -> str:
    """A text as the name of a file: what could lead to another folder, and blanks, become `_`."""
    return re.sub(r"[^\w.+=,@-]", "_", text).lstrip(".") or "_"


def is_partial(path: pathlib.Path) -> bool:
    """Whether what has this name is not whole: being written, or left by a killed program."""
    return _PARTIAL in path.suffixes


def _to_disk(path: pathlib.Path) -> None:
    """Wait until a file, or the names in a folder, would survive a crash of the machine."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: str | pathlib.Path, text: str) -> None:
    """Text in UTF-8, whole or not at all."""
    with whole(path) as place:
        place.write_text(text, encoding="utf-8")


def write_json(path: str | pathlib.Path, content: Any, *, sort_keys: bool = True) -> None:
    """JSON in UTF-8, keys sorted or in the order given, whole or not at all."""
    write_text(path, json.dumps(content, indent=1, sort_keys=sort_keys) + "\n")


def read_json(path: str | pathlib.Path, what: str, remedy: str, kind: type = dict) -> Any:
    """What a JSON file holds.

    Args:
        what: such as "manifest", for the error.
        kind: what it holds: an object (dict) or a list.

    Raises:
        InputError: if it cannot be read, is not UTF-8, not JSON, or of another kind.
    """
    try:
        content = json.loads(pathlib.Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        found = f"no readable {what} ({error})"
        raise InputError(str(path), found, f"a {what} in JSON", remedy) from None
    if not isinstance(content, kind):
        found = f"no readable {what} (a {type(content).__name__}, not a {kind.__name__})"
        raise InputError(str(path), found, f"a {what} in JSON", remedy)
    return content


def write_sealed(path: str | pathlib.Path, content: dict[str, Any]) -> None:
    """A JSON object that knows its own checksum, whole or not at all."""
    content = {name: content[name] for name in content if name != _SEAL}
    write_json(path, {**content, _SEAL: _sealed(content)}, sort_keys=False)


def read_sealed(path: str | pathlib.Path, what: str, remedy: str) -> dict[str, Any]:
    """What `write_sealed` wrote; files of older versions, which have no checksum, pass.

    Raises:
        InputError: as `read_json`, and if it was changed after it was written.
    """
    content = read_json(path, what, remedy)
    if content.pop(_SEAL, None) not in (None, _sealed(content)):
        found = f"a {what} that was changed after it was written"
        raise InputError(str(path), found, "what was written there", remedy)
    return content


def _sealed(content: dict[str, Any]) -> str:
    as_read = json.loads(json.dumps(content))  # keys are text, and sorted as such
    return hashlib.sha256(json.dumps(as_read, sort_keys=True).encode()).hexdigest()


def write_csv(path: str | pathlib.Path, table: pd.DataFrame) -> None:
    """A table without its index, numbers to six digits, whole or not at all."""
    with whole(path) as place:
        table.to_csv(place, index=False, float_format="%.6g")


def write_parquet(path: str | pathlib.Path, table: pd.DataFrame) -> None:
    """A table without its index and with checksums, whole or not at all."""
    with whole(path) as place:
        table.to_parquet(place, index=False, write_page_checksum=True)


def read_parquet(
    path: str | pathlib.Path,
    what: str,
    remedy: str,
    columns: Collection[str] = (),
    **options: Any,
) -> pd.DataFrame:
    """What a Parquet table holds; its checksums are compared where it has some.

    Args:
        what: such as "gene table", for the error.
        columns: those that it must have; no others are read. None named: all are read.
        options: of `pandas.read_parquet`, such as `filters`.

    Raises:
        InputError: if it cannot be read, is damaged, or lacks a column.
    """
    try:
        return pd.read_parquet(
            path, columns=list(columns) or None, page_checksum_verification=True, **options
        )
    # The last three are what pandas and pyarrow raise where a damaged footer still parses.
    except (OSError, ValueError, pa.ArrowException, KeyError, TypeError, AttributeError) as error:
        found = f"no readable {what} ({str(error).partition(chr(10))[0][:200]})"
        expected = f"a {what} in Parquet"
        if columns:
            expected += f" with the columns {', '.join(columns)}"
        raise InputError(str(path), found, expected, remedy) from None


def read_csv(
    path: str | pathlib.Path,
    what: str,
    remedy: str,
    columns: Collection[str] = (),
    text: Collection[str] = (),
) -> pd.DataFrame:
    """What a table of text holds: between commas, or tabs or semicolons if its header has none.

    Args:
        what: such as "ranking", for the error.
        columns: those that it must have; it may have more, and all are read.
        text: columns of names, whatever they look like: a cell may be called 1 or NA.

    Raises:
        InputError: if it cannot be read, is not UTF-8, lacks a column, or as `fitted_lines`.
    """
    try:
        numbered = list(enumerate(lines_of(read_bytes(path, f"a {what}").decode("utf-8-sig")), 1))
        between = next((c for c in ",\t;" if c in numbered[0][1]), ",")
        lines = fitted_lines(numbered, between)
        cells = [cell for line in lines[1:] for cell in line.split(between)]
        decimal = "," if between == ";" and any(map(_DECIMAL_COMMA.fullmatch, cells)) else "."
        read = functools.partial(pd.read_csv, sep=between, decimal=decimal, keep_default_na=False)
        names = map(str, read(io.StringIO(lines[0]), nrows=0))
        missing = {name: _UNKNOWN for name in names if name not in text}
        content = io.StringIO("\n".join(lines))
        table = read(content, dtype=dict.fromkeys(text, str), na_values=missing)
    except (InputError, ValueError, csv.Error) as error:
        why = error.problems[0].found if isinstance(error, InputError) else str(error)
        found = f"no readable {what} ({why.partition(chr(10))[0][:200]})"
        raise InputError(str(path), found, f"a {what} in CSV", remedy) from None
    if lacking := [name for name in columns if name not in table]:
        found = f"a {what} without {', '.join(lacking)}"
        raise InputError(str(path), found, f"the columns {', '.join(columns)}", remedy)
    return table


def lines_of(text: str) -> list[str]:
    """Lines without their ends; within a name, marks that Unicode calls line ends are text."""
    return re.split(r"\r\n?|\n", text)


def fitted_lines(numbered: Iterable[tuple[int, str]], between: str) -> list[str]:
    """Lines of a table without empty fields beyond the header's last, as spreadsheets write.

    Raises:
        ValueError: for a quotation mark that is not closed, or more fields than the header has.
    """
    named, fitted = 0, []
    for number, line in numbered:
        if line.count('"') % 2:
            raise ValueError(f"line {number}: a quotation mark that is not closed")
        fields = next(csv.reader([line], delimiter=between), [])
        named = named or max((i for i, field in enumerate(fields, 1) if field), default=0)
        if any(fields[named:]):
            raise ValueError(f"line {number}: more fields than its header has")
        if fields[named:]:
            line = io.StringIO()
            csv.writer(line, delimiter=between, lineterminator="").writerow(fields[:named])
            line = line.getvalue()
        fitted.append(line)
    return fitted


def numbers(column: pd.Series) -> pd.Series:
    """A column of somebody's table as numbers; what is none is NaN, what is too large infinite."""
    # Whole numbers of hundreds of digits come from pandas as Python's, which it cannot convert.
    return pd.to_numeric(column.astype(str) if column.dtype == object else column, errors="coerce")


def sha256(path: str | pathlib.Path) -> str:
    """The checksum of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_record(path: str | pathlib.Path) -> dict[str, Any]:
    """Name, size in bytes and sha256 of a file, for manifests and the like."""
    path = pathlib.Path(path)
    return {"name": path.name, "bytes": path.stat().st_size, "sha256": sha256(path)}


@contextlib.contextmanager
def opened(path: str | pathlib.Path, what: str = "a file") -> Iterator[IO[bytes]]:
    """A file to read, unpacked on the way if it is gzip by its content, whatever its name.

    Args:
        what: the kind of file expected, for the error.

    Raises:
        InputError: if it cannot be opened, or the gzip is found damaged while it is read.
    """
    try:
        file = io.FileIO(path)
    except OSError as error:
        reason = f"nothing that can be read ({error.strerror or error})"
        raise InputError(str(path), reason, what, "check the path") from None
    with io.BufferedReader(file) as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        if not packed:
            yield file
            return
        try:
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield io.BufferedReader(cast(io.RawIOBase, unpacked))
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            found = f"a damaged gzip file ({error})"
            raise InputError(str(path), found, what, "copy or download it again") from None


def read_bytes(path: str | pathlib.Path, what: str = "a file") -> bytes:
    """What a file holds, unpacked if it is gzip by its content. See `opened`."""
    with opened(path, what) as file:
        return file.read()
