"""Floor 3. What a run directory keeps: Orbax checkpoints of any state, and the run card.

A checkpoint is written beside and renamed by Orbax, the run card last; so nothing partial is ever
taken for whole.
"""

import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import listing

RUN_CARD = "run_card.json"
RUN_CARD_VERSION = 1


def flatten(tree: Any) -> dict[str, Any]:
    """A pytree as a flat dict of arrays, keyed by where each leaf stands in it."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def save(path: pathlib.Path, tree: Any) -> None:
    """Write a pytree of arrays, whole or not at all; an existing checkpoint is replaced.

    Raises:
        InputError: if the disk refuses.
    """
    flat = {name.replace("/", "."): np.asarray(leaf) for name, leaf in flatten(tree).items()}
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(path.resolve(), flat, force=True)
            checkpointer.wait_until_finished()
    except (OSError, ValueError) as error:
        raise InputError(
            Problem(
                str(path),
                f"a checkpoint that could not be written ({str(error).splitlines()[0][:300]})",
                "room and permission to write",
                "free space, then run the same command again: it resumes",
            )
        ) from error


def restore(path: pathlib.Path, template: Any) -> Any:
    """Read a checkpoint into the structure of `template` (arrays or `jax.ShapeDtypeStruct`s).

    Raises:
        InputError: listing all leaves that are missing, surplus or of another shape.
    """
    with ocp.StandardCheckpointer() as checkpointer:
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
                Problem(
                    str(path),
                    f"{len(wrong)} arrays that do not fit the model: {listing(wrong, 8)}",
                    "a checkpoint of this model and version",
                    "use the configuration and version that the run card names",
                )
            )
        abstract = {
            name.replace("/", "."): np.empty(leaf.shape, leaf.dtype)
            for name, leaf in flatten(template).items()
        }
        flat = checkpointer.restore(path.resolve(), abstract)
    leaves = [flat[name.replace("/", ".")] for name in flatten(template)]
    return jax.tree.unflatten(jax.tree.structure(template), leaves)


def clean(folder: pathlib.Path) -> None:
    """Remove what a killed save left behind."""
    for leftover in folder.glob("*orbax-checkpoint-tmp*"):
        shutil.rmtree(leftover, ignore_errors=True)


def write_card(run_dir: pathlib.Path, card: dict[str, Any]) -> None:
    """Write the run card, whole or not at all."""
    partial = run_dir / (RUN_CARD + ".partial")
    partial.write_text(json.dumps({"version": RUN_CARD_VERSION, **card}, indent=1) + "\n")
    partial.replace(run_dir / RUN_CARD)


def read_card(run_dir: str | os.PathLike) -> dict[str, Any]:
    """The run card of a run directory.

    Raises:
        InputError: if there is none, or of another version.
    """
    path = pathlib.Path(run_dir) / RUN_CARD
    try:
        card = json.loads(path.read_text())
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(
            Problem(
                str(path),
                f"no readable run card ({error})",
                "a run directory made by experiments.train",
                "check --run",
            )
        ) from None
    if card.get("version") != RUN_CARD_VERSION:
        raise InputError(
            Problem(
                str(path),
                f"run card version {card.get('version')}",
                f"version {RUN_CARD_VERSION}",
                "use the version of epi2expr_jax that made it",
            )
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
