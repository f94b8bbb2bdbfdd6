"""Genes and their TSSs: from a GTF, or from a plain table.

GTF positions are 1-based and closed; here everything is 0-based and half-open, and a TSS is the
0-based position of the first transcribed base.
"""

import hashlib
import itertools
import pathlib

import numpy as np
import pandas as pd

from data_prep.formats.assembly import named_assembly, recognise_assembly
from data_prep.formats.foreign import opened_as
from data_prep.formats.gtf import (
    CORRECT_LINE,
    coding_ids,
    ensembl_gtf,
    gtf_extents,
    looks_like_gtf,
)
from data_prep.formats.text import MOST_LINES, position, read_delimited
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import (
    GENE_COLUMNS,
    GENE_DETAILS,
    bare_chromosome,
    check_gene_table,
    find_chromosomes,
    gene_order,
    listing,
    strip_version,
)

_STRANDS = {"1": "+", "+1": "+", "-1": "-"}  # as Ensembl writes them in tables
TSS_RULES = ("gene_5p", "canonical", "gene_start")


def read_genes(
    source: str | pathlib.Path | None, *, tss: str = "gene_5p", chrom_sizes: dict[str, int]
) -> pd.DataFrame:
    """Read the genes that lie on an assembly, in genome order.

    Args:
        source: a GTF (plain or gzipped); or a table, tab- or comma-separated, with the columns
            `gene_id,chrom,tss,strand` (TSS 0-based) or `gene_id,chrom,start,end,strand` (0-based,
            half-open), and maybe `name`, others being ignored; or nothing: Ensembl 75 as
            installed by pyensembl.
        tss: which position is the TSS. `gene_5p`: the 5′ end of the gene, strand respected;
            `gene_start`: its lowest position whatever the strand (what the original study used);
            `canonical`: the 5′ end of the protein-coding transcript with the longest coding
            sequence, or, in a gene without one, of the longest spliced transcript.
        chrom_sizes: length of each chromosome of the assembly, in bp; `1` and `chr1` match.

    Returns:
        Columns `gene_id` (without version), `name`, `chrom` (as the assembly spells it), `tss`
        (0-based, int64) and `strand`; and of the gene, as far as the annotation says it, `start`,
        `end` (0-based, half-open, NA if not) and `biotype` (empty if not).
        `attrs["off_assembly"]` counts the genes left out because the assembly lacks their
        chromosome, by chromosome; `attrs["left_out"]` others, by reason, with some of them in
        words: without an id or a strand, and copies. Of an id that a GTF has in several places the
        copy on a numbered chromosome or X is kept rather than one on Y or elsewhere; of several
        such the first in the file.

    Raises:
        InputError: with all problems of the annotation.
    """
    if tss not in TSS_RULES:
        raise InputError("--tss", repr(tss), f"one of {', '.join(TSS_RULES)}", "correct the flag")
    path = _annotation_file(source, chrom_sizes)
    if looks_like_gtf(path):
        whole = gtf_extents(path, "gene")
        genes = _place_tss(whole, tss)
        if tss == "canonical":
            genes = _place_tss(gtf_extents(path, "canonical"), tss)
            place = ["gene_id", "chrom", "strand"]
            own = whole.drop_duplicates(place).set_index(place)[[*GENE_DETAILS]]
            genes = genes.drop(columns=[*GENE_DETAILS]).join(own, on=place)
            # Of a gene with several records the first counts, and not the transcripts of others.
            genes = genes[(genes["start"] <= genes["tss"]) & (genes["tss"] < genes["end"])]
        return _on_assembly(genes, chrom_sizes, str(path), copies=True)
    return _on_assembly(_read_table(path, tss), chrom_sizes, str(path))


def said_assembly(source: str | pathlib.Path | None) -> str | None:
    """The assembly that the first comments of a GTF name; None if they name none that is known."""
    if not source:
        return None
    with opened_as(source, "a GTF or a gene table") as file:
        top = itertools.takewhile(lambda line: line.startswith(b"#"), file)
        return named_assembly(b" ".join(top).decode(errors="replace"))


def require_said(source: str | pathlib.Path | None, chrom_sizes: dict[str, int]) -> None:
    """Check that the first comments of a GTF do not name another assembly.

    Raises:
        InputError: if they do.
    """
    said, ours = said_assembly(source), recognise_assembly(chrom_sizes)
    if said and ours and said != ours:
        raise InputError(
            str(source),
            f"genes of {said}, as its comments say",
            f"genes of {ours}",
            f"give the annotation of {ours}; if its comments are wrong, leave them out",
            kind="other_assembly",
        )


