"""The simulated Roadmap: its formats, its planted truth in the signal, and its reruns."""

import collections
import gzip
import hashlib
import itertools
import json
import pathlib
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pyBigWig
import pytest

from data_prep import planted
from data_prep.simulate import simulate
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer

GENES, CELLS = 600, 1
TINY = {"genes": 60, "cells": 1, "assays": 2}


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> pathlib.Path:
    return simulate(tmp_path_factory.mktemp("simulated") / "sim", genes=GENES, cells=CELLS, seed=3)


@pytest.fixture(scope="session")
def truth(folder) -> dict:
    return json.loads((folder / "truth.json").read_text())


@pytest.fixture(scope="session")
def tracks(folder) -> pd.DataFrame:
    return pd.read_csv(folder / "tracks.csv")


@pytest.fixture(scope="session")
def gtf(folder) -> pd.DataFrame:
    """The GTF's records, parsed by hand."""
    rows = []
    for line in gzip.decompress((folder / "genes.gtf.gz").read_bytes()).decode().splitlines():
        if not line.startswith("#"):
            fields = line.split("\t")
            assert len(fields) == 9
            tags = dict(re.findall(r'(\w+) "([^"]*)";', fields[8]))
            rows.append(
                {
                    "chrom": fields[0],
                    "feature": fields[2],
                    "start": int(fields[3]),
                    "end": int(fields[4]),
                    "strand": fields[6],
                    **tags,
                }
            )
    return pd.DataFrame(rows)


@pytest.fixture(scope="session")
def genes(gtf) -> pd.DataFrame:
    """Gene records with their 5′ end, 0-based; indexed by id without version."""
    table = gtf[gtf.feature == "gene"].copy()
    table["tss"] = np.where(table.strand == "+", table.start, table.end) - 1
    table.index = table.gene_id.str.replace(r"\.\d+$", "", regex=True)
    return table


@pytest.fixture(scope="session")
def expression(folder) -> pd.DataFrame:
    """The matrix, parsed by hand: log2(RPKM+1), genes × cells."""
    text = gzip.decompress((folder / "RPKM.pc.gz").read_bytes()).decode()
    header, *rows = text.splitlines()
    assert not header.endswith("\t")
    assert all(row.endswith("\t") for row in rows)
    columns = header.split("\t")
    cells = [row.split("\t") for row in rows]
    assert {len(row) for row in cells} == {len(columns) + 1}
    table = pd.DataFrame([row[:-1] for row in cells], columns=columns).set_index("gene_id")
    return np.log2(table.astype(float) + 1)


def oriented(path: pathlib.Path, genes: pd.DataFrame, low: int, high: int) -> np.ndarray:
    """Mean signal of every gene between two offsets from its TSS, along its strand."""
    with pyBigWig.open(str(path)) as bigwig:
        means = []
        for gene in genes.itertuples():
            forward = gene.strand == "+"
            start = gene.tss + low if forward else gene.tss - high
            values = bigwig.values(gene.chrom, start, start + high - low, numpy=True)
            means.append(np.nan_to_num(values).mean())
    return np.arcsinh(means)


def test_track_sheet_and_bigwig_headers(folder, tracks):
    assert list(tracks.columns) == ["cell", "assay", "path", "sha256", "unit", "group"]
    assert len(tracks) == 12 * CELLS
    assert set(tracks.unit) == {"pvalue"}
    sizes = dict(
        line.split("\t") for line in (folder / "genome.chrom.sizes").read_text().splitlines()
    )
    assert {"chr3", "chr7", "chr20"} < set(sizes)
    for track in tracks.itertuples():
        assert track.path == f"{track.cell}-{track.assay}.pval.signal.bigwig"
        path = folder / track.path
        assert hashlib.sha256(path.read_bytes()).hexdigest() == track.sha256
        with pyBigWig.open(str(path)) as bigwig:
            assert bigwig.chroms() == {chrom: int(size) for chrom, size in sizes.items()}
            assert bigwig.header()["minVal"] >= 0
            assert 10 < bigwig.header()["maxVal"] < 1000


