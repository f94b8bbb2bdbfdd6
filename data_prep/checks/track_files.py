"""What can be said of the inputs of a build without reading signal: files, names, room.

`examine` is what build_store requires; the doctor asks for warnings, too.
"""

import pathlib
from collections import Counter, defaultdict
from collections.abc import Iterable

from tqdm import tqdm

from data_prep.checks.build_inputs import BuildConfig, BuildInputs, gather_inputs
from data_prep.checks.needs import check_disk, memory_warnings, store_bytes
from data_prep.formats.annotation import coding_genes
from data_prep.formats.bed import bed_record, touched_genes
from data_prep.formats.bigwig import check_bigwig, open_bigwig
from data_prep.formats.track_sheet import DEFAULT_UNIT, Source, Track, TrackSheet
from epi2expr_jax.errors import InputError, Problem, Problems, collect
from epi2expr_jax.files import sha256
from epi2expr_jax.genome import listing, match_chromosomes, sort_chromosomes
from epi2expr_jax.units import UNIT_TRANSFORM, count, percent

_ROUNDING = 1e-6  # below 0, of programs that subtract or smooth
_MOST_WITHOUT_TSS = 0.2  # share of the contacts; annotations of other releases lack some TSSs
_MOST_HIDDEN = 0.5  # share of the bins
_MOST_WITHOUT_EXPRESSION = 0.05  # share of the genes; GENCODE 10 and Roadmap's matrix: 0.011


def examine(config: BuildConfig) -> BuildInputs:
    """Read all inputs and look into every track's file that is there; others have a URL.

    Raises:
        InputError: with every problem of every input.
    """
    with collect() as problems:
        inputs = gather_inputs(config, problems)
        if inputs:
            check_files(inputs, problems)
    assert inputs  # without them there is a problem
    return inputs


def check_files(inputs: BuildInputs, problems: Problems, *, checksums: bool = False) -> list[Track]:
    """Check the tracks' files, and the room for the store.

    Args:
        inputs: what is to be built.
        problems: takes what is wrong.
        checksums: read files whole whose sha256 the sheet names. Without it, only those of equal
            size are: they may be the same track twice.

    Returns:
        The tracks whose files are there, and each sound in itself.
    """
    sound = []
    with problems.part():
        check_disk(inputs)
    tracks = present_tracks(inputs.sheet.tracks)
    for track in tqdm(tracks, "checking tracks", unit="track", disable=None):
        with problems.part():
            check_track(track, inputs)
            sound.append(track)
    with problems.part():
        compare_files(tracks, checksums=checksums)
    return sound


def present_tracks(tracks: Iterable[Track]) -> list[Track]:
    """The tracks all of whose files are there."""
    return [
        track
        for track in tracks
        if all(pathlib.Path(source.location).is_file() for source in track.sources)
    ]


def check_track(track: Track, inputs: BuildInputs) -> None:
    """Check the files of one track: whole, of the assembly, of the right sign.

    Raises:
        InputError: with the problems of all its files.
    """
    # A track may lack a chromosome without genes and regions.
    regions = inputs.contacts.get(track.cell, inputs.genes)
    needed = sort_chromosomes({*inputs.genes.chrom, *regions.chrom}) or inputs.chromosomes
    with collect() as problems:
        for source in track.sources:
            with problems.part():
                check_bigwig(source.location, inputs.assembly.chrom_sizes, needed)
                if UNIT_TRANSFORM[track.unit] != "log1p":
                    continue
                lowest = _lowest(source.location, needed)
                if lowest < -_ROUNDING:
                    problems.add(
                        source.location,
                        f"negative signal (lowest {lowest:g})",
                        f"no value below 0 in unit {track.unit}, which is read as ln(x + 1)",
                        "give the track's true unit in the sheet (none: read as it is)",
                        kind="negative_signal",
                    )


def _lowest(path: str, chromosomes: list[str]) -> float:
    """The lowest value on these chromosomes; 0 if they have none."""
    with open_bigwig(path) as file:
        # By chromosome, from zoom levels: header() cuts values to whole numbers, and crashes on
        # infinite ones.
        names = match_chromosomes(chromosomes, file.chroms()).values()
        lows = [file.stats(name, type="min")[0] for name in names]
    return min((low for low in lows if low is not None), default=0.0)


