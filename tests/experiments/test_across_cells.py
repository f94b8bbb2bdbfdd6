"""Models tested in the cells they were not trained on."""

import json
import shutil

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.study import tables
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.train import train
from experiments.across_cells import across_cells, format_summary
from experiments.verify import verify


def test_pools_are_tested_where_they_were_not_trained(small_store, request_for, tmp_path):
    cells = small_store.manifest.cells
    request = request_for(small_store, cells=["leave_one_out", "pool"], assays=["all"])
    train(request, tmp_path / "run")
    evaluate(tmp_path / "run")
    predictions = pd.read_parquet(tmp_path / "run" / "predictions.parquet")
    # Two cells: a pool of the others is the other cell, which is tested in itself.
    tested = predictions.groupby("trained_on").cell.unique().map(sorted).to_dict()
    assert tested == {
        cells[0]: [cells[0]],
        cells[1]: [cells[1]],
        "+".join(cells): [f"{cell} by {'+'.join(cells)}" for cell in sorted(cells)],
    }
    assert all(claim.holds for claim in verify(tmp_path / "run"))
    found = across_cells(tmp_path / "run", between=cells)
    table = found[tables.ACROSS]
    assert len(table) == 3 * 2
    assert table.groupby("trained_on").seen.sum().to_dict() == {
        cells[0]: 1, cells[1]: 1, "+".join(cells): 2,
    }  # fmt: skip
    written = pd.read_csv(tmp_path / "run" / "across_cells.csv")
    np.testing.assert_allclose(written.pearson, table.pearson, rtol=1e-5)


def test_the_summary_sets_own_cells_beside_the_others_best_assay_first():
    columns = ["assays", "seen", "pearson", "baseline", "deviation"]
    rows = [
        ("DNase", True, 0.9, 0.5, 0.3),
        ("DNase", False, 0.4, 0.6, 0.1),
        ("DNase", False, 0.2, 0.8, 0.2),
        ("H3K27ac", True, 0.7, 0.5, 0.3),
        ("H3K27ac", False, 0.5, 0.7, 0.25),
        ("H2A.Z", False, 0.1, 0.7, 0.05),
    ]
    _, *lines = format_summary(pd.DataFrame(rows, columns=columns)).splitlines()
    assert [line.split() for line in lines] == [
        ["H3K27ac", "0.700", "0.500", "0.700", "0.250"],
        ["DNase", "0.900", "0.300", "0.700", "0.150"],
        ["H2A.Z", "none", "0.100", "0.700", "0.050"],
    ]


def test_what_differs_between_two_cells(small_store, finished, tmp_path):
    run_dir = shutil.copytree(finished, tmp_path / "run")
    cells, genes = small_store.manifest.cells, small_store.genes
    table = across_cells(run_dir, between=cells)[tables.CHANGES]
    assert len(table) == 8  # three assays and all of them, trained in one cell or the other
    assert [claim.name for claim in verify(run_dir) if claim.holds is False] == []
    # The rival, from the store: arcsinh of -log10 p within 1 kb, least squares on training genes.
    assay = small_store.manifest.assays[0]
    row = table[(table.assays == assay) & (table.trained_on == cells[0])].iloc[0]
    signal = small_store.read_signal(cells, [assay])[:, 0, :, 40:80]
    means = np.arcsinh(signal.astype(float)).mean(axis=2)
    one, other = np.log2(small_store.read_expression(cells) + 1)
    by_chrom, sizes = [], []
    for fold in json.loads((run_dir / "splits.json").read_text())["folds"]:
        train = genes.chrom.isin(fold["train"])
        slope, start = np.polyfit((means[0] - means[1])[train], (one - other)[train], 1)
        for chrom in fold["test"]:
            own = (genes.chrom == chrom).to_numpy()
            told = start + slope * (means[0] - means[1])[own]
            by_chrom.append(np.corrcoef(told, (one - other)[own])[0, 1])
            sizes.append(own.sum())
    used = np.array(sizes) >= 3
    expected = np.average(np.array(by_chrom)[used], weights=np.array(sizes)[used])
    assert row.promoter == pytest.approx(expected, abs=1e-4)
    with pytest.raises(InputError, match=r"found E\d+, E\d+; expected expression in two"):
        across_cells(run_dir, between=[cells[0]] * 2)
    spoilt = table.assign(less=table.less + 0.1)
    spoilt.to_csv(run_dir / "between_cells.csv", index=False)
    broken = [claim.name for claim in verify(run_dir) if claim.holds is False]
    assert broken == ["results", "across_cells"]
