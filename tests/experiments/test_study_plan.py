"""What a study will take is told before it begins."""

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.training.splits import make_folds
from experiments import study
from experiments.study_plan import plan
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
    assert "at most 3 epochs, 570,000 gene-steps if there are 19,000 genes" in lines[3]
    assert "× 8 folds × 1 seed = 16 models of cnn" in lines[4]
    # 16 models × 100 epochs × 19,000 genes at 770 and 490,900 a second
    work = "30,000,000 gene-steps if there are 19,000 genes: 11 h"
    assert work in lines[5]
    assert "0.017 h of one H100" in lines[5]
    made = mine(TEXT.replace("chromoformer_4", "chromosomes_2"))
    with pytest.raises(InputError, match=r"cv|fold"):
        plan(made, study.check(made))
    counts = {f"chr{number}": 100 for number in range(1, 23)}
    for scheme, folds in (("chromoformer_4", 8), ("chromosomes_7", 7), ("monte_carlo_5", 5)):
        assert len(make_folds(scheme, counts, blind=["chr3"], seed=0)) == folds


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
