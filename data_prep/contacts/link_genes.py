"""Promoter contacts: from capture Hi-C to the distant regions (pCREs) that each gene touches.

A gene's baits are the fragments that hold one of its TSSs. A contact has a direction: it is one of
the genes whose TSS its bait holds, and not of genes that have a TSS in its other end. That is what
the formats (`contact_files`) mean. CHiCAGO scores pairs of bait and other end, so a contact of two
baits has two rows, each with its own score; Chromoformer looks up the neighbours of the TSS's
fragment. (In its demo the TSS of ENSG00000215712 lies in the other end of a contact that is none of
its own.) A BEDPE that lists such a contact once gives it to the genes of its first end alone: list
it both ways.

A fragment's contact with itself, or with another bait of the same gene, counts like any other:
Chromoformer's tables hold such pairs, and models trained on them have seen them.
"""

import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from absl import logging

from data_prep.contacts.contact_files import ContactFile, read_contact_file
from data_prep.formats.text import read_delimited
from epi2expr_jax.errors import InputError, Problems, collect
from epi2expr_jax.genome import listing
from epi2expr_jax.units import count

_BAIT = ["bait_chrom", "bait_start", "bait_end"]
_OTHER_END = ["chrom", "start", "end"]


@dataclasses.dataclass(frozen=True)
class ContactRule:
    """Which contacts of a gene are kept, besides those above the score.

    Attributes:
        max_width_bp: the widest other end, in bp.
        max_contacts: how many a gene keeps, the best by score.
        trans: whether the other end may lie on another chromosome.
    """

    max_width_bp: int = 40_000
    max_contacts: int = 8
    trans: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class CellContacts:
    """The contacts that the genes of a store keep in a cell.

    Attributes:
        table: one row a kept contact, columns `gene_id`, `chrom`, `start`, `end`, `score`: the
            other end, in the order of the genes, the best of each gene first.
        source: what it was read from and by which rules, for the manifest.
        genes: how many genes were asked for.
        read: how many contacts the file has.
        dropped: why and how many were not kept: contacts, then pairs of a gene and a contact (of
            a bait with several genes, a contact makes as many pairs).
    """

    table: pd.DataFrame
    source: dict[str, Any]
    genes: int
    read: int
    dropped: dict[str, int]

    def summary(self) -> str:
        """What was read, kept and dropped, in one line."""
        having = self.table["gene_id"].nunique()
        regions = len(self.table.drop_duplicates(_OTHER_END))
        dropped = [f"{n} {why}" for why, n in self.dropped.items() if n]
        have = f"{count(having, 'gene')} {'has' if having == 1 else 'have'} some"
        return (
            f"{count(self.read, 'contact')} read, {count(len(self.table), 'pair')} of gene and "
            f"contact kept, with {count(regions, 'region')}: {have}, {self.genes - having} none, "
            f"mean {len(self.table) / self.genes:.1f} a gene; "
            f"dropped: {', '.join(dropped) or 'none'}"
        )


def read_contacts(
    source: str | pathlib.Path,
    cells: Sequence[str],
    chrom_sizes: dict[str, int],
    min_score: float | None,
    problems: Problems,
    score_column: str = "",
) -> dict[str, ContactFile]:
    """Read the contacts of cells, and check everything that needs no genes.

    Args:
        source: one file for all cells, or a sheet: a `.csv` with the columns `cell`, `path`
            (relative to the sheet) and maybe `min_score` and `score_column`. Cells not in `cells`
            are ignored.
        cells: the cells that need contacts.
        chrom_sizes: length of each chromosome of the assembly, in bp; `1` and `chr1` match.
        min_score: the score to lie above; None: the format's own. A sheet's has precedence.
        problems: takes every problem of every file; those of its contacts by their lines. The
            files that can be read are returned, without their bad contacts.
        score_column: name or number of the column of scores; empty: as the format has it. A
            sheet's has precedence.

    Returns:
        A file for each cell that has a usable one; cells that share a file share the object.

    Raises:
        InputError: with every problem of the sheet.
    """
    path = pathlib.Path(source)
    if path.suffix.lower() == ".csv":
        wanted = _read_sheet(path, cells, min_score, score_column)
    else:
        wanted = dict.fromkeys(cells, (path, min_score, score_column))
    files: dict[tuple[pathlib.Path, float | None, str], ContactFile] = {}
    for key in dict.fromkeys(wanted.values()):
        with problems.part():
            name, least, column = key
            files[key] = read_contact_file(name, least, chrom_sizes, problems, column)
    usable = {key: file for key, file in files.items() if len(file.table)}
    return {cell: usable[wanted[cell]] for cell in cells if wanted[cell] in usable}


def link_genes(
    files: Mapping[str, ContactFile], genes: pd.DataFrame, tss: pd.DataFrame, rule: ContactRule
) -> dict[str, CellContacts]:
    """Give each gene the contacts of the fragments that hold its TSSs, the best by score.

    A contact that a gene has several times, in several rows or through several baits, counts once,
    with its highest score. Of equal scores the smaller interval (`chr:start-end`, as text) is
    better. A gene without contacts is as good as any other.

    Args:
        files: of each cell, as `read_contacts` returns them.
        genes: the genes to link, in their order; `gene_id` is read.
        tss: columns `gene_id`, `chrom`, `tss` (0-based): every TSS of these and of other genes.
        rule: which contacts are kept.

    Raises:
        InputError: naming every file none of whose baits holds a TSS, or none of whose contacts
            can be kept.
    """
    linked = {}
    with collect() as problems:
        for file in dict.fromkeys(files.values()):
            with problems.part():
                linked[file] = _link_file(file, genes, tss, rule)
    return {cell: linked[file] for cell, file in files.items()}


