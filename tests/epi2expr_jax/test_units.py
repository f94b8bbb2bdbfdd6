import subprocess
import sys

import pytest

from epi2expr_jax.inputs.transforms import TRANSFORMS
from epi2expr_jax.units import (
    EXPRESSION_UNITS,
    UNIT_TRANSFORM,
    count,
    log2_of,
    percent,
    transform_of,
    unit_words,
)


@pytest.mark.parametrize(
    ("unit", "transform"),
    [
        ("pvalue", "arcsinh"),
        ("fold_change", "arcsinh"),
        ("depth", "log1p"),
        ("counts", "log1p"),
        ("none", "none"),
    ],
)
def test_the_unit_decides_unless_a_transform_is_asked_for(unit, transform):
    assert transform_of("auto", unit) == transform
    for asked in ("none", "log1p", "arcsinh"):
        assert transform_of(asked, unit) == asked


@pytest.mark.parametrize(
    ("share", "digits", "said"),
    [
        (0.5, 0, "50%"), (0.994, 0, "99%"), (0.999, 0, "99.9%"), (0.99996, 0, "99.996%"),
        (1.0, 0, "100%"), (0.0, 0, "0%"), (0.004, 0, "0.4%"), (0.0002, 1, "0.02%"),
        (0.0004, 0, "0.04%"), (1 - 1e-16, 0, "99.99999999999999%"),
        (1e-300, 0, "1e-298%"), (5e-324, 3, "5e-322%"), (2e-22, 0, "0.00000000000000000002%"),
        (2e-23, 0, "2e-21%"),
    ],
)  # fmt: skip
def test_only_a_whole_is_a_hundred_percent_and_only_nothing_is_none(share, digits, said):
    assert percent(share, digits) == said


@pytest.mark.parametrize(
    ("n", "said"), [(0, "0 genes"), (1, "1 gene"), (2, "2 genes"), (1200, "1,200 genes")]
)
def test_one_of_something_is_no_plural(n, said):
    assert count(n, "gene") == said


def test_every_unit_has_a_transform_that_exists():
    of_deeptools = {"cpm", "rpgc", "bpm", "rpkm", "log2_ratio"}
    assert (
        set(UNIT_TRANSFORM) == {"pvalue", "fold_change", "depth", "counts", "none"} | of_deeptools
    )
    assert set(UNIT_TRANSFORM.values()) <= set(TRANSFORMS)


def test_an_unknown_unit_is_never_guessed():
    with pytest.raises(KeyError, match="RPKM"):
        transform_of("auto", "RPKM")


def test_the_table_cannot_be_changed():
    with pytest.raises(TypeError):
        UNIT_TRANSFORM["depth"] = "none"  # type: ignore[index]


def test_expression_has_words_for_every_unit():
    words = ["RPKM", "FPKM", "TPM", "CPM", "expression", "expression"]
    assert [unit_words(unit) for unit in (*EXPRESSION_UNITS, "")] == words
    assert log2_of("CPM") == "log2(CPM + 1)"
    assert log2_of("none") == log2_of("") == "log2(expression + 1)"


def test_units_are_known_without_jax():
    script = "import sys, epi2expr_jax.units; print('jax' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "False\n", done.stderr
