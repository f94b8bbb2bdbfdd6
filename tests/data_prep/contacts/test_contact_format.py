"""A further format of contacts is one file, such as this one, and one line of the registry."""

import numpy as np
import pandas as pd

from data_prep.build_store import build
from data_prep.contacts import contact_files
from data_prep.contacts.contact_format import (
    COLUMNS,
    ContactFormat,
    as_scores,
    pick_columns,
    score_place,
    split_lines,
)
from data_prep.formats.assembly import load_assembly
from data_prep.simulate import simulate
from epi2expr_jax.errors import collect
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import train
from epi2expr_jax.training.one_run import TrainConfig
from tests.data_prep.problems import problems_of

TINY = {
    "resolutions": (2000,), "embedding": 8, "embed_ff": 8, "pairwise_layers": 1, "pairwise_ff": 8,
    "regulation_layers": 1, "regulation_heads": 2, "regulation_width": 8, "regulation_ff": 8,
    "contacts": 2,
}  # fmt: skip


def sniff(path, lines):
    return path.suffix == ".longrange"


def read(path, score_column):
    """longrange, of a genome browser: bait, then other end and score; 1-based, end included."""
    rows = []
    for number, (chrom, start, end, other) in split_lines(path):
        place, score = other.split(";")
        chrom2, bounds = place.split(":")
        rows.append((chrom, start, end, chrom2, *bounds.split("-"), score, f"line {number}"))
    return pd.DataFrame(rows, columns=[*COLUMNS, "record"])


FORMAT = ContactFormat("longrange", sniff, read, first_base=1, min_score=1.5)


def test_contacts_of_a_new_format_train_a_chromoformer(build_config, tmp_path, monkeypatch):
    monkeypatch.setitem(contact_files.FORMATS, "longrange", FORMAT)
    data = simulate(tmp_path / "data", genes=60, cells=1, assays=1)
    known = data / "contacts.bedpe"
    table = pd.read_csv(known, sep="\t")
    new = tmp_path / "contacts.longrange"
    new.write_text(
        "".join(
            f"{row[1]}\t{row.start1 + 1}\t{row.end1}\t"
            f"{row.chrom2}:{row.start2 + 1}-{row.end2};{row.score}\n"
            for row in table.itertuples()
        )
    )
    sizes = load_assembly(data / "genome.chrom.sizes").chrom_sizes
    with collect() as problems:
        ours, theirs = (
            contact_files.read_contact_file(path, None, sizes, problems) for path in (new, known)
        )
    pd.testing.assert_frame_equal(ours.table, theirs.table)

    files = {
        "tracks": "tracks.csv",
        "expression": "RPKM.pc.gz",
        "genes": "genes.gtf.gz",
        "assembly": "genome.chrom.sizes",
    }
    paths = {name: str(data / file) for name, file in files.items()}
    contacts = {"window_bp": 40_000, "bin_bp": 1000, "interactions": str(new), "workers": 1}
    store = build(build_config(tmp_path / "s.zarr", **paths, **contacts))
    (cell,) = store.manifest.cells
    assert store.manifest.contacts[cell]["format"] == "longrange"
    request = TrainRequest(
        store=str(store.path),
        model="chromoformer",
        model_options=TINY,
        cv="chromosomes_3",
        folds=["fold1"],
        train_config=TrainConfig(epochs=1),
    )
    card = train(request, tmp_path / "run")
    assert card["status"] == "complete"
    (run,) = card["populations"][0]["runs"]
    history = pd.read_parquet(tmp_path / "run" / "history.parquet")
    assert (run["status"], len(history)) == ("finished", 1)
    assert np.isfinite(history.validation_loss).all()


def test_lines_are_split_at_tabs_where_there_are_any(tmp_path):
    path = tmp_path / "x"
    path.write_text("# by hand\n\na b\tc\n")
    assert split_lines(path) == [(1, ["# by hand"]), (3, ["a b", "c"])]
    path.write_text("a  b c\n")
    assert split_lines(path) == [(1, ["a", "b", "c"])]


def test_columns_are_picked_by_place_and_short_lines_named(tmp_path):
    rows = [(4, [*"abcdefgh"]), (6, [*"ABCDEFGH"])]
    table = pick_columns(tmp_path, rows, [7, 6, 5, 4, 3, 2, 1], "eight letters")
    assert table.columns.tolist() == [*COLUMNS, "record"]
    assert table.to_numpy().tolist() == [[*"hgfedcb", "line 4"], [*"HGFEDCB", "line 6"]]
    (problem,) = problems_of(pick_columns, tmp_path, [(7, ["a"]), *rows], range(7), "letters")
    assert problem.where == f"{tmp_path}, line 7"
    assert problem.expected == "at least 7: letters"


def test_scores_are_found_by_name_number_or_place(tmp_path):
    names = ["a", "Score", "q_value"]
    assert [score_place(tmp_path, names, asked) for asked in ("", "Q_VALUE", "1")] == [1, 2, 0]
    assert score_place(tmp_path, [], "", otherwise=7) == 7
    for header, asked in (([], ""), (["a"], ""), (["a"], "b"), (["a"], "0")):
        (problem,) = problems_of(score_place, tmp_path, header, asked)
        assert problem.kind == "unknown_score"
    assert as_scores("padj_value", pd.Series(["0.01", "0", "7", "?"])).tolist() == [
        *("2.0", "300.0", "nan", "nan")
    ]
    for name in ("padj", "p", "q", "p.adjust", "adj_p", "FDR", "P_val", "Q-Value_Bias", "qvalue"):
        assert as_scores(name, pd.Series(["0.01"])).tolist() == ["2.0"], name
    for name in ("reads", "-log10(Q-value)", "neglog10_pvalue", "minusLog10FDR", "score", "pseudo"):
        assert as_scores(name, pd.Series(["0.01", "7"])).tolist() == ["0.01", "7"], name
