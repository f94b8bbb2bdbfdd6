import base64
import itertools
import json

import numpy as np
import pandas as pd
import pytest

from experiments.figures import gene_browser
from experiments.figures.gene_browser import as_script, browser_data, chosen_genes


@pytest.fixture
def predictions():
    """Three genes in two cells by two assays; the error of each gene is 1, -2 and 0."""
    rows = [
        (gene, "chr1", cell, assay, 3.0, 3.0 + error)
        for gene, error in (("a", 1.0), ("b", -2.0), ("c", 0.0))
        for cell in ("E003", "mine")
        for assay in ("DNase", "H3K4me3")
    ]
    columns = ["gene_id", "chrom", "cell", "assays", "observed", "predicted"]
    return pd.DataFrame(rows, columns=columns)


EFFECTS = pd.DataFrame(
    {"gene": ["c", "a", "c"], "cell": "mine", "mark": "DNase", "place": "promoter",
     "change": ["x0", "x0", "x2"], "effect": [0.1, 0.2, -0.7]}
)  # fmt: skip


def test_genes_are_those_named_and_of_the_largest_errors_and_effects(predictions):
    none = pd.DataFrame()
    assert chosen_genes(predictions, none, 2) == ["a", "b"]
    assert chosen_genes(predictions, none, 2, ["c"]) == ["c", "a", "b"]
    assert chosen_genes(predictions, EFFECTS, 1) == ["a", "c"]


def test_without_a_store_there_are_predictions_and_edits(predictions):
    shown = browser_data(["b", "c"], predictions, EFFECTS, None, ["E003", "mine"], ["DNase"])
    assert shown["cells"] == ["E003 H1 stem cells", "mine"]
    first, second = shown["genes"]
    assert (first["predicted"], first["observed"]) == ([[1.0], [1.0]], [3.0, 3.0])
    assert second["edits"] == [[1, "DNase promoter x0", 0.1], [1, "DNase promoter x2", -0.7]]
    assert "marks" not in shown


def test_doses_are_in_order_whatever_their_effects(predictions, monkeypatch):
    monkeypatch.setattr(gene_browser, "MOST_EDITS", 5)
    doses = (2.0, 0.0, 0.5, 0.25)
    rows = [(place, dose, sign * (dose - 1)) for place, sign in (("distal", -1), ("promoter", 2))
            for dose in doses]  # fmt: skip
    effects = pd.DataFrame(rows, columns=["place", "factor", "effect"])
    effects = effects.assign(gene="c", cell="mine", mark="DNase", assays="DNase")
    effects["change"] = [f"x{dose:g}" for dose in effects["factor"]]
    shown = browser_data(["c"], predictions, effects, None, ["mine"], ["DNase"])
    assert [edit[1] for edit in shown["genes"][0]["edits"]] == [
        "DNase distal x0", "DNase distal x2", "DNase promoter x0", "DNase promoter x0.25",
        "DNase promoter x2",
    ]  # fmt: skip


def test_bins_that_do_not_divide_are_shown_too(distal_store, monkeypatch):
    """Of 400 bins 7 means, of 57 and 58 bins each; there was one once, where none divides."""
    monkeypatch.setattr(gene_browser, "MOST_BINS", 7)
    genes, cells = distal_store.genes.gene_id[:1].tolist(), distal_store.manifest.cells[:1]
    assays = distal_store.manifest.assays[:1]
    none = pd.DataFrame(columns=["gene_id", "chrom", "cell", "assays", "observed", "predicted"])
    shown = browser_data(genes, none, pd.DataFrame(), distal_store, cells, assays)
    raw = distal_store.read_signal(cells[0], assays[0])[0, 0, 0]
    edges = [0, 57, 114, 171, 228, 285, 342, 400]
    means = np.array([raw[a:b].mean() for a, b in itertools.pairwise(edges)])
    own = np.frombuffer(base64.b64decode(shown["genes"][0]["tracks"]), np.uint8)
    top = shown["marks"][0][1]
    assert shown["bins"] == len(own) == 7
    np.testing.assert_allclose(own / 255 * top, np.minimum(means, top), atol=0.003 * top)


def test_tracks_and_contacts_are_those_of_the_store(distal_store):
    genes = distal_store.genes.gene_id[[0, 5]].tolist()
    cells, assays = distal_store.manifest.cells, distal_store.manifest.assays
    none = pd.DataFrame(columns=["gene_id", "chrom", "cell", "assays", "observed", "predicted"])
    shown = browser_data(genes, none, pd.DataFrame(), distal_store, cells, assays)
    raw = distal_store.read_signal(cells, assays)[:, :, 5].reshape(2, 3, 80, 5).mean(-1)
    tops = np.array([top for _, top in shown["marks"]])
    own = np.frombuffer(base64.b64decode(shown["genes"][1]["tracks"]), np.uint8).reshape(2, 3, 80)
    expected = np.minimum(raw, tops[:, None])
    np.testing.assert_allclose(own / 255 * tops[:, None], expected, atol=0.003 * tops.max())
    (cell, *_) = distal_store.manifest.regions_sha256
    regions = distal_store.regions(cell)
    mine = regions.contacts[regions.contacts.gene == 5]
    table = regions.table.loc[mine.region, ["start", "end"]].to_numpy().tolist()
    listed = shown["genes"][1]["contacts"][str(cells.index(cell))]
    assert [contact[:2] for contact in listed] == table
    assert shown["genes"][1]["tss"] == distal_store.genes.tss[5]


def test_no_name_ends_the_script_that_holds_it():
    name = "</script><script>alert(1)</script>&<!--"
    text = as_script({"name": name})
    assert not set(text) & set("<>&")
    assert json.loads(text) == {"name": name}
