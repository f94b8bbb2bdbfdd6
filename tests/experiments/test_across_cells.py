"""Models tested in the cells they were not trained on."""

import numpy as np
import pandas as pd

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
    table = across_cells(tmp_path / "run")
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
    ]
    _, *lines = format_summary(pd.DataFrame(rows, columns=columns)).splitlines()
    assert [line.split() for line in lines] == [
        ["H3K27ac", "0.700", "0.500", "0.700", "0.250"],
        ["DNase", "0.900", "0.300", "0.700", "0.150"],
    ]
