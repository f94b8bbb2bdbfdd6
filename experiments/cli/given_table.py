"""Tables that people give: Parquet, or delimited text with a header, gzipped or not."""

import io
import pathlib

import pandas as pd

from data_prep.formats.text import numbered_lines, separator_of
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import read_parquet
from epi2expr_jax.genome import listing

_TEXT = {"gene_id": str, "chrom": str}


def read_table(path: pathlib.Path) -> pd.DataFrame:
    """A table: Parquet by its name, else text whose header shows what separates its fields.

    The header may begin with `#`; lines before it that begin with `##` are comments.

    Raises:
        InputError: if it cannot be read, is a file of another kind, or has a line with a quotation
            mark that is not closed, which would swallow those after it.
    """
    remedy, expected = "give another file", "Parquet, or delimited text with a header"
    if path.suffix == ".parquet":
        return read_parquet(path, "table", remedy)
    numbered = numbered_lines(path, expected)
    while numbered and numbered[0][1].startswith("##"):
        numbered.pop(0)
    odd = [number for number, line in numbered if line.count('"') % 2]
    if odd:
        found = "a quotation mark that is not closed"
        raise InputError(f"{path}, line {listing(odd)}", found, expected, "remove or close it")
    text = "\n".join(line for _, line in numbered).removeprefix("#").lstrip(" ")
    header = text.partition("\n")[0]
    if not (separator := separator_of(header)):
        found = f"a header of one column ({header[:40]!r})"
        raise InputError(str(path), found, expected, remedy)
    try:
        return pd.read_csv(io.StringIO(text), sep=separator, dtype=_TEXT, low_memory=False)
    except ValueError as error:
        found = f"no readable table ({str(error).splitlines()[0]})"
        raise InputError(str(path), found, expected, remedy) from None
