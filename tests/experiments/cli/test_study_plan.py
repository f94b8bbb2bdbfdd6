"""What a study will take is told before it begins."""

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.training import planning
from epi2expr_jax.training.splits import make_folds
from experiments import study
from experiments.cli.study_plan import plan
from tests.experiments.test_study import reader

TEXT = """
[store]
tracks = "tracks.csv"
expression = "rpkm.tsv"
genes = "{out}/files/gencode.v10.annotation.gtf.gz"
[train.small]
model = "promoter_cnn"
epochs = 3
[train.wide]
model = "cnn"
cv = "chromoformer_4"
assays = "each"
"""


@pytest.fixture
def mine(tmp_path):
    return reader(tmp_path, TEXT)


def test_the_plan_counts_cells_assays_folds_and_models(mine):
    made = mine()
    lines = plan(made, study.check(made))
    assert lines[0] == "  2 cells, 1 assay, 2 tracks"
    assert lines[1].startswith("  to download: 2 files, about 1 GB")
    assert "2 cells × 1 assay set × 5 folds × 1 seed = 10 models of promoter_cnn" in lines[2]
    # Of 40 chromosomes one is blind; of the others 27 to 33 % validate.
    assert "at most 3 epochs, 380,000 gene-steps if there are 19,000 genes" in lines[3]
    assert "× 8 folds × 1 seed = 16 models of cnn" in lines[5]
    # 16 models × 100 epochs × three of four groups of 19,000 genes, at 490,900 a second
    assert "23,000,000 gene-steps if there are 19,000 genes; 0.013 h of one H100" in lines[6]
    made = mine(TEXT.replace("chromoformer_4", "chromosomes_2"))
    with pytest.raises(InputError, match=r"cv|fold"):
        plan(made, study.check(made))
    counts = {f"chr{number}": 100 for number in range(1, 23)}
    for scheme, folds in (("chromoformer_4", 8), ("chromosomes_7", 7), ("monte_carlo_5", 5)):
        assert len(make_folds(scheme, counts, blind=["chr3"], seed=0)) == folds


def test_the_plan_counts_what_has_tracks_and_the_genes_of_the_table(mine, tmp_path):
    """As the training does, which leaves out what lacks a track, unless it is asked for by name."""
    text = TEXT.replace('assays = "each"', 'assays = ["each", "all"]\nseeds = 2')
    (tmp_path / "rpkm.tsv").write_text("gene\tE003\tE004\n" + "ENSG1\t1\t2\n" * 700)
    made = mine(text)
    with (tmp_path / "tracks.csv").open("a") as sheet:
        sheet.write("E003,H3K4me3,https://example.org/c.bigwig,pvalue\n")
    lines = plan(made, study.check(made))
    small, lacking, steps = lines[2:5]
    assert "3 pairs of a cell and an assay set × 5 folds × 1 seed = 15 models" in small
    assert lacking.endswith("1 of 4 combinations of a cell and an assay set, since there is no "
                            "track E004-H3K4me3")  # fmt: skip
    assert "if there are 700 genes, the rows of rpkm.tsv" in steps
    assert "4 pairs of a cell and an assay set × 8 folds × 2 seeds = 64 models" in lines[6]
    named = mine(text.replace("[train.small]", '[train.small]\nassays = "H3K4me3"'))
    with pytest.raises(InputError, match="no track E004-H3K4me3"):
        plan(named, study.check(named))


