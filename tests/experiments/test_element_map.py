"""A map of elements and genes: its columns, ABC next to it, and going on after a kill."""

import dataclasses

import numpy as np
import pandas as pd
import pytest

from epi2expr_jax import perturb
from epi2expr_jax.errors import InputError
from epi2expr_jax.perturb.elements import in_reach, predict_silenced, predictable, silencing_of
from experiments import element_map
from experiments.cli.elements import SilencingModels, silencing_models
from experiments.cli.given_table import read_table
from experiments.crispri import score_screens
from experiments.element_map import NAME, write_map
from tests.epi2expr_jax.untrained import SMALL, ensemble_of


@pytest.fixture(scope="module")
def models(finished):
    return silencing_models(finished, cell="E003", apart=True)


@pytest.fixture
def bed(models, tmp_path):
    """Every gene's promoter, and what lies 2 kb before it on the chromosome."""
    genes = models.store.genes
    path = tmp_path / "elements.bed"
    rows = [(g.chrom, g.tss - 100, g.tss + 100, g.name) for g in genes.itertuples(index=False)]
    rows += [(g.chrom, g.tss - 2200, g.tss - 1900, ".") for g in genes.itertuples()]
    pd.DataFrame(rows).to_csv(path, sep="\t", header=False, index=False)
    return path


def candidates_of(genes, path):
    """Both elements of every gene, and a stronger one that the BED lacks; but no own promoter of
    the first gene."""
    parts = [
        pd.DataFrame(
            {
                "chr": genes.chrom.str.removeprefix("chr"),
                "start": genes.tss + start,
                "end": genes.tss + end,
                "activity_base": activity,
                "hic_contact": contact,
                "TargetGene": genes.name,
            }
        )
        for start, end, activity, contact in (
            (-100, 100, 4.0, 1.0), (-2200, -1900, 3.0, 0.5), (50_000, 50_500, 9.0, 0.5),
        )
    ]  # fmt: skip
    parts[0] = parts[0].iloc[1:]
    pd.concat(parts).to_csv(path, sep="\t", index=False)
    return path


def test_a_map_in_parts_killed_and_gone_on_with(models, bed, tmp_path, monkeypatch):
    genes, out = models.store.genes, tmp_path / "map"
    candidates = candidates_of(genes, tmp_path / "all.tsv")
    done = []

    def slowly(*given):
        if len(done) == 1 and done[0] is not None:
            done.append(None)
            raise KeyboardInterrupt
        done.append(predict_silenced(*given))
        return done[-1]

    monkeypatch.setattr(element_map, "predict_silenced", slowly)
    with pytest.raises(KeyboardInterrupt):
        write_map(out, models, bed, candidates, queries=1200)
    assert not (out / NAME).exists()
    said = write_map(out, models, bed, candidates, queries=1200)
    parts = [part for part in done if part is not None]
    assert len(parts) == 2
    assert [path.name for path in sorted(out.iterdir())] == ["element_map.json", NAME]
    table = pd.read_csv(out / NAME, sep="\t")
    found = pd.concat(parts, ignore_index=True)  # each part once, in their order
    assert len(table) == len(found) == 2 * len(genes)
    assert f"{len(table):,} pairs of 440 elements (of 440) and 220 genes" in said
    for name in ("before", "effect", "change", f"effect_{models.silencing.marks[1]}"):
        np.testing.assert_allclose(table[name], found[name], rtol=1e-5, atol=1e-8)
    assert table["models"].eq(1).all()
    assert table["low"].isna().all()
    assert (table["effect"] != 0).mean() > 0.8
    own = table.merge(genes, left_on="TargetGeneEnsemblID", right_on="gene_id")
    near = own["isSelfPromoter"]
    assert near.sum() == len(genes)
    assert own.loc[near, "distance"].eq(0).all()
    assert own.loc[~near, "distance"].eq(2050).all()
    assert own["TargetGeneTSS"].eq(own["tss"]).all()
    assert table.loc[near, "name"].tolist() == own.loc[near, "TargetGene"].tolist()
    assert table["name"][~near].str.fullmatch(r"chr\w+:\d+-\d+").all()
    # 4 × 1, 3 × 0.5 and 9 × 0.5 add up to 10.
    first = own["TargetGeneEnsemblID"] == genes.gene_id[0]
    assert own.loc[first, "ABC.Score"].isna().all()
    assert own.loc[near & ~first, "ABC.Score"].to_numpy() == pytest.approx(0.4)
    assert own.loc[~near & ~first, "ABC.Score"].to_numpy() == pytest.approx(0.15)


