import dataclasses
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pandas as pd
import pyBigWig
import pytest
import xarray as xr

from data_prep.build_store import build, build_slab
from data_prep.formats.annotation import read_genes
from data_prep.formats.assembly import load_assembly
from data_prep.formats.bin_means import interval_means
from data_prep.formats.track_sheet import read_sheet
from epi2expr_jax.errors import InputError
from epi2expr_jax.files import only_writer
from epi2expr_jax.inputs.dataset import load_dataset
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.lookup import Study
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training.one_run import TrainConfig
from epi2expr_jax.training.runs import Run, plan_runs

# But for the program that is killed, which starts workers as it always does.
pytestmark = pytest.mark.usefixtures("worker_here")


def test_the_store_holds_what_the_tracks_say(small_store, roadmap):
    """One window read base by base, straight from the bigWig."""
    tracks = pd.read_csv(roadmap / "tracks.csv")
    gene = small_store.genes.iloc[100]
    for row in tracks.itertuples():
        with pyBigWig.open(str(roadmap / row.path)) as file:
            bases = file.values(gene.chrom, int(gene.tss) - 3000, int(gene.tss) + 3000)
        expected = np.nan_to_num(np.array(bases)).reshape(120, 50).mean(1)
        stored = small_store.read_signal([row.cell], [row.assay])[0, 0, 100]
        np.testing.assert_allclose(stored, expected, rtol=1e-6)


def test_expression_and_genes_join(small_store, roadmap):
    table = pd.read_csv(roadmap / "RPKM.pc.gz", sep="\t", index_col=False).set_index("gene_id")
    for cell in small_store.manifest.cells:
        np.testing.assert_allclose(
            small_store.read_expression([cell])[0],
            table[cell][small_store.genes.gene_id],
            rtol=1e-6,
        )
    assert small_store.verify() == []
    with xr.open_zarr(small_store.path) as opened:
        assert opened.sizes["gene"] == len(small_store.genes) == 220


def test_expression_is_optional_and_may_be_labels(small_store, build_config, tmp_path, capsys):
    bare = build(build_config(tmp_path / "bare.zarr", expression="", chromosomes="1,2,3"))
    said = "no expression: a store to predict from, not to train on"
    assert said in capsys.readouterr().out
    assert not bare.manifest.expression_unit
    known = small_store.genes
    rows = known.index[known.chrom.isin(["chr1", "chr2", "chr3"])]
    assert bare.genes.gene_id.tolist() == known.gene_id[rows].tolist()
    pair = (bare.manifest.cells, bare.manifest.assays)
    np.testing.assert_array_equal(
        bare.read_signal(*pair), small_store.read_signal(*pair)[:, :, rows]
    )
    labels = pd.DataFrame({"name": known.name[rows], **dict.fromkeys(pair[0], 1)})
    labels.iloc[::3, 1:] = 0
    labels.to_csv(tmp_path / "labels.csv", sep=";", index=False)
    config = build_config(
        tmp_path / "labels.zarr", expression=str(tmp_path / "labels.csv"), expression_unit="label"
    )
    labelled = build(config)
    given = labels.set_index("name").loc[labelled.genes.name, pair[0]]
    np.testing.assert_array_equal(labelled.read_labels(pair[0]), given.to_numpy().T == 1)
    request = TrainRequest(str(labelled.path), cv="chromosomes_3", target="label",
                           train_config=TrainConfig(task="classification"))  # fmt: skip
    assert Study(request).runs
    with pytest.raises(InputError, match="a store of labels alone"):
        Study(TrainRequest(str(labelled.path), cv="chromosomes_3"))
    data = load_dataset(labelled, PromoterCnnConfig(), pair[0], pair[1][:1])
    runs = [Run(pair[0][0], (pair[1][0],), fold.name, 0) for fold in Study(request).folds]
    inputs, _ = plan_runs(data, runs, Study(request).folds, "label")
    np.testing.assert_array_equal(inputs.target[0], given[pair[0][0]])


def test_a_complete_store_is_left_alone(small_store, build_config):
    before = {path: path.stat().st_mtime_ns for path in small_store.path.rglob("*")}
    build(build_config(small_store.path))
    assert before == {path: path.stat().st_mtime_ns for path in small_store.path.rglob("*")}


