"""The program that alters marks: on a trained run, what it writes, draws and refuses."""

import shutil

import numpy as np
import pandas as pd
import pytest
from matplotlib.patches import Arc

from epi2expr_jax.errors import InputError
from epi2expr_jax.interpret.located import contacts_of, gene_plots, locate, place_table
from epi2expr_jax.perturb.edits import KINDS, Edit, Kind, scale
from epi2expr_jax.perturb.effects import run as run_edits
from epi2expr_jax.perturb.places import distal_bins, pcre, promoter
from epi2expr_jax.predict.loading import load
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import train
from epi2expr_jax.training.one_run import TrainConfig
from experiments import perturb as program
from experiments.figures.altered_marks import gene_figure
from experiments.perturb import format_means, format_null, perturb
from experiments.report import write_report
from experiments.verify import verify

ASSAY = "H3K36me3"


@pytest.fixture(scope="module")
def run_dir(distal_store, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    train(
        TrainRequest(
            store=str(distal_store.path),
            model="promoter_cnn",
            model_options={"width": 0.02, "window_bp": 40_000},
            cells=["E003"],
            assays=[ASSAY],
            cv="chromosomes_3",
            train_config=TrainConfig(epochs=1, batch_size=32),
        ),
        folder,
    )
    return folder


@pytest.fixture(scope="module")
def distal(run_dir):
    return perturb(run_dir, ASSAY, ["distal"], [0.0, 0.5, 1.0])


def test_tables_say_what_the_library_says(run_dir, distal, distal_store):
    table = pd.read_parquet(run_dir / "perturb" / "effects.parquet")
    assert len(table) == len(distal_store.genes) * 16 * 3
    assert (table.models == 1).all()
    assert table.low.isna().all()
    assert (table.effect[table.factor == 1] == 0).all()
    for place, part in table.groupby("place"):
        of_factor = distal[distal.place == place].set_index("factor")
        for factor, genes in part.groupby("factor"):
            assert of_factor.effect[factor] == pytest.approx(genes.effect.mean(), abs=1e-7)
            assert of_factor.genes[factor] == len(distal_store.genes)
    moved = distal[distal.factor == 0]
    assert (moved.low < moved.effect).all()
    assert (moved.effect < moved.high).all()
    assert moved.distance.tolist() == sorted(moved.distance)
    text = format_means(distal)
    assert "220 genes" in text
    assert "model" not in text.splitlines()[0]
    both = pd.concat([distal, distal.assign(assays="H3K4me3+DNase")])
    assert format_means(both).count("H3K4me3+DNase") == len(moved)
    for name in ("dose.png", "dose.svg", "distance.png", "dose_distance.csv"):
        assert (run_dir / "perturb" / name).stat().st_size > 0


def test_regions_for_enrichment(run_dir, distal, distal_store):
    regions = pd.read_parquet(run_dir / "perturb" / "regions.parquet")
    assert not regions.duplicated(["gene_id", "start"]).any()
    assert (regions.end - regions.start == 2000).all()
    row = regions[regions.distance > 3000].iloc[5]
    genes = distal_store.genes.set_index("gene_id")
    gene, index = genes.loc[row.gene_id], genes.index.get_loc(row.gene_id)
    offset = (row.start + row.end) / 2 - gene.tss
    assert row.distance == (-offset if gene.strand == "-" else offset)
    signal = distal_store.read_signal(["E003"], [ASSAY])[0, 0, index]
    first = (row.start - gene.tss + 20_000) // 100
    assert row.signal == pytest.approx(signal[first : first + 20].mean(), rel=1e-5)
    table = pd.read_parquet(run_dir / "perturb" / "effects.parquet")
    own = table[(table.gene == row.gene_id) & (table.distance == row.distance)]
    assert row.effect == own.effect[own.factor == 0].item()


def test_bed_files_intervals_and_chosen_genes(run_dir, distal_store, tmp_path):
    gene = distal_store.genes.iloc[7]
    bed = tmp_path / "peaks.bed"
    bed.write_text(
        f"track name=x\n{gene.chrom}\t{gene.tss - 500}\t{gene.tss + 500}\tpeak7\nchrUn\t1\t9\tx\n"
    )
    ids = tmp_path / "ids.txt"
    ids.write_text(f"{gene.gene_id}\n")
    one = perturb(run_dir, ASSAY, [str(bed)], [0.0], genes=str(ids), out=tmp_path / "one")
    assert one.place.tolist() == ["peak7"]
    assert one.genes.tolist() == [1]
    where = f"{gene.chrom}:{gene.tss - 500}-{gene.tss + 500}"
    same = perturb(run_dir, ASSAY, [where], [0.0], genes=gene.gene_id, out=tmp_path / "two")
    assert same.effect.tolist() == one.effect.tolist()
    chosen = {}
    for genes in ("expressed", "silent"):
        found = perturb(run_dir, ASSAY, ["promoter"], [0.0], genes=genes, out=tmp_path / genes)
        chosen[genes] = set(pd.read_parquet(tmp_path / genes / "effects.parquet").gene)
        assert found.genes.tolist() == [len(chosen[genes])]
    assert not chosen["expressed"] & chosen["silent"]
    rpkm = distal_store.read_expression(["E003"])[0]
    expressed = distal_store.genes.gene_id[rpkm >= np.median(rpkm)]
    assert chosen["expressed"] == set(expressed)


def test_what_makes_no_sense_is_refused(run_dir, distal_store, tmp_path):
    bed = tmp_path / "other.bed"
    bed.write_text("1_alt\t5\t9\n")
    for message, assay, where, factors in (
        ("promoter", ASSAY, ["promotr"], [0.0]),
        ("no model was trained on", "H3K4me9", ["promoter"], [0.0]),
        ("a number from 0 to", ASSAY, ["promoter"], [-1.0, float("nan")]),
        ("no interval", ASSAY, [str(bed)], [0.0]),
        ("one kind", ASSAY, ["promoter", "original_distal"], [0.0]),
        ("reach none of the genes", ASSAY, ["chr1:1-2"], [0.0]),
    ):
        with pytest.raises(InputError, match=message):
            perturb(run_dir, assay, where, factors, out=tmp_path / "none")
    assert not (tmp_path / "none").exists()
    bed.write_text("chr1\tx\t9\n")
    with pytest.raises(InputError, match="chrom, start < end"):
        perturb(run_dir, ASSAY, [str(bed)], [0.0])


def test_other_edits_than_scaling(run_dir, distal_store, tmp_path):
    kinds = ["remove_peak", "set:2.5", "shift:-500", "swap:@E114", "swap:H3K4me3"]
    means = perturb(run_dir, ASSAY, ["promoter"], kinds=kinds, tracks=2, out=tmp_path)
    changes = ["without peak", "= 2.5", "shifted -500 bp", "from E114", "from H3K4me3"]
    assert means.change.tolist() == changes
    assert means.factor.isna().all()
    assert means.effect.nunique() == len(kinds)
    assert "from H3K4me3" in format_means(means)
    assert not (tmp_path / "dose.png").exists()
    regions = pd.read_parquet(tmp_path / "regions.parquet")
    table = pd.read_parquet(tmp_path / "effects.parquet")
    first = table[table.change == "without peak"].set_index("gene").effect
    assert regions.effect.tolist() == first[regions.gene_id].tolist()
    furthest = first.abs().nlargest(2).index
    drawn = {path.stem for path in (tmp_path / "tracks").glob("*.png")}
    assert drawn == set(furthest)
    for kind, message in (
        ("scal", "scale"),
        ("set:much", "to a number"),
        ("set:-1", "a number from 0 to"),
    ):
        with pytest.raises(InputError, match=message):
            perturb(run_dir, ASSAY, ["promoter"], kinds=[kind], out=tmp_path)


def ceiling(assay, place, level, space="raw"):
    change = f"at most {level:g}"
    return Edit(assay, place, "ceiling", change, times=0.0, mix=1.0, amount=level, space=space)


def test_several_marks_are_altered_at_once(finished, small_store, tmp_path):
    """Joined by +: by the models that read them all, as in Python."""
    first, _, third = small_store.manifest.assays
    genes = small_store.genes.name[:4].tolist()
    found = perturb(
        finished, f"{first}+{third}", ["promoter"], [0.0], genes=",".join(genes), out=tmp_path
    )
    edit = tuple(scale(assay, promoter(), 0.0) for assay in (first, third))
    expected = run_edits(load(finished), small_store, [edit], genes)
    assert set(found.mark) == {f"{first} & {third}"}
    effects = expected.effect.to_numpy()[..., 0]
    for cell in small_store.manifest.cells:
        own = effects[(expected.cell == cell).to_numpy()]
        mean = np.nanmean(np.nanmean(own, axis=0))
        assert found[found.cell == cell].effect.item() == pytest.approx(mean, abs=1e-6)
    assert abs(effects[np.isfinite(effects)]).max() > 0


def test_a_new_edit_needs_a_line_of_the_registry(
    run_dir, distal_store, made_up_run, tmp_path, monkeypatch, parse_flags, capsys
):
    """From the command line to the effects and the report."""

    def cut(raw, edit, bin_bp):
        return np.minimum(raw, edit.amount)

    kind = Kind(ceiling, "ceiling:LEVEL (at most)", lambda text: {"level": float(text)}, cut)
    monkeypatch.setitem(KINDS, "ceiling", kind)
    flags = program.FLAGS
    parse_flags(
        (program.define_run, program.define_store, program.define_genes,
         program.define_perturbation),
        f"--run={run_dir}", f"--assay={ASSAY}", "--edits=ceiling:0,ceiling:0.5,set:0", "--tracks=0",
        f"--out={tmp_path / 'run' / 'perturb'}",
    )  # fmt: skip
    assert "ceiling:LEVEL (at most)" in flags["edits"].help
    made_up_run(("E003",), assays={ASSAY: 0.6}).write(tmp_path / "run")
    program.main()
    assert "at most 0.5" in capsys.readouterr().out
    table = pd.read_parquet(tmp_path / "run" / "perturb" / "effects.parquet")
    effect = {change: part.effect.to_numpy() for change, part in table.groupby("change")}
    assert list(table.change.unique()) == ["at most 0", "at most 0.5", "= 0"]
    np.testing.assert_array_equal(effect["at most 0"], effect["= 0"])
    assert (effect["at most 0.5"] != effect["at most 0"]).any()
    assert effect["at most 0.5"].any()
    page = write_report(tmp_path / "run").read_text()
    assert "at most 0" in page
    with pytest.raises(InputError, match="ceiling:LEVEL"):
        perturb(run_dir, ASSAY, ["promoter"], kinds=["blur"], out=tmp_path)


def test_contacts_of_regions(distal_store):
    genes = distal_store.genes
    table = pd.DataFrame(
        {"cell": "E003", "assays": ASSAY, "place": "pCRE 1", "gene": genes.gene_id, "effect": 1.0}
    )
    located = locate(table, [pcre(0)], distal_store, 40_000)
    found = place_table(located, ASSAY, distal_store, 40_000).set_index("gene_id")
    regions = distal_store.regions("E003")
    depth = distal_store.read_region_signal("E003", [ASSAY])[0]
    best = regions.contacts[regions.contacts["rank"] == 0]
    assert len(found) == len(best)
    beyond = 0
    for contact in best.itertuples():
        gene, region = genes.iloc[contact.gene], regions.table.iloc[contact.region]
        row = found.loc[gene.gene_id]
        assert (row.start, row.end) == (region.start, region.end)
        assert row.contact == regions.contacts[regions.contacts.gene == contact.gene].score.max()
        if abs((region.start + region.end) / 2 - gene.tss) >= 20_000:
            own = depth[region["first"] : region["first"] + region.bins]
            assert row.signal == pytest.approx(own.mean(), rel=1e-5)
            beyond += 1
    assert beyond


def test_places_that_no_region_overlaps_have_no_contact(run_dir, distal):
    found = pd.read_parquet(run_dir / "perturb" / "regions.parquet")
    assert (found.contact == 0).all(), "simulated regions lie beyond the windows"
    assert found.signal.notna().all()


def test_a_gene_is_drawn_with_its_contacts(run_dir, distal, distal_store):
    """Those that touch most regions: every region is an arc, every edited place a bar."""
    effects = pd.read_parquet(run_dir / "perturb" / "effects.parquet")
    touching = set(contacts_of(distal_store, "E003", ASSAY).gene_id)
    lowest = effects[(effects.factor == 0) & effects.gene.isin(touching)]
    places = distal_bins(window_bp=40_000)
    located = locate(lowest, places, distal_store, 40_000)
    for track in gene_plots(located, ASSAY, distal_store, 2):
        arcs, mark, effect = gene_figure(track).axes
        assert sum(isinstance(patch, Arc) for patch in arcs.patches) == len(track.contacts) > 0
        assert len(mark.patches) == len(places) + 1  # shades, and the signal
        heights = [bar.get_height() for bar in effect.patches]
        assert sorted(heights) == pytest.approx(sorted(track.edits.effect))
        first, last = arcs.get_xlim()
        middle = track.contacts[["start", "end"]].mean(axis=1) / 1000
        assert middle.between(first, last).all()


def test_effects_next_to_those_of_the_permuted_mark(run_dir, distal_store, tmp_path):
    asked = {"where": ["promoter"], "factors": [0.0, 1.0], "tracks": 0, "null": 2}
    means = perturb(run_dir, ASSAY, out=tmp_path / "first", **asked)
    null = pd.read_csv(tmp_path / "first" / "null.csv").set_index("change")
    draws = pd.read_csv(tmp_path / "first" / "permuted.csv").set_index("change")
    (off,) = null.index[null.effect != 0]
    assert null.effect[off] == pytest.approx(means.effect[means.factor == 0].item(), abs=1e-6)
    assert draws.permutation[off].tolist() == [1, 2]
    middle = (draws.effect[off].sum() + null.effect[off]) / 3
    reached = ((draws.effect[off] - middle).abs() >= abs(null.effect[off] - middle)).sum()
    assert null.p[off] == pytest.approx((1 + reached) / 3, abs=1e-4)
    assert [null.null_low[off], null.null_high[off]] == sorted(draws.effect[off])
    assert null.index.tolist() == [off]  # what changes nothing has no permutations
    assert f"(of 2), p {null.p[off]:.2g}" in format_null(null.reset_index())
    (folder,) = (run_dir / "null").iterdir()
    store = WindowStore.open(folder / "permuted" / "store.zarr")
    assert store.manifest.units[f"{ASSAY}~2"] == distal_store.manifest.units[ASSAY]
    rows, given = (
        own.read_signal(["E003"], [name])[0, 0].sum(axis=1)
        for own, name in ((distal_store, ASSAY), (store, f"{ASSAY}~1"))
    )
    np.testing.assert_allclose(np.sort(given), np.sort(rows), rtol=1e-5)
    assert (given != rows).mean() > 0.5
    copy = shutil.copytree(run_dir, tmp_path / "run", copy_function=shutil.copy2)
    card = copy / folder.relative_to(run_dir) / "run" / "run_card.json"
    trained = card.stat().st_mtime_ns
    perturb(copy, ASSAY, **asked)
    assert card.stat().st_mtime_ns == trained  # not trained again
    first, again = (at / "null.csv" for at in (tmp_path / "first", copy / "perturb"))
    assert first.read_bytes() == again.read_bytes()
    claims = {claim.name: claim for claim in verify(copy, str(distal_store.path), quick=True)}
    assert claims["perturb"].holds
    assert ", p by at most " in claims["perturb"].found
    with pytest.raises(InputError, match="one mark"):
        perturb(run_dir, ASSAY, ["promoter"], kinds=["swap:@E003"], null=2, out=tmp_path / "no")


def test_factors_are_refused_where_nothing_is_scaled(parse_flags):
    definitions = (program.define_run, program.define_store, program.define_perturbation)
    given = ("--run=run", "--assay=DNase", "--edits=remove_peak", "--factors=0,2")
    parse_flags(definitions, *given)
    with pytest.raises(InputError, match=r"--factors: found .*without --edits=scale"):
        program.main()
