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
import pathlib
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Protocol, TypeVar

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
from data_prep.work.workers import end_with_parent, no_worker_left
from epi2expr_jax.ending import sparing_children
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import (
    file_record,
    is_partial,
    only_writer,
    read_json,
    sha256,
    write_json,
)
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
        settings: what the results depend on besides their files, as JSON has it.
        sheet: the tracks that the results make up, if a sheet was given; `where` it will lie.
        digests: sha256 of the files of which the sheet says it.
        fetch: downloads those of the given files that have a URL; says which could not be had.
    """

    targets: dict[pathlib.Path, pathlib.Path]
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    sheet: TrackSheet | None = None
    digests: Mapping[pathlib.Path, str] = dataclasses.field(default_factory=dict)
    fetch: Callable[[Collection[pathlib.Path]], Mapping[pathlib.Path, InputError]] = (
        lambda sources: {}
    )

    def wanted(self) -> dict[pathlib.Path, pathlib.Path]:
        """Those of the targets that are to be made: not there, damaged, of other settings or of
        another source. A source that is done may be gone, if the sheet has its URL."""
        pairs = tqdm(self.targets.items(), "looking at results", unit="file", disable=None)
        return {source: target for source, target in pairs if not self._is_done(source, target)}

    def _is_done(self, source: pathlib.Path, target: pathlib.Path) -> bool:
        try:
            made = read_json(_record(target), "record", "")
        except InputError:  # none, or damaged: nobody knows what the result is of
            return False
        same = self.settings == made.get("settings")
        return (
            same
            and _is(source, self.digests.get(source), made.get("source"))
            and target.exists()
            and file_record(target) == made.get("result")
        )


def _record(target: pathlib.Path) -> pathlib.Path:
    """Where is written what a result was made of, and its own checksum."""
    return target.with_name(target.name + ".json")


def _stamp(source: pathlib.Path) -> dict[str, int]:
    """What tells without reading that a file is the one it was; nothing, if it is gone.

    Its change time cannot be set as its modification time can, by `cp -p` and the like.
    """
    if not source.exists():
        return {}
    stat = source.stat()
    return {"bytes": stat.st_size, "changed_ns": stat.st_ctime_ns}


def _is(source: pathlib.Path, digest: str | None, known: Any) -> bool:
    """Whether a file is the one of a record."""
    if not isinstance(known, dict) or digest not in (None, known.get("sha256")):
        return False
    now = _stamp(source)
    return now.items() <= known.items() or (
        now["bytes"] == known.get("bytes") and sha256(source) == known.get("sha256")
    )


def _make(
    make: Make[T],
    settings: Mapping[str, Any],
    source: pathlib.Path,
    target: pathlib.Path,
    digest: str | None,
    *,
    progress: bool,
) -> T:
    """Make one result, and then the record of what it was made of."""
    before = _stamp(source)
    said = make(source, target, progress=progress)
    of = {**before, "sha256": sha256(source)}
    with collect() as problems:
        with problems.part():
            Source(str(source), digest).require_sha256(of["sha256"])
        if before != _stamp(source):
            found = "a file that changed while it was read"
            problems.add(str(source), found, "a whole file", "run the same command again")
        if problems:
            target.unlink()
    content = {"source": of, "settings": settings, "result": file_record(target)}
    write_json(_record(target), content)
    return said


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
    pairs, tracks, digests = [], [], {}
    for track in sheet.tracks:
        results = []
        for source in track.sources:
            name = "-".join(filter(None, (track.cell, track.assay, source.replicate)))
            target = out.absolute() / (name + suffix)
            pairs.append((pathlib.Path(source.location), target))
            if source.sha256:
                digests[pathlib.Path(source.location)] = source.sha256
            results.append(Source(str(target), replicate=source.replicate))
        tracks.append(dataclasses.replace(track, sources=tuple(results), unit=unit or track.unit))
    where = out / f"tracks{suffix.removesuffix('.bw')}.csv"
    with collect() as problems:
        if where.exists() and where.samefile(sheet.where):
            found = "a sheet that the sheet of the results would overwrite"
            problems.add(sheet.where, found, "two files", "choose another --out")
        _check_collisions(sheet.where, pairs)
    return Conversion(dict(pairs), sheet=TrackSheet(str(where), tuple(tracks)), digests=digests)


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
        InputError: naming every file that could not be converted, when the others are; if another
            process is at it.
    """
    folders = {target.parent for target in conversion.targets.values()}
    with contextlib.ExitStack() as locks:
        for folder in sorted(folders):
            locks.enter_context(only_writer(folder))
            folder.mkdir(exist_ok=True)
        _clear(conversion.targets.values())
        try:
            return _convert(conversion, make, workers)
        finally:
            _clear(conversion.targets.values())


