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
    text = text.replace("[store]", '[store]\nexpression = "rpkm.tsv"')
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
        "for a quicker first look, one of: width = 0.25 (at most 56 min), epochs = 20 (at most "
        "1.5 h); scores may be lower, or less sure"
    )
    monkeypatch.setattr(planning, "_matmul_flops", lambda: 2400e9)
    lines = plan(made, study.check(made))
    assert "at most about 46 min" in lines[7]
    narrow = mine(TEXT.replace('model = "cnn"', 'model = "cnn"\nwidth = 0.25\nepochs = 9'))
    assert "quicker" not in "".join(plan(narrow, study.check(narrow)))


def test_a_pool_trains_on_the_genes_of_each_of_its_cells(mine):
    pooled = mine(TEXT.replace("epochs = 3", 'epochs = 3\ncells = "pool"'))
    lines = plan(pooled, study.check(pooled))
    assert "1 cell × 1 assay set × 5 folds × 1 seed = 5 models" in lines[2]
    assert "380,000 gene-steps" in lines[3]  # as two cells, each with five models of its own


def test_the_plan_takes_what_flags_take_and_says_what_cannot_be_made(mine):
    files = f'expression = "rpkm.tsv"\nblacklist = "{"b" * 300}"'
    made = mine(TEXT.replace("[store]", f'[store]\nwindow_bp = "0x2710"\n{files}'))
    assert "380,000 gene-steps if there are 19,000 genes" in plan(made, study.check(made))[3]
    for width, told in ((0, "this model cannot be made: "), (1e300, "at most about inf days")):
        made = mine(TEXT.replace("epochs = 3", f"epochs = 3\nwidth = {width}"))
        assert told in plan(made, study.check(made))[4]


def test_a_table_without_the_cells_is_refused_and_an_assumed_unit_said(mine, tmp_path):
    made = mine(TEXT.replace("[store]", '[store]\nexpression = "table.tsv"'))
    (tmp_path / "table.tsv").write_text("gene\tE003\tE004\nENSG1\t1\t2\n")
    assert "unit of expression: RPKM, assumed" in plan(made, study.check(made))[-1]
    (tmp_path / "table.tsv").write_text("gene\tE003\tE009\nENSG1\t1\t2\n")
    with pytest.raises(InputError, match="no column E004"):
        plan(made, study.check(made))


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
