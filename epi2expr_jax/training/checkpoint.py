"""What a run directory keeps: Orbax checkpoints of any state, and the run card.

Orbax writes a checkpoint under another name and renames it; the run card is written last. So
nothing partial is ever taken for whole.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import platform
import shutil
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
import tensorstore as ts
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from orbax.checkpoint._src.serialization import tensorstore_utils

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import read_json, sha256, write_json
from epi2expr_jax.genome import listing
from epi2expr_jax.models.weights import flatten
from epi2expr_jax.store.arrays import CONTEXT

RUN_CARD = "run_card.json"
RUN_CARD_VERSION = 1
_NUMBER = "-" + 6 * "[0-9]"  # of a part, in the names of its files


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
    with _checkpointer() as checkpointer, _writing(path):
        checkpointer.save(path.resolve(), args=ocp.args.PyTreeSave(_flat(tree)), force=True)
        checkpointer.wait_until_finished()


def _flat(tree: Any) -> dict[str, np.ndarray]:
    return {name.replace("/", "."): np.asarray(leaf) for name, leaf in flatten(tree).items()}


def _as_replicas(flat: dict[str, np.ndarray]) -> dict[str, Any]:
    """Arrays as this process's replicas of global ones, if there are several processes.

    Orbax writes an array of one process's own only for the first process. Of a replicated array it
    writes the replica it is told to; here there is no other.
    """
    count = jax.process_count()
    if count == 1:
        return flat
    devices = [next(d for d in jax.devices() if d.process_index == i) for i in range(count)]
    sharding = NamedSharding(Mesh(np.array(devices), ("process",)), PartitionSpec())
    return {
        name: jax.make_array_from_process_local_data(sharding, leaf, leaf.shape)
        for name, leaf in flat.items()
    }


def _checkpointer() -> ocp.AsyncCheckpointer:
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
    return ocp.AsyncCheckpointer(handler, multiprocessing_options=options)


@contextlib.contextmanager
def _writing(path: pathlib.Path) -> Iterator[None]:
    """Says clearly what the disk refuses."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(
            str(path),
            f"a checkpoint that could not be written ({str(error).splitlines()[0][:300]})",
            "room and permission to write",
            "free space, then run the same command again: it resumes",
        ) from error


def restore(path: pathlib.Path, template: Any) -> Any:
    """Read a checkpoint into the structure of `template` (arrays or `jax.ShapeDtypeStruct`s).

    Raises:
        InputError: listing all leaves that are missing, surplus or of another shape.
    """
    with _checkpointer() as checkpointer:
        metadata = checkpointer.metadata(path.resolve()).item_metadata
        stored = {name.replace(".", "/"): tuple(leaf.shape) for name, leaf in metadata.items()}
        wanted = {name: tuple(leaf.shape) for name, leaf in flatten(template).items()}
        wrong = [
            f"{name} {stored.get(name, 'absent')} for {wanted.get(name, 'nothing')}"
            for name in sorted(stored.keys() | wanted.keys())
            if stored.get(name) != wanted.get(name)
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
            for name, leaf in flatten(template).items()
        }
        flat = checkpointer.restore(path.resolve(), args=ocp.args.PyTreeRestore(restore_args=asked))
    leaves = [flat[name.replace("/", ".")] for name in flatten(template)]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


@dataclasses.dataclass(frozen=True)
class Part:
    """A checkpoint of some runs, and what is known of each.

    Attributes:
        path: the checkpoint, arrays stacked on `R`.
        records: one a row, as they were saved.
    """

    path: pathlib.Path
    records: list[dict[str, Any]]

    def restore(self, template: Any) -> Any:
        """Its rows in the structure of `template`, which is that of one run.

        Raises:
            InputError: listing all leaves that are missing, surplus or of another shape.
        """
        rows = len(self.records)
        stacked = jax.tree.map(
            lambda leaf: jax.ShapeDtypeStruct((rows, *leaf.shape), leaf.dtype), template
        )
        return restore(self.path, stacked)


