"""Which files are downloaded, from where, and under which names they are kept."""

import dataclasses
import pathlib
import re
import urllib.parse
from collections.abc import Callable, Iterable, Iterator, Sequence

from absl import flags

from data_prep.formats.foreign import is_url
from data_prep.formats.track_sheet import Track, TrackSheet
from data_prep.work.transfer import Download, Limits
from epi2expr_jax.errors import InputError, collect

FLAGS = flags.FLAGS

_ROADMAP = "https://egg2.wustl.edu/roadmap/data"
_CHROMOFORMER = "https://dohlee-bioinfo.sgp1.digitaloceanspaces.com/chromoformer-data"
_PCHIC_TISSUES = ("H1", "ME", "TB", "MSC", "NPC", "LI11", "PA", "LG", "GM")
_BLACKLIST = "Boyle-Lab/Blacklist/master/lists"

# Each a tuple of files, each file a tuple of URLs of the same bytes. Track sheets by their names.
SOURCES: dict[str, tuple[tuple[str, ...], ...]] = {
    "rpkm": ((f"{_ROADMAP}/byDataType/rna/expression/57epigenomes.RPKM.pc.gz",),),
    "gencode_v10": (
        (
            "https://ftp.ebi.ac.uk/pub/databases/gencode/Gencode_human/release_10/"
            "gencode.v10.annotation.gtf.gz",
        ),
    ),
    "ensembl_75": (
        ("https://ftp.ensembl.org/pub/release-75/gtf/homo_sapiens/Homo_sapiens.GRCh37.75.gtf.gz",),
    ),
    **{
        f"blacklist_{name}": (
            (
                f"https://raw.githubusercontent.com/{_BLACKLIST}/{name}-blacklist.v2.bed.gz",
                f"https://github.com/{_BLACKLIST.replace('/master', '/raw/master')}/"
                f"{name}-blacklist.v2.bed.gz",
            ),
        )
        for name in ("hg19", "hg38", "mm10")
    },
    "pchic": tuple(
        (f"{_CHROMOFORMER}/{tissue}_{kind}.pickle",)
        for tissue in _PCHIC_TISSUES
        for kind in ("frag2neighbors", "pair2score")
    ),
}


def file_name(url: str) -> str:
    """The last part of a URL's path, as the name of a local file.

    Raises:
        InputError: if it is not a plain file name.
    """
    name = urllib.parse.unquote(urllib.parse.urlsplit(url).path.rpartition("/")[2])
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._+-]*", name):
        raise InputError(
            url,
            f"{name!r} as its last part",
            "a plain file name",
            "give the track a `path` in the sheet",
        )
    return name


def localise(sheet: TrackSheet, folder: pathlib.Path) -> TrackSheet:
    """The sheet with a place in `folder` for each source that it knows only by its URL.

    Raises:
        InputError: naming every URL that gives no file name, and URLs whose names collide.
    """
    taken: dict[str, str] = {}
    tracks = []
    with collect() as problems:
        for track in sheet.tracks:
            sources = []
            for source in track.sources:
                if is_url(url := source.location):
                    with problems.part():
                        name = file_name(url)
                        if taken.setdefault(name, url) != url:
                            problems.add(
                                f"{sheet.where}, {track.cell} {track.assay}",
                                f"{url}, of the same file name as {taken[name]}",
                                "one file name for each URL",
                                "give one of them a `path` in the sheet",
                            )
                        place = str(folder.absolute() / name)
                        source = dataclasses.replace(source, location=place, url=url)
                sources.append(source)
            tracks.append(dataclasses.replace(track, sources=tuple(sources)))
    return dataclasses.replace(sheet, tracks=tuple(tracks))


def track_downloads(
    tracks: Iterable[Track], check: Callable[[pathlib.Path], None] = lambda path: None
) -> list[Download]:
    """What the tracks of a localised sheet have URLs of; `check` as in `Download`."""
    return [
        Download(pathlib.Path(source.location), (source.url,), source.sha256, check)
        for track in tracks
        for source in track.sources
        if source.url
    ]


def with_mirrors(
    downloads: Iterable[Download], mirrors: Sequence[tuple[str, str]]
) -> list[Download]:
    """Each download with a further URL for each mirror (prefix, its replacement) that fits it."""
    return [
        dataclasses.replace(
            item,
            urls=item.urls
            + tuple(
                other + url.removeprefix(prefix)
                for prefix, other in mirrors
                for url in item.urls
                if url.startswith(prefix)
            ),
        )
        for item in downloads
    ]


def parse_mirrors(texts: Iterable[str]) -> list[tuple[str, str]]:
    """`PREFIX,REPLACEMENT` pairs of URLs.

    Raises:
        InputError: naming every text that is not such a pair.
    """
    pairs = []
    with collect() as problems:
        for text in texts:
            match text.split(","):
                case [prefix, other] if is_url(prefix) and is_url(other):
                    pairs.append((prefix, other))
                case _:
                    expected = "URL_PREFIX,URL_PREFIX"
                    problems.add(f"--mirror={text}", "no pair", expected, "correct it")
    return pairs


def named_downloads(names: Iterable[str], folder: pathlib.Path) -> Iterator[Download]:
    """The files of named sources.

    Raises:
        InputError: naming every unknown source.
    """
    names = list(names)
    unknown = [name for name in names if name not in SOURCES]
    if unknown:
        raise InputError(
            "--sources", ", ".join(unknown), f"some of {', '.join(SOURCES)}", "correct it"
        )
    for name in names:
        for urls in SOURCES[name]:
            yield Download(folder.absolute() / file_name(urls[0]), urls)


def define_limits() -> None:
    """The flags of the network, of every program that downloads."""
    flags.DEFINE_integer("connections", 4, "Files downloaded at a time.", lower_bound=1)
    flags.DEFINE_float("mib_per_s", 0, "Limit of all downloads together; 0: none.", lower_bound=0)
    flags.DEFINE_integer("attempts", 6, "Failures in a row that end a download.", lower_bound=1)
    flags.DEFINE_float("timeout_s", 60, "Seconds of silence before a retry.", lower_bound=0.1)
    flags.DEFINE_multi_string("mirror", [], "URL_PREFIX,OTHER_PREFIX: tried if the first fails.")


def limits_from_flags() -> Limits:
    return Limits(FLAGS.connections, FLAGS.mib_per_s * 2**20, FLAGS.attempts, FLAGS.timeout_s)