def test_the_plan_says_how_long_it_takes_here_and_what_takes_less(mine, monkeypatch):
    # On these two cores, when quiet (docs/decisions/0088).
    monkeypatch.setattr(planning, "_matmul_flops", lambda: 240e9)
    lines = plan(made := mine(), study.check(made))
    assert lines[4].strip().endswith("an estimate: at most about 6 min")
    brief, less = lines[7:9]
    assert "about 1.7 h if models stop after 22 epochs; at most about 7.6 h" in brief
    assert less.strip() == (
        "for a quicker first look, in [train.wide] one of: width = 0.25 (at most 56 min), "
        "epochs = 20 (at most "
        "1.5 h); scores may be lower, or less sure"
    )
    monkeypatch.setattr(planning, "_matmul_flops", lambda: 2400e9)
    lines = plan(made, study.check(made))
    assert "at most about 46 min" in lines[7]
    narrow = mine(TEXT.replace('model = "cnn"', 'model = "cnn"\nwidth = 0.25\nepochs = 9'))
    assert "quicker" not in "".join(plan(narrow, study.check(narrow)))
    monkeypatch.setattr(planning, "_matmul_flops", lambda: 2.4e9)
    for width, epochs, advised in (
        (0.2500001, 22, False), (0.26, 20, False), (0.3, 20, True), (1e300, 20, True)
    ):  # fmt: skip
        near = f'model = "cnn"\nwidth = {width}\nepochs = {epochs}'
        told = "".join(plan(made := mine(TEXT.replace('model = "cnn"', near)), study.check(made)))
        told = told.partition("models of cnn")[2]
        assert ("one of: width = 0.25 (at most " in told, "epochs = 20" in told) == (advised, False)
        assert "nan" not in told


def test_a_pool_trains_on_the_genes_of_each_of_its_cells(mine):
    pooled = mine(TEXT.replace("epochs = 3", 'epochs = 3\ncells = "pool"'))
    lines = plan(pooled, study.check(pooled))
    assert "1 cell × 1 assay set × 5 folds × 1 seed = 5 models" in lines[2]
    assert "380,000 gene-steps" in lines[3]  # as two cells, each with five models of its own


def test_the_plan_takes_what_flags_take_and_says_what_cannot_be_made(mine):
    files = f'blacklist = "{"b" * 300}"'
    made = mine(TEXT.replace("[store]", f'[store]\nwindow_bp = "0x2710"\n{files}'))
    assert "380,000 gene-steps if there are 19,000 genes" in plan(made, study.check(made))[3]
    made = mine(TEXT.replace("epochs = 3", "epochs = 3\nwidth = 1e300"))
    assert "at most about inf days" in plan(made, study.check(made))[4]


def refused(made, built=False):
    """What the plan refuses: table and rest of where, what was found."""
    with pytest.raises(InputError) as caught:
        plan(made, study.check(made), built)
    return [(one.where.rpartition("mine.toml, ")[2], one.found) for one in caught.value.problems]


def test_folds_are_counted_as_training_takes_them(mine):
    for folds, told in (("all,draw1", "5 folds"), ("draw2,draw2", "1 fold"), ("draw4", "1 fold")):
        made = mine(TEXT.replace("epochs = 3", f'epochs = 3\nfolds = "{folds}"'))
        assert f"× {told} × 1 seed" in plan(made, study.check(made))[2]


def test_what_cannot_be_is_refused_by_the_plan_all_at_once(mine):
    """Windows, models, names of folds: known before there is a genome."""
    text = TEXT.replace("epochs = 3", 'width = 0\ncells = "E009"\nfolds = "draw6"')
    text = text.replace('"chromoformer_4"', '"chromosomes_2"').replace("tracks.csv", "later.csv")
    select = '[select]\ncv = "chromosomes_3"\nfolds = ["fold1", "fold4"]\n'
    assert refused(mine(text + select)) == [
        ("[train.small], --folds", "unknown fold draw6"),
        ("[train.wide], --cv", "chromosomes_2"),
        ("[select], --folds", "unknown fold fold4"),
    ]
    widths = TEXT.replace("epochs = 3", "width = 0").replace('"cnn"', '"cnn"\nassays = "DNA"')
    assert refused(mine(widths.replace('\nassays = "each"', ""))) == [
        ("[train.small], promoter_cnn", "width=0.0"),
        ("[train.wide], --assays", "unknown assay DNA"),
    ]
    for bp, found in ((0, "window_bp=0, bin_bp=25"), (10_001, "window_bp=10001 with bin_bp=25")):
        made = mine(TEXT.replace("[store]", f"[store]\nwindow_bp = {bp}"))
        assert refused(made) == [("[store], window", found)]
    ((where, found),) = refused(mine(TEXT.replace("[store]", "[store]\nwindow_bp = 8000")))
    assert where == "[train.wide], store window"
    assert found.startswith("8000 bp in bins of 25 bp, read by a model of 10000 bp")
    # No assembly has so many chromosomes; whether one has 50 nobody knows yet.
    text = TEXT.replace("chromoformer_4", "chromosomes_9999999")
    assert refused(mine(text)) == [("[train.wide], --cv", "chromosomes_9999999")]
    plan(made := mine(TEXT.replace("chromoformer_4", "chromosomes_50")), study.check(made))


