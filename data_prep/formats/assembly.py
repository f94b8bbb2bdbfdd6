"""Which genome the positions refer to: chromosome names and lengths, and which of them are used."""

import dataclasses
import functools
import pathlib
import re

from data_prep.formats.text import MOST_LINES, is_number, read_text
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import bare_chromosome, listing, match_chromosomes, sort_chromosomes

# Their lengths come with bioframe, so no network is needed. Any other genome is a FILE.chrom.sizes.
SHIPPED_ASSEMBLIES = ("hg19", "hg38", "mm10", "mm39")


_ARM = re.compile(r"\d+[A-DLR]?")
_ROMAN = re.compile(r"[IVX]+")


@dataclasses.dataclass(frozen=True)
class Assembly:
    """A genome assembly.

    Attributes:
        name: `hg19`, …, or the name of the chrom.sizes file.
        chrom_sizes: length of every chromosome, in bp.
    """

    name: str
    chrom_sizes: dict[str, int]


def load_assembly(name_or_path: str | pathlib.Path) -> Assembly:
    """An assembly by name, or from a file of `chromosome<tab>length` lines (UCSC chrom.sizes).

    Raises:
        InputError: if the name is unknown and no such file exists, or naming every bad line.
    """
    name = str(name_or_path)
    if name in SHIPPED_ASSEMBLIES:
        return Assembly(name, dict(_shipped_sizes(name)))
    path = pathlib.Path(name)
    if not path.is_file():
        raise InputError(
            "assembly",
            repr(name),
            f"one of {', '.join(SHIPPED_ASSEMBLIES)}, or a file of chromosome lengths",
            "give --assembly=FILE.chrom.sizes with lines of name<tab>length",
        )
    return Assembly(path.name.removesuffix(".chrom.sizes"), _read_sizes(path))


def select_chromosomes(assembly: Assembly, spec: str = "autosomes") -> list[str]:
    """The chromosomes to work on, in natural order and spelled as the assembly spells them.

    Args:
        assembly: where the chromosomes are looked up.
        spec: `autosomes` (the numbered chromosomes, arms such as 2L among them; else those with
            Roman numbers), `all`, or a list such as `chr1,2,chrX` (`1` and `chr1` are the same
            chromosome).

    Raises:
        InputError: naming every chromosome that the assembly does not have.
    """
    names = list(assembly.chrom_sizes)
    if spec == "all":
        return sort_chromosomes(names)
    if spec == "autosomes":
        numbered = [name for name in names if _ARM.fullmatch(bare_chromosome(name))]
        if not numbered:
            roman = [name for name in names if _ROMAN.fullmatch(bare_chromosome(name))]
            # Of few chromosomes X is that of sex, as in worms; of many the tenth, as in yeast.
            tenth = any(bare_chromosome(name) == "IX" for name in names)
            numbered = [name for name in roman if tenth or bare_chromosome(name) != "X"]
        if not numbered:
            raise InputError(
                f"--chromosomes=autosomes on {assembly.name}",
                f"no numbered chromosome among {listing(names)}",
                "names such as chr1 or 1",
                "give --chromosomes=all, or list the chromosomes",
            )
        return sort_chromosomes(numbered)
    wanted = [part.strip() for part in spec.split(",") if part.strip()]
    found = match_chromosomes(wanted, names)
    unknown = [name for name in wanted if name not in found]
    if unknown or not wanted:
        raise InputError(
            f"--chromosomes={spec}",
            f"unknown chromosomes {', '.join(unknown)}" if unknown else "no chromosome",
            f"chromosomes of {assembly.name}: {listing(names, most=30)}",
            "correct the names, or give the --assembly they belong to",
        )
    return sort_chromosomes(found.values())


def recognise_assembly(chrom_sizes: dict[str, int]) -> str | None:
    """The shipped assembly whose lengths these are, or None.

    The mitochondrion is left out: UCSC's hg19 and Ensembl's GRCh37 differ in it alone.
    """
    lengths = {bare_chromosome(name): length for name, length in chrom_sizes.items()}
    for name in SHIPPED_ASSEMBLIES:
        known = {bare_chromosome(chrom): size for chrom, size in _shipped_sizes(name)}
        shared = (lengths.keys() & known.keys()) - {"M"}
        if shared and all(lengths[chrom] == known[chrom] for chrom in shared):
            return name
    return None


@functools.cache
def _shipped_sizes(name: str) -> tuple[tuple[str, int], ...]:
    import bioframe  # it loads matplotlib

    sizes = bioframe.assembly_info(name).chromsizes
    return tuple((str(chrom), int(length)) for chrom, length in sizes.items())


def _read_sizes(path: pathlib.Path) -> dict[str, int]:
    sizes: dict[str, int] = {}
    remedy = "correct the file, or make it again from the genome: `samtools faidx genome.fa`"
    with collect(most=MOST_LINES) as problems:
        for number, line in enumerate(read_text(path).splitlines(), start=1):
            fields = line.split()
            if not fields or line.startswith("#"):
                continue
            where = f"{path}, line {number}"
            # Further columns are allowed: a FASTA index (.fai) begins with the same two.
            if len(fields) < 2 or not is_number(fields[1]) or int(fields[1]) < 1:
                problems.add(where, repr(line), "a name and a length in bp", remedy)
            elif fields[0] in sizes:
                problems.add(where, f"{fields[0]} a second time", "each chromosome once", remedy)
            else:
                sizes[fields[0]] = int(fields[1])
        if not sizes and not problems:
            problems.add(str(path), "no chromosome", "name<tab>length lines", remedy)
    return sizes