def read_tss(
    source: str | pathlib.Path | None, genes: pd.DataFrame, *, chrom_sizes: dict[str, int]
) -> pd.DataFrame:
    """Every TSS of genes: the 5′ end of each transcript, and the gene's own.

    Args:
        source: where the genes were read from, as for `read_genes`. A table, or a GTF without
            transcripts and exons, adds nothing to the genes' own TSSs.
        genes: what `read_genes` returned for it, or some of it.
        chrom_sizes: length of each chromosome of the assembly, in bp.

    Returns:
        Columns `gene_id`, `chrom` (as the assembly spells it) and `tss` (0-based, int64), each
        position of a gene once, in genome order.

    Raises:
        InputError: with the problems of the annotation.
    """
    columns = ["gene_id", "chrom", "tss"]
    found = genes[columns]
    path = _annotation_file(source, chrom_sizes)
    if looks_like_gtf(path):
        transcripts = _place_tss(gtf_extents(path, "transcript"), "gene_5p")
        spelling = find_chromosomes(transcripts["chrom"].unique(), chrom_sizes)
        transcripts["gene_id"] = transcripts["gene_id"].map(strip_version)
        transcripts["chrom"] = transcripts["chrom"].map(spelling)
        # The others are of genes that lie off the assembly, or were not asked for.
        place = ["gene_id", "chrom", "strand"]
        both = transcripts.merge(genes[[*place, "start", "end"]], on=place, suffixes=("", "_gene"))
        inside = (both["start_gene"] <= both["tss"]) & (both["tss"] < both["end_gene"])
        found = pd.concat([found, both.loc[inside, columns]])
    found = found.drop_duplicates(ignore_index=True)
    order = gene_order(list(found["chrom"]), list(found["tss"]))
    return found.iloc[order].reset_index(drop=True)


def coding_genes(source: str | pathlib.Path | None, chrom_sizes: dict[str, int]) -> set[str] | None:
    """Ids, without versions, of the protein-coding genes; None if the annotation does not tell.

    Args:
        source: as for `read_genes`.
        chrom_sizes: length of each chromosome of the assembly, in bp.
    """
    path = _annotation_file(source, chrom_sizes)
    ids = coding_ids(path) if looks_like_gtf(path) else None
    return None if ids is None else {strip_version(gene_id) for gene_id in ids}


def digest_genes(genes: pd.DataFrame, *more: bytes) -> str:
    """The sha256 of a gene table and of what belongs to it, by which a store knows its inputs.

    Extent and biotype do not count: no number depends on them.
    """
    known = genes.drop(columns=[*GENE_DETAILS], errors="ignore")
    digest = hashlib.sha256(known.to_csv(index=False).encode())
    for part in more:
        digest.update(part)
    return digest.hexdigest()


def _annotation_file(
    source: str | pathlib.Path | None, chrom_sizes: dict[str, int]
) -> pathlib.Path:
    """The file, or nothing: Ensembl 75 as installed by pyensembl."""
    if source is None or str(source) == "":
        return ensembl_gtf(chrom_sizes)
    return pathlib.Path(source)


def _place_tss(extents: pd.DataFrame, rule: str) -> pd.DataFrame:
    last = extents["end"] - 1
    downstream = (extents["strand"] == "-") & (rule != "gene_start")
    return extents.assign(tss=extents["start"].where(~downstream, last).astype(np.int64))


