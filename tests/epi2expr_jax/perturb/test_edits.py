"""Edits: the formula that each comes to, its name, and what is none."""

import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.perturb.edits import Edit, remove_peak, scale, set_to, shift, swap_with
from epi2expr_jax.perturb.places import promoter

PLACE = promoter()


@pytest.mark.parametrize(
    ("edit", "expected", "source", "name"),
    [
        (scale("DNase", PLACE, 2), 6, "", "DNase promoter x2"),
        (scale("DNase", PLACE, 0.5), 1.5, "", "DNase promoter x0.5"),
        (set_to("DNase", PLACE, 7), 7, "", "DNase promoter = 7"),
        (shift("DNase", PLACE, -200), 5, "shift", "DNase promoter shifted -200 bp"),
        (swap_with("DNase", PLACE, other="K4"), 5, "swap", "DNase promoter from K4"),
        (swap_with("DNase", PLACE, other="K4", cell="E1"), 5, "swap", "DNase promoter from E1 K4"),
        (remove_peak("DNase", PLACE), 5, "background", "DNase promoter without peak"),
    ],
)
def test_what_becomes_of_signal_3_where_the_other_signal_is_5(edit, expected, source, name):
    assert edit.times * 3 + edit.plus + edit.mix * 5 == expected
    assert (edit.source, edit.name, edit.space) == (source, name, "raw")


def test_an_edit_knows_what_it_mixes_in():
    edit = swap_with("DNase", PLACE, other="K4", cell="E1", space="log")
    assert (edit.from_assay, edit.from_cell, edit.space) == ("K4", "E1", "log")
    assert shift("DNase", PLACE, 300).shift_bp == 300
    assert scale("DNase", PLACE, 0.25).factor == 0.25
    assert np.isnan(set_to("DNase", PLACE, 1).factor)


def test_edits_that_are_none_are_refused():
    for factor in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match="a finite number, 0 or more"):
            scale("DNase", PLACE, factor)
    with pytest.raises(InputError, match="name one"):
        swap_with("DNase", PLACE)


def test_every_problem_of_an_edit_is_named_at_once():
    with pytest.raises(InputError) as caught:
        Edit("DNase", PLACE, "odd", times=-1.0, plus=float("nan"), mix=-0.5, space="cube")
    assert [problem.where for problem in caught.value.problems] == ["DNase promoter odd"] * 4
    found = [problem.found for problem in caught.value.problems]
    assert found == ["-1", "nan", "-0.5", "space cube"]
    assert caught.value.problems[3].expected == "raw or log"
