import pytest

from data_prep.formats.track_sheet import Source, Track, TrackSheet
from data_prep.work.sources import (
    SOURCES,
    define_limits,
    file_name,
    limits_from_flags,
    localise,
    named_downloads,
    parse_mirrors,
    track_downloads,
    with_mirrors,
)
from data_prep.work.transfer import Download, Limits
from epi2expr_jax.errors import InputError


def sheet_of(*locations, **fields) -> TrackSheet:
    tracks = [Track(f"E{i}", "A", (Source(url, **fields),)) for i, url in enumerate(locations, 1)]
    return TrackSheet("tracks.csv", tuple(tracks))


def problems(call, *args) -> list[str]:
    with pytest.raises(InputError) as caught:
        call(*args)
    return [str(problem) for problem in caught.value.problems]


@pytest.mark.parametrize(
    ("url", "name"),
    [
        ("https://x.org/a/E003-H3K4me3.pval.bigwig", "E003-H3K4me3.pval.bigwig"),
        ("https://x.org/a.bw?session=1/2#top", "a.bw"),
        ("https://x.org/E003%2DDNase.bw", "E003-DNase.bw"),
    ],
)
def test_a_file_has_the_name_at_the_end_of_its_url(url, name):
    assert file_name(url) == name


@pytest.mark.parametrize("end", ["", "..%2F..%2Fpasswd", ".hidden", "a%20b.bw", "a%5Cb.bw"])
def test_a_url_whose_end_is_no_plain_name_is_refused(end):
    (problem,) = problems(file_name, f"https://x.org/folder/{end}")
    assert problem.startswith(f"https://x.org/folder/{end}: found ")
    assert "expected a plain file name; give the track a `path`" in problem


def test_urls_get_a_place_in_the_folder_and_paths_stay(tmp_path):
    sheet = sheet_of("https://x.org/a.bw", "/data/b.bw", sha256="0" * 64, replicate="1")
    first, second = (track.sources[0] for track in localise(sheet, tmp_path).tracks)
    assert first == Source(str(tmp_path / "a.bw"), "0" * 64, "1", "https://x.org/a.bw")
    assert second == sheet.tracks[1].sources[0]


def test_names_that_collide_or_are_none_are_listed_together(tmp_path):
    same, ends = "https://x.org/1/a.bw", "https://x.org/2/"
    sheet = sheet_of(same, "https://x.org/2/a.bw", same, ends)
    collision, without = problems(localise, sheet, tmp_path)
    assert collision.startswith("tracks.csv, E2 A: found https://x.org/2/a.bw, of the same")
    assert same in collision
    assert without.startswith(f"{ends}: found ''")


def test_what_has_a_url_is_downloaded(tmp_path):
    def check(path):
        return None

    sheet = localise(sheet_of("https://x.org/a.bw", "/data/b.bw", sha256="1" * 64), tmp_path)
    (item,) = track_downloads(sheet.tracks, check)
    assert item == Download(tmp_path / "a.bw", ("https://x.org/a.bw",), "1" * 64, check)


def test_a_mirror_adds_an_address_where_its_prefix_fits(tmp_path):
    items = [Download(tmp_path / name, (f"https://{name}/d/f",)) for name in ("x.org", "y.org")]
    mirrors = parse_mirrors(["https://x.org/,http://m.org/x/", "https://x.org/d/,https://n.org/"])
    assert [item.urls for item in with_mirrors(items, mirrors)] == [
        ("https://x.org/d/f", "http://m.org/x/d/f", "https://n.org/f"),
        ("https://y.org/d/f",),
    ]


def test_mirrors_that_are_no_pairs_of_urls_are_all_named():
    good = "https://x.org/,https://y.org/"
    found = problems(parse_mirrors, ["https://x.org/", good, "here,there", f"{good},{good}"])
    assert [problem.partition(": ")[0] for problem in found] == [
        "--mirror=https://x.org/",
        "--mirror=here,there",
        f"--mirror={good},{good}",
    ]
    assert all("expected URL_PREFIX,URL_PREFIX" in problem for problem in found)


def test_named_sources_are_files_of_a_folder(tmp_path):
    rpkm, black = named_downloads(["rpkm", "blacklist_hg19"], tmp_path)
    assert rpkm.target == tmp_path / "57epigenomes.RPKM.pc.gz"
    assert len(rpkm.urls) == 1
    assert black.target == tmp_path / "hg19-blacklist.v2.bed.gz"
    assert len(black.urls) == 2
    assert [item.target.name for item in named_downloads(["pchic"], tmp_path)][:2] == [
        "H1_frag2neighbors.pickle",
        "H1_pair2score.pickle",
    ]
    (problem,) = problems(list, named_downloads(["rpkm", "hg99", "x"], tmp_path))
    assert problem.startswith("--sources: found hg99, x; expected some of rpkm, gencode_v10")


def test_no_two_named_files_share_a_name(tmp_path):
    names = [item.target.name for item in named_downloads(SOURCES, tmp_path)]
    assert len(names) == len(set(names)) == 3 + 3 + 9 * 2
    assert all(file_name(url) for files in SOURCES.values() for urls in files for url in urls)


def test_limits_come_from_the_command_line(command_line):
    command_line(define_limits, "--connections=8", "--mib_per_s=0.5", "--timeout_s=9")
    assert limits_from_flags() == Limits(8, 524_288.0, 6, 9.0)
