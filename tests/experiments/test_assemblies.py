"""Other genomes than hg19, from files to a ranking by flags alone."""

import pandas as pd
import pytest

from data_prep.simulate import simulate
from epi2expr_jax.study.evaluate import evaluate


@pytest.mark.trial
@pytest.mark.usefixtures("worker_here")
@pytest.mark.parametrize(("assembly", "held_out"), [("mm10", "chr2"), ("hg38", "chr4")])
def test_from_sheet_to_ranking(tmp_path, assembly, held_out, trial_size, program):
    if assembly not in trial_size(["mm10"], ["mm10", "hg38"]):
        pytest.skip("in make trials")
    data, store, run = (tmp_path / name for name in ("data", "store.zarr", "run"))
    simulate(data, genes=60, cells=1, assays=2, assembly=assembly, chromosomes=5)
    for command in (
        [
            "data_prep.build_store",
            f"--tracks={data}/tracks.csv",
            f"--store={store}",
            f"--expression={data}/RPKM.pc.gz",
            f"--genes={data}/genes.gtf.gz",
            f"--assembly={assembly}",
            "--chromosomes=chr1,chr2,chr3,chr4,chr5",
            f"--blind={held_out}",
            "--workers=1",
        ],
        [
            "experiments.train",
            f"--store={store}",
            f"--run={run}",
            "--model=promoter_cnn",
            "--width=0.02",
            "--epochs=1",
            "--batch_size=16",
            "--cv=chromosomes_3",
        ],
    ):
        done = program(*command)
        assert done.returncode == 0, done.stderr
    ranking = evaluate(run)
    assert ranking.assay.nunique() == 2
    predictions = pd.read_parquet(run / "predictions.parquet")
    assert set(predictions.chrom) == {f"chr{i}" for i in range(1, 6)}