def test_tracks_are_runs_of_mostly_low_signal(folder, tracks):
    with pyBigWig.open(str(folder / tracks.path[0])) as bigwig:
        runs = bigwig.intervals("chr1")
        values = bigwig.values("chr1", 10_000, runs[-1][1], numpy=True)
        assert np.isnan(bigwig.values("chr1", 0, 10_000, numpy=True)).all()
    assert len({end - start for start, end, _ in runs}) > 10
    assert all(a[1] == b[0] and a[2] != b[2] for a, b in itertools.pairwise(runs))
    assert np.median(values) < 0.5 < 5 < values.max()


def test_expression_looks_real(expression, genes):
    assert len(expression.columns) > CELLS  # epigenomes without tracks, as in Roadmap's matrix
    assert set(expression.index) == set(genes.index)
    assert not any("." in gene_id for gene_id in expression.index)
    rpkm = 2 ** expression.to_numpy() - 1
    assert 0.1 < (rpkm == 0).mean() < 0.3
    assert 1 < np.median(rpkm) < 6
    assert rpkm.max() > 50 * rpkm.mean()
    similar = np.corrcoef(expression.to_numpy().T)
    assert 0.55 < similar[np.triu_indices_from(similar, 1)].mean() < 0.85


def test_gtf_nests_its_records(gtf, genes):
    features = {"gene", "transcript", "exon", "CDS", "start_codon", "stop_codon"}
    assert set(gtf.feature) == features
    assert len(genes) == GENES
    assert genes.gene_id.str.fullmatch(r"ENSG\d{11}\.\d+").all()
    assert set(genes.strand) == {"+", "-"}
    transcripts = gtf[gtf.feature == "transcript"]
    assert transcripts.transcript_id.is_unique
    assert (transcripts.groupby("gene_id").size() == 2).mean() > 0.2
    parts = gtf[gtf.feature == "exon"].groupby("transcript_id").agg({"start": "min", "end": "max"})
    whole = transcripts.set_index("transcript_id")[["start", "end"]]
    pd.testing.assert_frame_equal(parts.sort_index(), whole.sort_index())
    longest = transcripts.groupby("gene_id").agg({"start": "min", "end": "max"})
    gene = genes.set_index("gene_id")[["start", "end"]]
    pd.testing.assert_frame_equal(longest.sort_index(), gene.sort_index())


def test_genes_are_spread_as_in_the_genome(genes):
    count = collections.Counter(genes.chrom)
    assert len(count) == 22
    assert count["chr1"] > 3 * count["chr21"]
    blind = sum(count[chrom] for chrom in ("chr3", "chr7", "chr20")) / GENES
    assert blind == pytest.approx(0.13, abs=0.02)
    for _, group in genes.groupby("chrom"):
        assert (np.diff(np.sort(group.tss)) >= 24_000).all()


def test_contacts(folder, genes):
    header, *rows = (folder / "contacts.bedpe").read_text().splitlines()
    assert header.split("\t") == [
        *("#chrom1", "start1", "end1", "chrom2", "start2", "end2", "name", "score"),
        *("strand1", "strand2"),
    ]
    contacts = pd.DataFrame([row.split("\t") for row in rows], columns=header.split("\t"))
    contacts = contacts.astype(dict.fromkeys(("start1", "end1", "start2", "end2"), int))
    gene = genes.loc[contacts["name"]].reset_index(drop=True)
    assert (contacts["#chrom1"] == gene.chrom).all()
    assert (contacts.chrom2 == gene.chrom).all()
    assert ((contacts.start1 <= gene.tss) & (gene.tss < contacts.end1)).all()
    assert set(contacts.strand1) == set(contacts.strand2) == {"."}

    elements = pd.read_csv(folder / "truth_elements.csv")
    distal = elements[elements.component == "distal"]
    tss = genes.tss.loc[distal.gene_id].to_numpy()
    assert (np.abs((distal.start + distal.end) / 2 - tss) >= 25_000).all()
    reached = contacts.merge(distal, left_on="chrom2", right_on="chrom")
    reached = reached[(reached.start >= reached.start2) & (reached.end <= reached.end2)]
    assert len(reached) == len(contacts)  # each other end holds one element
    strong = reached.score.astype(float) > 1.5
    assert (reached.gene_id == reached["name"])[strong].all()
    assert not (reached.gene_id == reached["name"])[~strong].any()
    assert strong.sum() == len(distal)
    assert (~strong).sum() > len(distal) / 2


