"""Programs that make a track of each file: what is given, what it becomes, several at a time.

Given are files, or a track sheet. Of a sheet, what it knows the URL of alone is downloaded first,
and a sheet of the results is written beside them, ready for `build_store`.
"""

import concurrent.futures
import dataclasses
import glob
import multiprocessing
import pathlib
from collections.abc import Callable, Iterable
from typing import Protocol, TypeVar

from absl import flags
from tqdm import tqdm

from data_prep.catalogue import Source, TrackSheet, read_sheet, write_sheet
from data_prep.download import (
    define_limits,
    limits_from_flags,
    localise,
    parse_mirrors,
    track_downloads,
    with_mirrors,
)
from data_prep.transfer import download
from epi2expr_jax.errors import InputError, Problem, collect
from epi2expr_jax.genome import listing

FLAGS = flags.FLAGS
T = TypeVar("T", covariant=True)


class Make(Protocol[T]):
    """Writes a target from a source, whole or not at all. Raises InputError."""

    def __call__(self, source: pathlib.Path, target: pathlib.Path, *, progress: bool) -> T: ...


@dataclasses.dataclass(frozen=True)
class Conversion:
    """What is to become what.

    Attributes:
        targets: each file and its result.
        sheet: the tracks that the results make up, if a sheet was given.
        problems: of files that could not be downloaded, which are no targets.
    """

    targets: dict[pathlib.Path, pathlib.Path]
    sheet: TrackSheet | None = None
    problems: tuple[Problem, ...] = ()


def of_files(flag: str, texts: Iterable[str], out: pathlib.Path, suffix: str) -> Conversion:
    """The files that a flag's names and patterns mean; NAME.bw becomes OUT/NAME and a suffix.

    Raises:
        InputError: naming every text that means no file; or if two results would be one file.
    """
    problems: list[Problem] = []
    targets: dict[pathlib.Path, pathlib.Path] = {}
    for text in texts:
        found = sorted(glob.glob(text))
        if not found:
            problems.append(Problem(flag, text, "files that are there", "check the pattern"))
        for path in map(pathlib.Path, found):
            targets[path] = out / (_stem(path) + suffix)
    names = [target.name for target in targets.values()]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        problems.append(
            Problem(
                flag,
                f"several files that would become {listing(twice)}",
                "a name of its own for each",
                "give each its own --out, or rename them",
            )
        )
    if problems:
        raise InputError(problems)
    return Conversion(targets)


def _stem(path: pathlib.Path) -> str:
    name = path.name.removesuffix(".gz")
    return name.removesuffix(pathlib.Path(name).suffix)


def of_sheet(sheet: TrackSheet, out: pathlib.Path, suffix: str, unit: str = "") -> Conversion:
    """The files of a sheet; that of E003 H3K4me3 becomes OUT/E003-H3K4me3 and a suffix.

    Args:
        sheet: its sources are files, whether they are there yet or not.
        unit: what the results measure; empty: what their sources do.
    """
    targets, tracks = {}, []
    for track in sheet.tracks:
        results = []
        for source in track.sources:
            name = "-".join(filter(None, (track.cell, track.assay, source.replicate)))
            target = out.absolute() / (name + suffix)
            targets[pathlib.Path(source.location)] = target
            results.append(Source(str(target), replicate=source.replicate))
        tracks.append(dataclasses.replace(track, sources=tuple(results), unit=unit or track.unit))
    return Conversion(targets, TrackSheet(str(out / "tracks.csv"), tuple(tracks)))


