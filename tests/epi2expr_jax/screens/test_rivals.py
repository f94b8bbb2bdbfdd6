"""Simple scores of pairs, computed here by hand."""

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.screens.rivals import reference_score, rivals


@pytest.fixture
def table():
    return pd.DataFrame(
        {
            "distance": [500.0, 4000.0, 0.0],
            "H3K27ac.RPM.expandedRegion": [4.0, 9.0, 1.0],
            "DHS.RPM": [1.0, 4.0, 0.0],
            "hic": [0.5, np.nan, 2.0],
            "other": [0.1, 0.2, 0.3],
        }
    )


def test_signals_activity_and_distance(table):
    scores, notes = rivals(table)
    expected = {
        "distance": [-500, -4000, 0],
        "H3K27ac": [4, 9, 1],
        "DHS": [1, 4, 0],
        "H3K27ac / distance": [4 / 500, 9 / 4000, 1],
        "activity": [2, 6, 0],
        "activity × distance": [2 * 1000**-1.024, 6 * 4000**-1.024, 0],
    }
    assert list(scores) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(scores[name], values, err_msg=name)
    assert "geometric mean of H3K27ac and DHS" in notes[0]
    assert reference_score(scores) == "activity × distance"


def test_contact_and_other_columns(table):
    scores, notes = rivals(table, contact="hic", others=["other"], activity=["DHS.RPM"], gamma=2.0)
    np.testing.assert_allclose(scores["contact"], [0.5, 0.5, 2])
    np.testing.assert_allclose(scores["activity × contact"], [0.5, 2, 0])
    np.testing.assert_allclose(scores["activity × distance"], [1e-6, 4 / 4000**2, 0])
    np.testing.assert_allclose(scores["other"], [0.1, 0.2, 0.3])
    assert "1 pairs lack hic: they count as 0.5" in notes


def test_a_mark_with_two_columns_is_scored_twice(table):
    scores, _ = rivals(table.assign(**{"DHS.RPM.expandedRegion": [0.0, 0.0, 9.0]}))
    np.testing.assert_allclose(scores["DHS"], [1, 4, 0])
    np.testing.assert_allclose(scores["DHS.RPM.expandedRegion"], [0, 0, 9])
    np.testing.assert_allclose(scores["activity"], [2, 6, 0])


def test_without_signal_there_is_distance(table):
    scores, _ = rivals(table[["distance"]])
    assert list(scores) == ["distance"]
    assert reference_score(scores) == "distance"


def test_columns_that_make_no_sense_are_refused(table):
    with pytest.raises(InputError, match="unknown column hci"):
        rivals(table, contact="hci")
    with pytest.raises(InputError, match="name of another score"):
        rivals(table, others=["distance"])
    with pytest.raises(InputError, match="0 or more, finite"):
        rivals(table, gamma=float("nan"))
    with pytest.raises(InputError, match="column other"):
        rivals(table.assign(other=["a", "b", "c"]), others=["other"])
    with pytest.raises(InputError, match="no number"):
        rivals(table.assign(other=np.nan), others=["other"])
