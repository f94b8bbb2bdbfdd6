"""Do the places whose marks matter most, by the model, hold more eQTLs than matched places?

    python -m experiments.enrichment --run=runs/cnn --regions=runs/cnn/effects.parquet \\
        --eqtls=significant.tsv.gz --background=tested.parquet --assembly=hg19

--regions has one row a gene and place: gene_id, chrom, start, end, effect (log2 units), distance
(bp from the TSS, signed along the strand), signal and perhaps contact; with columns cell or assay,
each cell or assay is tested separately. --eqtls and --background are variant-gene pairs: gene_id,
chrom and pos (0-based) or end (1-based); other columns are ignored. Tables are Parquet, or
delimited text with a header (.csv with commas, others with tabs, gzipped or not).

Writes into the run directory enrichment.csv and .parquet (the predicted effect and simple
baselines, unmatched and matched for distance and signal more and more closely, each with
enrichment, interval, permutation p, what else may be behind it, and by how much the predicted
effect leads) and enrichment.png and .svg.
"""

import functools
import pathlib

import matplotlib
import pandas as pd
from absl import flags
from tqdm import tqdm

from epi2expr_jax.errors import collect
from epi2expr_jax.files import write_csv, write_parquet
from epi2expr_jax.interpret.enrichment import EFFECT, enrich
from epi2expr_jax.interpret.variants import assign_variants
from epi2expr_jax.program import require, start
from epi2expr_jax.study import results
from epi2expr_jax.training.checkpoint import read_card
from epi2expr_jax.units import count
from experiments.cli.flags import define_run
from experiments.cli.given_table import read_table
from experiments.figures.studies import enrichment_figure
from experiments.figures.style import STYLE, save_figure

FLAGS = flags.FLAGS

_APART = ("cell", "assay", "assays")  # columns whose values are tested apart


def run_enrichment(
    run_dir: pathlib.Path,
    tables: dict[str, pathlib.Path],
    assembly: str,
    *,
    top: float = 0.2,
    permutations: int = 1000,
    seed: int = 0,
) -> tuple[pd.DataFrame, list[str]]:
    """Test the places of a run; write and return the table, and what was left out.

    Args:
        tables: files by the name of their flag: regions, eqtls and perhaps background.
        assembly: of the variants; that of the places is in the run card.
        top, permutations, seed: see `epi2expr_jax.interpret.enrichment.enrich`.

    Raises:
        InputError: naming every file that cannot be read; or all that makes no sense in them.
    """
    card = read_card(run_dir)
    read: dict[str, pd.DataFrame] = {}
    with collect() as problems:
        for name, path in tables.items():
            with problems.part():
                read[name] = read_table(path)
    regions = read["regions"]
    apart = [name for name in _APART if name in regions]
    groups = regions.groupby(apart, sort=False, dropna=False) if apart else [((), regions)]
    made: list[pd.DataFrame] = []
    notes: dict[str, list[str]] = {}
    for names, part in groups:
        counted, left_out = assign_variants(
            part,
            read["eqtls"],
            read.get("background"),
            assembly=assembly,
            places_assembly=card["store"]["assembly"],
        )
        label = ", ".join(map(str, names))
        reading = functools.partial(tqdm, desc=label or "permutations", disable=None)
        table = enrich(counted, top=top, permutations=permutations, seed=seed, reading=reading)
        for place, (column, value) in enumerate(zip(apart, names, strict=True)):
            table.insert(place, column, str(value))
        made.append(table)
        for note in left_out:
            notes.setdefault(note, []).append(label)
    table = pd.concat(made, ignore_index=True)
    with results.written(run_dir, "enrichment", assembly=assembly, top=top) as place:
        with matplotlib.rc_context(STYLE):
            named = table.assign(of=table[apart].astype(str).agg(", ".join, axis=1))
            save_figure(enrichment_figure(named), place / "enrichment")
        write_parquet(place / "enrichment.parquet", table)
        write_csv(place / "enrichment.csv", table)
    # What holds of all groups is said once.
    of_groups = [
        note if len(labels) == len(made) else f"{'; '.join(labels)}: {note}"
        for note, labels in notes.items()
    ]
    return table, of_groups


def describe(table: pd.DataFrame) -> str:
    """The table for the terminal."""
    lines = []
    apart = [name for name in _APART if name in table]
    for names, part in table.groupby(apart, sort=False) if apart else [((), table)]:
        first = part.iloc[0]
        lines.append(
            f"{', '.join(map(str, names))}{': ' if names else ''}"
            f"{count(first.n_genes, 'gene')} with variants, {count(first.n_regions, 'place')}, "
            f"{count(first.n_chromosomes, 'chromosome')}"
        )
        lines.append(f"{'ranked by':<22} enrichment  95 % interval  p       lead")
        for (matched, else_from), rows in part.groupby(["matched", "not_excluded"], sort=False):
            lines.append(f"matched: {matched}; a small p may also come from {else_from}")
            for row in rows.itertuples():
                lead = "" if row.predictor == EFFECT else f"{row.lead:.2f} ({row.lead_low:.2f} to "
                lead += f"{row.lead_high:.2f})" if lead else ""
                lines.append(
                    f"{row.predictor:<22} {row.enrichment:>10.2f}  {row.low:.2f} to "
                    f"{row.high:<6.2f}  {row.p:<6.2g}  {lead}"
                )
    notes = sorted(set(table["note"]) - {""})
    return "\n".join([*lines, *(f"note: {note}" for note in notes)])


def main() -> None:
    require("run", "regions", "eqtls", "assembly")
    run_dir = pathlib.Path(FLAGS.run)
    tables = {"regions": FLAGS.regions, "eqtls": FLAGS.eqtls, "background": FLAGS.background}
    table, notes = run_enrichment(
        run_dir,
        {name: pathlib.Path(path) for name, path in tables.items() if path},
        FLAGS.assembly,
        top=FLAGS.top,
        permutations=FLAGS.permutations,
        seed=FLAGS.seed,
    )
    print(describe(table))
    for note in notes:
        print(f"note: {note}")
    print(f"{run_dir}/enrichment.csv, enrichment.png")


def define_flags() -> None:
    flags.DEFINE_string("regions", None, "Table of places with their predicted effects.")
    flags.DEFINE_string("eqtls", None, "Table of significant variant-gene pairs.")
    flags.DEFINE_string(
        "background",
        None,
        "Table of the pairs that were tested; without it, a variant's chance to lie in a place is "
        "taken to be proportional to its width.",
    )
    flags.DEFINE_string("assembly", None, "Of the variants: hg19, say. It must be the store's.")
    flags.DEFINE_float("top", 0.2, "Share of a gene's places that are its top ones.")
    flags.DEFINE_integer("permutations", 1000, "Within genes.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Of the permutations.")


def run() -> None:
    start(main, define_run, define_flags)


if __name__ == "__main__":
    run()
