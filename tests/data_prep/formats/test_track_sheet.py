import pathlib

import pytest

from data_prep.formats.track_sheet import (
    Source,
    read_sheet,
    shipped_sheet,
    shipped_sheets,
    write_sheet,
)
from epi2expr_jax.errors import InputError


@pytest.fixture
def write(tmp_path):
    """Writes a sheet next to the files a.bw, b.bw and c.bw."""
    for name in "abc":
        (tmp_path / f"{name}.bw").touch()

    def write_sheet(text: str) -> pathlib.Path:
        path = tmp_path / "tracks.csv"
        path.write_text(text)
        return path

    return write_sheet


def problems(path) -> list[str]:
    with pytest.raises(InputError) as caught:
        read_sheet(path)
    return [str(problem) for problem in caught.value.problems]


def test_the_p_value_sheet_holds_eleven_cells_and_twelve_assays():
    sheet = read_sheet("roadmap_pvalue")
    assert " ".join(sheet.cells) == "E003 E114 E116 E117 E118 E119 E120 E122 E123 E127 E128"
    assert len(sheet.assays) == 12
    assert "H2A.Z" in sheet.assays
    assert len(sheet.tracks) == 11 * 12
    assert {track.unit for track in sheet.tracks} == {"pvalue"}
    groups = {track.assay: track.group for track in sheet.tracks}
    assert [assay for assay, group in groups.items() if group == "accessibility"] == ["DNase"]
    assert sheet.tracks[0].sources[0].location == (
        "https://egg2.wustl.edu/roadmap/data/byFileType/signal/consolidated/macs2signal/pval/"
        "E003-H3K36me3.pval.signal.bigwig"
    )


def test_the_alignment_sheet_holds_chromoformers_cells_and_marks():
    sheet = read_sheet(shipped_sheet("roadmap_alignments"))
    assert " ".join(sheet.cells) == "E003 E004 E005 E006 E007 E016 E066 E087 E114 E116 E118"
    assert len(sheet.assays) == 7
    assert len(sheet.tracks) == 11 * 7
    assert {track.unit for track in sheet.tracks} == {"depth"}
    assert sheet.tracks[-1].sources[0].location == (
        "https://egg2.wustl.edu/roadmap/data/byFileType/alignments/consolidated/"
        "E118-H3K9ac.tagAlign.gz"
    )


def test_shipped_sheets_are_found_by_name():
    assert list(shipped_sheets()) == ["roadmap_alignments", "roadmap_pvalue"]
    with pytest.raises(InputError, match=r"encode.*roadmap_pvalue"):
        shipped_sheet("encode")


def test_paths_are_relative_to_the_sheet(write, tmp_path):
    sheet = read_sheet(write("cell,assay,path\nE2,H3K4me3,a.bw\nE1,DNase,b.bw\nE2,DNase,c.bw\n"))
    assert sheet.cells == ("E2", "E1")
    assert sheet.assays == ("H3K4me3", "DNase")
    track = sheet.tracks[0]
    assert track.sources == (Source(str(tmp_path / "a.bw")),)
    assert (track.unit, track.group) == ("pvalue", "")
    assert sheet.assumed == sheet.assays
    assert sheet.select(assays=["DNase"]).assays == ("DNase",)


def test_a_sheet_knows_whose_unit_it_does_not_say(write):
    sheet = read_sheet(write("cell,assay,path,unit\nE1,A,a.bw,depth\nE1,B,b.bw,\n"))
    assert sheet.assumed == ("B",)
    assert read_sheet("roadmap_pvalue").assumed == ()


def test_replicates_make_one_track(write, tmp_path):
    path = write("cell,assay,path,replicate,unit\nE1,A,a.bw,1,depth\nE1,A,b.bw,2,depth\n")
    (track,) = read_sheet(path).tracks
    assert [source.replicate for source in track.sources] == ["1", "2"]
    assert [pathlib.Path(source.location).name for source in track.sources] == ["a.bw", "b.bw"]
    assert track.unit == "depth"


@pytest.mark.parametrize(
    "rows", ["E1,A,a.bw,\nE1,A,b.bw,", "E1,A,a.bw,1\nE1,A,b.bw,1", "E1,A,a.bw,1\nE1,A,a.bw,2"]
)
def test_two_rows_that_are_no_replicates_are_refused(write, rows):
    (problem,) = problems(write(f"cell,assay,path,replicate\n{rows}\n"))
    assert "lines 2, 3" in problem
    assert "E1 A with the same" in problem


@pytest.mark.parametrize(
    ("column", "one", "other"), [("unit", "depth", "pvalue"), ("group", "x", "")]
)
def test_an_assay_has_one_unit_and_one_group(write, column, one, other):
    text = f"cell,assay,path,{column}\nE1,A,a.bw,{one}\nE2,B,b.bw,{other}\nE2,A,c.bw,{other}\n"
    (problem,) = problems(write(text))
    assert "assay A" in problem
    assert f"{column} {one} (line 2) and {other or 'none'} (line 4)" in problem