def test_elements_lie_where_the_truth_says(folder, genes, truth):
    elements = pd.read_csv(folder / "truth_elements.csv")
    gene = genes.loc[elements.gene_id].reset_index(drop=True)
    forward = gene.strand == "+"
    low = np.where(forward, elements.start - gene.tss, gene.tss - elements.end)
    high = np.where(forward, elements.end - gene.tss, gene.tss - elements.start)
    described = {
        part["component"]: part
        for effect in truth["effects"].values()
        for part in effect["components"]
    }
    for name, part in described.items():
        rows = elements.component == name
        if part["offsets_bp"] is None:
            assert name == "distal"
            continue
        first, last = part["offsets_bp"]
        assert (low[rows] >= first).all()
        assert (high[rows] <= last).all()
        reach = max(abs(first), abs(last)) if name != "body" else abs(first)
        assert reach <= int(part["visible_from"]) / 2
        if name.startswith("flank"):  # inside a 10 kb window, outside a 6 kb one
            assert min(abs(first), abs(last)) >= 3000


def test_roles(truth):
    effects = truth["effects"]
    drivers = [name for name, effect in effects.items() if effect["drives"]]
    assert len(drivers) == 7
    assert sorted(effect["sign"] for effect in effects.values()) == [-1] * 2 + [0] * 5 + [1] * 5
    planned = {
        "6000": [0.30, 0.40, 0.49, 0.58, 0.67, 0.76, 0.90],
        "10000": [0.40, 0.49, 0.58, 0.67, 0.76, 0.83, 0.90],
    }
    for scope in planted.SCOPES:
        scores = truth["oracle"][scope]["all"]
        assert all(scores[name] == 0 for name in effects if name not in drivers)
        if scope in planned:
            found = sorted(scores[name] for name in drivers)
            assert found == pytest.approx(planned[scope], abs=0.12)
    grown = [truth["oracle"][scope]["all"] for scope in planted.SCOPES]
    for narrow, wide in itertools.pairwise(grown):
        assert all(wide[name] >= narrow[name] for name in effects)
        assert any(wide[name] > narrow[name] + 0.05 for name in effects)


# Where to look for a component, in bp from the TSS along the strand.
PLACES = {
    "promoter": (-700, 700),
    "body": (1500, 3400),
    "flank_up": (-4600, -3700),
    "flank_down": (3700, 4600),
    "enhancer": (-8900, -7100),
}


def test_planted_correlations_are_in_the_signal(folder, tracks, genes, expression, truth):
    """With the right sign at its own place, and nowhere else."""
    for track in tracks.itertuples():
        effect = truth["effects"][track.assay]
        rho = {part["component"]: part["rho"] for part in effect["components"]}
        observed = expression.loc[genes.index, track.cell].to_numpy()
        for component, place in PLACES.items():
            if component == "flank_down" and "body" in rho:
                continue  # the body covers it
            signal = oriented(folder / track.path, genes, *place)
            found = planted.pearson_within(signal, observed, genes.chrom)
            expected = effect["sign"] * rho.get(component, 0.0) * planted.FIDELITY
            assert found == pytest.approx(expected, abs=0.13), (track.assay, component)


def test_body_mark_lies_downstream(folder, tracks, genes, truth):
    for track in tracks.itertuples():
        components = {part["component"] for part in truth["effects"][track.assay]["components"]}
        if "body" in components:
            path = folder / track.path
            for strand in "+-":
                group = genes[genes.strand == strand]
                down, up = (
                    oriented(path, group, *at).mean() for at in ((1500, 4000), (-4000, -1500))
                )
                assert down > up + 1


