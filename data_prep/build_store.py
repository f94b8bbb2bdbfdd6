"""Public-format files to a window store: track sheet + expression + genes (+ contacts) -> store.

    python -m data_prep.build_store --tracks=tracks.csv --expression=57epigenomes.RPKM.pc.gz \\
        --genes=genes.gtf.gz --store=roadmap.zarr --workers=2

    … --tracks=roadmap_pvalue --downloads=/data/tracks --connections=8      # from URLs
    … --scheduler_address=tcp://head:8786                # on the workers of a Dask cluster

All inputs are checked (as data_prep.doctor does), then tracks that the sheet knows only by their
URL are downloaded (as data_prep.download does) and checked. Then all are read, one task a track.
Tracks that cannot be downloaded or read are named at the end, after all others are built. The same
command run again does only what is missing: a killed build loses at most the tracks it was reading.
Once a track is in the store, its downloaded file can be deleted. At the end the store is read back
and compared with its checksums.
"""

import contextlib
import dataclasses
import functools
import hashlib
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
from absl import flags
from distributed import Client
from tqdm import tqdm

from data_prep.checks.build_inputs import BuildConfig, BuildInputs, define_flags
from data_prep.checks.needs import store_folder
from data_prep.checks.next_command import print_training
from data_prep.checks.track_files import (
    check_track,
    compare_files,
    examine,
    present_tracks,
    summary,
)
from data_prep.formats.bed import touched_bins, touched_genes
from data_prep.formats.bigwig import require_whole
from data_prep.formats.bin_means import track_means, track_region_means
from data_prep.formats.track_sheet import Source, Track
from data_prep.work import cluster
from data_prep.work.sources import (
    define_limits,
    limits_from_flags,
    parse_mirrors,
    track_downloads,
    with_mirrors,
)
from data_prep.work.transfer import Limits, fetch
from epi2expr_jax.errors import InputError, Problems, collect, describe
from epi2expr_jax.files import file_record, only_writer, read_parquet, sha256, write_parquet
from epi2expr_jax.genome import WindowSpec, listing, window_bounds, with_aliases
from epi2expr_jax.program import start
from epi2expr_jax.store import markers
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.store.resume import resume
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.units import count


def build(
    config: BuildConfig,
    limits: Limits | None = None,
    mirrors: Sequence[tuple[str, str]] = (),
) -> WindowStore:
    """Build, or go on building, the store of `config`.

    Args:
        config: what to build.
        limits: of the network, for tracks that the sheet knows only by their URL.
        mirrors: prefixes of URLs and their replacements.

    Raises:
        InputError: for bad inputs, before anything is fetched or written; if another process is
            at this store; for tracks that could not be downloaded or built, after all others are.
    """
    with only_writer(config.store):
        return _build(config, limits, mirrors)


def _build(
    config: BuildConfig, limits: Limits | None, mirrors: Sequence[tuple[str, str]]
) -> WindowStore:
    inputs = examine(config)
    print(summary(inputs))
    if inputs.read.doubts:
        print(describe(inputs.read.doubts))
    manifest = inputs.manifest()
    path = pathlib.Path(config.store)
    checking = functools.partial(tqdm, desc="checking", unit="track", disable=None)
    store = resume(path, manifest, inputs.genes, check=config.verify, watch=checking)
    if store:
        _require_same_sources(store, inputs)
    tracks = {(track.cell, track.assay): track for track in inputs.sheet.tracks}
    missing = [tracks[pair] for pair in store.missing_slabs()] if store else list(tracks.values())
    if not missing:
        print(f"{path} is complete: nothing to do")
        return _verified(config)
    if config.scheduler_address:
        with _workers(config, len(missing)):
            pass  # what is wrong with them is said before hours are spent on downloads
    with collect() as problems:
        todo = _downloaded(inputs, missing, limits, mirrors, problems)
        # With --min_covered, which genes stay follows from all tracks.
        if not problems or (todo and (store or config.min_covered == 0)):
            with _workers(config, len(todo)) as client:
                if store is None:
                    store = _declare(inputs, manifest, client)
                elif len(missing) < len(tracks):
                    done = len(tracks) - len(missing)
                    print(f"going on: {done} of {len(tracks)} tracks are done")
                cluster.run_each(
                    client,
                    functools.partial(with_aliases, inputs.assembly.aliases, build_slab),
                    todo,
                    "building tracks",
                    str(path.absolute()),
                    inputs.blacklist,
                    retries=config.retries,
                )
    return _verified(config)


def _verified(config: BuildConfig) -> WindowStore:
    store = WindowStore.open(config.store)
    if config.verify:
        problems = store.verify(
            functools.partial(tqdm, desc="verifying", unit="track", disable=None)
        )
        if problems:
            raise InputError.of(problems)
    return store