def convert(
    conversion: Conversion,
    make: Make[T],
    *,
    workers: int = 1,
    is_current: Callable[[pathlib.Path], bool] = lambda target: True,
) -> dict[pathlib.Path, T]:
    """Make all results that are not there, or older than their sources; then write their sheet.

    Args:
        make: how; a function that a spawned process can be sent.
        workers: how many files at a time.
        is_current: whether a result that is there is what is wanted now.

    Returns:
        Results that were made, and what `make` said of them.

    Raises:
        InputError: naming every file that could not be converted, when the others are.
    """
    problems = list(conversion.problems)
    made: dict[pathlib.Path, T] = {}
    wanted = {
        source: target
        for source, target in conversion.targets.items()
        if not (_is_done(source, target) and is_current(target))
    }
    if problems:  # those that could not be downloaded are named already
        wanted = {source: target for source, target in wanted.items() if source.exists()}
    for folder in {target.parent for target in conversion.targets.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    with tqdm(total=len(wanted), desc="files", unit="file", disable=None) as progress:
        if min(workers, len(wanted)) <= 1:
            for source, target in wanted.items():
                with collect(problems):
                    made[target] = make(source, target, progress=True)
                progress.update()
        else:
            # Spawned: no handle of a file is shared with a worker.
            context = multiprocessing.get_context("spawn")
            with concurrent.futures.ProcessPoolExecutor(workers, context) as pool:
                running = {
                    pool.submit(make, source, target, progress=False): target
                    for source, target in wanted.items()
                }
                for done in concurrent.futures.as_completed(running):
                    with collect(problems):
                        made[running[done]] = done.result()
                    progress.update()
    if problems:
        raise InputError(problems)
    if conversion.sheet:
        write_sheet(conversion.sheet, pathlib.Path(conversion.sheet.where))
    return made


def _is_done(source: pathlib.Path, target: pathlib.Path) -> bool:
    """Whether the result is there, and no older than what it is made of, should that be there."""
    if not target.exists():
        return False
    return not source.exists() or source.stat().st_mtime <= target.stat().st_mtime


# -- programs --------------------------------------------------------------------------------


def define_conversion(flag: str, files: str) -> None:
    """The flags of a program that converts files, which are given by a flag of its own name."""
    flags.DEFINE_list(flag, [], f"{files}, or patterns such as 'folder/*'.")
    flags.DEFINE_string(
        "tracks",
        "",
        f"Instead of --{flag}: a track sheet of such files, or the name of a shipped one. What it "
        "knows the URL of alone is downloaded first; OUT/tracks.csv then lists the results.",
    )
    flags.DEFINE_string(
        "downloads", "", "Folder for the files whose URL alone is known. Empty: OUT/downloads."
    )
    flags.DEFINE_string("out", None, "The folder that the results go to.", required=True)
    flags.DEFINE_integer("workers", 1, "Files that are converted at the same time.", 1)
    define_limits()


def conversion_from_flags(flag: str, suffix: str, unit: str = "") -> Conversion:
    """What the command line asks for, downloaded.

    Raises:
        InputError: as `of_files` and `read_sheet`, or if it is not one of the two.
    """
    texts, out = FLAGS[flag].value, pathlib.Path(FLAGS.out)
    if bool(texts) == bool(FLAGS.tracks):
        found = f"both --{flag} and --tracks" if texts else "no files"
        raise InputError(
            Problem("command line", found, f"--{flag} or --tracks", "see --help for an example")
        )
    if texts:
        return of_files(f"--{flag}", texts, out, suffix)
    folder = pathlib.Path(FLAGS.downloads) if FLAGS.downloads else out / "downloads"
    sheet = localise(read_sheet(FLAGS.tracks), folder)
    conversion = of_sheet(sheet, out, suffix, unit)
    # A file whose result is there may have been removed since.
    lacking = {source for source, target in conversion.targets.items() if not target.exists()}
    wanted = [item for item in track_downloads(sheet.tracks) if item.target in lacking]
    problems: list[Problem] = []
    if wanted:
        with collect(problems):
            mirrors = parse_mirrors(FLAGS.mirror)
            download(with_mirrors(wanted, mirrors), folder, limits_from_flags(), rehash=False)
    return dataclasses.replace(conversion, problems=tuple(problems))
