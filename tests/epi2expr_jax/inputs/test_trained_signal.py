import dataclasses
import json
import pathlib
import shutil
import warnings

import numpy as np
import pytest

from data_prep.formats.assembly import load_assembly
from epi2expr_jax.errors import InputError
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.predict.loading import load
from epi2expr_jax.predict.training_store import open_own
from epi2expr_jax.store.manifest import Manifest, read_manifest, write_manifest
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import train
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.one_run import TrainConfig


@pytest.fixture(scope="module")
def trained(small_store, tmp_path_factory):
    """A run of one cell, from all three assays and from the first."""
    store = shutil.copytree(small_store.path, tmp_path_factory.mktemp("own") / "store.zarr")
    run_dir = tmp_path_factory.mktemp("run") / "run"
    manifest = small_store.manifest
    request = TrainRequest(
        store=str(store), model="promoter_cnn", model_options={"width": 0.02},
        cells=manifest.cells[:1], assays=["all", manifest.assays[0]], cv="chromosomes_3",
        train_config=TrainConfig(epochs=1, batch_size=32),
    )  # fmt: skip
    train(request, run_dir)
    return run_dir


@pytest.fixture
def run_dir(trained, tmp_path):
    """A copy to tamper with."""
    return pathlib.Path(shutil.copytree(trained, tmp_path / "run"))


@pytest.fixture
def altered(small_store, tmp_path):
    """`altered(units=…, assembly=…)`: a store of the same tracks that says other things of them."""

    def make(name="other", **changes) -> WindowStore:
        path = shutil.copytree(small_store.path, tmp_path / f"{name}.zarr")
        manifest = read_manifest(path)
        units = {**manifest.units, **changes.pop("units", {})}
        write_manifest(path, dataclasses.replace(manifest, units=units, **changes))
        return WindowStore.open(path)

    return make


def as_an_older_version_wrote_it(run_dir: pathlib.Path, store: str | None = None) -> None:
    """The run card without what the signal was, and with another path of the store."""
    path = run_dir / checkpoint.RUN_CARD
    card = json.loads(path.read_text())
    assert card.pop("signal")["units"]
    del card["sha256"], card["store"]["relative"]
    if store is not None:
        card["store"]["path"] = store
    path.write_text(json.dumps(card))


def test_the_card_keeps_units_transforms_and_assembly(trained, small_store):
    manifest = small_store.manifest
    signal = TrainedSignal(**checkpoint.read_card(trained)["signal"])
    assert signal.units == manifest.units
    assert set(signal.units.values()) == {"pvalue"}
    assert set(signal.transforms.values()) == {"arcsinh"}
    assert signal.assembly == manifest.assembly
    assert signal.chrom_sizes == {name: manifest.chrom_sizes[name] for name in manifest.chromosomes}
    assert load(trained).signal == signal


def test_tracks_of_another_unit_are_refused_by_assay(trained, small_store, altered):
    """They would go through another transform, and the predictions be wrong without a word."""
    first, second, _ = small_store.manifest.assays
    store = altered(units={first: "depth", second: "fold_change"})
    ensemble = load(trained)
    with pytest.raises(InputError) as refused:
        ensemble.predict(store)
    assert str(refused.value).count("which the models were trained on") == 2
    assert f"{first}: unit depth" in str(refused.value).replace("found ", "")
    assert "build the store again" in str(refused.value)
    # A model that reads none of the assays in question predicts as before.
    other = altered("second", units={second: "depth"})
    alone = ensemble.only([first])
    np.testing.assert_array_equal(alone.predict(other), alone.predict(small_store))


def test_another_assembly_is_refused(trained, small_store, altered):
    """Lengths say which it is; of chromosomes that the store does not know, its name."""
    manifest, models = small_store.manifest, load(trained)
    own = models.predict(small_store)
    np.testing.assert_array_equal(models.predict(altered("named", assembly="hg99")), own)
    fewer = {name: size for name, size in manifest.chrom_sizes.items() if name != "chr1"}
    with pytest.raises(InputError, match=r"assembly hg99.*--assembly=genome"):
        models.predict(altered(assembly="hg99", chrom_sizes=fewer))
    longer = {name: size + 1 for name, size in manifest.chrom_sizes.items()}
    with pytest.raises(InputError, match="with other lengths of chr1") as refused:
        load(trained).predict(altered("longer", chrom_sizes=longer))
    assert "--assembly" not in str(refused.value)  # it is another one under any name


