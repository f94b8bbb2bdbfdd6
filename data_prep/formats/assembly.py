"""Which genome the positions refer to: chromosome names and lengths, and which of them are used."""

import dataclasses
import functools
import pathlib
import re
from collections.abc import Iterable

from absl import flags

from data_prep.formats.text import MOST_LINES, is_header, is_number, read_text, separator_of
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import (
    ASSEMBLIES,
    bare_chromosome,
    listing,
    match_chromosomes,
    sort_chromosomes,
    use_aliases,
)

# What else the assemblies are called, also with a patch (`GRCh38.p14`).
_CALLED = {
    "hg19": r"hg19|GRCh37|b37|hs37d5",
    "hg38": r"hg38|GRCh38",
    "mm10": r"mm10|GRCm38",
    "mm39": r"mm39|GRCm39",
    "hs1": r"hs1|(?:T2T[-_])?CHM13(?:v2(?:\.0)?)?",
}
_WORD = re.compile(
    r"(?<![^\W_])(?:"
    + "|".join(rf"(?P<{name}>(?:{words})(?:\.?p\d+)?)" for name, words in _CALLED.items())
    + r")(?![^\W_])",
    re.I,
)
# What UCSC's old chromAlias.txt names besides, in its third column.
_SOURCES = re.compile(
    r"((ensembl|genbank|refseq|assembly|ncbi|ucsc|gencode|insdc),?)+|source|alias|chrom|na", re.I
)
_REPORT = (0, 4, 6, 9)  # the names in NCBI's report of an assembly, which has other columns, too
_NAMES_OF_NAMES = ("chrom", "chr", "chromosome", "contig", "name", "seqname", "sequence")
_ENDINGS = re.compile(r"\.(chrom\.sizes|sizes|genome|txt|tsv|((fa|fna|fasta)\.)?fai)(\.gz)?$", re.I)
_ARM = re.compile(r"\d+[A-DLR]?")
_ROMAN = re.compile(r"[IVX]+")


@dataclasses.dataclass(frozen=True)
class Assembly:
    """A genome assembly.

    Attributes:
        name: `hg19`, …, also of a file with its lengths; else the name of the chrom.sizes file.
        chrom_sizes: length of every chromosome, in bp.
        aliases: names that stand for others, as `genome.use_aliases` takes them.
        why: it is this one, in words, if nobody named it.
    """

    name: str
    chrom_sizes: dict[str, int]
    aliases: dict[str, str] = dataclasses.field(default_factory=dict)
    why: str = ""


def define_assembly(default: str | None, more: str = "", *, required: bool = False) -> None:
    """`--assembly` and `--aliases`."""
    flags.DEFINE_string(
        "assembly",
        default,
        f"{', '.join(ASSEMBLIES)} (T2T-CHM13), or a FILE.chrom.sizes. {more}".strip(),
        required=required,
    )
    flags.DEFINE_string(
        "aliases",
        "",
        "Table of names of chromosomes between tabs, those of a chromosome in a line, such as "
        "UCSC's chromAlias.txt: for files that name them neither as the assembly does, with or "
        "without chr, nor as NCBI (NC_000001.10).",
    )


def load_assembly(name_or_path: str | pathlib.Path, aliases: str = "") -> Assembly:
    """An assembly by name, or from a file of `chromosome<tab>length` lines (UCSC chrom.sizes).

    Args:
        aliases: a file of other names, as for --aliases, which this process uses from now on.

    Raises:
        InputError: if the name is unknown and no such file exists, or naming every bad line.
    """
    name = str(name_or_path)
    path, known = pathlib.Path(name), _WORD.fullmatch(name)
    if path.is_file():
        sizes = _read_sizes(path)
        name = recognise_assembly(sizes) or _ENDINGS.sub("", path.name) or path.name
    elif known and known.lastgroup:
        name, sizes = known.lastgroup, dict(_shipped_sizes(known.lastgroup))
    else:
        raise InputError(
            "assembly",
            repr(name),
            f"one of {', '.join(ASSEMBLIES)}, or a file of chromosome lengths",
            "give --assembly=FILE.chrom.sizes with lines of name<tab>length",
        )
    use_aliases({})
    also = _read_aliases(pathlib.Path(aliases), sizes) if aliases else {}
    use_aliases(also)
    return Assembly(name, sizes, also)


def named_assembly(text: str) -> str | None:
    """The assembly of `ASSEMBLIES` that a text names, the last one; None if it names none."""
    names = [found.lastgroup for found in _WORD.finditer(text)]
    return names[-1] if names else None


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
    """Which of `ASSEMBLIES` has these lengths, or None.

    The mitochondrion is left out: UCSC's hg19 and Ensembl's GRCh37 differ in it alone.
    """
    lengths = {bare_chromosome(name): length for name, length in chrom_sizes.items()}
    for name in ASSEMBLIES:
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
            fields = line.replace('"', "").split()
            named = not sizes and len(fields) > 1 and fields[0].lower() in _NAMES_OF_NAMES
            if not fields or line.startswith("#") or (named and is_header(fields[1:2])):
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


def _read_aliases(path: pathlib.Path, chrom_sizes: dict[str, int]) -> dict[str, str]:
    """Other names of the chromosomes of an assembly, and how it spells them.

    Lines that share a name are of one chromosome. Words that say where a name is from are none.
    """
    groups: dict[str, set[str]] = {}
    columns: Iterable[int] | None = None
    for line in read_text(path, "a table of names").splitlines():
        fields = [field.strip() for field in line.split(separator_of(line) or None)]
        if line.startswith("#"):
            columns = _REPORT if "Sequence-Name" in line else columns
            continue
        fields = [fields[i] for i in columns or range(len(fields)) if i < len(fields)]
        names = {name for name in fields if name and not _SOURCES.fullmatch(name)}
        if len(names) < 2:
            continue
        names = names.union(*(groups[name] for name in names if name in groups))
        groups |= dict.fromkeys(names, names)
    aliases: dict[str, str] = {}
    remedy = "give names of one chromosome in a line, between tabs"
    with collect(most=MOST_LINES) as problems:
        for names in {id(group): group for group in groups.values()}.values():
            own = set(match_chromosomes(names, chrom_sizes).values())
            if len(own) > 1:
                expected = "each of one chromosome of the assembly"
                found = f"{listing(sorted(names))} as one chromosome"
                problems.add(str(path), found, expected, remedy)
            aliases |= dict.fromkeys(names, *own) if len(own) == 1 else {}
        if not aliases and not problems:
            expected = f"chromosomes of the assembly ({listing(chrom_sizes)}) and other names"
            problems.add(str(path), "no chromosome of the assembly", expected, remedy)
    return aliases
