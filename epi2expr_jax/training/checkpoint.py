"""What a run directory keeps: Orbax checkpoints of any state, and the run card.

A checkpoint has its name once it is whole and on disk; the run card is written last. So nothing
partial is ever taken for whole. What is damaged later no longer has the checksum that was written.
"""

import contextlib
import functools
import hashlib
import importlib.metadata
import logging
import os
import pathlib
import platform
import shutil
import sys
import threading
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from orbax.checkpoint._src.serialization import tensorstore_utils

from epi2expr_jax.errors import InputError, write_failed
from epi2expr_jax.files import read_sealed, sha256, whole_folder, write_sealed
from epi2expr_jax.genome import listing
from epi2expr_jax.models.weights import flatten
from epi2expr_jax.store.arrays import CONTEXT

RUN_CARD = "run_card.json"
RUN_CARD_VERSION = 1
_FIELDS = {
    "status": str,
    "request": dict,
    "store_checksum": str,
    "store": dict,
    "populations": list,
}
_LOOP_CLOSED = "Event loop is closed"
CHANGED = "it has another checksum than what was written"


def _context(*, use_ocdbt: bool = True, **_: Any) -> ts.Context:
    """A context for one save or restore: a cache of its own, the threads of all others."""
    return ts.Context({"cache_pool#ocdbt": {"total_bytes_limit": 100_000_000}}, CONTEXT)


# Orbax makes a context with threads of its own for every save and restore. When such a context
# goes, the process may die under load (see store/arrays.py). Orbax offers no way to hand it one.
tensorstore_utils.get_ts_context = _context


def save(path: pathlib.Path, tree: Any) -> None:
    """Write a pytree of arrays, whole or not at all; an existing checkpoint is replaced.

    Raises:
        InputError: if the disk refuses.
    """
    write(path, named(tree))


def write(path: pathlib.Path, flat: dict[str, Any]) -> None:
    """As `save`, of arrays by name."""
    try:
        with whole_folder(path) as place, _quiet():
            # Within, where also what it leaves after an error will be removed.
            _checkpointer().save(place / "made", args=ocp.args.PyTreeSave(flat))
            for file in (place / "made").iterdir():
                file.rename(place / file.name)
            (place / "made").rmdir()
            shutil.rmtree(path, ignore_errors=True)
    except (OSError, ValueError) as error:
        raise refused(path, error) from error


def refused(path: pathlib.Path, error: Exception) -> InputError:
    """The error of a disk that refuses a checkpoint."""
    reason = str(error).splitlines()[0][-200:]  # Orbax says it last
    found = f"a checkpoint that could not be written ({reason})"
    return write_failed(path, found, ", then run the same command again: it resumes")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """What Orbax raises is reported; that each of its threads prints it, too, helps nobody."""
    log, before = logging.getLogger("absl"), threading.excepthook

    def ours(record: logging.LogRecord) -> bool:
        return f"{os.sep}orbax{os.sep}" not in record.pathname

    def hook(args: Any) -> None:
        if not type(args.thread).__module__.startswith("orbax."):
            before(args)

    log.addFilter(ours)
    threading.excepthook = hook
    _unless_the_loop_is_closed()
    try:
        yield
    finally:
        threading.excepthook = before
        log.removeFilter(ours)


