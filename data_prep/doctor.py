"""Check all inputs of a build and list every problem at once, before hours are spent on them.

    python -m data_prep.doctor --tracks=tracks.csv --expression=57epigenomes.RPKM.pc.gz \\
        --genes=genes.gtf.gz --store=roadmap.zarr

Takes the flags of build_store. Exit status 0: go; 2: no-go, with what to do about each problem.
Nothing is written.
"""

import os
import pathlib
import shutil

import pyBigWig
from tqdm import tqdm

from data_prep.bigwig import check_bigwig
from data_prep.catalogue import Track
from data_prep.inputs import BuildConfig, BuildInputs, define_flags, read_inputs
from data_prep.program import start
from epi2expr_jax.errors import InputError, Problem
from epi2expr_jax.genome import listing, sort_chromosomes
from epi2expr_jax.regions import Regions
from epi2expr_jax.signal import UNIT_TRANSFORM


def examine(config: BuildConfig) -> BuildInputs:
    """Read all inputs and look into every track.

    Raises:
        InputError: with every problem of every input.
    """
    inputs = read_inputs(config)
    problems = _disk_problems(inputs)
    for track in tqdm(inputs.sheet.tracks, "checking tracks", unit="track", disable=None):
        problems += track_problems(track, inputs)
    if problems:
        raise InputError(problems)
    return inputs


def track_problems(track: Track, inputs: BuildInputs) -> list[Problem]:
    """What is wrong with the files of one track: missing, truncated, another assembly, sign."""
    problems = []
    # A track may lack a chromosome without genes and regions.
    regions = inputs.contacts.get(track.cell, inputs.genes)
    needed = sort_chromosomes({*inputs.genes.chrom, *regions.chrom})
    for source in track.sources:
        found = check_bigwig(source.location, inputs.assembly.chrom_sizes, needed)
        problems += found
        if not found and UNIT_TRANSFORM[track.unit] == "log1p":
            with pyBigWig.open(str(source.location)) as file:
                lowest = file.header()["minVal"]
            if lowest < 0:
                problems.append(
                    Problem(
                        str(source.location),
                        f"negative signal (lowest {lowest:g})",
                        f"no value below 0 in unit {track.unit}, which is read as ln(x + 1)",
                        "give the track's true unit in the sheet (none: read as it is)",
                    )
                )
    return problems


def store_bytes(inputs: BuildInputs) -> int:
    """Size of the store's arrays before compression."""
    windows = len(inputs.genes) * inputs.window.bins
    regions = {
        cell: Regions.from_contacts(contacts, inputs.genes).bins
        for cell, contacts in inputs.contacts.items()
    }
    return 4 * sum(windows + regions.get(track.cell, 0) for track in inputs.sheet.tracks)


def _disk_problems(inputs: BuildInputs) -> list[Problem]:
    folder = pathlib.Path(inputs.config.store).absolute()
    while not folder.exists():
        folder = folder.parent
    if not os.access(folder, os.W_OK):
        return [
            Problem(
                str(folder),
                "a folder that refuses writing",
                "write access",
                "choose another --store",
            )
        ]
    # Real tracks compress to about half; ask for that much.
    free, needed = shutil.disk_usage(folder).free, store_bytes(inputs) // 2
    if free >= needed:
        return []
    return [
        Problem(
            str(folder),
            f"{free / 1e9:.1f} GB free",
            f"about {needed / 1e9:.1f} GB for the store",
            "free space or choose another --store",
        )
    ]


def summary(inputs: BuildInputs) -> str:
    """What a build of these inputs will hold, in a few lines."""
    sheet = inputs.sheet
    lines = [
        f"{len(sheet.tracks)} tracks: {len(sheet.cells)} cells x {len(sheet.assays)} assays, "
        f"assembly {inputs.assembly.name}",
        f"{len(inputs.genes)} genes on {inputs.genes.chrom.nunique()} chromosomes, windows of "
        f"{inputs.window.window_bp} bp in bins of {inputs.window.bin_bp} bp",
        f"at most {store_bytes(inputs) / 1e6:.0f} MB on disk",
    ]
    # Cells that share a file share their contacts.
    for found in dict.fromkeys(inputs.interactions.values()):
        cells = [cell for cell in inputs.interactions if inputs.interactions[cell] is found]
        lines.append(f"contacts of {listing(cells)} ({found.source['name']}): {found.summary()}")
    lines += [f"{count} genes left out: {why}" for why, count in inputs.left_out.items() if count]
    return "\n".join(lines)


def main() -> None:
    inputs = examine(BuildConfig.from_flags())
    print(summary(inputs))
    print("go: no problem found")


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
