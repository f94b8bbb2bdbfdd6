"""Chromoformer's metadata: a CSV with one row for each gene of each cell.

    gene_id,expression,eid,label,chrom,start,end,strand,split,neighbors,scores

`start` is the TSS, 0-based, and `end` the base after it. `neighbors` are the gene's pCREs as
`chrom:start-end`, best first, and `scores` their scores, both separated by semicolons; a gene
without contacts leaves both empty. `split`, the authors' fold, is not read. Of `expression` and
`label` one is enough; without `neighbors` and `scores` there are no contacts.
"""

import collections
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import pandas as pd

from data_prep.formats.text import MOST_LINES, is_number, read_delimited
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import sha256
from epi2expr_jax.genome import find_chromosomes, gene_order, listing, strip_version
from epi2expr_jax.store.regions import CONTACT_COLUMNS

# Cells and assays become folders and flag values, where "all" and "each" have a meaning.
NAME = re.compile(r"(?!(all|each)$)[A-Za-z0-9][A-Za-z0-9._-]*", re.IGNORECASE)

_COLUMNS = ("gene_id", "eid", "chrom", "start", "end", "strand")
_KNOWN_OF_GENES = ("expression", "label")
_CONTACTS = ("neighbors", "scores")
_PLACE = ("chrom", "tss", "strand")
_INTERVAL = re.compile(r"([^:]+):(\d{1,18})-(\d{1,18})")


@dataclasses.dataclass(frozen=True)
class Metadata:
    """What the metadata says of the genes that all its cells have.

    Attributes:
        cells: in order of first appearance.
        genes: the gene table, `[G]` rows in genome order.
        expression: `[C, G]` RPKM, float32; None if the file has none.
        labels: `[C, G]` bool, as given; None if the file has none.
        contacts: cell to its contacts table, each gene's contacts in the order of the file; empty
            if the file names none.
        left_out: why and how many genes, or contacts, are not in it.
        sha256: of the file.
    """

    cells: list[str]
    genes: pd.DataFrame
    expression: np.ndarray | None
    labels: np.ndarray | None
    contacts: dict[str, pd.DataFrame]
    left_out: dict[str, int]
    sha256: str


def read_metadata(
    path: str | pathlib.Path,
    chrom_sizes: Mapping[str, int],
    max_contacts: int | None = None,
    max_pcre_bp: int | None = None,
) -> Metadata:
    """Read the metadata.

    Args:
        chrom_sizes: length of each chromosome of the assembly, in bp; `1` and `chr1` match.
        max_contacts: how many contacts of a gene to keep, the first ones; None keeps all.
        max_pcre_bp: width in bp beyond which contacts are left out; None keeps all. Of those that
            a gene lists twice the first counts.

    Raises:
        InputError: naming every malformed line (up to a number), every gene that is listed twice
            or lies in two places.
    """
    lines = read_delimited(path)
    header = next(lines)[1]
    missing = [name for name in _COLUMNS if name not in header]
    if not set(_KNOWN_OF_GENES) & set(header):
        missing.append(" or ".join(_KNOWN_OF_GENES))
    if missing:
        raise InputError(
            f"{path}, header",
            f"no column {', '.join(missing)}",
            f"the columns {', '.join((*_COLUMNS, *_KNOWN_OF_GENES, *_CONTACTS))}",
            "give the metadata CSV of Chromoformer",
        )
    has = {name: name in header for name in _KNOWN_OF_GENES}
    has["contacts"] = any(name in header for name in _CONTACTS)
    otherwise = {"expression": "0", "label": "0", "neighbors": "", "scores": ""}

    @functools.cache
    def spell(name: str) -> str:
        return find_chromosomes([name], chrom_sizes).get(name, name)

    dropped: collections.Counter[str] = collections.Counter()
    rows, contacts = [], []
    with collect() as problems:
        with problems.part(), collect(most=MOST_LINES) as in_lines:
            for number, fields in lines:
                record = otherwise | dict(zip(header, fields, strict=True))
                with in_lines.part():
                    row, own = _read_line(f"{path}, line {number}", record, chrom_sizes, spell)
                    rows.append(row)
                    once = dict.fromkeys(contact[:3] for contact in own)
                    dropped["contacts listed twice"] += len(own) - len(once)
                    kept = {contact[:3]: contact for contact in reversed(own)}
                    own = [kept[place] for place in once]
                    fit = [c for c in own if max_pcre_bp is None or c[2] - c[1] <= max_pcre_bp]
                    dropped[f"contacts wider than {max_pcre_bp} bp"] += len(own) - len(fit)
                    contacts += [(*row[:2], *contact) for contact in fit[:max_contacts]]
        table = pd.DataFrame(rows, columns=["cell", "gene_id", "expression", "label", *_PLACE])
        _check_genes(str(path), table)
    links = pd.DataFrame(contacts, columns=["cell", *CONTACT_COLUMNS])
    return _join(str(path), table, links, has, +dropped, sha256(path))