def _downloaded(
    inputs: BuildInputs,
    tracks: Sequence[Track],
    limits: Limits | None,
    mirrors: Sequence[tuple[str, str]],
    problems: Problems,
) -> list[Track]:
    """Fetch what the tracks know URLs of; those that are whole and sound are returned.

    Args:
        inputs: what is to be built.
        tracks: those to fetch.
        limits, mirrors: as for `build`.
        problems: takes what is wrong with the other tracks.

    Raises:
        InputError: if two URLs gave the same file.
    """
    here = set(present_tracks(tracks))  # `examine` has looked into them
    wanted = with_mirrors(track_downloads(tracks, require_whole), mirrors)
    if not wanted:
        return list(tracks)
    failed = fetch(wanted, inputs.config.download_folder, limits)
    sound = []
    for track in tracks:
        with problems.part(), collect() as own:
            for source in track.sources:
                if error := failed.get(pathlib.Path(source.location)):
                    own.extend(error.problems)
            if not own and track not in here:
                check_track(track, inputs)
            if not own:
                sound.append(track)
    compare_files(inputs.sheet.tracks)
    return sound


def _declare(inputs: BuildInputs, manifest: Manifest, client: Client) -> WindowStore:
    """Decide which genes stay, then create the store's arrays."""
    genes, expression, left_out = inputs.genes, inputs.expression, dict(inputs.left_out)
    if inputs.config.min_covered > 0:
        covered = _least_coverage(inputs, manifest, client)
        keep = covered >= inputs.config.min_covered
        left_out[f"data on less than {inputs.config.min_covered:g} of the window"] = int(
            (~keep).sum()
        )
        print(f"{count((~keep).sum(), 'gene')} left out for too little data, {keep.sum()} stay")
        if not keep.any():
            raise InputError(
                str(inputs.config.tracks),
                f"no gene whose window has data on {inputs.config.min_covered:g} of its bases "
                "in every track",
                "tracks that cover the windows of some genes",
                "lower --min_covered, narrow --window_bp, or check --assembly and the tracks",
            )
        genes, expression = genes[keep], expression[:, keep]
    blacklisted = {}
    if inputs.blacklist is not None:
        blacklisted = touched_genes(genes, inputs.window, inputs.blacklist)
    manifest = dataclasses.replace(manifest, left_out=left_out, blacklisted=blacklisted)
    store = WindowStore.create(
        inputs.config.store,
        manifest,
        genes,
        expression if manifest.expression_unit else None,
        inputs.contacts,
        expression == 1 if manifest.given_labels else None,
    )
    shutil.rmtree(_coverage_folder(inputs.config.store), ignore_errors=True)
    return store


def _coverage_folder(store: str) -> pathlib.Path:
    path = pathlib.Path(store)
    return path.with_name(path.name + ".coverage")


def _least_coverage(inputs: BuildInputs, manifest: Manifest, client: Client) -> np.ndarray:
    """The first pass: each candidate gene's lowest coverage `[G]` over all tracks."""
    # Kept next to the store until it is declared, under a name that says what was asked for.
    files = []
    for track in inputs.sheet.tracks:
        for source in track.sources:
            about = pathlib.Path(source.location).stat()
            files.append((track.cell, track.assay, source.location, about.st_size, about.st_mtime))
    window = manifest.window_bp, manifest.bin_bp
    asked = repr((manifest.candidates_sha256, window, manifest.blacklist, files))
    folder = _coverage_folder(inputs.config.store) / hashlib.sha256(asked.encode()).hexdigest()[:16]
    folder.mkdir(parents=True, exist_ok=True)
    tracks = inputs.sheet.tracks
    cluster.run_each(
        client,
        functools.partial(with_aliases, inputs.assembly.aliases, record_coverage),
        [track for track in tracks if _measured(folder, track) is None],
        "measuring coverage",
        str(folder.absolute()),
        inputs.genes,
        inputs.window,
        inputs.blacklist,
        retries=inputs.config.retries,
    )
    measured = [_measured(folder, track) for track in tracks]
    return np.min([coverage for coverage in measured if coverage is not None], axis=0)


def _measured(folder: pathlib.Path, track: Track) -> np.ndarray | None:
    """The coverage `[G]` that `record_coverage` wrote; None if it is not there, or damaged."""
    try:
        table = read_parquet(_coverage_file(folder, track), "coverage", "", ["coverage"])
    except InputError:
        return None
    return table["coverage"].to_numpy()


def _coverage_file(folder: pathlib.Path, track: Track) -> pathlib.Path:
    return folder / f"{track.cell},{track.assay}.parquet"


def record_coverage(
    track: Track,
    folder: str,
    genes: pd.DataFrame,
    window: WindowSpec,
    blacklist: pd.DataFrame | None = None,
) -> None:
    """One task of the first pass: coverage `[G]` of one track, into a file of its own."""
    _, coverage = _window_signal(track, genes, window, blacklist)
    table = pd.DataFrame({"coverage": coverage})
    write_parquet(_coverage_file(pathlib.Path(folder), track), table)