def test_all_problems_come_at_once_with_their_lines(write):
    text = (
        "cell,assay,path,url,sha256,unit\n"
        "E1,A+B,a.bw,,,\n"
        ",A,a.bw,,,\n"
        "\n"
        "E1,C,missing.bw,,,\n"
        "E1,D,,,,\n"
        "E1,E,a.bw,,123,\n"
        "E1,F,a.bw,,,reads\n"
        "E1,G,,gopher://x/y.bw,,\n"
        "all,H,a.bw,,,\n"
        "E1,I,https://x/y.bw,,,\n"
        "E1,J,a.bw\n"
        "E1,../K,a.bw,,,\n"
    )
    found = problems(write(text))
    lines = sorted(int(problem.split(": found")[0].rpartition(" ")[2]) for problem in found)
    assert lines == [2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]


@pytest.mark.parametrize("path", ["~nobody-of-this-name/a.bw", "a" * 5000, "a\0b"])
def test_paths_that_no_file_can_have_are_named(write, path):
    (problem,) = problems(write(f"cell,assay,path\nE1,A,{path}\n"))
    assert "line 2: found no file" in problem


def test_unknown_missing_and_repeated_columns_are_named(write):
    found = problems(write("cell,mark,path,path\nE1,A,a.bw,b.bw\n"))
    assert len(found) == 3
    assert "no column assay" in found[0]
    assert "'mark'" in found[1]
    assert "path twice" in found[2]


def test_an_empty_or_unreadable_sheet_is_refused(write, tmp_path):
    assert "no track" in problems(write("cell,assay,path\n"))[0]
    assert "no column" in problems(write(""))[0]
    assert "roadmap_pvalue" in problems(tmp_path / "absent.csv")[0]
    binary = tmp_path / "binary.csv"
    binary.write_bytes(b"\x1f\x8b\xff\xfe")
    assert "a damaged gzip file" in problems(binary)[0]


def test_a_byte_order_mark_and_spaces_do_no_harm(write):
    path = write("")
    path.write_text("\ufeffcell, assay ,path\nE1 , A, a.bw\n", encoding="utf-8")
    assert read_sheet(path).tracks[0].assay == "A"


def test_what_is_not_downloaded_yet_is_no_error(write, tmp_path):
    path = write(
        "cell,assay,path,url\n"
        "E1,A,,https://x/E1-A.bigwig\n"
        "E1,B,later.bw,https://x/E1-B.bigwig\n"
        "E1,C,a.bw,https://x/E1-C.bigwig\n"
    )
    sheet = read_sheet(path)
    assert sheet.tracks[1].sources[0].location == str(tmp_path / "later.bw")
    assert sheet.tracks[1].sources[0].url == "https://x/E1-B.bigwig"
    assert sheet.tracks[0].sources[0].location == "https://x/E1-A.bigwig"


def test_a_written_sheet_reads_back(write, tmp_path):
    path = write(
        "cell,assay,path,url,replicate,unit,group,sha256\n"
        f"E1,A,a.bw,,1,depth,open,{'0' * 64}\nE1,A,{tmp_path}/b.bw,,2,depth,open,\n"
        "E2,A,c.bw,https://x/c.bw,,depth,open,\n"
    )
    sheet = read_sheet(path)
    write_sheet(sheet, tmp_path / "again.csv")
    assert read_sheet(tmp_path / "again.csv").tracks == sheet.tracks
    assert "a.bw" in (tmp_path / "again.csv").read_text()
    assert str(tmp_path) not in (tmp_path / "again.csv").read_text()


def test_a_file_is_of_one_track_and_replicates_have_plain_names(write):
    with pytest.raises(InputError) as caught:
        read_sheet(write("cell,assay,path,replicate\nE1,A,a.bw,\nE2,A,a.bw,\nE3,A,b.bw,../x\n"))
    name, shared = caught.value.problems
    assert "'../x'" in name.found
    assert "E1 A, E2 A" in shared.found


def test_select_keeps_the_order_of_the_sheet(write):
    rows = "E1,A,a.bw\nE1,B,b.bw\nE2,A,c.bw\n"
    sheet = read_sheet(write("cell,assay,path\n" + rows))
    assert sheet.select() == sheet
    assert [t.cell for t in sheet.select(assays=["A"]).tracks] == ["E1", "E2"]
    assert sheet.select(cells=["E2", "E1"], assays=["B"]).cells == ("E1",)
    with pytest.raises(InputError, match=r"unknown cell E9(.|\n)*unknown assay Z"):
        sheet.select(["E9"], ["A", "Z"])
