"""Figures of made-up effects hold the numbers that they are given."""

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Arc

from epi2expr_jax.interpret.located import GenePlot
from experiments.figures.altered_marks import (
    distance_figure,
    dose_figure,
    effect_figures,
    gene_figure,
    one_change,
    profile_figure,
)

UNIT = "log2(TPM + 1)"
NONE = pd.DataFrame()  # no two models that predict the same genes


def means(factors=(0.0, 0.5, 1.0), cells=("E003",)):
    """Of two places, the further one twice as strong."""
    rows = [
        (cell, "DNase", place, distance, f"x{factor:g}", factor, (factor - 1) * size)
        for cell in cells
        for place, distance, size in (("-5..-3 kb", -4000.0, 1.0), ("+3..+5 kb", 4000.0, 2.0))
        for factor in factors
    ]
    columns = ["cell", "assays", "place", "distance", "change", "factor", "effect"]
    table = pd.DataFrame(rows, columns=columns)
    return table.assign(
        low=table["effect"] - 0.1, high=table["effect"] + 0.3, mark="DNase", genes=9
    )


def test_one_change_is_the_lowest_factor_or_the_first():
    assert one_change(means())["change"].unique().tolist() == ["x0"]
    others = means().assign(factor=np.nan, change=["= 2", "= 3"] * 3)
    assert one_change(others)["change"].tolist() == ["= 2"] * 3


def test_only_what_varies_is_drawn():
    assert list(effect_figures(means(), UNIT, NONE)) == ["dose", "distance"]
    assert list(effect_figures(means(factors=[0.0]), UNIT, NONE)) == ["distance"]
    one_place = means()[lambda table: table["distance"] > 0]
    assert list(effect_figures(one_place, UNIT, NONE)) == ["dose"]
    assert effect_figures(one_place.assign(factor=np.nan), UNIT, NONE) == {}
    between = means()[["cell", "assays", "mark", "place", "change"]]
    # Of the genes that a pair of models shares, which are fewer than all.
    between = between.assign(r=0.5, lowest=np.arange(6) / 10, highest=0.9, between="seeds", genes=7)
    drawn = effect_figures(one_place, UNIT, between)
    assert list(drawn) == ["dose", "between"]
    (axes,) = drawn["between"].axes
    assert axes.lines[0].get_xdata().tolist() == [0.5]
    (line,) = axes.collections[0].get_segments()
    assert line[:, 0].tolist() == [0.3, 0.9]
    (axes,) = effect_figures(means(), UNIT, between)["between"].axes
    assert [label.get_text() for label in axes.get_yticklabels()][-1] == "E003 DNase, +3..+5 kb"


def test_a_dose_is_a_line_a_place_the_strongest_first():
    figure = dose_figure(means(cells=("E003", "E116")), UNIT)
    assert figure.get_supylabel() == "change of log2(TPM + 1)"
    assert [panel.get_title() for panel in figure.axes] == ["E003 DNase", "E116 DNase"]
    strong, weak, zero = figure.axes[0].lines
    assert (strong.get_label(), weak.get_label()) == ("+3..+5 kb", "-5..-3 kb")
    assert strong.get_xydata().tolist() == [[0, -2], [0.5, -1], [1, 0]]
    assert weak.get_ydata().tolist() == [-1, -0.5, 0]
    assert set(zero.get_ydata()) == {0}
    band = figure.axes[0].collections[0].get_datalim(figure.axes[0].transData)
    assert (band.y0, band.y1) == pytest.approx((-2.1, 0.3))


def test_distances_are_in_kb_with_their_intervals():
    (axes,) = distance_figure(means(factors=[0.0]), UNIT).axes
    ((line, _, (bars,)),) = axes.containers
    assert line.get_xydata().tolist() == [[-4, -1], [4, -2]]
    ends = [segment[:, 1] for segment in bars.get_segments()]
    np.testing.assert_allclose(ends, [[-1.1, -0.7], [-2.1, -1.7]])
    assert axes.get_ylabel() == "effect of x0, log2(TPM + 1)"
    assert axes.figure.legends[0].get_texts()[0].get_text() == "E003 DNase"


def track(contacts):
    gene = {"gene_id": "ENSG1", "name": "ABC1", "chrom": "chr1", "tss": 1234567, "strand": "-"}
    edits = pd.DataFrame(
        {
            "start": [-2000, 1000],
            "end": [-1000, 2000],
            "place": ["a", "b"],
            "change": "x0",
            "effect": [-0.5, 0.25],
            "low": [-0.75, np.nan],
            "high": [-0.25, np.nan],
        }
    )
    return GenePlot(
        gene=pd.Series(gene),
        title="DNase in E003",
        signal=np.array([1.0, 5.0, 2.0]),
        edges=np.array([-3000, -1000, 1000, 3000]),
        edits=edits,
        contacts=pd.DataFrame(contacts, columns=["start", "end", "score"]),
    )


def test_a_gene_without_contacts_shows_its_signal_and_effects():
    figure = gene_figure(track([]))
    mark, effect = figure.axes
    assert figure.get_suptitle() == "ABC1 (ENSG1), chr1:1,234,567 -"
    signal = next(patch for patch in mark.patches if hasattr(patch, "get_data"))
    assert signal.get_data().values.tolist() == [1, 5, 2]
    assert signal.get_data().edges.tolist() == [-3, -1, 1, 3]
    bars = [(bar.get_x(), bar.get_width(), bar.get_height()) for bar in effect.patches]
    assert bars == [(-2, 1, -0.5), (1, 1, 0.25)]
    (interval,) = effect.collections  # the other effect has none
    assert interval.get_segments()[0].tolist() == [[-1.5, -0.75], [-1.5, -0.25]]


def test_every_contact_is_an_arc_from_the_tss():
    figure = gene_figure(track([(40_000, 42_000, 8.0), (-12_000, -10_000, 4.0)]))
    arcs = [patch for patch in figure.axes[0].patches if isinstance(patch, Arc)]
    assert [arc.get_center()[0] for arc in arcs] == [20.5, -5.5]
    assert [arc.width for arc in arcs] == [41, 11]
    assert [arc.get_linewidth() for arc in arcs] == pytest.approx([2.2, 1.4])
    low, high = figure.axes[0].get_xlim()
    assert low < -12
    assert high > 42


def test_a_profile_is_a_panel_an_assay_the_largest_share_first():
    rows = [
        (f"E003 {assay}", assay, distance, share)
        for assay, size in (("DNase", 0.1), ("H3K4me3", -0.4))
        for distance, share in ((-1000.0, 0.0), (0.0, size), (1000.0, size / 2))
    ]
    table = pd.DataFrame(rows, columns=["model", "assay", "distance", "share"])
    table = table.assign(low=table["share"] - 0.01, high=table["share"] + 0.01)
    figure = profile_figure(table, "log2(RPKM + 1)")
    assert [panel.get_title() for panel in figure.axes] == ["H3K4me3", "DNase"]
    line = figure.axes[0].lines[0]
    assert line.get_xydata().tolist() == [[-1, 0], [0, -0.4], [1, -0.2]]
    assert line.get_label() == "E003"
    assert figure.get_supylabel() == "mean share of a bin, log2(RPKM + 1)"