@functools.cache
def _unless_the_loop_is_closed() -> None:
    """After the first write that fails Orbax ends the loop to which all others still report.

    For good, since the last of them may report when the error has long been raised.
    """
    printed, unraisable = sys.excepthook, sys.unraisablehook  # TensorStore has used both

    def hook(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        if str(error) != _LOOP_CLOSED:
            printed(kind, error, trace)

    def without_raising(args: Any) -> None:
        if str(args.exc_value) != _LOOP_CLOSED:
            unraisable(args)

    sys.excepthook, sys.unraisablehook = hook, without_raising


def named(tree: Any) -> dict[str, np.ndarray]:
    """The arrays of a tree by name, on the host."""
    return {name.replace("/", "."): np.asarray(leaf) for name, leaf in flatten(tree).items()}


def _checkpointer() -> ocp.Checkpointer:
    """Of this process alone: processes train different runs, at their own pace."""
    here, types = jax.process_index(), ocp.type_handlers
    options = ocp.options.MultiprocessingOptions()
    if jax.process_count() > 1:
        options = ocp.options.MultiprocessingOptions(
            primary_host=here, active_processes={here}, barrier_sync_key_prefix=f"process{here}"
        )
    # Without the store of metadata, which would wait for that of all processes.
    arrays = types.ArrayHandler(
        primary_host=here, replica_id=here, use_replica_parallel=False, array_metadata_store=None
    )
    handler = ocp.PyTreeCheckpointHandler(
        multiprocessing_options=options,
        type_handler_registry=types.create_type_handler_registry(
            (jax.Array, arrays), (np.ndarray, types.NumpyHandler())
        ),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=options)


def restore(path: pathlib.Path, template: Any) -> Any:
    """Read a checkpoint into the structure of `template` (arrays or `jax.ShapeDtypeStruct`s).

    Raises:
        InputError: if it cannot be read; listing all leaves that are missing, surplus or of another
            shape.
    """
    wanted = flatten(template)
    with _damage_named(path), _quiet():
        stored = _checkpointer().metadata(path.resolve()).item_metadata
        if stored is None:
            raise ValueError("no readable _METADATA")
        shapes = {name.replace(".", "/"): tuple(leaf.shape) for name, leaf in stored.items()}
    wrong = [
        f"{name} {shapes.get(name, 'absent')} for {found if found is not None else 'nothing'}"
        for name in sorted(shapes.keys() | wanted.keys())
        for found in [tuple(wanted[name].shape) if name in wanted else None]
        if shapes.get(name) != found
    ]
    if wrong:
        raise InputError(
            str(path),
            f"{len(wrong)} arrays that do not fit the model: {listing(wrong, 8)}",
            "a checkpoint of this model and version",
            "use the configuration and version that the run card names",
        )
    asked = {
        name.replace("/", "."): ocp.RestoreArgs(restore_type=np.ndarray, dtype=leaf.dtype)
        for name, leaf in wanted.items()
    }
    with _damage_named(path), _quiet():
        flat = _checkpointer().restore(
            path.resolve(), args=ocp.args.PyTreeRestore(restore_args=asked)
        )
        leaves = [flat[name.replace("/", ".")] for name in wanted]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


@contextlib.contextmanager
def _damage_named(path: pathlib.Path) -> Iterator[None]:
    """Whatever Orbax makes of a checkpoint whose files are cut short, gone or changed."""
    try:
        yield
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise damaged(path, str(error)) from error


def readable(path: pathlib.Path) -> None:
    """Read a checkpoint of any shape.

    Raises:
        InputError: if it cannot be read.
    """
    with _damage_named(path), _quiet():
        _checkpointer().restore(path.resolve())


def damaged(path: pathlib.Path, how: str) -> InputError:
    """The error for what is no longer as it was written."""
    found = f"damage ({(how or 'nothing to read').splitlines()[0][:300]})"
    remedy = "copy the run again, or run its experiments.train command again: it repairs"
    return InputError(str(path), found, "what was written", remedy)


def require_unchanged(path: pathlib.Path, written: str | None) -> None:
    """Check a checkpoint, or a file, of a run card: once a process, unless it changes.

    Args:
        written: its checksum; None, of a card of an older version, passes.

    Raises:
        InputError: if it has changed or is gone.
    """
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    states = [(str(file), file.stat()) for file in files]
    now = tuple((name, state.st_size, state.st_mtime_ns) for name, state in states)
    if written is not None and (not files or _sha256_once(path, now) != written):
        raise damaged(path, CHANGED if files else "it is gone")


@functools.lru_cache
def _sha256_once(path: pathlib.Path, _: tuple) -> str:
    return files_sha256(path)


def files_sha256(path: pathlib.Path) -> str:
    """Sha256 over all files of a checkpoint, or a single file, and where they lie in it."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()


def write_card(run_dir: pathlib.Path, card: dict[str, Any]) -> None:
    """Write the run card, whole or not at all."""
    write_sealed(run_dir / RUN_CARD, {"version": RUN_CARD_VERSION, **card})


def read_card(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The run card of a run directory.

    Raises:
        InputError: if there is none, or one that is damaged or of another version.
    """
    path = pathlib.Path(run_dir) / RUN_CARD
    remedy = "check --run: a folder made by experiments.train; or copy the run again"
    card = read_sealed(path, "run card", remedy)
    if card.get("version") != RUN_CARD_VERSION:
        raise InputError(
            str(path),
            f"run card version {card.get('version')}",
            f"version {RUN_CARD_VERSION}",
            "use the version of epi2expr_jax that made it",
        )
    with fields_named(run_dir):
        for name, kind in _FIELDS.items():
            if not isinstance(card.get(name, kind()), kind):
                raise TypeError(f"{name} is a {type(card[name]).__name__}")
    return card


@contextlib.contextmanager
def fields_named(run_dir: str | os.PathLike) -> Iterator[None]:
    """For what is made of a run card: one with fields missing or of another kind is told as such.

    Raises:
        InputError: for a `LookupError`, `TypeError`, `ValueError` or `AttributeError`.
    """
    try:
        yield
    except InputError:
        raise
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        found = f"fields that make no sense ({type(error).__name__}: {error})"
        expected, remedy = "a run card as it was written", "copy the run again, or retrain it"
        raise InputError(f"{run_dir}/{RUN_CARD}", found, expected, remedy) from error


def read_finished(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The run card of a run directory whose training has ended.

    Raises:
        InputError: if it has not, or if there is no run card.
    """
    card = read_card(run_dir)
    if card.get("status") != "complete":
        raise InputError(
            str(run_dir),
            f"training that is {card.get('status', 'not begun')}",
            "a finished run",
            "run the same experiments.train command again: it resumes",
        )
    return card


def weights_digest(card: dict[str, Any]) -> str:
    """What tells the weights of a finished run from others, wherever they lie."""
    sums = sorted(str(part.get("weights_sha256")) for part in card["populations"])
    return hashlib.sha256("\n".join(sums).encode()).hexdigest()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:  # a checkout on Python's path
        return "not installed"


def versions() -> dict[str, str]:
    """Versions of everything that can change a number, and the device."""
    packages = ("epi2expr_jax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "python": platform.python_version(),
        **{name: _version(name) for name in packages},
        "device": jax.devices()[0].device_kind,
        "platform": platform.machine(),
    }
