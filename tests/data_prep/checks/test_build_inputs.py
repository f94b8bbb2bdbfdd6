import pathlib

import numpy as np
import pytest

from data_prep.checks.build_inputs import BuildConfig, define_flags, gather_inputs
from data_prep.checks.track_files import check_files
from data_prep.formats.bin_means import track_means
from epi2expr_jax.errors import InputError, Problems
from epi2expr_jax.genome import WindowSpec
from tests.data_prep.tracks import write_track


def gathered(config):
    problems = Problems()
    return gather_inputs(config, problems), problems.found


def sound(config):
    inputs, problems = gathered(config)
    assert problems == []
    return inputs


def test_inputs_are_joined_in_genome_order_and_the_order_of_cells(study):
    inputs = sound(study.config())
    assert inputs.genes.gene_id.tolist() == ["A", "B", "C", "D"]
    assert inputs.expression.dtype == np.float32
    np.testing.assert_array_equal(inputs.expression, [[1, 2, 3, 4], [10, 20, 30, 40]])
    assert inputs.window == WindowSpec(4000, 100)
    assert inputs.chromosomes == ["chr1", "chr2", "chr3"]
    assert inputs.blind == ["chr3"]  # of Roadmap's chr3, chr7 and chr20
    assert inputs.sheet.cells == ("E1", "E2")
    assert (inputs.contacts, inputs.blacklist) == ({}, None)
    assert set(inputs.left_out.values()) == {0}
    assert inputs.without_expression == []


def test_genes_that_do_not_fit_are_counted(study):
    (study.folder / "rpkm.csv").write_text("g,E1,E2\nA,1,2\nX,1,2\nC,1,NA\nD,1,2\n")
    inputs = sound(study.config(chromosomes="1,2", blind="2"))
    assert inputs.genes.gene_id.tolist() == ["A"]
    assert inputs.left_out == {
        "not in the annotation": 1,
        "on another chromosome": 1,
        "expression missing in a cell": 1,
    }
    assert inputs.without_expression == ["B"]
    assert inputs.blind == ["chr2"]


def test_no_gene_in_common_is_a_problem(study):
    (study.folder / "rpkm.csv").write_text("g,E1,E2\nX,1,2\nY,1,2\n")
    _, (problem,) = gathered(study.config())
    assert problem.kind == "no_genes"
    assert problem.where == f"{study.folder / 'genes.csv'} and {study.folder / 'rpkm.csv'}"
    assert problem.found.startswith("no gene that both have, on chr1, chr2, chr3 (2 not in the")
    assert "check --genes, --expression and --chromosomes" in problem.remedy


def test_expression_must_have_every_cell(study):
    for text, found in (
        ("g,E1\nA,1\n", "no column E2"),
        ("g,E1,E2\nA,1,NA\nB,2,NA\n", "no value for any gene"),
    ):
        (study.folder / "rpkm.csv").write_text(text)
        _, (problem,) = gathered(study.config())
        assert "rpkm.csv" in problem.where
        assert found in problem.found
        assert "E2" in str(problem)


def test_each_problem_has_the_name_of_its_input(study):
    study.sheet(path=["absent.bw", "E1-N.bw", "E2-M.bw"])
    (study.folder / "rpkm.csv").write_text("")
    (study.folder / "genes.csv").write_text("A,chr1\n")
    (study.folder / "black.bed").write_text("chr1 9 5\n")
    inputs, problems = gathered(
        study.config(window_bp=4001, blind="chr88", blacklist=str(study.folder / "black.bed"))
    )
    kinds = ["annotation", "blacklist", "blind", "expression", "missing_file", "window"]
    assert sorted(problem.kind for problem in problems) == kinds
    (blind,) = [problem for problem in problems if problem.kind == "blind"]
    assert (blind.where, blind.found) == ("--blind", "unknown chromosome chr88")
    assert "chr1, chr2, chr3" in blind.expected
    # What is sound is there, to be looked into.
    assert [(track.cell, track.assay) for track in inputs.sheet.tracks] == [
        ("E1", "N"),
        ("E2", "M"),
    ]
    assert inputs.window == WindowSpec(10_000, 25)
    assert len(inputs.genes) == 0


HG38, HG19 = {"chr21": 46_709_983}, {"chr21": 48_129_895}  # UCSC's chrom.sizes


def of_lengths(study, **lengths):
    """Tracks of these lengths; genes that lie on chr21 of several assemblies."""
    for name, sizes in lengths.items():
        write_track(study.folder / f"{name.replace('_', '-')}.bw", sizes, [(*sizes, 0, 9000, 1.0)])
    text = "gene_id,chrom,tss,strand\nA,chr21,3000,+\nB,21,6000,-\n"
    (study.folder / "genes.csv").write_text(text)


def test_the_assembly_is_what_the_tracks_are_of(study):
    of_lengths(study, E1_M=HG38, E1_N={"NC_000021.9": 46_709_983}, E2_M=HG19)
    inputs = sound(study.config(assembly="", chromosomes="21"))
    assert inputs.assembly.name == "hg38"
    assert inputs.genes.gene_id.tolist() == ["A", "B"]
    problems = Problems()
    check_files(inputs, problems)
    (problem,) = problems.found
    assert problem.where.endswith("E2-M.bw")
    assert "another assembly: hg19" in problem.found


def test_tracks_of_no_known_assembly_need_one(study):
    _, (problem,) = gathered(study.config(assembly=""))
    assert "unknown one (E1-M.bw: chr1 of 10,000 bp, chr2 of 5,000 bp" in problem.found
    assert "--assembly=FILE.chrom.sizes" in problem.remedy