def test_distal_elements_follow_expression_of_their_gene(folder, tracks, expression, truth):
    distal = pd.read_csv(folder / "truth_elements.csv").query("component == 'distal'")
    for track in tracks.itertuples():
        effect = truth["effects"][track.assay]
        rho = {part["component"]: part["rho"] for part in effect["components"]}.get("distal", 0)
        with pyBigWig.open(str(folder / track.path)) as bigwig:
            signal = [
                np.arcsinh(bigwig.values(row.chrom, row.start, row.end, numpy=True).mean())
                for row in distal.itertuples()
            ]
        found = np.corrcoef(signal, expression.loc[distal.gene_id, track.cell])[0, 1]
        assert found == pytest.approx(effect["sign"] * rho * planted.FIDELITY, abs=0.13)


def content(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_same_flags_same_bytes_and_other_seed_other_world(tmp_path):
    first, second = (content(simulate(tmp_path / name, **TINY, seed=5)) for name in "ab")
    assert first == second
    other = content(simulate(tmp_path / "c", **TINY, seed=6))
    assert other["RPKM.pc.gz"] != first["RPKM.pc.gz"]
    # A further cell leaves the first one as it was.
    more = content(simulate(tmp_path / "d", **TINY | {"cells": 2}, seed=5))
    shared = [name for name in first if not name.startswith(("tracks", "truth.json"))]
    assert all(first[name] == more[name] for name in shared)


def test_rerun_leaves_a_complete_folder_alone(tmp_path):
    out = simulate(tmp_path / "sim", **TINY)
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    assert simulate(out, **TINY) == out
    assert {path: path.stat().st_mtime_ns for path in out.iterdir()} == before
    with pytest.raises(InputError, match="'seed': 0"):
        simulate(out, **TINY, seed=1)
    (out / "RPKM.pc.gz").write_bytes(b"")
    (out / "tracks.csv").unlink()
    with pytest.raises(InputError, match=r"RPKM\.pc\.gz") as caught:
        simulate(out, **TINY)
    assert len(caught.value.problems) == 2


def test_an_interrupted_simulation_is_finished_by_the_same_flags(tmp_path, monkeypatch):
    whole = content(simulate(tmp_path / "whole", **TINY))

    def interrupt(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(planted, "pearson_within", interrupt)
        with pytest.raises(KeyboardInterrupt):
            simulate(tmp_path / "part", **TINY)
    assert not (tmp_path / "part/truth.json").exists()
    with pytest.raises(InputError, match="a simulation of"):
        simulate(tmp_path / "part", **TINY, seed=1)
    assert content(simulate(tmp_path / "part", **TINY)) == whole


def test_one_writer(tmp_path):
    with only_writer(tmp_path / "out"), pytest.raises(InputError, match="one writer at a time"):
        simulate(tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_refuses_folders_with_other_things(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="not a simulation"):
        simulate(tmp_path, **TINY)
    with pytest.raises(InputError, match="not a simulation"):
        simulate(tmp_path / "notes.txt", **TINY)
    (tmp_path / "truth.json").write_text("[1]")
    with pytest.raises(InputError, match="not a simulation"):
        simulate(tmp_path, **TINY)
    assert content(tmp_path) == {"notes.txt": b"mine", "truth.json": b"[1]"}


def test_refuses_impossible_sizes_all_at_once(tmp_path):
    with pytest.raises(InputError) as caught:
        simulate(tmp_path / "sim", genes=10, cells=99, assays=99, seed=-1)
    assert len(caught.value.problems) == 4
    assert not (tmp_path / "sim").exists()


def test_program(tmp_path, program):
    command = ["data_prep.simulate", f"--out={tmp_path / 'sim'}", "--genes=60"]
    failed = program(*command, "--cells=1000")
    assert failed.returncode == 2
    assert "cells=1000" in failed.stderr
    process = [sys.executable, "-m", *command, "--cells=1"]
    done = subprocess.run(process, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "written" in done.stdout
    assert (tmp_path / "sim/truth.json").exists()