def _link_file(
    file: ContactFile, genes: pd.DataFrame, tss: pd.DataFrame, rule: ContactRule
) -> CellContacts:
    contacts = file.table.assign(bait=file.table.groupby(_BAIT, sort=False).ngroup())
    owners = _owners(contacts, tss)
    if owners.empty:
        raise InputError(
            file.path,
            f"{len(contacts)} contacts, none of whose baits holds a TSS",
            "baits, as the first end of each contact, on the assembly and around its genes",
            "check --assembly and --genes, and that the bait comes first",
        )
    with_tss = contacts["bait"].isin(owners["bait"])
    owners["gene"] = pd.Index(genes["gene_id"]).get_indexer(pd.Index(owners["gene_id"]))
    owners = owners.loc[owners["gene"] >= 0, ["gene", "bait"]]
    dropped = dict(file.left_out)
    for why, wrong in (
        ("contacts whose bait holds no TSS", ~with_tss),
        ("contacts of genes that are not stored", ~contacts["bait"].isin(owners["bait"])),
        (
            f"contacts with a score not above {file.min_score:g}",
            ~(contacts["score"] > file.min_score),
        ),
        (
            f"contacts with an other end of more than {rule.max_width_bp} bp",
            contacts["end"] - contacts["start"] > rule.max_width_bp,
        ),
        (
            "contacts with an other end on another chromosome",
            (contacts["chrom"] != contacts["bait_chrom"]) & (not rule.trans),
        ),
    ):
        wrong = wrong[contacts.index]  # each contact is counted by the first reason to drop it
        dropped[why] = int(wrong.sum())
        contacts = contacts[~wrong]

    links = contacts.merge(owners, on="bait")
    links["interval"] = (
        links["chrom"] + ":" + links["start"].astype(str) + "-" + links["end"].astype(str)
    )
    links = links.sort_values(["gene", "score", "interval"], ascending=[True, False, True])
    again = links.duplicated(["gene", "interval"])
    dropped["pairs listed before with a higher score"] = int(again.sum())
    links = links[~again]
    surplus = links.groupby("gene").cumcount() >= rule.max_contacts
    dropped[f"pairs beyond the best {rule.max_contacts} of their gene"] = int(surplus.sum())
    links = links[~surplus]
    if links.empty:
        raise InputError(
            file.path,
            "no contact to keep: "
            + ", ".join(f"{count} {why}" for why, count in dropped.items() if count),
            "contacts of the genes",
            "check --min_contact_score, --max_pcre_bp and --chromosomes",
        )
    table = links[[*_OTHER_END, "score"]].reset_index(drop=True)
    table.insert(0, "gene_id", genes["gene_id"].to_numpy()[links["gene"]])
    source = {
        "name": pathlib.Path(file.path).name,
        "format": file.format,
        "sha256": file.sha256,
        "min_score": file.min_score,
        **dataclasses.asdict(rule),
        # Other TSSs of the same genes, from another annotation, give other contacts.
        "kept_sha256": hashlib.sha256(table.to_csv(index=False).encode()).hexdigest(),
    }
    read = len(file.table) + sum(file.left_out.values())
    return CellContacts(table, source, len(genes), read, dropped)


def _owners(contacts: pd.DataFrame, tss: pd.DataFrame) -> pd.DataFrame:
    """Which gene has a TSS in which bait: columns `gene_id`, `bait`, each pair once."""
    import bioframe  # it loads matplotlib

    baits = contacts.drop_duplicates("bait")[[*_BAIT, "bait"]]
    baits.columns = [*_OTHER_END, "bait"]
    points = tss.assign(start=tss["tss"], end=tss["tss"] + 1)[[*_OTHER_END, "gene_id"]]
    found = bioframe.overlap(points, baits, how="inner", suffixes=("", "_of"))
    return pd.DataFrame({"gene_id": found["gene_id"], "bait": found["bait_of"]}).drop_duplicates()


def _read_sheet(
    sheet: pathlib.Path, cells: Sequence[str], min_score: float | None, score_column: str
) -> dict[str, tuple[pathlib.Path, float | None, str]]:
    """The file of each cell, the score its contacts must lie above, and the column of scores."""
    lines = read_delimited(sheet)
    header = next(lines)[1]
    if not {"cell", "path"} <= set(header) <= {"cell", "path", "min_score", "score_column"}:
        raise InputError(
            f"{sheet}, header",
            f"columns {listing(header)}",
            "cell, path, and maybe min_score and score_column",
            "name the columns so; a file of contacts must not be named .csv",
        )
    wanted = {}
    with collect() as problems:
        for number, fields in lines:
            row = dict(zip(header, fields, strict=True))
            text = row.get("min_score", "")
            score = _number(text) if text else min_score
            found = None
            if not row["cell"] or not row["path"]:
                found = "an empty field"
            elif row["cell"] in wanted:
                found = f"{row['cell']} a second time"
            elif score is not None and not math.isfinite(score):
                found = f"min_score {text or score}"
            if found:
                expected = "each cell once, its file, and a number as min_score"
                problems.add(f"{sheet}, line {number}", found, expected, "correct the line")
            column = row.get("score_column", "") or score_column
            wanted[row["cell"]] = sheet.parent / row["path"], score, column
        without = [cell for cell in cells if cell not in wanted]
        if without:
            problems.add(
                str(sheet),
                f"no contacts of {listing(without, most=60)}",
                "a row for every cell of the track sheet",
                "add the rows, or leave the cells out of the track sheet",
            )
    surplus = [cell for cell in wanted if cell not in cells]
    if surplus:
        logging.info("%s: contacts of %s not read, no tracks", sheet, listing(surplus))
    return {cell: wanted[cell] for cell in cells}


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan
