"""The arrays of a store: zarr-python, xarray and TensorStore agree on what is in them."""

import dataclasses

import numpy as np
import pytest
import xarray as xr
import zarr

from epi2expr_jax.store.arrays import declare_arrays, open_array
from epi2expr_jax.store.regions import Regions
from tests.epi2expr_jax.store.toy import CONTACTS, GENES, MANIFEST

# Cells, assays, genes, bins; and the bins of three regions.
DECLARED = {
    "signal": (("cell", "assay", "gene", "bin"), (2, 2, 700, 40), "float32"),
    "coverage": (("cell", "assay", "gene"), (2, 2, 700), "float32"),
    "expression": (("cell", "gene"), (2, 700), "float32"),
    "label": (("cell", "gene"), (2, 700), "bool"),
    "regions/c2/depth": (("assay", "bin"), (2, 14), "float32"),
}


@pytest.fixture
def declared(tmp_path):
    regions = {"c2": Regions.from_contacts(CONTACTS, GENES)}
    manifest = dataclasses.replace(MANIFEST, given_labels=True)
    declare_arrays(tmp_path / "s.zarr", manifest, GENES, regions)
    return tmp_path / "s.zarr"


def numbers(name, seed=0):
    _, shape, kind = DECLARED[name]
    values = np.random.default_rng(seed).random(shape)
    return values < 0.5 if kind == "bool" else values.astype(kind)


def test_every_array_is_there_before_any_value(declared):
    group = zarr.open_group(str(declared), mode="r")
    assert group.attrs["format"] == "epi2expr_jax window store"
    for name, (axes, shape, kind) in DECLARED.items():
        array, opened = group[name], open_array(declared, name)
        assert array.metadata.dimension_names == opened.domain.labels == axes
        assert (array.shape, opened.shape) == (shape, shape)
        assert (str(array.dtype), opened.dtype.name) == (kind, kind)
        with pytest.raises(ValueError, match="missing"):
            opened.read().result()
    for name, labels in (("cell", MANIFEST.cells), ("assay", MANIFEST.assays)):
        assert list(group[name][:]) == labels
    assert list(group["gene"][:]) == GENES.gene_id.tolist()
    assert dict(group["signal"].attrs) == {
        "units": "raw bin means", "window_bp": 1000, "bin_bp": 25,
    }  # fmt: skip
    assert group["regions/c2/depth"].attrs["bin_bp"] == 100


def test_labels_and_regions_are_declared_only_where_there_are_some(tmp_path):
    declare_arrays(tmp_path / "s.zarr", MANIFEST, GENES.head(1), {})
    group = zarr.open_group(str(tmp_path / "s.zarr"), mode="r")
    names = {"cell", "assay", "gene", "bin", "signal", "coverage", "expression"}
    names |= {"tss", "strand", "chrom", "gene_name"}
    assert {name for name, _ in group.members(max_depth=None)} == names
    assert group["signal"].shape == (2, 2, 1, 40)


def test_zarr_and_xarray_open_it_with_the_same_numbers(declared):
    written = {name: numbers(name) for name in DECLARED}
    for name, values in written.items():
        open_array(declared, name).write(values).result()
    group = zarr.open_group(str(declared), mode="r")
    for name, values in written.items():
        np.testing.assert_array_equal(group[name][:], values)
    with xr.open_zarr(declared) as opened:
        assert opened.signal.dims == ("cell", "assay", "gene", "bin")
        signal = opened.signal.sel(cell="c2", assay="m1")
        np.testing.assert_array_equal(signal, written["signal"][1, 0])
        np.testing.assert_array_equal(opened.expression, written["expression"])
        np.testing.assert_array_equal(opened.label.sel(cell="c2"), written["label"][1])
        assert opened.gene.values.tolist() == GENES.gene_id.tolist()
        assert opened.signal.attrs["bin_bp"] == 25
        for name, column in {"tss": "tss", "strand": "strand", "chrom": "chrom"}.items():
            assert opened.signal.coords[name].values.tolist() == GENES[column].tolist()
        assert opened.signal.gene_name.values.tolist() == GENES.name.tolist()
        assert opened.bin[[0, 19, 20, 39]].values.tolist() == [-487.5, -12.5, 12.5, 487.5]
    with xr.open_zarr(declared, group="regions/c2") as opened:
        np.testing.assert_array_equal(opened.depth, written["regions/c2/depth"])


def test_a_slab_is_one_file_and_touches_no_other(declared):
    """Each has one writer, so writers side by side never share a file."""
    values = numbers("signal")
    for count, place in enumerate([(0, 1), (1, 0), (0, 0)], 1):
        open_array(declared, "signal")[place].write(values[place]).result()
        files = [path for path in (declared / "signal" / "c").rglob("*") if path.is_file()]
        assert len(files) == count
    for place in [(0, 1), (1, 0), (0, 0)]:
        np.testing.assert_array_equal(open_array(declared, "signal")[place], values[place])
    with pytest.raises(ValueError, match="missing"):
        open_array(declared, "signal")[1, 1].read().result()


def test_an_array_that_was_not_declared_is_not_made_by_opening_it(declared):
    with pytest.raises(ValueError, match="NOT_FOUND"):
        open_array(declared, "regions/c1/depth")
    assert not (declared / "regions" / "c1").exists()
