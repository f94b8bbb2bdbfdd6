import math
from collections import namedtuple

import pytest

from data_prep.checks import needs
from data_prep.checks.build_inputs import gather_inputs
from data_prep.checks.needs import (
    Needs,
    check_disk,
    memory_warnings,
    store_bytes,
    store_folder,
    worker_bytes,
)
from epi2expr_jax.errors import Problems
from tests.data_prep.problems import problems_of

SLAB = 4 * 4 * 40  # genes, bytes of a float32, bins


@pytest.fixture
def inputs(study):
    """`inputs(**changes)`: of the study."""

    def read(**changes):
        problems = Problems()
        found = gather_inputs(study.config(**changes), problems)
        assert not problems
        return found

    return read


@pytest.fixture
def disk(monkeypatch):
    """`disk(free)`: every disk has so many bytes left."""
    usage = namedtuple("usage", "total used free")

    def shrink(free):
        monkeypatch.setattr(needs.shutil, "disk_usage", lambda _: usage(1e9, 1e9 - free, free))

    return shrink


def test_a_store_holds_4_bytes_a_bin_of_each_window_and_region(inputs, study):
    assert store_bytes(inputs()) == 3 * SLAB
    bedpe = study.folder / "contacts.bedpe"
    bedpe.write_text("chr1\t2000\t4000\tchr1\t8000\t8250\tx\t2.5\n")
    # 250 bp are 3 bins of 100 bp, in each track of both cells
    assert store_bytes(inputs(interactions=str(bedpe))) == 3 * (SLAB + 4 * 3)
    (study.folder / "c.csv").write_text("cell,path\nE1,contacts.bedpe\nE2,other.bedpe\n")
    other = bedpe.read_text().replace("8250", "8100")
    (study.folder / "other.bedpe").write_text(other)
    apart = inputs(interactions=str(study.folder / "c.csv"))
    assert store_bytes(apart) == 2 * (SLAB + 4 * 3) + (SLAB + 4)


def test_a_worker_needs_more_for_wider_windows_and_for_replicates(inputs, study):
    usual = worker_bytes(inputs())
    assert usual > 100e6  # the process itself
    assert worker_bytes(inputs(bin_bp=50)) - usual == 4 * SLAB  # twice the bins, in four copies
    study.sheet(cell=["E1", "E1", "E2"], assay=["M", "M", "M"], replicate=["1", "2", ""])
    assert worker_bytes(inputs()) - usual == SLAB  # of the sum


def test_too_small_a_disk_is_a_problem(inputs, study, disk):
    disk(3 * SLAB // 2)  # real tracks compress to half
    assert problems_of(check_disk, inputs()) == []
    disk(3 * SLAB // 2 - 1)
    (problem,) = problems_of(check_disk, inputs())
    assert (problem.kind, problem.where) == ("disk", str(study.folder))
    assert problem.found == "0.0 GB free"
    assert "choose another --store" in problem.remedy


def test_a_folder_that_refuses_writing_is_a_problem(inputs, study, monkeypatch):
    asked = []
    monkeypatch.setattr(needs.os, "access", lambda path, mode: asked.append(path))
    (problem,) = problems_of(check_disk, inputs(store=str(study.folder / "a" / "b.zarr")))
    assert asked == [study.folder]
    assert (problem.kind, problem.where) == ("disk", str(study.folder))
    assert problem.found == "a folder that refuses writing"


def test_a_worker_gets_as_much_memory_as_the_warning_says(inputs):
    (problem,) = memory_warnings(inputs(worker_gib=0.3))
    assert (problem.kind, problem.where) == ("memory", "--worker_gib=0.3")
    advised = float(problem.remedy.partition("--worker_gib=")[2].partition(",")[0])
    assert 0.3 < advised < 1
    assert memory_warnings(inputs(worker_gib=advised)) == []
    # Workers of a cluster that is joined have limits of their own.
    assert memory_warnings(inputs(worker_gib=0.3, scheduler_address="tcp://host:1")) == []


def test_time_grows_with_tracks_genes_and_passes_and_is_shared_by_workers(inputs):
    study = inputs(workers=1)
    first, *_ = study.sheet.tracks
    hour = {first: 3600.0}  # of reading one track; the two others are taken to be like it

    def hours(found, seconds, genes):
        return Needs.of(found, seconds, genes).hours

    usual = hours(study, hour, 4)
    assert 3 < usual < 9  # reading alone are 3, compressing and writing come to it
    assert hours(study, hour, 2) == pytest.approx(2 * usual, rel=1e-3)
    assert hours(inputs(workers=3), hour, 4) == pytest.approx(usual / 3, rel=1e-3)
    assert hours(inputs(workers=1, min_covered=0.1), hour, 4) == pytest.approx(usual + 3, rel=1e-3)
    uneven = {**hour, study.sheet.tracks[1]: 0.0}  # the third is like their mean
    assert hours(study, uneven, 4) == pytest.approx(usual / 2, rel=1e-3)
    assert math.isnan(hours(study, {}, 4))
    assert math.isnan(hours(study, hour, 0))


def test_needs_are_said_in_one_line(inputs, disk):
    disk(12_345)
    found = Needs.of(inputs(), {}, 0)
    assert (found.store_bytes, found.free_bytes) == (3 * SLAB, 12_345)
    assert found.worker_bytes == worker_bytes(inputs())
    line = "needs: disk 2 GB before compression (5 GB free), memory 1.5 GiB a worker, time "
    for hours, said in ((0.5, "30 min"), (2.5, "2.5 h"), (math.nan, "unknown")):
        assert str(Needs(2 * 10**9, 5 * 10**9, 3 << 29, hours)) == line + said


def test_the_folder_of_a_store_is_the_nearest_that_exists(tmp_path, monkeypatch):
    assert store_folder(str(tmp_path / "a" / "b" / "c.zarr")) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert store_folder("store.zarr") == tmp_path