def test_elements_of_another_assembly_and_of_unknown_contigs(models, bed, tmp_path):
    """A chain moves chromosomes by 1,000; contigs that the store lacks are counted."""
    genes, sizes = models.store.genes, models.store.manifest.chrom_sizes
    plain = write_map(tmp_path / "plain", models, bed)
    assert "left out" not in plain
    wanted = pd.read_csv(tmp_path / "plain" / NAME, sep="\t")

    table = pd.read_csv(bed, sep="\t", header=None)
    moved, chain = tmp_path / "moved.bed", tmp_path / "a.chain"
    there = table.assign(**{"1": table[1] + 1000, "2": table[2] + 1000})[[0, "1", "2", 3]]
    extra = "chrUn_7\t5\t900\tx\nchrUn_7\t50\t90\tx\n"
    moved.write_text(there.to_csv(sep="\t", header=False, index=False) + extra)
    chain.write_text(
        "".join(
            f"chain 9 {name} {size + 1000} + 1000 {size + 1000} {name} {size} + 0 {size} {i}\n"
            f"{size}\n\n"
            for i, (name, size) in enumerate(sizes.items())
        )
    )
    given = read_table(candidates_of(genes, tmp_path / "all.tsv"))
    given.assign(start=given.start + 1000, end=given.end + 1000).to_csv(
        tmp_path / "candidates.tsv", sep="\t", index=False
    )
    said = write_map(tmp_path / "map", models, moved, tmp_path / "candidates.tsv", chain=str(chain))
    assert "440 of 442 elements lifted; left out: 2 without a place, 0 split" in said
    assert "of 659 elements lifted; " in said
    found = pd.read_csv(tmp_path / "map" / NAME, sep="\t")
    assert found["ABC.Score"].notna().sum() == 2 * (len(genes) - 1)
    named = wanted["name"].str.contains(":")
    assert found["name"][~named].equals(wanted["name"][~named])
    first = found[named].iloc[0]
    assert first["name"] == f"{first.chr}:{first.start + 1000}-{first.end + 1000}"  # as in the BED
    same = [name for name in wanted if name != "name"]
    pd.testing.assert_frame_equal(found[same], wanted[same])

    contig = tmp_path / "contig.bed"
    contig.write_text(bed.read_text() + extra)
    said = write_map(tmp_path / "map", models, contig)
    assembly = models.store.manifest.assembly
    assert f"2 elements on chromosomes that {assembly} lacks left out" in said
    pd.testing.assert_frame_equal(pd.read_csv(tmp_path / "map" / NAME, sep="\t"), wanted)


def test_elements_out_of_reach_are_refused(models, tmp_path):
    far = tmp_path / "far.bed"
    far.write_text("chr1\t0\t10\n")
    with pytest.raises(InputError, match="none in a window or region"):
        write_map(tmp_path / "map", models, far)
    assert not (tmp_path / "map").exists()


@pytest.mark.trial
def test_a_chromoformer_maps_and_scores_elements_of_windows_and_regions(
    distal_store, tmp_path, trial_size
):
    if trial_size(True, False):
        pytest.skip("compiles three programs of a Chromoformer, in `make trials`")
    drawn = ensemble_of(distal_store, SMALL, distal_store.manifest.assays[:1])
    drawn = dataclasses.replace(drawn, card={"populations": []})
    models = SilencingModels(drawn, distal_store, silencing_of(drawn))
    near = distal_store.genes.iloc[::9]
    near = pd.DataFrame({"chrom": near.chrom, "start": near.tss + 7600, "end": near.tss + 8400})
    far = distal_store.regions("E003").table.iloc[::5][["chrom", "start", "end"]]
    elements = pd.concat([near, far], ignore_index=True)
    bed = tmp_path / "elements.bed"
    elements.to_csv(bed, sep="\t", header=False, index=False)
    write_map(tmp_path / "map", models, bed)
    table = pd.read_csv(tmp_path / "map" / NAME, sep="\t")
    pairs = predictable(drawn, distal_store, in_reach(distal_store, SMALL, "E003", elements))
    assert len(table) == len(pairs)
    distant = table[table["distance"] > 25_000]
    assert 10 < len(distant) < len(table) - 10
    assert (table["effect"] != 0).mean() > 0.9
    # One in a region, alone.
    row = distant.loc[distant["effect"].abs().idxmax()]
    place = perturb.interval(row.chr, int(row.start) - 250, int(row.end) + 250)
    edit = perturb.silence(models.silencing.marks[0], place)
    alone = perturb.run(drawn, distal_store, [edit], [row.TargetGeneEnsemblID])
    assert perturb.summarise(alone).effect.item() == pytest.approx(row.effect, abs=1e-5)

    # A screen of the same pairs, which finds what the models predict.
    screen = pd.DataFrame(
        {
            "chrom": table.chr, "chromStart": table.start, "chromEnd": table.end,
            "startTSS": table.TargetGeneTSS, "measuredGeneEnsemblId": table.TargetGeneEnsemblID,
            "Regulated": table.effect < table.effect.quantile(0.3),
        }
    )  # fmt: skip
    screen.to_csv(tmp_path / "pairs.csv", index=False)
    said = score_screens(tmp_path / "pairs.csv", tmp_path / "out", models=models)
    assert f"{len(table)} of {len(table)} pairs" in said
    found = pd.read_csv(tmp_path / "out" / "crispri_pairs.csv")
    np.testing.assert_allclose(found["predicted_effect"], table["effect"], rtol=1e-4, atol=1e-7)
    rows = pd.read_csv(tmp_path / "out" / "crispri.csv").set_index(["pairs", "score"])
    assert rows.average_precision["in reach: all pairs", "predicted loss"] == 1
