import numpy as np
import pandas as pd
import pyBigWig
import pytest

from experiments.benchmarks import bigwig


@pytest.mark.peers
def test_readers_of_bigwigs_give_the_same_numbers_and_a_table(tmp_path, monkeypatch):
    pytest.importorskip("pybigtools")
    for name, small in (
        ("_CHROMOSOMES", {"chr1": 600_000, "chr2": 400_000}),
        ("_WINDOWS", 40),
        ("_WINDOW_BP", (2_000, 10_000)),
        ("_RUN_BP", (60, 30)),
        ("_TRACKS", 12),
        ("_GENES", 100),
    ):
        monkeypatch.setattr(bigwig, name, small)
    found = bigwig.windows(1, tmp_path / "out")  # the sides are compared on the way
    assert set(found["windows_per_s"]) == {"ours", "list", "stats_exact", "pybigtools"}
    table = pd.read_csv(tmp_path / "out" / "windows.csv")
    assert table.round(4).groupby("against").value.apply(list).to_dict() == {
        "workers": [1, 2],
        "million runs": [0.0167, 0.0333],
        "window kb": [2, 10],
    }
    assert (table.windows_per_s > 0).all()
    assert found["two_workers_to_one"] > 0
    assert bigwig.binning(1)["mb_per_s"]["ours"] > 0


@pytest.mark.peers
def test_a_made_up_track_is_runs_of_the_asked_length(tmp_path):
    pytest.importorskip("pybigtools")
    sizes = {"chr1": 400_000, "chr2": 200_000}
    for name, mean_run_bp, seed in (("a", 60, 0), ("again", 60, 0), ("b", 60, 1), ("long", 240, 0)):
        bigwig.write_track(tmp_path / f"{name}.bw", sizes, mean_run_bp, seed)
    lengths = {}
    for name in ("a", "long"):
        with pyBigWig.open(str(tmp_path / f"{name}.bw")) as file:
            assert file.chroms() == sizes
            starts, ends, values = map(np.array, zip(*file.intervals("chr1"), strict=True))
        assert starts[0] == 1000
        assert 395_000 < ends[-1] < 399_000
        np.testing.assert_array_equal(starts[1:], ends[:-1])
        assert (values >= 0).all()
        lengths[name] = (ends - starts).mean()
    assert lengths["a"] == pytest.approx(60, rel=0.1)
    assert lengths["long"] == pytest.approx(240, rel=0.1)
    contents = {name: (tmp_path / f"{name}.bw").read_bytes() for name in ("a", "again", "b")}
    assert contents["a"] == contents["again"] != contents["b"]