@pytest.mark.parametrize(
    ("store", "small", "where", "found"),
    [
        ("", 'blind = "chr99"', "[train.small], --blind", "unknown chromosome chr99"),
        ("", 'blind = "chrX"', "[train.small], fold draw1", "no genes for its test part"),
        (
            "",
            'cv = "chromosomes_23"',
            "[train.small], --cv=chromosomes_23",
            "23 groups for genes on",
        ),
        ('blind = "chr3,chr98"', "", "[store], --blind", "chr98"),
        ('chromosomes = "chr1,chr97"', "", "[store], --chromosomes", "unknown chromosomes chr97"),
        ('chromosomes = "1,3,7"', 'cv = "chromosomes_4"', "[train.small], --cv", "4 groups for"),
        ("", 'blind = "3,chr20"', "", ""),
        ('chromosomes = "all"', 'cv = "chromosomes_24"', "", ""),
    ],
)
def test_chromosomes_are_those_of_the_assembly_where_it_is_known(
    mine, tmp_path, store, small, where, found
):
    text = TEXT.replace("epochs = 3", small).replace("chromoformer_4", "monte_carlo_5")
    text = text.replace("[store]", f"[store]\n{store}")
    comments = text.replace("{out}/files/gencode.v10.annotation.gtf.gz", "some.gtf")
    (tmp_path / "some.gtf").write_text("##description: GRCh38, version 44\n")
    for known in (text.replace("[store]", '[store]\nassembly = "hg19"'), comments):
        if not found:
            plan(made := mine(known), study.check(made))
        else:
            first, *_ = refused(mine(known))
            assert first[0].startswith(where)
            assert found in first[1]
    # Else it stays silent, also where the file of lengths is yet to be made.
    for unknown in (text, text.replace("[store]", '[store]\nassembly = "{out}/hg19.sizes"')):
        plan(made := mine(unknown), study.check(made))


def test_published_groups_are_refused_for_other_genomes(mine, tmp_path):
    (tmp_path / "yeast.sizes").write_text("chrI\t230218\nchrII\t813184\nchrIX\t439888\n")
    text = TEXT.replace("[store]", '[store]\nassembly = "yeast.sizes"\nblind = "I"')
    assert refused(mine(text))[-1] == (
        "[train.wide], --cv=chromoformer_4", "genes on chrI, chrII, chrIX"
    )  # fmt: skip


def test_that_some_genes_alone_are_tested_is_told(mine, small_store, tmp_path):
    text = TEXT.replace("[store]", '[store]\nassembly = "hg19"')
    lines = plan(made := mine(text), study.check(made))
    said = [line for line in lines if "scores will be of" in line]
    assert said == [
        "    scores will be of the genes on chr3, chr7, chr20 alone; "
        'cv = "chromosomes_5" tests on all genes, and takes about as long'
    ]  # of the first training, not of the second, which tests on all
    place = tmp_path / "mine/store.zarr"
    place.parent.mkdir()
    place.symlink_to(small_store.path)
    text = text.replace('model = "cnn"\ncv = "chromoformer_4"', 'model = "promoter_cnn"')
    text = text.replace('assays = "each"', 'cv = "chromosomes_3"')
    lines = plan(made := mine(text), study.check(made), built=True)
    (said,) = [line for line in lines if "scores will be of" in line]
    blind = small_store.genes.chrom.isin(small_store.manifest.blind).sum()
    assert f"will be of {blind:,} of the {len(small_store.genes):,} genes: those on " in said