def compare_files(tracks: Iterable[Track], *, checksums: bool = False) -> None:
    """Look for files that are the same, and compare them with the sheet.

    Args:
        tracks: those whose files are there; others are ignored.
        checksums: as for `check_files`.

    Raises:
        InputError: naming files that are the same, or not what the sheet says.
    """
    named: list[tuple[str, Source]] = [
        (f"{track.cell} {track.assay}", source)
        for track in present_tracks(tracks)
        for source in track.sources
    ]
    sizes = Counter(pathlib.Path(source.location).stat().st_size for _, source in named)
    owners: dict[str, list[str]] = defaultdict(list)
    with collect() as problems:
        for name, source in tqdm(named, "comparing files", unit="file", disable=None):
            path = pathlib.Path(source.location)
            if sizes[path.stat().st_size] == 1 and not (checksums and source.sha256):
                continue
            digest = sha256(path)
            owners[digest].append(f"{name} ({path.name})")
            with problems.part():
                source.require_sha256(digest)
        for digest, names in owners.items():
            if len(names) > 1:
                problems.add(
                    listing(names, most=20),
                    f"the same file (sha256 {digest[:12]}…)",
                    "one file a track",
                    "look which track the file is of, and correct the other rows of the sheet",
                    kind="same_file",
                )


def file_warnings(inputs: BuildInputs) -> list[Problem]:
    """What may be right, and is worth a look before a build: names, genes, contacts, memory."""
    warnings = Problems()
    _warn_of_downloads(inputs, warnings)
    _warn_of_spelling(inputs, warnings)
    _warn_of_genes(inputs, warnings)
    _warn_of_contacts(inputs, warnings)
    _warn_of_blacklist(inputs, warnings)
    return [*warnings.found, *inputs.read.doubts, *memory_warnings(inputs)]


def _warn_of_downloads(inputs: BuildInputs, warnings: Problems) -> None:
    tracks = inputs.sheet.tracks
    here = set(present_tracks(tracks))
    absent = [f"{track.cell} {track.assay}" for track in tracks if track not in here]
    if absent:
        warnings.add(
            inputs.sheet.where,
            f"{len(absent)} of {len(tracks)} tracks not downloaded yet ({listing(absent)})",
            "files, to be looked into",
            "nothing to do: build_store downloads and checks them; to have them earlier run "
            "data_prep.download",
            kind="not_downloaded",
        )


def _warn_of_spelling(inputs: BuildInputs, warnings: Problems) -> None:
    for track in present_tracks(inputs.sheet.tracks):
        for source in track.sources:
            try:
                with open_bigwig(source.location) as file:
                    header = file.chroms()
            except InputError:
                continue  # reported as a problem of the file
            names = match_chromosomes(inputs.genes.chrom.unique(), header)
            other = [f"{theirs} for {ours}" for ours, theirs in names.items() if ours != theirs]
            if other:
                warnings.add(
                    source.location,
                    f"chromosomes named otherwise: {listing(other)}",
                    f"names as in {inputs.assembly.name}",
                    "nothing to do, they are taken for the same; make sure that the track comes "
                    "from where the others do",
                    kind="chromosome_names",
                )


def _warn_of_genes(inputs: BuildInputs, warnings: Problems) -> None:
    if inputs.genes.empty or not inputs.config.expression:
        return  # there is nothing to compare
    annotation = inputs.config.genes or "Ensembl 75"
    where = f"{annotation} and {inputs.config.expression}"
    coding = coding_genes(inputs.config.genes, inputs.assembly.chrom_sizes)
    absent = [gene for gene in inputs.without_expression if coding is None or gene in coding]
    known = [gene for gene in inputs.genes.gene_id if coding is None or gene in coding]
    what = "genes" if coding is None else "protein-coding genes"
    both = len(absent) + len(known)
    if known and len(absent) > _MOST_WITHOUT_EXPRESSION * both:
        warnings.add(
            where,
            f"{len(absent)} of {both} {what} without expression ({listing(absent)})",
            "a line in the expression table for nearly all of them",
            "check that both are of one release, and that the table is whole",
            kind="genes_without_expression",
        )
    unplaced, total = inputs.left_out["not in the annotation"], len(inputs.genes)
    if total and unplaced > _MOST_WITHOUT_EXPRESSION * (unplaced + total):
        warnings.add(
            where,
            f"{unplaced} genes of the table that the annotation lacks",
            "nearly all genes in both",
            "give the annotation the table was made with",
            kind="genes_without_annotation",
        )


def _warn_of_contacts(inputs: BuildInputs, warnings: Problems) -> None:
    for found in dict.fromkeys(inputs.interactions.values()):
        without = found.dropped["contacts whose bait holds no TSS"]
        if without > _MOST_WITHOUT_TSS * found.read:
            warnings.add(
                found.source["name"],
                f"{without} of {found.read} contacts with a bait that holds no TSS",
                f"{_MOST_WITHOUT_TSS:.0%} of them or fewer",
                "check that the bait comes first, and that the contacts are of this assembly "
                "and annotation",
                kind="baits_without_tss",
            )


