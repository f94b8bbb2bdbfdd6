"""Programs that make a track of each file: what is given, what it becomes, several at a time.

Given are files, or a track sheet. Files of which the sheet knows only the URL are downloaded first,
and a sheet of the results is written into their folder, ready for `build_store`.
"""

import concurrent.futures
import contextlib
import dataclasses
import functools
import glob
import multiprocessing
import multiprocessing.connection
import os
import pathlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol, TypeVar

from absl import flags
from tqdm import tqdm

from data_prep.formats.track_sheet import Source, TrackSheet, read_sheet, write_sheet
from data_prep.work.sources import (
    define_limits,
    limits_from_flags,
    localise,
    parse_mirrors,
    track_downloads,
    with_mirrors,
)
from data_prep.work.transfer import fetch
from epi2expr_jax.ending import sparing_children
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import is_partial
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
        is_current: whether a result that is there is what is wanted now.
        sheet: the tracks that the results make up, if a sheet was given; `where` it will lie.
        failed: files that could not be downloaded, and why.
    """

    targets: dict[pathlib.Path, pathlib.Path]
    is_current: Callable[[pathlib.Path], bool] = lambda target: True
    sheet: TrackSheet | None = None
    failed: Mapping[pathlib.Path, InputError] = dataclasses.field(default_factory=dict)

    def wanted(self) -> dict[pathlib.Path, pathlib.Path]:
        """Those of the targets that are to be made: not there, not current, older than their
        sources. A source that is done may be gone, if the sheet has its URL."""
        return {
            source: target
            for source, target in self.targets.items()
            if not (target.exists() and self.is_current(target) and not _is_newer(source, target))
        }


def _is_newer(source: pathlib.Path, target: pathlib.Path) -> bool:
    return source.exists() and source.stat().st_mtime > target.stat().st_mtime


def of_files(flag: str, texts: Iterable[str], out: pathlib.Path, suffix: str) -> Conversion:
    """The files that a flag's names and patterns mean; NAME.bw becomes OUT/NAME and a suffix.

    Raises:
        InputError: naming every text that means no file; or if two results would be one file.
    """
    pairs: dict[pathlib.Path, pathlib.Path] = {}
    with collect() as problems:
        for text in texts:
            found = [path for path in map(pathlib.Path, glob.glob(text)) if not is_partial(path)]
            if not found:
                problems.add(flag, text, "files that are there", "check the pattern")
            for path in sorted(found):
                pairs[path] = out / (_stem(path) + suffix)
        _check_collisions(flag, pairs.items())
    return Conversion(pairs)


def _stem(path: pathlib.Path) -> str:
    name = path.name.removesuffix(".gz")
    return name.removesuffix(pathlib.Path(name).suffix)


def of_sheet(sheet: TrackSheet, out: pathlib.Path, suffix: str, unit: str = "") -> Conversion:
    """The files of a sheet; that of E003 H3K4me3 becomes OUT/E003-H3K4me3 and a suffix.

    Args:
        sheet: its sources are files, whether they are there yet or not.
        unit: what the results measure; empty: what their sources do.

    Raises:
        InputError: if two results would be one file, or are of one file; if their sheet would take
            the place of the one that is given.
    """
    pairs, tracks = [], []
    for track in sheet.tracks:
        results = []
        for source in track.sources:
            name = "-".join(filter(None, (track.cell, track.assay, source.replicate)))
            target = out.absolute() / (name + suffix)
            pairs.append((pathlib.Path(source.location), target))
            results.append(Source(str(target), replicate=source.replicate))
        tracks.append(dataclasses.replace(track, sources=tuple(results), unit=unit or track.unit))
    where = out / f"tracks{suffix.removesuffix('.bw')}.csv"
    with collect() as problems:
        if where.exists() and where.samefile(sheet.where):
            found = "a sheet that the sheet of the results would overwrite"
            problems.add(sheet.where, found, "two files", "choose another --out")
        _check_collisions(sheet.where, pairs)
    return Conversion(dict(pairs), sheet=TrackSheet(str(where), tuple(tracks)))


def _check_collisions(where: str, pairs: Iterable[tuple[pathlib.Path, pathlib.Path]]) -> None:
    """Refuse results of one name, and results of one file."""
    sources, targets = zip(*pairs, strict=True) if pairs else ((), ())
    with collect() as problems:
        for paths, found, expected, remedy in (
            (
                targets,
                "several files that would become",
                "a name of its own for each",
                "give each its own --out, or rename them",
            ),
            (
                sources,
                "several tracks of one file:",
                "a file of its own for each",
                "look which track the file is of, and correct the other rows of the sheet",
            ),
        ):
            twice = sorted(path.name for path, count in Counter(paths).items() if count > 1)
            if twice:
                problems.add(where, f"{found} {listing(twice)}", expected, remedy)


def convert(conversion: Conversion, make: Make[T], workers: int = 1) -> dict[pathlib.Path, T]:
    """Make all results that are wanted; then write their sheet.

    Args:
        conversion: what is to become what.
        make: how; a function that a spawned process can be sent.
        workers: how many files at a time.

    Returns:
        Results that were made, and what `make` said of them.

    Raises:
        InputError: naming every file that could not be converted, when the others are.
    """
    wanted = {
        source: target
        for source, target in conversion.wanted().items()
        if source not in conversion.failed
    }
    for folder in {target.parent for target in conversion.targets.values()}:
        folder.mkdir(parents=True, exist_ok=True)
    made: dict[pathlib.Path, T] = {}
    bar = tqdm(total=len(wanted), desc="files", unit="file", disable=None)
    with collect() as problems, bar as progress:
        for error in conversion.failed.values():
            problems.extend(error.problems)
        for source, result in _results(wanted, make, workers):
            with problems.part(), _naming(source):
                made[wanted[source]] = result()
            progress.update()
    if conversion.sheet:
        write_sheet(conversion.sheet, pathlib.Path(conversion.sheet.where))
    return made


def _results(
    wanted: Mapping[pathlib.Path, pathlib.Path], make: Make[T], workers: int
) -> Iterator[tuple[pathlib.Path, Callable[[], T]]]:
    """Each source as it is done, and a function that gives what `make` said, or raises it."""
    if min(workers, len(wanted)) <= 1:
        for source, target in wanted.items():
            yield source, functools.partial(make, source, target, progress=True)
        return
    # Spawned: no handle of a file is shared with a worker.
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, context, _end_with_parent) as pool:
        with sparing_children():
            running = {
                pool.submit(make, source, target, progress=False): source
                for source, target in wanted.items()
            }
        try:
            for done in concurrent.futures.as_completed(running):
                yield running[done], done.result
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


def _end_with_parent() -> None:
    """In a worker: a killed parent must not leave it at work on what a rerun makes, too."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