def test_the_folds_of_a_store_that_is_there_are_those_of_its_genes(mine, small_store, tmp_path):
    made = tmp_path / "mine/store.zarr"
    made.parent.mkdir()
    made.symlink_to(small_store.path)
    text = TEXT.replace("epochs = 3", 'cv = "chromosomes_30"')
    text = text.replace('model = "cnn"\ncv = "chromoformer_4"', 'model = "promoter_cnn"')
    named = mine(text.replace('assays = "each"', 'cv = "chromosomes_3"\ntest_genes = "nobody"'))
    told = refused(named, built=True)
    assert [where for where, _ in told] == [
        "[train.small], --cv=chromosomes_30", "[train.wide], --test_genes"
    ]  # fmt: skip
    plan(named, study.check(named))  # a store of other flags says nothing of the one to build


def test_a_table_without_the_cells_is_refused_and_an_assumed_unit_said(mine, tmp_path):
    made = mine(TEXT.replace('"rpkm.tsv"', '"table.tsv"'))
    (tmp_path / "table.tsv").write_text("gene\tE003\tE004\nENSG1\t1\t2\n")
    assert "unit of expression: RPKM, assumed" in plan(made, study.check(made))[-1]
    (tmp_path / "table.tsv").write_text("gene\tE003\tE009\nENSG1\t1\t2\n")
    with pytest.raises(InputError, match="no column E004"):
        plan(made, study.check(made))
    (tmp_path / "table.tsv").unlink()
    sheet = (tmp_path / "tracks.csv").read_text()
    (tmp_path / "tracks.csv").write_text(sheet.replace(",unit", "").replace(",pvalue", ""))
    assert plan(made, study.check(made))[-1].startswith("  no unit given of DNase: read as pvalue")


def test_a_store_of_files_that_changed_says_nothing_of_the_one_to_build(mine, tmp_path):
    (tmp_path / "rpkm.tsv").write_text("gene\tE003\tE004\nENSG1\t1\t2\n")
    journal = study._Journal(made := mine())
    (step,) = [step for step in made.steps if step.name == "store"]
    journal.end(step)
    assert study._built(made)
    (tmp_path / "rpkm.tsv").write_text("gene\tE003\tE004\nENSG1\t1\t2\nENSG2\t1\t2\n")
    assert not study._built(made)


def test_the_plan_counts_the_annotation_and_other_files(mine, tmp_path):
    """To download, at hand, with the transcripts that contacts need, or pyensembl's."""
    sources = '[download]\nsources = ["rpkm", "gencode_v10"]\n'

    def told(text):
        made = mine(text)
        return [line for line in plan(made, study.check(made))[1:] if "models" not in line]

    first, others, genes, *_ = told(TEXT + sources)
    assert "2 files" in first
    named = "57epigenomes.RPKM.pc.gz, gencode.v10.annotation.gtf.gz"
    assert others == f"  to download first: 2 smaller files ({named})"
    name = "  genes: gencode.v10.annotation.gtf.gz"
    assert genes == f"{name}, about 50 MB to download, read once in about 20 s"
    there = tmp_path / "mine/files/gencode.v10.annotation.gtf.gz"
    there.parent.mkdir(parents=True)
    there.write_bytes(bytes(10_000_000))
    contacts = TEXT.replace("[store]", '[store]\ninteractions = "c.bedpe"')
    _, others, genes, *_ = told(contacts + sources)
    assert others == "  to download first: 1 smaller file (57epigenomes.RPKM.pc.gz)"
    assert genes == f"{name}, 10 MB, read once in about 14 s"
    assert "pyensembl install" in told(TEXT.replace("\ngenes =", "\n# genes ="))[1]
    elsewhere = told(TEXT.replace("{out}/files", "elsewhere"))  # nothing is known of it
    assert not [line for line in elsewhere if line.startswith("  genes:")]
