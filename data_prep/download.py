"""Download tracks and the public Roadmap files, checked; interrupted, it goes on where it stopped.

    python -m data_prep.download --tracks=roadmap_pvalue --out=tracks
    python -m data_prep.download --tracks=sheet.csv --out=tracks --connections=8 --mib_per_s=50
    python -m data_prep.download --sources=rpkm,gencode_v10,blacklist_hg19,pchic --out=files
    python -m data_prep.download --tracks=roadmap_pvalue --out=tracks \\
        --mirror=https://egg2.wustl.edu/,https://mirror.example.org/

A file is whole or absent: it grows as NAME.part and is renamed when its length and sha256 agree, a
bigWig is whole, a gzip file unpacks and none is a web page. Several may download into one folder.
The sha256 that a URL gave first is kept in OUT/downloads.lock.json and required from then on.
"""

import pathlib

from absl import flags

from data_prep.formats.track_sheet import read_sheet
from data_prep.work.lock_file import LOCK
from data_prep.work.sources import (
    SOURCES,
    define_limits,
    limits_from_flags,
    localise,
    named_downloads,
    parse_mirrors,
    track_downloads,
    with_mirrors,
)
from data_prep.work.transfer import download
from epi2expr_jax.errors import InputError
from epi2expr_jax.program import start
from epi2expr_jax.units import count

FLAGS = flags.FLAGS


def define_flags() -> None:
    flags.DEFINE_string("tracks", "", "Track sheet: a CSV, or the name of a shipped one.")
    flags.DEFINE_list("sources", [], f"Named files: {', '.join(SOURCES)}.")
    flags.DEFINE_string("out", None, "Folder to download into.", required=True)
    define_limits()


def main() -> None:
    folder = pathlib.Path(FLAGS.out)
    wanted = list(named_downloads(FLAGS.sources, folder))
    if FLAGS.tracks:
        wanted += track_downloads(localise(read_sheet(FLAGS.tracks), folder).tracks)
    if not wanted:
        raise InputError(
            "command line", "nothing to download", "--tracks or --sources", "see --help"
        )
    download(with_mirrors(wanted, parse_mirrors(FLAGS.mirror)), folder, limits_from_flags())
    print(f"{folder}: {count(len(wanted), 'file')}, whole; checksums in {folder / LOCK}")


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