def _on_assembly(
    genes: pd.DataFrame, chrom_sizes: dict[str, int], where: str, copies: bool = False
) -> pd.DataFrame:
    """Gene ids without versions, chromosomes as the assembly spells them, in genome order."""
    spelling = find_chromosomes(genes["chrom"].unique(), chrom_sizes)
    elsewhere = genes.loc[~genes["chrom"].isin(list(spelling)), "chrom"]
    if len(elsewhere) == len(genes):
        raise InputError(
            where,
            f"{len(genes)} genes, on {listing(elsewhere.unique()) or 'no chromosome'}",
            f"genes on the assembly's chromosomes ({listing(chrom_sizes)})",
            "give the --assembly the annotation belongs to, or write its names",
        )
    listed = genes["gene_id"]
    gene_id = listed.map(strip_version)
    genes = genes.assign(
        gene_id=gene_id, name=genes["name"].where(genes["name"] != "", gene_id)
    ).drop(index=elsewhere.index)
    genes["chrom"] = [spelling[chrom] for chrom in genes["chrom"]]
    genes = genes.reindex(columns=[*GENE_COLUMNS, *GENE_DETAILS])
    known = genes["biotype"].astype(object)
    genes = genes.assign(biotype=known.where(known.notna(), ""))
    genes = genes.astype({"start": "Int64", "end": "Int64"})
    left_out: dict[str, list[str]] = {}

    def leave_out(wrong: pd.Series, why: str) -> pd.DataFrame:
        some = genes[wrong]
        if len(some):
            places = some["chrom"] + ":" + some["tss"].astype(str)
            left_out[why] = (listed[some.index] + " at " + places).to_list()
        return genes[~wrong]

    genes = leave_out(genes["gene_id"] == "", "without an id")
    genes = leave_out(genes["strand"].isin(["", ".", "?"]), "without a strand")
    # The same record twice is harmless.
    genes = genes.drop_duplicates([*GENE_COLUMNS])
    if copies:
        rank = genes["chrom"].map(bare_chromosome).map(_rank)
        again = genes.loc[rank.sort_values(kind="stable").index].duplicated("gene_id")
        genes = leave_out(again.reindex(genes.index), "copies of a gene, elsewhere")
    if genes.empty:
        raise InputError(
            where,
            "; ".join(
                f"{len(some)} genes {why} ({listing(some)})" for why, some in left_out.items()
            ),
            "genes with an id and a strand",
            "add them, or give another annotation",
        )
    check_gene_table(genes, chrom_sizes, where)
    order = gene_order(list(genes["chrom"]), list(genes["tss"]))
    genes = genes.iloc[order].reset_index(drop=True)
    genes.attrs["off_assembly"] = elsewhere.value_counts().to_dict()
    genes.attrs["left_out"] = left_out
    return genes


def _rank(bare: str) -> int:
    """Which of several copies of a gene is the gene: those of a lower rank are not."""
    return 0 if bare.isdecimal() or bare == "X" else 1 if bare in ("Y", "M") or len(bare) < 4 else 2


def _read_table(path: pathlib.Path, rule: str) -> pd.DataFrame:
    lines = read_delimited(path)
    header = [name.lower() for name in next(lines)[1]]
    positions = ["tss"] if "tss" in header else ["start", "end"]
    missing = [name for name in ("gene_id", "chrom", *positions, "strand") if name not in header]
    if missing:
        raise InputError(
            f"{path}, header",
            f"columns {listing(header, most=20)}, without {', '.join(missing)}",
            "gene_id, chrom, strand, and tss (0-based) or start and end (0-based, half-open)",
            "name the columns so, or give a GTF",
        )
    if twice := sorted({name for name in header if header.count(name) > 1}):
        found = f"columns named twice: {listing(twice)}"
        raise InputError(f"{path}, header", found, "each name once", "rename one of them")
    if rule == "canonical" or (rule == "gene_start" and positions == ["tss"]):
        raise InputError(
            f"--tss={rule}",
            f"{path}, a table of {' and '.join(positions)}",
            "a GTF, for a choice of TSS",
            "leave out --tss, or give a GTF",
        )
    records = []
    with collect(most=MOST_LINES) as problems:
        for number, fields in lines:
            record = dict(zip(header, fields, strict=True))
            record["strand"] = _STRANDS.get(record["strand"], record["strand"])
            where = f"{path}, line {number}"
            numbers = [at for name in positions if (at := position(record[name])) is not None]
            if not record["gene_id"] or not record["chrom"]:
                problems.add(where, "an empty field", "a gene_id and a chrom", CORRECT_LINE)
            if len(numbers) < len(positions):
                found = ", ".join(repr(record[name]) for name in positions)
                expected = f"whole numbers as {' and '.join(positions)}"
                problems.add(where, found, expected, CORRECT_LINE)
            elif len(numbers) == 2 and numbers[0] >= numbers[1]:
                found = f"{numbers[0]}-{numbers[1]}"
                problems.add(where, found, "a start below its end", CORRECT_LINE)
            records.append(record | dict(zip(positions, numbers, strict=False)))
    genes = pd.DataFrame(records, columns=header)
    genes[positions] = genes[positions].astype(np.int64)
    if "name" not in header:
        genes["name"] = ""
    if positions == ["tss"]:
        return genes.drop(columns=["start", "end"], errors="ignore")  # whatever they mean here
    return _place_tss(genes, rule)