def _clear(targets: Iterable[pathlib.Path]) -> None:
    """Remove what killed processes left of results that were on their way."""
    for target in targets:
        for path in target.parent.glob(f"{glob.escape(target.name)}.*"):
            if is_partial(path):
                shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()


def _convert(conversion: Conversion, make: Make[T], workers: int) -> dict[pathlib.Path, T]:
    wanted, made = conversion.wanted(), {}
    with collect() as problems:
        for source, error in conversion.fetch(wanted).items():
            problems.extend(error.problems)
            wanted.pop(source, None)
        whole = functools.partial(_make, make, conversion.settings)
        tasks = {
            source: (target, conversion.digests.get(source)) for source, target in wanted.items()
        }
        with tqdm(total=len(wanted), desc="files", unit="file", disable=None) as progress:
            for source, result in _results(tasks, whole, workers):
                with problems.part(), _naming(source):
                    made[wanted[source]] = result()
                progress.update()
    if conversion.sheet:
        write_sheet(conversion.sheet, pathlib.Path(conversion.sheet.where))
    return made


def _results(
    tasks: Mapping[pathlib.Path, tuple], make: Callable[..., T], workers: int
) -> Iterator[tuple[pathlib.Path, Callable[[], T]]]:
    """Each source as it is done, and a function that gives what `make` said, or raises it."""
    if min(workers, len(tasks)) <= 1:
        for source, task in tasks.items():
            yield source, functools.partial(make, source, *task, progress=True)
        return
    # Spawned: no handle of a file is shared with a worker.
    context = multiprocessing.get_context("spawn")
    with (
        no_worker_left() as end,
        concurrent.futures.ProcessPoolExecutor(workers, context, end_with_parent) as pool,
    ):
        try:
            with sparing_children():
                running = {
                    pool.submit(make, source, *task, progress=False): source
                    for source, task in tasks.items()
                }
            for done in concurrent.futures.as_completed(running):
                yield running[done], done.result
        except BaseException:
            end.set()  # a pool that closes waits for what its workers are at
            pool.shutdown(wait=False, cancel_futures=True)
            raise


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
    settings: Mapping[str, Any],
    unit: str = "",
    check: Callable[[pathlib.Path], None] = lambda path: None,
) -> Conversion:
    """What the command line asks for; `check` is of downloads, as in `Download`.

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
        return dataclasses.replace(of_files(f"--{flag}", texts, out, suffix), settings=settings)
    mirrors = parse_mirrors(FLAGS.mirror)
    folder = pathlib.Path(FLAGS.downloads) if FLAGS.downloads else out / "downloads"
    sheet = localise(read_sheet(FLAGS.tracks), folder)
    downloads = with_mirrors(track_downloads(sheet.tracks, check), mirrors)

    def fetch_some(sources: Collection[pathlib.Path]) -> Mapping[pathlib.Path, InputError]:
        lacking = [item for item in downloads if item.target in sources]
        return fetch(lacking, folder, limits_from_flags()) if lacking else {}

    conversion = of_sheet(sheet, out, suffix, unit)
    return dataclasses.replace(conversion, settings=settings, fetch=fetch_some)
