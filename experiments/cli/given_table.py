"""Tables that people give: Parquet, or delimited text with a header, gzipped or not."""

import io
import pathlib

import pandas as pd

from data_prep.formats.text import read_text, separator_of
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import read_parquet

_TEXT = {"gene_id": str, "chrom": str}


def read_table(path: pathlib.Path) -> pd.DataFrame:
    """A table: Parquet by its name, else text whose header shows what separates its fields.

    Raises:
        InputError: if it cannot be read, or is a file of another kind.
    """
    remedy, expected = "give another file", "Parquet, or delimited text with a header"
    if path.suffix == ".parquet":
        return read_parquet(path, "table", remedy)
    text = read_text(path, expected)
    header = text.partition("\n")[0]
    if not (separator := separator_of(header)):
        found = f"a header of one column ({header[:40]!r})"
        raise InputError(str(path), found, expected, remedy)
    try:
        return pd.read_csv(io.StringIO(text), sep=separator, dtype=_TEXT, low_memory=False)
    except ValueError as error:
        found = f"no readable table ({str(error).splitlines()[0]})"
        raise InputError(str(path), found, expected, remedy) from None
