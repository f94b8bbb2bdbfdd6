"""Tables that people give: Parquet, or delimited text with a header, gzipped or not."""

import pathlib
import zlib

import pandas as pd

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import read_parquet

_TEXT = {"gene_id": str, "chrom": str}


def read_table(path: pathlib.Path) -> pd.DataFrame:
    """A table by the end of its file's name.

    Raises:
        InputError: if it cannot be read.
    """
    remedy = "give another file"
    if path.suffix == ".parquet":
        return read_parquet(path, "table", remedy)
    try:
        comma = ".csv" in path.suffixes
        return pd.read_csv(path, sep="," if comma else "\t", dtype=_TEXT, low_memory=False)
    except (OSError, ValueError, EOFError, zlib.error) as error:
        found = f"no readable table ({str(error).splitlines()[0]})"
        expected = "Parquet, or delimited text with a header"
        raise InputError(str(path), found, expected, remedy) from None