def test_genes_of_another_assembly_are_named(study):
    of_lengths(study, E1_M=HG38, E1_N=HG38, E2_M=HG38)
    gtf = study.folder / "genes.gtf"
    record = '21\tx\tgene\t3001\t5000\t.\t+\t.\tgene_id "A"; gene_name "A";\n'
    gtf.write_text("##description: human genome (GRCh37), version 19\n" + record)
    changes = {"genes": str(gtf), "chromosomes": "21"}
    _, (problem,) = gathered(study.config(assembly="", **changes))
    assert "genes of hg19, as its comments say" in problem.found
    assert problem.expected == "genes of hg38"
    for name in ("E1-M", "E1-N", "E2-M"):
        (study.folder / f"{name}.bw").unlink()
    study.sheet(path=[""] * 3, url=[f"http://x/{i}.bw" for i in range(3)])
    assert sound(study.config(assembly="", **changes)).assembly.name == "hg19"


def test_other_names_of_chromosomes_are_those_of_a_table(study):
    path = study.track("E1-N.bw", 2, {"chr1": "LG1", "chr2": "LG2", "chr3": "LG3"}.__getitem__)
    (study.folder / "names.txt").write_text("# a\tb\nLG1\tchr1\nLG2\tchr2\nLG3\tchr3\n")
    inputs = sound(study.config(aliases=str(study.folder / "names.txt")))
    problems = Problems()
    assert len(check_files(inputs, problems)) == 3
    assert problems.found == []
    (track,) = [track for track in inputs.sheet.tracks if track.sources[0].location.endswith(path)]
    means, _ = track_means(track.sources, ["chr1"], [3000], WindowSpec(200, 100))
    assert means.tolist() == [[18, 18]]  # twice 9 around the TSS of A


def test_without_tracks_or_an_assembly_there_are_no_inputs(study):
    inputs, (problem,) = gathered(study.config(assembly="hg1"))
    assert (inputs, problem.kind) == (None, "assembly")
    (study.folder / "tracks.csv").write_text("cell,assay,path\n")
    inputs, (problem,) = gathered(study.config())
    assert (inputs, problem.kind) == (None, "sheet")


def test_contacts_are_linked_and_their_problems_listed_with_the_others(study):
    good = "chr1\t2000\t4000\tchr1\t8000\t8250\tx\t2.5\n"
    bedpe = study.folder / "contacts.bedpe"
    bedpe.write_text(good + "chr1\t5\t9\tchr77\t5\t9\tx\t7\n")
    inputs = sound(study.config(interactions=str(bedpe)))
    for cell in ("E1", "E2"):
        assert inputs.contacts[cell].values.tolist() == [["A", "chr1", 8000, 8250, 2.5]]
        assert inputs.interactions[cell].read == 2
        assert "1 contacts on a chromosome that" in inputs.interactions[cell].summary()
    bedpe.write_text(good + "chr1\t5\t9\tchr1\t5\t9\tx\tnan\n")
    (study.folder / "rpkm.csv").unlink()
    _, problems = gathered(study.config(interactions=str(bedpe)))
    text = "\n".join(map(str, problems))
    for part in ("rpkm.csv", "not finite numbers (nan)"):
        assert part in text
    (study.folder / "one.csv").write_text("cell,path\nE1,contacts.bedpe\n")
    _, problems = gathered(study.config(interactions=str(study.folder / "one.csv")))
    assert any("no contacts of E2" in problem.found for problem in problems)


def test_a_manifest_tells_what_was_asked_for(study):
    (study.folder / "black.bed").write_text("chr1\t0\t9\n")
    study.sheet(unit=["depth", "counts", "depth"], group=["x", "", "x"])
    config = study.config(blacklist=str(study.folder / "black.bed"), min_covered=0.25)
    manifest = sound(config).manifest()
    assert (manifest.window_bp, manifest.bin_bp, manifest.min_covered) == (4000, 100, 0.25)
    assert manifest.chrom_sizes == {"chr1": 10_000, "chr2": 5_000, "chr3": 4_000}
    assert manifest.tracks == [["E1", "M"], ["E1", "N"], ["E2", "M"]]
    assert manifest.units == {"M": "depth", "N": "counts"}
    assert manifest.groups == {"M": "x", "N": ""}
    assert manifest.blacklist["name"] == "black.bed"
    assert sound(config).manifest() == manifest
    (study.folder / "rpkm.csv").write_text("g,E1,E2\nA,1,10\nB,2,20\nC,3,30\nD,4,41\n")
    assert sound(config).manifest().candidates_sha256 != manifest.candidates_sha256


def test_flags_become_a_config(command_line):
    command_line(
        define_flags, "--tracks=t.csv", "--expression=e.gz", "--store=s/", "--bin_bp=50",
        "--min_contact_score=3", "--interactions=c.bedpe", "--noverify",
    )  # fmt: skip
    config = BuildConfig.from_flags()
    given = {"bin_bp": 50, "min_contact_score": 3.0, "interactions": "c.bedpe", "verify": False}
    assert config == BuildConfig("t.csv", "e.gz", "s/", **given)  # flags and fields agree
    assert config.download_folder == pathlib.Path("s.downloads")
    other = BuildConfig("t.csv", "e.gz", "s", downloads="elsewhere")
    assert other.download_folder == pathlib.Path("elsewhere")


def test_missing_flags_are_all_named(command_line):
    command_line(define_flags, "--expression=e.gz")
    with pytest.raises(InputError) as caught:
        BuildConfig.from_flags()
    assert [problem.found for problem in caught.value.problems] == ["no --tracks", "no --store"]
    assert {problem.where for problem in caught.value.problems} == {"command line"}
