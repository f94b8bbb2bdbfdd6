import numpy as np
import pandas as pd
import pytest

from data_prep.contacts import contact_map
from data_prep.contacts.contact_map import ContactMap, PowerLaw, pairs_in_reach
from epi2expr_jax.errors import InputError

pytest.importorskip("cooler")
from tests.data_prep.contact_maps import MASKED, write_cool

SIZES = {"chr1": 1_003_000, "chr2": 250_000}
BIN = 5_000


def some_pairs(reach, least=0):
    random = np.random.default_rng(1)
    chrom = np.repeat(list(SIZES), [60, 20])
    start = np.array([random.integers(0, SIZES[name] - 2_000) for name in chrom])
    elements = pd.DataFrame({"chrom": chrom, "start": start, "end": start + 1_501})
    tss = pd.DataFrame({"chrom": chrom, "tss": (start * 7 + 11) % 240_000})
    return elements, tss, pairs_in_reach(elements, tss, least, reach)


def test_pairs_are_all_that_lie_in_reach_on_a_chromosome():
    elements, tss, pairs = some_pairs(80_000, 3_000)
    expected = set()
    for chrom, at in tss.itertuples(index=False):
        for where, start, end in elements.itertuples(index=False):
            if where == chrom and 3_000 <= abs((start + end) // 2 - at) <= 80_000:
                expected.add((chrom, at, at + 1, where, start, end))
    assert len(pairs) == len(expected) > 100
    assert set(pairs.iloc[:, :6].itertuples(index=False, name=None)) == expected


@pytest.mark.parametrize("block", [2_000, 7])
def test_scores_are_those_of_the_whole_matrix(tmp_path, monkeypatch, block):
    monkeypatch.setattr(contact_map, "_BLOCK", block)
    said = write_cool(tmp_path / "map.cool", {"1": SIZES["chr1"], "2": SIZES["chr2"]}, BIN)
    reach = 100_000
    _, _, pairs = some_pairs(reach)
    found = ContactMap(tmp_path / "map.cool", BIN, SIZES)
    scores = found.scores(pairs, reach)
    distances = np.arange(1, reach // BIN + 2)
    means = [
        np.nanmean(np.concatenate([np.diagonal(part, k) for part in said.values()]))
        for k in distances
    ]
    slope, level = np.polyfit(np.log(distances * BIN), np.log(means), 1)
    assert found.law.gamma == pytest.approx(-slope)
    assert 0.8 < found.law.gamma < 1.3
    at_100_kb = np.exp(level) * 100_000**slope
    masked = 0
    for pair, score in zip(pairs.itertuples(), scores, strict=True):
        i, j = pair.bait_start // BIN, pair.middle // BIN
        expected = said[pair.bait_chrom.removeprefix("chr")][i, j] / at_100_kb
        if i == j or MASKED in (i, j):
            masked += 1
            expected = (max(pair.distance, BIN) / 100_000) ** slope
        assert score == pytest.approx(expected)
    assert masked > 3


def test_distance_alone_is_a_power_law_that_is_1_at_100_kb():
    law = PowerLaw()
    assert law.score(np.array([100_000])) == pytest.approx(1)
    np.testing.assert_allclose(law.score(np.array([20_000, 400_000])), [5**1.024, 4**-1.024])
    assert law.score(np.array([10])) == law.score(np.array([5_000]))


def test_one_map_of_several_is_chosen_and_other_files_are_refused(tmp_path):
    path = tmp_path / "map.mcool"
    for width in (5_000, 10_000):
        write_cool(f"{path}::/resolutions/{width}", SIZES, width)
    assert ContactMap(path, 10_000, SIZES).bin_bp == 10_000
    assert ContactMap(f"{path}::/resolutions/5000", 10_000, SIZES).bin_bp == 5_000
    with pytest.raises(InputError, match="one map in bins of 1000 bp"):
        ContactMap(path, 1_000, SIZES)
    with pytest.raises(InputError, match="other lengths of chr1"):
        ContactMap(path, 5_000, {**SIZES, "chr1": 7})
    with pytest.raises(InputError, match="none of its chromosomes"):
        ContactMap(path, 5_000, {"scaffold": 7})
    (tmp_path / "no.cool").write_text("chr1\t1\t2\n")
    for name in ("no.cool", "absent.cool"):
        with pytest.raises(InputError, match="no readable contact map"):
            ContactMap(tmp_path / name, 5_000, SIZES)


def test_a_damaged_map_is_refused_whatever_hdf5_makes_of_it(tmp_path):
    path = tmp_path / "map.cool"
    write_cool(path, {"chr1": 100_000}, 5_000)
    whole = path.read_bytes()
    heap = whole.index(b"HEAP")  # where HDF5 keeps the names of what is in a file
    for place, bit in ((heap + 10, 8), (heap + 81, 16)):
        damaged = bytearray(whole)
        damaged[place] ^= bit
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="no readable contact map"):
            ContactMap(path, 5_000, {"chr1": 100_000})
