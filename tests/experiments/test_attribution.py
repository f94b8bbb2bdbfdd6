"""The program that explains predictions: what it writes, and tracks that a browser can show."""

import dataclasses
import gzip
import json

import numpy as np
import pandas as pd
import pyBigWig
import pytest
import xarray as xr
from scipy import stats

from epi2expr_jax.errors import InputError
from epi2expr_jax.interpret import attribution
from epi2expr_jax.interpret.attention import agreement
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.study.tables import ATTENTION, TABLES
from epi2expr_jax.study.train import train
from experiments import attribution as program
from experiments.attribution import (
    attention_and_effects,
    attribute,
    describe,
    describe_attention,
    mean_along,
    mean_profile,
    models_of,
)
from tests.epi2expr_jax.untrained import SMALL, WINDOW, ensemble_of


@pytest.fixture(scope="module")
def run_dir(small_store, request_for, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    cells, assays = small_store.manifest.cells[:1], small_store.manifest.assays[:2]
    train(request_for(small_store, cells=cells, assays=assays), folder)
    return folder


def test_models_of_several_sets_are_chosen(small_store):
    """Bins of sets of other sizes cannot be explained together: it says which flag helps."""
    marks = small_store.manifest.assays[:2]
    sets = [marks[:1], marks[1:], marks]
    parts = [ensemble_of(small_store, WINDOW, own, folds=["fold1"]) for own in sets]
    members = tuple(member for part in parts for member in part.members)
    every = dataclasses.replace(parts[0], members=members)
    assert models_of(every, []) is every
    for wanted, found in ((["each"], sets[:2]), ([marks[1]], [marks[1:]]),
                          (["+".join(reversed(marks))], [marks])):  # fmt: skip
        assert [list(run.assays) for run in models_of(every, wanted).runs] == [*map(list, found)]
    card = {"store": {"assays": marks}}
    whole = dataclasses.replace(every, card=card)
    assert [list(run.assays) for run in models_of(whole, ["all"]).runs] == [marks]
    assert len(models_of(whole, ["each", "all"]).runs) == 3
    for kind, said in (("pairs", "no model of 2 assays"), ("all", rf"all \({marks[0]}\+")):
        with pytest.raises(InputError, match=f"{said}.*not trained; expected one of {marks[0]};"):
            models_of(dataclasses.replace(parts[0], card=card), [kind])
    with pytest.raises(InputError, match="unknown assay set H3K999me1") as error:
        models_of(every, ["each", "H3K999me1"])
    assert "--assays" in str(error.value)
    assert "Ensemble" not in str(error.value), "a remedy of a command line names flags"
    with pytest.raises(InputError, match="--assays=each"):
        attribution.integrated_gradients(every, small_store, small_store.genes.gene_id[:1].tolist())


def test_shares_profiles_and_tracks_agree(run_dir, small_store):
    genes = small_store.genes.iloc[::4]
    ids = ",".join(genes.gene_id)
    found = attribute(run_dir, genes=ids, tracks="bigwig")
    out = run_dir / "attribution"
    with xr.open_zarr(out / "shares.zarr", consolidated=True) as kept:
        np.testing.assert_array_equal(kept.promoter, found.promoter)
    profile = pd.read_parquet(out / "profile.parquet")
    model, assay = found.model.to_numpy()[0], found.assay.to_numpy()[0]
    own = profile[(profile.model == model) & (profile.assay == assay)]
    shares = found.promoter.sel(model=model, assay=assay)
    np.testing.assert_allclose(own.share, shares.mean("gene"), rtol=1e-5, atol=1e-9)
    # By hand: three folds, which have no training gene in common.
    folds = json.loads((run_dir / "splits.json").read_text())["folds"]
    parts = [shares[genes.chrom.isin(fold["test"]).to_numpy()] for fold in folds]
    n = np.array([len(part) for part in parts])
    means, weight = np.array([part.mean("gene") for part in parts]), (n / n.sum())[:, None]
    uneven = (weight**2).sum()
    spread = (weight * (means - weight.T @ means) ** 2).sum(axis=0) / (1 - uneven)
    reach = stats.t.isf(0.025, 2) * np.sqrt(spread * uneven)
    np.testing.assert_allclose(own.high - own.share, reach, rtol=1e-4)
    one = found.isel(run=found.fold.to_numpy() == "fold1")
    assert "no intervals: they take 3 folds" in describe(found, mean_profile(one), "gradients")
    assert (own.genes == len(genes)).all()
    assert "miss each difference by at most" in describe(found, profile, "gradients")
    # A browser shows each gene's shares where its window lies.
    plus = genes[genes.strand == "+"].iloc[0]
    minus = genes[genes.strand == "-"].iloc[0]
    width = float(found.bin[1] - found.bin[0])
    with pyBigWig.open(str(out / f"{model} {assay}.bw".replace(" ", "_"))) as file:
        for gene, sign in ((plus, 1), (minus, -1)):
            for place in (0, 20, -1):
                middle = gene.tss + sign * float(found.bin[place])
                start, end = round(middle - width / 2), round(middle + width / 2)
                written = file.values(gene.chrom, start, end)
                expected = float(shares.sel(gene=gene.gene_id)[place])
                np.testing.assert_allclose(written, expected, rtol=1e-5, atol=1e-9)
    assert (out / "profile.png").stat().st_size > 0


def test_occlusion_and_bedgraph(run_dir, small_store, tmp_path):
    gene = small_store.genes.iloc[5]
    found = attribute(
        run_dir, "occlusion", genes=gene.gene_id, bin_bp=1000, tracks="bedgraph", out=tmp_path / "o"
    )
    assert found.sizes["bin"] == 6
    name = f"{found.model.to_numpy()[0]}_{found.assay.to_numpy()[0]}.bedGraph.gz".replace(" ", "_")
    lines = gzip.decompress((tmp_path / "o" / name).read_bytes()).decode().splitlines()[1:]
    assert [int(line.split()[1]) for line in lines] == list(
        range(gene.tss - 3000, gene.tss + 3000, 1000)
    )
    along = found.promoter.isel(model=0, assay=0, gene=0).to_numpy()
    values = [float(line.split()[3]) for line in lines]
    np.testing.assert_allclose(values, along[:: -1 if gene.strand == "-" else 1], rtol=1e-5)


def test_attention_by_region_is_written_and_verify_would_see_it_change(
    distal_store, tmp_path, monkeypatch
):
    ensemble = ensemble_of(distal_store, SMALL, distal_store.manifest.assays[:2])
    monkeypatch.setattr(program, "load", lambda *_: ensemble)
    monkeypatch.setattr(Ensemble, "open_store", lambda *_: distal_store)
    wanted = ensemble.wanted(distal_store, np.arange(len(distal_store.genes)), False).any(axis=0)
    found = attention_and_effects(tmp_path, genes=",".join(distal_store.genes.gene_id[wanted][::7]))
    table = ATTENTION.read(tmp_path)
    assert ATTENTION in TABLES  # what `verify` compares with the records of programs
    pd.testing.assert_frame_equal(found, agreement(table))
    assert f"{len(table):,} regions; rank correlation" in describe_attention(found)
    assert len(pd.read_csv(tmp_path / "attention" / "attention.csv")) == len(table) > 0
    (tmp_path / "attention" / "attention.parquet").write_bytes(b"")
    with pytest.raises(InputError, match="other content"):
        ATTENTION.checked(tmp_path)


def test_a_width_is_refused_where_nothing_is_emptied(parse_flags):
    definitions = (program.define_run, program.define_store, program.define_attribution)
    parse_flags(definitions, "--run=run", "--bin_bp=0")
    with pytest.raises(InputError, match="--bin_bp=0, which has no effect with --method"):
        program.main()


def test_overlapping_windows_are_averaged_and_ends_cut():
    values = np.array([[1.0, 3.0], [5.0, 7.0]])
    start, end, value = mean_along(
        np.array([10, 15]), np.array([False, True]), values, np.array([-10, 0, 10]), 22
    )
    # The second gene lies from 5 to 25, reversed: 7 then 5.
    assert start.tolist() == [0, 5, 10, 15, 20]
    assert end.tolist() == [5, 10, 15, 20, 22]
    assert value.tolist() == [1, 4, 5, 4, 5]
