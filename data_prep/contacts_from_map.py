"""Promoter contacts for build_store, from a contact map, from loops, or from distance alone.

    python -m data_prep.contacts_from_map --elements=peaks.bed --map=K562.mcool --map_bin=5000 \\
        --genes=genes.gtf.gz --assembly=hg38 --out=contacts.bedpe
    python -m data_prep.contacts_from_map --elements=peaks.bed --genes=genes.gtf.gz \\
        --assembly=hg38 --reach_bp=500000 --out=contacts.bedpe           # no map: distance alone
    python -m data_prep.contacts_from_map --loops=FitHiChIP.bed --assembly=hg38 --out=loops.bedpe
    python -m data_prep.build_store … --interactions=contacts.bedpe --min_contact_score=0

Every TSS of a gene is paired with every element whose middle lies from --min_distance_bp to
--reach_bp away.
A score is the balanced contact frequency of the two bins, in multiples of the frequency that places
100 kb apart have on average: 1 at 100 kb, some 5 at 20 kb, more where they touch more often. Where
the map says nothing, and without --map, a power law of distance stands for it; it is fitted to the
map, and has the exponent -1.024 without one.

--loops takes loops of HiChIP, PLAC-seq or Hi-C in any format that build_store reads (FitHiChIP's
table, BEDPE, …) and lists each both ways, since either end may hold a promoter; the other end
becomes the region. Scores stay those of the file.

Reading a map needs cooler: pip install 'epi2expr_jax[maps]'. At most 2,000 × (2,000 + the
reach in bins) values are in memory.
"""

import pathlib

import pandas as pd
from absl import flags

from data_prep.contacts.contact_files import read_contact_file
from data_prep.contacts.contact_format import COLUMNS
from data_prep.contacts.contact_map import ContactMap, PowerLaw, pairs_in_reach
from data_prep.formats.annotation import read_genes, read_tss
from data_prep.formats.assembly import define_assembly, load_assembly
from data_prep.formats.bed import read_bed
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import whole
from epi2expr_jax.program import print_next, start
from epi2expr_jax.units import count

FLAGS = flags.FLAGS

_HEADER = ["#chrom1", "start1", "end1", "chrom2", "start2", "end2"]


def from_elements(
    elements: str,
    genes: str,
    chrom_sizes: dict[str, int],
    *,
    path: str = "",
    map_bin: int = 5_000,
    min_distance_bp: int = 20_000,
    reach_bp: int = 100_000,
) -> tuple[pd.DataFrame, str]:
    """Contacts of every TSS with the elements in reach.

    Args:
        elements: a BED of candidate elements.
        genes: as for `annotation.read_genes`.
        path: the contact map; empty: distance alone.

    Returns:
        `contact_format.COLUMNS`, the bait first; and where the scores are from, in words.

    Raises:
        InputError: for files that cannot be used, or if no element is in reach of a TSS.
    """
    if not 0 <= min_distance_bp < reach_bp:
        found = f"from {min_distance_bp} to {reach_bp} bp"
        where = "--min_distance_bp, --reach_bp"
        raise InputError(where, found, "a range of distances", "correct them")
    with collect() as problems:
        with problems.part():
            bed = read_bed(elements, chrom_sizes)
        with problems.part():
            table = read_genes(genes, chrom_sizes=chrom_sizes)
            tss = read_tss(genes, table, chrom_sizes=chrom_sizes)
        with problems.part():
            contact_map = ContactMap(path, map_bin, chrom_sizes) if path else None
    pairs = pairs_in_reach(bed, tss, min_distance_bp, reach_bp)
    if pairs.empty:
        found = f"no element {min_distance_bp:,} to {reach_bp:,} bp from a TSS"
        raise InputError(elements, found, "some in reach", "give a larger --reach_bp")
    if contact_map is None:
        law, said = PowerLaw(), "distance alone"
        score = law.score(pairs["distance"].to_numpy())
    else:
        score = contact_map.scores(pairs, reach_bp)
        law, said = contact_map.law, f"{path} ({contact_map.measured:,} of them), bins of "
        said += f"{contact_map.bin_bp:,} bp; of the others distance alone"
    return pairs.assign(score=score)[COLUMNS], f"{said}; power law of exponent {-law.gamma:.3f}"


