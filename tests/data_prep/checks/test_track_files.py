import hashlib
import shutil

import pyBigWig
import pytest

from data_prep.checks.build_inputs import gather_inputs
from data_prep.checks.track_files import (
    check_files,
    check_track,
    compare_files,
    examine,
    file_warnings,
    present_tracks,
    summary,
)
from epi2expr_jax.errors import Problems
from tests.data_prep.problems import problems_of


@pytest.fixture
def inputs(study):
    """`inputs(**changes)`: of the study, as far as they can be read."""
    return lambda **changes: gather_inputs(study.config(**changes), Problems())


def file_problems(inputs, **asked):
    problems = Problems()
    check_files(inputs, problems, **asked)
    return problems.found


def test_sound_inputs_are_returned_without_a_warning(study, inputs):
    found = examine(study.config())
    assert len(found.genes) == 4
    assert file_problems(found, checksums=True) == file_warnings(found) == []
    assert not (study.folder / "store.zarr").exists()


def test_all_problems_of_all_inputs_are_listed_at_once(study):
    study.sheet(path=["nowhere.bw", "E1-N.bw", "E2-M.bw"])
    (study.folder / "E1-N.bw").write_text("no bigWig")
    config = study.config(
        expression=str(study.folder / "nothing.gz"),
        window_bp=6001,
        chromosomes="chr1,chr77",
        blind="chr88",
    )
    text = "\n".join(map(str, problems_of(examine, config)))
    for part in ("nowhere.bw", "E1-N.bw", "window_bp=6001", "chr77", "chr88", "nothing.gz"):
        assert part in text


def test_a_file_is_looked_into_whatever_its_unit(study):
    study.sheet(unit=["reads", "pvalue", "pvalue"])
    (study.folder / "E1-M.bw").write_text("no bigWig")
    unit, track = problems_of(examine, study.config())
    assert (unit.where, unit.found) == (f"{study.folder / 'tracks.csv'}, line 2", "unit 'reads'")
    assert track.where.endswith("E1-M.bw")


def test_a_summary_names_the_chromosomes_that_are_left_out(study):
    sizes = study.folder / "more.chrom.sizes"
    sizes.write_text("chr1\t10000\nchr2\t5000\nchr3\t4000\nchrX\t9\nchrM\t9\n")
    text = summary(gather_inputs(study.config(assembly=str(sizes)), Problems()))
    assert "chr3 (--chromosomes=autosomes), not chrM, chrX\n" in text


def test_a_summary_says_which_unit_is_taken_where_none_is_given(study, inputs):
    assert "no unit given of M, N: read as pvalue (-log10 of p, tr" in summary(inputs())
    study.sheet(unit=["depth", "depth", "pvalue"])
    assert "no unit given" not in summary(inputs())


def test_bad_tracks_are_told_apart(study):
    first = study.folder / "E1-M.bw"
    whole = first.read_bytes()
    with pyBigWig.open(str(study.folder / "hg38.bw"), "w") as out:
        out.addHeader([("chr1", 248_956_422)])
        out.addEntries(["chr1"], [0], ends=[10], values=[1.0])
    for content, kinds, expected in (
        (b"text", {"no_bigwig"}, "no bigWig"),
        (whole[:-10], {"truncated"}, "truncated"),
        ((study.folder / "hg38.bw").read_bytes(), {"other_assembly", "missing_chromosome"}, "hg38"),
    ):
        first.write_bytes(content)
        problems = problems_of(examine, study.config())
        assert {problem.kind for problem in problems} == kinds
        assert {problem.where for problem in problems} == {str(first)}
        assert expected in "\n".join(map(str, problems))