def _warn_of_blacklist(inputs: BuildInputs, warnings: Problems) -> None:
    touched, bins = blacklisted(inputs), len(inputs.genes) * inputs.window.bins
    if touched and int(touched["bins"]) > _MOST_HIDDEN * bins:
        warnings.add(
            inputs.config.blacklist,
            f"a blacklist that touches {percent(int(touched['bins']) / bins)} of the bins of all "
            "windows",
            f"at most {_MOST_HIDDEN:.0%} of them",
            "check that it lists what to leave out, not what to keep, and belongs to this "
            "assembly; each bin that it touches counts as one without data, and is 0 in all tracks",
            kind="blacklist_hides_most",
        )


def assumed_units(sheet: TrackSheet) -> list[str]:
    """What is taken for granted of the tracks, as a line."""
    assumed = [assay for assay in sheet.assumed if assay in sheet.assays]
    how = f"read as {DEFAULT_UNIT} (-log10 of p, transform {UNIT_TRANSFORM[DEFAULT_UNIT]})"
    remedy = "if it is another, name it in a column unit of the sheet"
    return [f"no unit given of {listing(assumed)}: {how}; {remedy}"] if assumed else []


def blacklisted(inputs: BuildInputs) -> dict[str, str | int]:
    """Name, sha256 and number of intervals of the blacklist, and what of the candidates it touches
    (see `touched_genes`); empty without one."""
    if inputs.blacklist is None:
        return {}
    touched = touched_genes(inputs.genes, inputs.window, inputs.blacklist)
    known = bed_record(inputs.config.blacklist)
    return {**known, "intervals": len(inputs.blacklist), **touched}


def _hidden(inputs: BuildInputs) -> list[str]:
    """What the blacklist hides, as a line."""
    if not (known := blacklisted(inputs)):
        return []
    bins = len(inputs.genes) * inputs.window.bins
    return [
        f"blacklist {known['name']} (sha256 {str(known['sha256'])[:12]}, {known['intervals']:,} "
        f"intervals): touches {known['bins']:,} of {bins:,} bins (in the windows of "
        f"{count(int(known['genes']), 'gene')}); those bins count as bases without data"
    ]


def _which(inputs: BuildInputs, why: str) -> str:
    """Some of the genes left out, and of which files: another release, or a few retired ids?"""
    if why == "on another chromosome":
        return " (--chromosomes=all keeps them)"
    if why != "not in the annotation":
        return ""
    absent = listing(inputs.unplaced, most=3)
    table, annotation = (
        pathlib.Path(name).name for name in (inputs.config.expression, inputs.config.genes)
    )
    return f" (in {table}, not in {annotation or 'Ensembl 75'}: {absent})"


def summary(inputs: BuildInputs) -> str:
    """What a build of these inputs will hold, in a few lines."""
    sheet, assembly, chosen = inputs.sheet, inputs.assembly, inputs.chromosomes
    others = [name for name in sort_chromosomes(assembly.chrom_sizes) if name not in chosen]
    lines = [
        f"{count(len(sheet.tracks), 'track')}: {count(len(sheet.cells), 'cell')} x "
        f"{count(len(sheet.assays), 'assay')}, "
        f"assembly {assembly.name}"
        + (f", {assembly.why} (--assembly names another)" if assembly.why else ""),
        f"chromosomes: {listing(chosen)} (--chromosomes={inputs.config.chromosomes})"
        + (f", not {listing(others)}" if others else ""),
        f"{count(len(inputs.genes), 'gene')} on "
        f"{count(inputs.genes.chrom.nunique(), 'chromosome')}, windows of "
        f"{inputs.window.window_bp} bp in bins of {inputs.window.bin_bp} bp",
        *assumed_units(sheet),
        *_hidden(inputs),
        f"at most {store_bytes(inputs) / 1e6:.0f} MB on disk",
        *(inputs.read.notes or ["no expression: a store to predict from, not to train on"]),
    ]
    # Cells that share a file share their contacts.
    for found in dict.fromkeys(inputs.interactions.values()):
        cells = [cell for cell in inputs.interactions if inputs.interactions[cell] is found]
        lines.append(f"contacts of {listing(cells)} ({found.source['name']}): {found.summary()}")
    lines += [
        f"{count(n, 'gene')} left out: {why}{_which(inputs, why)}"
        for why, n in inputs.left_out.items()
        if n
    ]
    return "\n".join(lines)