def _join(
    where: str,
    table: pd.DataFrame,
    links: pd.DataFrame,
    has: Mapping[str, bool],
    dropped: Mapping[str, int],
    sha256: str,
) -> Metadata:
    """Keep the genes that all cells have, in genome order."""
    cells = list(dict.fromkeys(table.cell))
    first = table.drop_duplicates("gene_id")
    everywhere = first.gene_id.map(table.gene_id.value_counts()) == len(cells)
    if not everywhere.any():
        raise InputError(
            where,
            f"no gene that all of {listing(cells)} have",
            "a row for each gene in each cell",
            "check the column eid, or import the cells apart",
        )
    genes = first[everywhere]
    genes = genes.iloc[gene_order(genes.chrom, genes.tss)].reset_index(drop=True)
    genes = genes.assign(name=genes.gene_id)[["gene_id", "name", *_PLACE]]
    rows = table.set_index(["cell", "gene_id"])

    def by_cell(column: str, dtype: type) -> np.ndarray | None:
        if not has[column]:
            return None
        return rows[column].unstack().loc[cells, genes.gene_id].to_numpy(dtype)

    named = cells if has["contacts"] else []
    return Metadata(
        cells=cells,
        genes=genes,
        expression=by_cell("expression", np.float32),
        labels=by_cell("label", bool),
        contacts={cell: links.loc[links.cell == cell, list(CONTACT_COLUMNS)] for cell in named},
        left_out={"not in every cell": int((~everywhere).sum()), **dropped},
        sha256=sha256,
    )


def _read_line(
    where: str,
    record: dict[str, str],
    chrom_sizes: Mapping[str, int],
    spell: Callable[[str], str],
) -> tuple[tuple, list[tuple]]:
    """One line: cell, gene_id, expression, label, chrom, tss, strand; and its contacts.

    Raises:
        InputError: with all problems of the line.
    """
    start, end, rpkm = (record[name] for name in ("start", "end", "expression"))
    chrom = spell(record["chrom"])
    tss = int(start) if is_number(start) else -1
    size = chrom_sizes.get(chrom, -1)
    contacts = [(spell(chrom), *more) for chrom, *more in _contacts(record)]
    checks = (
        (record["gene_id"] != "", "no gene_id", "one in every line"),
        (NAME.fullmatch(record["eid"]), f"eid {record['eid']!r}", "a name such as E003"),
        (0 <= _number(rpkm) < np.inf, f"expression {rpkm!r}", "RPKM, 0 or more"),
        (record["label"] in ("0", "1"), f"label {record['label']!r}", "0 or 1"),
        (size >= 0, f"chrom {chrom!r}", f"a chromosome of the assembly ({listing(chrom_sizes)})"),
        (tss >= 0 and end == str(tss + 1), f"{start}-{end}", "the TSS, 0-based, and TSS + 1"),
        (size < 0 or tss < size, f"TSS {start}", f"a position on {chrom}, of {size} bp"),
        (record["strand"] in ("+", "-"), f"strand {record['strand']!r}", "+ or -"),
        *_contact_checks(record, contacts, chrom_sizes),
    )
    with collect() as problems:
        for fine, found, expected in checks:
            if not fine:
                problems.add(where, found, expected, "correct the line, or check --assembly")
    gene_id = strip_version(record["gene_id"])
    label = record["label"] == "1"
    row = (record["eid"], gene_id, float(rpkm), label, chrom, tss, record["strand"])
    return row, contacts


def _contacts(record: dict[str, str]) -> Iterator[tuple[str, int, int, float]]:
    """Chromosome, start, end and score of each well-formed contact."""
    neighbors, scores = record["neighbors"].split(";"), record["scores"].split(";")
    for neighbor, score in zip(neighbors, scores, strict=False):
        if found := _INTERVAL.fullmatch(neighbor.strip()):
            yield found[1], int(found[2]), int(found[3]), _number(score)


def _contact_checks(
    record: dict[str, str], contacts: list[tuple], chrom_sizes: Mapping[str, int]
) -> Iterator[tuple[bool, str, str]]:
    """What must hold of the contacts: whether it does, what was found, what was expected."""
    neighbors = [text.strip() for text in record["neighbors"].split(";") if record["neighbors"]]
    scores = [_number(text) for text in record["scores"].split(";") if record["scores"]]
    found = f"{len(neighbors)} neighbors, {len(scores)} scores"
    yield len(neighbors) == len(scores), found, "a score for each"
    strange = [text for text in neighbors if not _INTERVAL.fullmatch(text)]
    yield not strange, f"neighbors {listing(map(repr, strange))}", "chrom:start-end"
    off = [
        f"{chrom}:{start}-{end}"
        for chrom, start, end, _ in contacts
        if not start < end <= chrom_sizes.get(chrom, -1)
    ]
    yield not off, f"neighbors {listing(off)}", "intervals on the assembly, start below end"
    yield bool(np.isfinite(scores).all()), f"scores {record['scores']!r}", "finite numbers"
    falling = not (np.diff(scores) > 0).any()
    yield falling, f"scores {record['scores']!r} that rise", "the best contact first"


def _check_genes(where: str, table: pd.DataFrame) -> None:
    if table.empty:
        raise InputError(where, "no whole line", "one for each gene", "give another file")
    twice = table[table.duplicated(["cell", "gene_id"])]
    places = table.drop_duplicates(["gene_id", *_PLACE])
    moved = sorted(set(places.gene_id[places.gene_id.duplicated()]))
    with collect() as problems:
        if len(twice):
            found = f"{len(twice)} genes listed twice in a cell ({listing(twice.gene_id, most=20)})"
            problems.add(where, found, "one row a gene and cell", "keep one row of each")
        if moved:
            found = f"{len(moved)} genes with two TSSs ({listing(moved, most=20)})"
            problems.add(where, found, "one TSS a gene, in all cells", "choose one")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return float("nan")