def from_loops(path: str, chrom_sizes: dict[str, int], score_column: str = "") -> pd.DataFrame:
    """Loops in both directions, with `contact_format.COLUMNS`.

    Raises:
        InputError: as `contact_files.read_contact_file`.
    """
    with collect() as problems:
        file = read_contact_file(pathlib.Path(path), None, chrom_sizes, problems, score_column)
    turned = file.table[[*COLUMNS[3:6], *COLUMNS[:3], "score"]].set_axis(COLUMNS, axis=1)
    return pd.concat([file.table, turned]).drop_duplicates(ignore_index=True)


def write_contacts(path: str, contacts: pd.DataFrame) -> None:
    """As BEDPE, bait first."""
    table = contacts[COLUMNS[:6]].set_axis(_HEADER, axis=1).assign(name=".")
    with whole(path) as place:
        table.assign(score=contacts["score"]).to_csv(
            place, sep="\t", index=False, float_format="%.6g"
        )


def define_flags() -> None:
    flags.DEFINE_string("elements", "", "BED of candidate elements (.gz), such as DNase peaks.")
    flags.DEFINE_string("map", "", "Balanced contact map: .cool, .mcool, or FILE::/resolutions/N.")
    flags.DEFINE_integer("map_bin", 5_000, "Which map of an .mcool: its bin in bp.", lower_bound=1)
    flags.DEFINE_string("loops", "", "Loops whose ends become regions, in place of elements.")
    flags.DEFINE_string("score_column", "", "Of --loops: name or number of the column of scores.")
    flags.DEFINE_string("genes", "", "GTF or gene table, as for build_store. Empty: Ensembl 75.")
    flags.DEFINE_integer(
        "min_distance_bp",
        20_000,
        "Leave out elements that are closer to a TSS: the window of a 40 kb model shows them.",
    )
    flags.DEFINE_integer("least_bp", None, "Replaced by --min_distance_bp.")
    flags.DEFINE_integer("reach_bp", 100_000, "Leave out elements that are farther from a TSS.")
    flags.DEFINE_string("out", None, "BEDPE to write.", required=True)
    define_assembly(None, required=True)


def main() -> None:
    if FLAGS.least_bp is not None:
        remedy = f"give --min_distance_bp={FLAGS.least_bp}"
        raise InputError("--least_bp", "an older name", "--min_distance_bp", remedy)
    if bool(FLAGS.elements) == bool(FLAGS.loops):
        found = "both --elements and --loops" if FLAGS.loops else "neither --elements nor --loops"
        raise InputError("command line", found, "one of them", "see --help")
    own = ("map", "map_bin", "genes", "min_distance_bp", "reach_bp")
    for name in own if FLAGS.loops else ("score_column",):
        if FLAGS[name].present:
            found = f"--{name} with {'--loops' if FLAGS.loops else '--elements'}"
            raise InputError("command line", found, "flags that have an effect", "omit it")
    sizes = load_assembly(FLAGS.assembly, FLAGS.aliases).chrom_sizes
    if FLAGS.loops:
        contacts, said = from_loops(FLAGS.loops, sizes, FLAGS.score_column), FLAGS.loops
    else:
        contacts, said = from_elements(
            FLAGS.elements,
            FLAGS.genes,
            sizes,
            path=FLAGS.map,
            map_bin=FLAGS.map_bin,
            min_distance_bp=FLAGS.min_distance_bp,
            reach_bp=FLAGS.reach_bp,
        )
    write_contacts(FLAGS.out, contacts)
    print(f"{FLAGS.out}: {count(len(contacts), 'contact')}, scores of {said}")
    print_next("", f"python -m data_prep.build_store … --interactions={FLAGS.out}")


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
