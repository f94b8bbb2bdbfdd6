"""Tables that are kept to save a second reading, and made again where they are damaged."""

import contextlib
import pathlib

import pandas as pd

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import read_json, read_parquet, sha256, write_json, write_parquet


def keep_table(path: pathlib.Path, table: pd.DataFrame) -> None:
    """Write a table in Parquet, and its checksum next to it."""
    write_parquet(path, table)
    write_json(_note(path), {"sha256": sha256(path)})


def kept_table(path: pathlib.Path) -> pd.DataFrame | None:
    """The table that `keep_table` wrote; None if it is not there as it was written."""
    remedy = "make it again"
    with contextlib.suppress(InputError, OSError):
        if read_json(_note(path), "checksum", remedy).get("sha256") == sha256(path):
            return read_parquet(path, "kept table", remedy)
    return None


def _note(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(f"{path.name}.json")