def _window_signal(
    track: Track, genes: pd.DataFrame, window: WindowSpec, blacklist: pd.DataFrame | None
) -> tuple[np.ndarray, np.ndarray]:
    """Means `[G, W]` and coverage `[G]` of a track; blacklisted bins are bases without data."""
    means, coverage = track_means(track.sources, genes.chrom, genes.tss, window)
    if blacklist is not None:
        starts, ends = window_bounds(genes.tss.to_numpy(), window.window_bp)
        hidden = touched_bins(list(genes.chrom), starts, ends, window.bin_bp, blacklist)
        hidden = hidden.reshape(means.shape)
        means[hidden] = 0
        # An upper bound where the track itself lacks bases; exact where it lacks none.
        coverage = np.minimum(coverage, 1 - hidden.mean(axis=1, dtype=np.float32))
    return means, coverage


def build_slab(track: Track, store_path: str, blacklist: pd.DataFrame | None = None) -> None:
    """One task: read one track, write its slab and then its marker."""
    sources = source_records(track)  # from before they are read, in case they change meanwhile
    store = WindowStore.open(store_path, incomplete=True)
    genes, window = store.genes, store.manifest.window
    means, coverage = _window_signal(track, genes, window, blacklist)
    regions = None
    if track.cell in store.manifest.contacts:
        table = store.regions(track.cell).table
        bin_bp = store.manifest.region_bin_bp
        regions = track_region_means(track.sources, table, bin_bp)
        if blacklist is not None:
            starts, ends = table["start"].to_numpy(), table["end"].to_numpy()
            regions[touched_bins(list(table["chrom"]), starts, ends, bin_bp, blacklist)] = 0
    store.write_slab(track.cell, track.assay, means, coverage, sources, regions)


def source_records(track: Track) -> list[dict[str, Any]]:
    """Name, size and sha256 of the files a track is made of.

    Raises:
        InputError: if the sheet names another sha256.
    """
    records = []
    with collect() as problems:
        for source in track.sources:
            record = file_record(source.location)
            with problems.part():
                source.require_sha256(record["sha256"])
            records.append(record)
    return records


def _require_same_sources(store: WindowStore, inputs: BuildInputs) -> None:
    """A track whose files are others than its slab was built from does not count as done."""
    with collect() as problems:
        # A file may be gone whose slab is there: it is not needed any more.
        for track in present_tracks(inputs.sheet.tracks):
            record = store.slab_record(track.cell, track.assay)
            if record is None:
                continue
            marker = markers.place(store.path, track.cell, track.assay)
            before = [(source["bytes"], source["sha256"]) for source in record["sources"]]
            now = [_as_it_is(source, marker.stat().st_mtime) for source in track.sources]
            same = len(now) == len(before) and all(
                size == old and sums <= {digest}
                for (size, sums), (old, digest) in zip(now, before, strict=True)
            )
            if not same:
                problems.add(
                    f"{store.path}: {track.cell}-{track.assay}",
                    "a slab built from " + listing(f"{n} bytes, sha256 {d}" for n, d in before),
                    "the files that are there now: "
                    + listing(", sha256 ".join([f"{n} bytes", *sorted(sums)]) for n, sums in now),
                    f"delete {marker} to build it again from them, or give another --store",
                )


def _as_it_is(source: Source, since: float) -> tuple[int, set[str]]:
    """Size of a file and its sha256: what the sheet says and, if it changed since, what it is."""
    about = pathlib.Path(source.location).stat()
    sums = {source.sha256} if source.sha256 else set()
    if max(about.st_mtime, about.st_ctime) > since:
        sums.add(sha256(source.location))
    return about.st_size, sums


def _workers(config: BuildConfig, tracks: int) -> contextlib.AbstractContextManager[Client]:
    """A client to the workers that the configuration asks for, of no more than can be busy."""
    if config.scheduler_address:
        needed = {track_means.__module__, WindowStore.__module__}
        return cluster.join(config.scheduler_address, store_folder(config.store), needed)
    return cluster.local(min(config.workers, tracks), config.worker_gib)


def main() -> None:
    config = BuildConfig.from_flags()
    store = build(config, limits_from_flags(), parse_mirrors(flags.FLAGS.mirror))
    print(
        f"{store.path}: {count(len(store.manifest.tracks), 'track')} x "
        f"{count(len(store.genes), 'gene')} x "
        f"{store.manifest.window.bins} bins, checksum {store.checksum()[:12]}"
        + (", verified" if config.verify else "")
    )
    print_training(store)


def run() -> None:
    start(main, define_flags, define_limits)


if __name__ == "__main__":
    run()
