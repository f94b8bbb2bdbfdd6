"""Tables that people give: Parquet, or delimited text with a header, gzipped or not."""

import csv
import io
import pathlib

import pandas as pd

from data_prep.formats.text import numbered_lines, separator_of
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import fitted_lines, read_parquet

_TEXT = dict.fromkeys(("gene_id", "chrom", "chr", "chromosome"), str)


def read_table(path: pathlib.Path) -> pd.DataFrame:
    """A table: Parquet by its name, else text whose header shows what separates its fields.

    The header may begin with `#`; lines before it that begin with `##` are comments.

    Raises:
        InputError: if it cannot be read, is a file of another kind, or as `fitted_lines`.
    """
    remedy, expected = "give another file", "Parquet, or delimited text with a header"
    if path.suffix == ".parquet":
        return read_parquet(path, "table", remedy)
    numbered = numbered_lines(path, expected)
    while numbered and numbered[0][1].startswith("##"):
        numbered.pop(0)
    if numbered:
        numbered[0] = (numbered[0][0], numbered[0][1].removeprefix("#").lstrip(" "))
    header = numbered[0][1] if numbered else ""
    if not (separator := separator_of(header)):
        found = f"a header of one column ({header[:40]!r})"
        raise InputError(str(path), found, expected, remedy)
    try:
        text = "\n".join(fitted_lines(numbered, separator))
        return pd.read_csv(io.StringIO(text), sep=separator, dtype=_TEXT, low_memory=False)
    except (ValueError, csv.Error) as error:
        found = f"no readable table ({str(error).splitlines()[0]})"
        raise InputError(str(path), found, expected, remedy) from None