def test_the_same_lengths_under_another_name_are_told_how_to_be_the_same_store(
    trained, small_store, altered, tmp_path
):
    """By a file of lengths of the name that the run knows, which is the name of the assembly."""
    card = checkpoint.read_card(trained)
    named = altered(assembly="hg99")
    with pytest.raises(InputError, match=r"other contents.*a file genome\.chrom\.sizes") as refused:
        open_own(trained, card, named.path)
    assert "give the right --store; if it is the same assembly" in str(refused.value)
    lengths = tmp_path / "genome.chrom.sizes"
    sizes = small_store.manifest.chrom_sizes
    lengths.write_text("".join(f"{name}\t{size}\n" for name, size in sizes.items()))
    again = altered("again", assembly=load_assembly(lengths).name)
    assert open_own(trained, card, again.path).checksum() == card["store_checksum"]


def test_the_transform_is_that_of_training_whatever_this_version_makes_of_the_unit(
    trained, small_store, monkeypatch
):
    expected = load(trained).predict(small_store)
    monkeypatch.setattr("epi2expr_jax.units.UNIT_TRANSFORM", {"pvalue": "log1p"})
    np.testing.assert_array_equal(load(trained).predict(small_store), expected)


def test_an_older_run_takes_it_once_from_its_own_store_and_says_so(run_dir, small_store, altered):
    expected = load(run_dir).predict(small_store)
    as_an_older_version_wrote_it(run_dir)
    with pytest.warns(UserWarning, match=r"taken from its own store .* and kept in the card"):
        ensemble = load(run_dir)
    np.testing.assert_array_equal(ensemble.predict(small_store), expected)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = load(run_dir)
    assert again.signal == ensemble.signal
    with pytest.raises(InputError, match="unit depth"):
        again.predict(altered(units=dict.fromkeys(small_store.manifest.assays, "depth")))


def test_an_older_run_whose_store_has_moved(run_dir, small_store, altered):
    expected = load(run_dir).predict(small_store)
    as_an_older_version_wrote_it(run_dir, store="gone.zarr")
    ensemble = load(run_dir)
    assert ensemble.signal is None
    # Its own store is known by its contents, wherever it lies.
    np.testing.assert_array_equal(ensemble.predict(small_store), expected)
    other = altered(tss="some other rule")
    with pytest.raises(InputError, match=r"load\(RUN, store=PATH\)"):
        ensemble.predict(other)
    with pytest.raises(InputError, match="other contents than the one trained on"):
        load(run_dir, store=other.path)
    with pytest.warns(UserWarning, match="kept in the card"):
        load(run_dir, store=small_store.path)
    np.testing.assert_array_equal(load(run_dir).predict(other), expected)


def test_imported_weights_read_depth_of_whatever_assembly(small_store):
    signal = TrainedSignal.of_depth(small_store.manifest.assays)
    manifest: Manifest = small_store.manifest
    depth = dataclasses.replace(manifest, units=dict.fromkeys(manifest.assays, "depth"))
    signal.require_same(depth, "store", manifest.assays)
    with pytest.raises(InputError, match="unit pvalue"):
        signal.require_same(manifest, "store", manifest.assays)


@pytest.mark.parametrize(
    "content",
    [
        "x",
        {},
        {"units": {"DNase": "pvalue"}, "transforms": {}},
        {"units": {"DNase": "pvalue"}, "transforms": {"DNase": "square"}},
        {"units": {}, "transforms": {}, "later": 1},
    ],
)
def test_a_card_that_keeps_something_else_is_refused_by_name(run_dir, content):
    checkpoint.write_card(run_dir, {**checkpoint.read_card(run_dir), "signal": content})
    with pytest.raises(InputError, match=r"run_card\.json: signal.*that wrote it, or train again"):
        load(run_dir)


def test_a_store_that_gives_no_unit_is_refused(trained, small_store, tmp_path):
    path = shutil.copytree(small_store.path, tmp_path / "unnamed.zarr")
    manifest = read_manifest(path)
    write_manifest(path, dataclasses.replace(manifest, units={}))
    with pytest.raises(InputError, match="unit not given"):
        load(trained).predict(path)


@pytest.mark.parametrize("damaged", ["genes.parquet", "slabs"])
def test_an_older_run_loads_though_its_store_is_damaged(run_dir, small_store, tmp_path, damaged):
    own = pathlib.Path(shutil.copytree(small_store.path, tmp_path / "own.zarr"))
    as_an_older_version_wrote_it(run_dir, store=str(own))
    for path in [own / damaged, *(own / damaged).rglob("*.json")]:
        if path.is_file():
            path.write_text("nothing")
    assert load(run_dir).signal is None


def test_a_command_that_is_told_the_store_keeps_it(run_dir, small_store):
    as_an_older_version_wrote_it(run_dir, store="gone.zarr")
    with pytest.warns(UserWarning, match="kept in the card"):
        evaluate(run_dir, str(small_store.path))
    assert checkpoint.read_card(run_dir)["signal"]["units"] == small_store.manifest.units