@pytest.mark.parametrize(("unit", "refused"), [("depth", True), ("pvalue", False), ("none", False)])
def test_a_logarithm_of_negative_signal_is_refused(study, inputs, unit, refused):
    study.track("E1-M.bw", -1.5)
    study.sheet(unit=[unit, "pvalue", unit])
    found = inputs()
    first, second, _ = found.sheet.tracks
    assert problems_of(check_track, second, found) == []
    problems = problems_of(check_track, first, found)
    assert [problem.kind for problem in problems] == ["negative_signal"] * refused
    for problem in problems:
        assert problem.where == str(study.folder / "E1-M.bw")
        assert problem.found == "negative signal (lowest -13.5)"
        assert "in unit depth" in problem.expected
        assert "true unit in the sheet" in problem.remedy


def test_rounding_below_0_is_no_negative_signal(study, inputs):
    study.track("E1-M.bw", -1e-9)
    study.sheet(unit=["depth", "pvalue", "depth"])
    found = inputs()
    assert problems_of(check_track, found.sheet.tracks[0], found) == []


def test_a_track_may_lack_what_is_not_read(study, inputs):
    with pyBigWig.open(str(study.folder / "E1-M.bw"), "w") as out:
        out.addHeader([("1", 10_000)])
        out.addEntries(["1"], [0], ends=[10], values=[1.0])
    found = inputs(chromosomes="chr1", blind="")
    assert problems_of(check_track, found.sheet.tracks[0], found) == []
    (problem,) = problems_of(check_track, found.sheet.tracks[0], inputs())
    assert (problem.kind, problem.found) == ("missing_chromosome", "no chr2, chr3; it has 1")


def test_files_that_are_the_same_are_named_whatever_the_sheet_says(study, inputs):
    other = study.folder / "E2-M.bw"
    other.write_bytes((study.folder / "E1-M.bw").read_bytes())
    found = inputs()
    (problem,) = problems_of(compare_files, found.sheet.tracks)
    assert problem.kind == "same_file"
    assert problem.where == "E1 M (E1-M.bw), E2 M (E2-M.bw)"
    digest = hashlib.sha256(other.read_bytes()).hexdigest()
    assert problem.found == f"the same file (sha256 {digest[:12]}…)"
    assert file_problems(found) == [problem]
    other.unlink()
    assert problems_of(compare_files, found.sheet.tracks) == []
    assert present_tracks(found.sheet.tracks) == list(found.sheet.tracks[:2])


def test_checksums_of_the_sheet_are_compared_if_asked_for(study, inputs):
    # Of a size of its own: files of equal size are read in any case.
    with (study.folder / "E1-M.bw").open("r+b") as file:
        content = file.read()
        file.write(content[-4:])
    digest = hashlib.sha256((study.folder / "E1-M.bw").read_bytes()).hexdigest()
    study.sheet(sha256=["0" * 64, None, None])
    found = inputs()
    assert file_problems(found) == []
    (problem,) = file_problems(found, checksums=True)
    assert (problem.kind, problem.found) == ("checksum", f"sha256 {digest}")
    assert problem.where == str(study.folder / "E1-M.bw")
    assert problem.expected == f"{'0' * 64}, as the track sheet says"
    study.sheet(sha256=[digest, None, None])
    assert file_problems(inputs(), checksums=True) == []


def test_a_build_without_room_is_refused(study, monkeypatch):
    usage = shutil.disk_usage(study.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1))
    assert [problem.kind for problem in problems_of(examine, study.config())] == ["disk"]


def test_tracks_far_away_and_other_spellings_are_warned_of(study, inputs):
    study.track("E1-N.bw", 2, spelling=lambda chrom: chrom.removeprefix("chr"))
    study.sheet(path=["", "E1-N.bw", "E2-M.bw"], url=["https://x.org/far.bw", "", ""])
    far, named = file_warnings(inputs())
    assert (far.kind, far.where) == ("not_downloaded", str(study.folder / "tracks.csv"))
    assert far.found == "1 of 3 tracks not downloaded yet (E1 M)"
    assert (named.kind, named.where) == ("chromosome_names", str(study.folder / "E1-N.bw"))
    assert named.found == "chromosomes named otherwise: 1 for chr1, 2 for chr2, 3 for chr3"