def test_only_what_is_missing_is_built(small_store, build_config, tmp_path):
    copy = tmp_path / "copy.zarr"
    shutil.copytree(small_store.path, copy)
    cell, assay = small_store.manifest.tracks[0]
    (copy / "slabs" / cell / f"{assay}.json").unlink()
    before = {path: path.stat().st_mtime_ns for path in (copy / "slabs").rglob("*.json")}
    store = build(build_config(copy, verify=False))
    after = {path: path.stat().st_mtime_ns for path in (copy / "slabs").rglob("*.json")}
    assert {path for path in after if before.get(path) != after[path]} == {
        copy / "slabs" / cell / f"{assay}.json"
    }
    assert store.checksum() == small_store.checksum()
    # The shards of two assays change places: the same command makes both again.
    first, second = (copy / "signal" / "c" / "0" / assay / "0" / "0" for assay in "01")
    first.rename(copy / "first")
    second.rename(first)
    (copy / "first").rename(second)
    assert build(build_config(copy)).checksum() == small_store.checksum()


def with_data_on(chromosomes, path, cut) -> str:
    """A copy of a bigWig that has lost its data on all other chromosomes."""
    with pyBigWig.open(str(path)) as file, pyBigWig.open(str(cut), "w") as out:
        out.addHeader(list(file.chroms().items()))
        for chrom in chromosomes:
            starts, ends, values = map(list, zip(*file.intervals(chrom), strict=True))
            out.addEntries([chrom] * len(starts), starts, ends=ends, values=values)
    return str(cut)


def test_genes_without_data_are_left_out_and_counted(build_config, roadmap, tmp_path):
    tracks = pd.read_csv(roadmap / "tracks.csv").head(2)
    tracks = tracks.drop(columns="sha256")
    tracks["path"] = [str(roadmap / path) for path in tracks.path]
    tracks.loc[1, "path"] = with_data_on(["chr1"], tracks.path[1], tmp_path / "cut.bigwig")
    tracks.to_csv(tmp_path / "tracks.csv", index=False)
    config = build_config(
        tmp_path / "s", tracks=str(tmp_path / "tracks.csv"), min_covered=0.5, workers=1
    )
    store = build(config)
    assert set(store.genes.chrom) == {"chr1"}
    assert store.manifest.left_out["data on less than 0.5 of the window"] == 220 - len(store.genes)
    for track in store.manifest.tracks:
        assert (store.slabs.array("coverage", *track) >= 0.5).all()
    assert not (tmp_path / "s.coverage").exists()
    build(config)  # complete: found by what was asked for, not by what was found out


