"""Edits: the formula that each comes to, its name, and what is none."""

import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.perturb.edits import (
    KINDS,
    Edit,
    forms,
    parse,
    remove_peak,
    scale,
    set_to,
    shift,
    silence,
    swap_with,
)
from epi2expr_jax.perturb.places import promoter

PLACE = promoter()


@pytest.mark.parametrize(
    ("edit", "expected", "kind", "name"),
    [
        (scale("DNase", PLACE, 2), 6, "scale", "DNase promoter x2"),
        (scale("DNase", PLACE, 0.5), 1.5, "scale", "DNase promoter x0.5"),
        (set_to("DNase", PLACE, 7), 7, "set", "DNase promoter = 7"),
        (shift("DNase", PLACE, -200), 5, "shift", "DNase promoter shifted -200 bp"),
        (swap_with("DNase", PLACE, other="K4"), 5, "swap", "DNase promoter from K4"),
        (swap_with("DNase", PLACE, other="K4", cell="E1"), 5, "swap", "DNase promoter from E1 K4"),
        (remove_peak("DNase", PLACE), 5, "remove_peak", "DNase promoter without peak"),
        (silence("DNase", PLACE), 5, "silence", "DNase promoter silenced"),
    ],
)
def test_what_becomes_of_signal_3_where_the_other_signal_is_5(edit, expected, kind, name):
    assert edit.times * 3 + edit.plus + edit.mix * 5 == expected
    assert (edit.kind, edit.name, edit.space) == (kind, name, "raw")


def test_an_edit_knows_what_it_mixes_in():
    edit = swap_with("DNase", PLACE, other="K4", cell="E1", space="log")
    assert (edit.from_assay, edit.from_cell, edit.space) == ("K4", "E1", "log")
    assert shift("DNase", PLACE, 300).amount == 300
    assert scale("DNase", PLACE, 0.25).factor == 0.25
    assert np.isnan(set_to("DNase", PLACE, 1).factor)


def test_edits_that_are_none_are_refused():
    for factor in (-1.0, float("nan"), float("inf")):
        with pytest.raises(InputError, match=r"a number from 0 to 3\.4e"):
            scale("DNase", PLACE, factor)
    with pytest.raises(InputError, match="name one"):
        swap_with("DNase", PLACE)


def test_every_problem_of_an_edit_is_named_at_once():
    with pytest.raises(InputError) as caught:
        Edit("DNase", PLACE, "scale", "odd", times=-1.0, plus=float("nan"), mix=-0.5, space="cube")
    assert [problem.where for problem in caught.value.problems] == ["DNase promoter odd"] * 4
    found = [problem.found for problem in caught.value.problems]
    assert found == ["-1", "nan", "-0.5", "space cube"]
    assert caught.value.problems[3].expected == "raw or log"


@pytest.mark.parametrize("text", ["set:1e300", "scale:1e39", "shift:1e300", "shift:-3000000000"])
def test_numbers_that_single_precision_or_a_chromosome_cannot_hold_are_refused(text):
    with pytest.raises(InputError):
        parse(text, "DNase", PLACE)


def test_levels_that_are_close_have_labels_of_their_own():
    assert set_to("DNase", PLACE, 1_000_000).change == "= 1000000"
    assert set_to("DNase", PLACE, 1_000_001).change == "= 1000001"


def test_an_unknown_kind_is_refused_by_name():
    with pytest.raises(InputError) as caught:
        Edit("DNase", PLACE, "shifts", "odd", times=0.0, mix=1.0)
    (problem,) = caught.value.problems
    assert (problem.where, problem.found) == ("DNase promoter odd", "kind shifts")
    assert problem.expected == ", ".join(KINDS)
    assert problem.remedy == "did you mean shift?"


@pytest.mark.parametrize(
    ("text", "edit"),
    [
        ("scale:0.1", scale("DNase", PLACE, 0.1)),
        ("remove_peak", remove_peak("DNase", PLACE)),
        ("silence", silence("DNase", PLACE)),
        ("set:2.5", set_to("DNase", PLACE, 2.5)),
        ("shift:-500", shift("DNase", PLACE, -500)),
        ("swap:K4", swap_with("DNase", PLACE, other="K4")),
        ("swap:@E1", swap_with("DNase", PLACE, cell="E1")),
        ("swap:K4@E1", swap_with("DNase", PLACE, other="K4", cell="E1")),
    ],
)
def test_every_kind_is_written_in_its_way(text, edit):
    assert repr(parse(text, "DNase", PLACE)) == repr(edit)  # NaN equals itself there
    assert text.partition(":")[0] in KINDS
    assert parse(text, "DNase", PLACE, "log").space == "log"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("set:much", "set:LEVEL"), ("set", "set:LEVEL"), ("scale:", "scale:FACTOR"),
        ("shift:inf", "shift:BP"), ("swap", "swap:ASSAY"), ("swap:@", "swap:ASSAY"),
        ("remove_peak:3", "remove_peak"), ("blur:3", forms()),
    ],
)  # fmt: skip
def test_what_is_not_written_so_is_refused(text, expected):
    with pytest.raises(InputError) as caught:
        parse(text, "DNase", PLACE)
    (problem,) = caught.value.problems
    assert (problem.where, problem.found) == ("edits", text)
    assert problem.expected.startswith(expected)