def test_genes_that_only_one_side_has_are_warned_of(study, inputs):
    (study.folder / "rpkm.csv").write_text("g,E1,E2\nA,1,1\nB,1,1\nC,1,1\nX,1,1\n")
    without, unplaced = file_warnings(inputs())
    assert without.kind == "genes_without_expression"
    assert without.found == "1 of 4 genes without expression (D)"
    assert unplaced.kind == "genes_without_annotation"
    assert unplaced.found == "1 genes of the table that the annotation lacks"
    assert unplaced.where == f"{study.folder / 'genes.csv'} and {study.folder / 'rpkm.csv'}"


def test_baits_without_a_tss_are_warned_of_beyond_a_fifth(study, inputs):
    bedpe = study.folder / "contacts.bedpe"
    line = "chr1\t{}\t{}\tchr1\t8000\t8250\tx\t2.5\n"
    good, bad = line.format(2000, 4000), line.format(10, 20)
    bedpe.write_text(good * 4 + bad)
    assert file_warnings(inputs(interactions=str(bedpe))) == []
    bedpe.write_text(good * 3 + bad)
    (problem,) = file_warnings(inputs(interactions=str(bedpe)))
    assert (problem.kind, problem.where) == ("baits_without_tss", "contacts.bedpe")
    assert problem.found == "1 of 4 contacts with a bait that holds no TSS"
    assert problem.expected == "20% of them or fewer"


@pytest.mark.parametrize(
    ("ends", "hidden"),
    [((10_000, 5000, 4000), "100%"), ((7900, 4000, 4000), "99%"), ((2000, 2000, 2000), "")],
)
def test_a_blacklist_of_nearly_everything_is_warned_of(study, inputs, ends, hidden):
    bed = study.folder / "black.bed"
    bed.write_text("".join(f"chr{i}\t0\t{end}\n" for i, end in enumerate(ends, 1)))
    found = file_warnings(inputs(blacklist=str(bed)))
    assert [one.kind for one in found] == (["blacklist_hides_most"] if hidden else [])
    if hidden:
        assert found[0].where == str(bed)
        assert found[0].found == f"a blacklist that touches {hidden} of the bins of all windows"


def test_a_summary_counts_what_a_build_will_hold(study, inputs):
    (study.folder / "rpkm.csv").write_text("g,E1,E2\nA,1,1\nB,1,1\nC,1,1\nX,1,1\n")
    bedpe = study.folder / "contacts.bedpe"
    bedpe.write_text("chr1\t2000\t4000\tchr1\t8000\t8250\tx\t2.5\n")
    assert summary(inputs(interactions=str(bedpe))).splitlines() == [
        "3 tracks: 2 cells x 2 assays, assembly toy",
        "chromosomes: chr1, chr2, chr3 (--chromosomes=autosomes)",
        "3 genes on 2 chromosomes, windows of 4000 bp in bins of 100 bp",
        "no unit given of M, N: read as pvalue (-log10 of p, transform arcsinh); if it is another, "
        "name it in a column unit of the sheet",
        "at most 0 MB on disk",
        "unit of expression: RPKM, as the table says",
        "contacts of E1, E2 (contacts.bedpe): 1 contact read, 1 pair of gene and contact kept, "
        "with 1 region: 1 gene has some, 2 none, mean 0.3 a gene; dropped: none",
        "1 gene left out: not in the annotation (in rpkm.csv, not in genes.csv: X)",
    ]


def test_genes_left_out_are_named_or_how_to_keep_them_is(study, inputs):
    lines = ["g,E1,E2", "A,1,1", "D,1,1", *(f"X{i},1,1" for i in range(60))]
    (study.folder / "rpkm.csv").write_text("\n".join(lines))
    text = summary(inputs(chromosomes="chr1", blind=""))
    assert "not in genes.csv: X0, X1, X2 and 57 more)" in text
    assert "left out: on another chromosome (--chromosomes=all keeps them)" in text