@pytest.fixture(scope="module")
def contacts(roadmap, tmp_path_factory):
    """A sheet of contacts: in the first cell two a gene, in the second one a gene of chr1."""
    folder = tmp_path_factory.mktemp("contacts")
    sizes = load_assembly(roadmap / "genome.chrom.sizes").chrom_sizes
    genes = read_genes(roadmap / "genes.gtf.gz", chrom_sizes=sizes)
    cells = pd.read_csv(roadmap / "tracks.csv").cell.unique()[:2]
    rows = [
        (gene.chrom, gene.tss - 50, gene.tss + 50, gene.chrom, start, start + 1234, "x", score)
        for gene in genes.itertuples()
        for start, score in ((gene.tss // 2, 2.0), (gene.tss // 3, 3.0))
    ]
    table = pd.DataFrame(rows)
    table.to_csv(folder / "first.bedpe", sep="\t", index=False, header=False)
    table[(table[0] == "chr1") & (table[7] > 2)].to_csv(
        folder / "second.bedpe", sep="\t", index=False, header=False
    )
    pd.DataFrame({"cell": cells, "path": ["first.bedpe", "second.bedpe"]}).to_csv(
        folder / "contacts.csv", index=False
    )
    return folder / "contacts.csv"


def test_contacts_become_regions_of_the_store(build_config, roadmap, contacts, tmp_path, capsys):
    """Only for genes that stay; a rerun does what is missing, and refuses other contacts."""
    tracks = pd.read_csv(roadmap / "tracks.csv").drop_duplicates("cell").drop(columns="sha256")
    tracks["path"] = [str(roadmap / path) for path in tracks.path]
    tracks.loc[0, "path"] = with_data_on(["chr1", "chr2"], tracks.path[0], tmp_path / "cut.bigwig")
    tracks.to_csv(tmp_path / "tracks.csv", index=False)
    config = build_config(
        tmp_path / "s",
        tracks=str(tmp_path / "tracks.csv"),
        interactions=str(contacts),
        min_covered=0.5,
        workers=1,
    )
    store = build(config)
    assert set(store.genes.chrom) == {"chr1", "chr2"}
    first, second = (store.regions(cell) for cell in store.manifest.cells)
    assert len(first.contacts) == len(first.table) == 2 * len(store.genes)
    on_first = (store.genes.chrom == "chr1").sum()
    assert len(second.contacts) == on_first
    assert set(second.table.chrom) == {"chr1"}
    shown = capsys.readouterr().out
    assert f"contacts of {store.manifest.cells[0]} (first.bedpe): 440 contacts read" in shown
    assert "220 genes have some, 0 none, mean 2.0 a gene; dropped: none" in shown
    for row, regions in zip(tracks.itertuples(), (first, second), strict=True):
        table = regions.table
        expected = interval_means(row.path, list(table.chrom), table.start, table.end, 100)
        depth = store.read_region_signal(row.cell, [row.assay])[0]
        assert depth.shape == (13 * len(table),)
        np.testing.assert_array_equal(depth, expected)
    assert store.verify() == []

    checksum = store.checksum()
    (store.path / "slabs" / tracks.cell[0] / f"{tracks.assay[0]}.json").unlink()
    build_slab(read_sheet(config.tracks).tracks[0], str(store.path))  # what a rerun does
    assert build(config).checksum() == checksum
    assert "nothing to do" in capsys.readouterr().out
    for change in ({"max_contacts": 1}, {"interactions": ""}, {"min_contact_score": 1.0}):
        with pytest.raises(InputError, match=": contacts: found"):
            build(dataclasses.replace(config, **change))


def test_a_blacklist_hides_bins_of_regions_and_leaves_out_genes(
    build_config, contacts, tmp_path, capsys
):
    """A gene whose window is hidden is left out by --min_covered; of a region's bins, those hit."""
    whole = build(build_config(tmp_path / "w", interactions=str(contacts), workers=1))
    gene, other = whole.genes.iloc[7], whole.genes.iloc[0]  # the other one stays
    cell = whole.manifest.cells[0]
    table = whole.regions(cell).table
    region = table[table.chrom != gene.chrom].iloc[0]
    bed = tmp_path / "black.bed"
    bed.write_text(
        f"{gene.chrom}\t{gene.tss - 3000}\t{gene.tss + 1000}\n"
        f"{region.chrom}\t{region.start + 150}\t{region.start + 250}\n"
        f"{other.chrom}\t{other.tss - 100}\t{other.tss}\n"
    )
    store = build(
        build_config(
            tmp_path / "s",
            interactions=str(contacts),
            blacklist=str(bed),
            min_covered=0.5,
            workers=1,
        )
    )
    assert gene.gene_id not in set(store.genes.gene_id)
    places = ["chrom", "start", "end"]
    kept = store.regions(cell).table
    (here,) = np.flatnonzero((kept[places] == region[places]).all(axis=1))
    first = kept.first[here]
    assay = store.manifest.assays[0]
    hidden = store.read_region_signal(cell, [assay])[0, first : first + 13]
    shown = whole.read_region_signal(cell, [assay])[0, region.first : region.first + 13]
    assert (hidden[1:3] == 0).all()
    np.testing.assert_array_equal(np.delete(hidden, [1, 2]), np.delete(shown, [1, 2]))
    assert (shown[1:3] > 0).all()
    assert store.verify() == []
    known = store.manifest
    assert known.blacklisted.keys() == {"genes", "bins"}
    zeros = (store.read_signal(known.cells, known.assays) == 0).all(axis=(0, 1))
    assert 0 < known.blacklisted["genes"] <= len(store.genes)
    assert known.blacklisted["genes"] <= known.blacklisted["bins"] <= zeros.sum()
    said = f"blacklist black.bed (sha256 {known.blacklist['sha256'][:12]}, 3 intervals): touches "
    assert said in capsys.readouterr().out
    assert "blacklist   black.bed" in repr(store)


def sheet(roadmap, tmp_path, **changes):
    """A copy of the track sheet with absolute paths, some columns of its first row changed."""
    table = pd.read_csv(roadmap / "tracks.csv").drop(columns="sha256")
    table["path"] = [str(roadmap / path) for path in table.path]
    for column, value in changes.items():
        table.loc[0, column] = value
    table.to_csv(tmp_path / "tracks.csv", index=False)
    return str(tmp_path / "tracks.csv")


def test_a_track_with_another_checksum_fails_and_the_others_are_done(
    build_config, roadmap, tmp_path
):
    tracks = sheet(roadmap, tmp_path)
    table = pd.read_csv(tracks).assign(sha256="")
    table.loc[0, "sha256"] = "0" * 64
    table.to_csv(tracks, index=False)
    config = build_config(tmp_path / "s", tracks=tracks)
    with pytest.raises(InputError, match="sha256") as caught:
        build(config)
    assert len(caught.value.problems) == 1
    store = WindowStore.open(tmp_path / "s", incomplete=True)
    assert len(store.missing_slabs()) == 1


@pytest.mark.parametrize("change", ["another size", "the same size", "another sha256"])
def test_a_changed_source_does_not_pass_for_done(
    small_store, build_config, roadmap, tmp_path, change
):
    """Also one of the same size: its content is looked at if it is newer than the slab."""
    copy = shutil.copytree(small_store.path, tmp_path / "s")
    tracks = sheet(roadmap, tmp_path)
    table = pd.read_csv(tracks)
    if change == "another size":
        table.loc[[0, 1], "path"] = table.path[[1, 0]].to_numpy()
    elif change == "another sha256":
        table = table.assign(sha256=["0" * 64, *[""] * (len(table) - 1)])
    else:
        own = pathlib.Path(shutil.copy(table.path[0], tmp_path / "own.bigwig"))
        table.loc[0, "path"] = str(own)
        content = bytearray(own.read_bytes())
        content[-200] ^= 1
        own.write_bytes(content)
    table.to_csv(tracks, index=False)
    config = build_config(copy, tracks=tracks, verify=False)
    with pytest.raises(InputError, match=r"a slab built from .*the files that are there now"):
        build(config)


def test_one_process_builds_a_store_and_the_next_is_told_who(small_store, build_config, tmp_path):
    copy = shutil.copytree(small_store.path, tmp_path / "s")
    with only_writer(copy), pytest.raises(InputError, match="expected one writer at a time"):
        build(build_config(copy))


def command(config):
    fields = dataclasses.asdict(config)
    return [
        sys.executable,
        "-m",
        "data_prep.build_store",
        *[f"--{name}={value}" for name, value in fields.items() if value is not None],
    ]


def test_program_reports_and_leaves_with_a_status(build_config, tmp_path, program):
    config = build_config(tmp_path / "s", window_bp=6001)
    done = program(*command(config)[2:])
    assert done.returncode == 2
    assert "remedy" in done.stderr
    assert "Traceback" not in done.stderr
    done = program(*command(build_config(tmp_path / "s", max_contacts=3))[2:])
    assert done.returncode == 2
    assert "--max_contacts=3, which has no effect without --interactions" in done.stderr
    help_text = program("data_prep.build_store", "--help").stdout
    assert "--min_covered" in help_text
    assert "python -m data_prep.build_store" in help_text


@pytest.mark.trial
def test_killed_and_run_again_gives_the_same_store(build_config, small_store, tmp_path, trial_size):
    """kill -9 of the whole process group at random moments."""
    random = np.random.default_rng(0)
    interrupted = 0
    for i in range(trial_size(1, 100)):
        config = build_config(tmp_path / f"s{i}.zarr", min_covered=0.01)
        process = subprocess.Popen(
            command(config), start_new_session=True, stdout=subprocess.DEVNULL
        )
        # From before anything is written to about the end.
        target, wait = random.integers(0, 6), random.random() * 0.3
        deadline = time.time() + 60
        while process.poll() is None and time.time() < deadline:
            done = len(list((tmp_path / f"s{i}.zarr" / "slabs").rglob("*.json")))
            if done >= target:
                time.sleep(wait)
                break
            time.sleep(0.01)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            interrupted += 1
        process.wait()
        subprocess.run(command(config), check=True, stdout=subprocess.DEVNULL)
        store = WindowStore.open(config.store)
        assert store.verify() == []
        assert _values(store) == _values(small_store)
        # What the killed workers were writing stays for an hour.
        assert len(list(store.path.rglob("*.partial*"))) <= 2
    assert interrupted


def _values(store):
    """Checksums of all slabs; the manifest of this trial asks for coverage and so differs."""
    return [store.slab_record(*pair)["sha256"] for pair in store.manifest.tracks]