class Parts:
    """The checkpoints of the runs of one process, written in the background.

    `state-N` holds all of the runs under way, and only the newest is kept; `best-N` holds the best
    weights of those that ended since. The records of the rows lie next to each as `NAME.json`,
    written first: a part is whole when its checkpoint is.

    Args:
        folder: of this process alone; other processes have folders next to it.
    """

    def __init__(self, folder: pathlib.Path):
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        for leftover in folder.glob("*orbax-checkpoint-tmp*"):
            shutil.rmtree(leftover, ignore_errors=True)  # of a save that was killed
        numbers = [int(path.stem.split("-")[1]) for path in folder.glob(f"*{_NUMBER}.json")]
        self._number = max(numbers, default=0)
        self._checkpointer = _checkpointer()

    def save(self, ended: tuple[list, Any], under_way: tuple[list, Any]) -> None:
        """Begin to write what has ended and what is under way, each as records and arrays.

        Raises:
            InputError: if the disk refuses, this time or in the background before.
        """
        self.wait()
        self._number += 1
        for kind, (records, tree) in (("best", ended), ("state", under_way)):
            if records:
                path = self.folder / f"{kind}-{self._number:06d}"
                write_json(path.with_suffix(".json"), records)
                with _writing(path):
                    args = ocp.args.PyTreeSave(_as_replicas(_flat(tree)))
                    self._checkpointer.save(path.resolve(), args=args, force=True)

    def wait(self) -> None:
        """Until everything is written; then older states go.

        Raises:
            InputError: if the disk refuses.
        """
        with _writing(self.folder):
            self._checkpointer.wait_until_finished()
        # A newer number, of whichever kind, holds all that is under way.
        for path in self.folder.glob(f"state{_NUMBER}.json"):
            if int(path.stem.split("-")[1]) < self._number:
                shutil.rmtree(path.with_suffix(""), ignore_errors=True)
                path.unlink()

    def close(self) -> None:
        """Wait, and end the background writing."""
        self.wait()
        self._checkpointer.close()


def read_parts(folder: pathlib.Path, kind: str) -> list[Part]:
    """All whole parts of a kind (`state` or `best`) in a folder of processes' folders.

    Raises:
        InputError: if the records of one cannot be read.
    """
    return [
        Part(path.with_suffix(""), read_json(path, "list of runs", "train again", list))
        for path in sorted(folder.glob(f"*/{kind}{_NUMBER}.json"))
        if path.with_suffix("").is_dir()
    ]


def files_sha256(path: pathlib.Path) -> str:
    """Sha256 over all files of a checkpoint, or a single file, and where they lie in it."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.is_file())
    for file in files:
        digest.update(f"{file.relative_to(path)}\0{file.stat().st_size}\0".encode())
        digest.update(bytes.fromhex(sha256(file)))
    return digest.hexdigest()


def remove_states(folder: pathlib.Path) -> None:
    """Remove what only an interrupted training needs."""
    for path in [*folder.glob("*/state-*"), *folder.glob("*/*orbax-checkpoint-tmp*")]:
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def write_card(run_dir: pathlib.Path, card: dict[str, Any]) -> None:
    """Write the run card, whole or not at all."""
    write_json(run_dir / RUN_CARD, {"version": RUN_CARD_VERSION, **card})


def read_card(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The run card of a run directory.

    Raises:
        InputError: if there is none, or one that is damaged or of another version.
    """
    path = pathlib.Path(run_dir) / RUN_CARD
    card = read_json(path, "run card", "check --run: a folder made by experiments.train")
    if card.get("version") != RUN_CARD_VERSION:
        raise InputError(
            str(path),
            f"run card version {card.get('version')}",
            f"version {RUN_CARD_VERSION}",
            "use the version of epi2expr_jax that made it",
        )
    return card


def read_finished(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The run card of a run directory whose training has ended.

    Raises:
        InputError: if it has not, or if there is no run card.
    """
    card = read_card(run_dir)
    if card["status"] != "complete":
        raise InputError(
            str(run_dir),
            f"training that is {card['status']}",
            "a finished run",
            "run the same experiments.train command again: it resumes",
        )
    return card


def versions() -> dict[str, str]:
    """Versions of everything that can change a number, and the device."""
    packages = ("epi2expr_jax", "jax", "jaxlib", "flax", "optax", "numpy")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in packages},
        "device": jax.devices()[0].device_kind,
        "platform": platform.machine(),
    }