@contextlib.contextmanager
def _naming(source: pathlib.Path) -> Iterator[None]:
    """Name the file in errors that its content did not cause."""
    try:
        yield
    except BrokenProcessPool:
        raise InputError(
            str(source),
            "a worker process that ended, and with it all of them",
            "memory for all workers, and room in --out",
            "give fewer --workers or free space, then run the same command again",
        ) from None
    except OSError as error:
        raise InputError(
            str(source),
            f"a failure to read or write: {error}",
            "room and permission",
            "free space or choose another --out, then run the same command again",
        ) from None


# -- programs --------------------------------------------------------------------------------


def define_conversion(flag: str, files: str) -> None:
    """The flags of a program that converts files, which are given by a flag of its own name."""
    flags.DEFINE_list(flag, [], f"{files}, or patterns such as 'folder/*'.")
    flags.DEFINE_string(
        "tracks",
        "",
        f"Instead of --{flag}: a track sheet of such files, or the name of a shipped one. Files of "
        "which it has only the URL are downloaded first; a sheet in OUT then lists the results.",
    )
    flags.DEFINE_string(
        "downloads", "", "Folder for files that are downloaded. Empty: OUT/downloads."
    )
    flags.DEFINE_string("out", None, "The folder that the results go to.", required=True)
    flags.DEFINE_integer("workers", 1, "Files that are converted at the same time.", 1)
    define_limits()


def conversion_from_flags(
    flag: str,
    suffix: str,
    unit: str = "",
    is_current: Callable[[pathlib.Path], bool] = lambda target: True,
    check: Callable[[pathlib.Path], None] = lambda path: None,
) -> Conversion:
    """What the command line asks for, downloaded; `check` is of downloads, as in `Download`.

    Raises:
        InputError: as `of_files`, `read_sheet` and `of_sheet`, or if it is not one of the two.
    """
    texts, out = FLAGS[flag].value, pathlib.Path(FLAGS.out)
    if bool(texts) == bool(FLAGS.tracks):
        found = f"both --{flag} and --tracks" if texts else "no files"
        raise InputError(
            "command line", found, f"--{flag} or --tracks", "see --help for an example"
        )
    if texts:
        return dataclasses.replace(of_files(f"--{flag}", texts, out, suffix), is_current=is_current)
    mirrors = parse_mirrors(FLAGS.mirror)
    folder = pathlib.Path(FLAGS.downloads) if FLAGS.downloads else out / "downloads"
    sheet = localise(read_sheet(FLAGS.tracks), folder)
    conversion = dataclasses.replace(of_sheet(sheet, out, suffix, unit), is_current=is_current)
    lacking = conversion.wanted()
    downloads = [item for item in track_downloads(sheet.tracks, check) if item.target in lacking]
    if not downloads:
        return conversion
    failed = fetch(with_mirrors(downloads, mirrors), folder, limits_from_flags())
    return dataclasses.replace(conversion, failed=failed)
