import importlib
import subprocess
import sys

import pytest

from epi2expr_jax import moved


@pytest.mark.parametrize(
    ("old", "name", "new"),
    [
        ("epi2expr_jax.dataset", "load_dataset", "epi2expr_jax.inputs.dataset"),
        ("epi2expr_jax.dataset", "plan_batches", "epi2expr_jax.training.runs"),
        ("epi2expr_jax.runs", "TargetScale", "epi2expr_jax.training.targets"),
        ("epi2expr_jax.signal", "UNIT_TRANSFORM", "epi2expr_jax.units"),
        ("epi2expr_jax.ranking", "jackknife", "epi2expr_jax.scores.intervals"),
        ("epi2expr_jax.training", "TrainConfig", "epi2expr_jax.training.one_run"),
        ("epi2expr_jax.predict", "predict_runs", "epi2expr_jax.predict.inference"),
        ("data_prep.catalogue", "read_sheet", "data_prep.formats.track_sheet"),
        ("experiments.flags", "TrainRequest", "epi2expr_jax.study.request"),
        ("experiments.figures", "heat_map", "experiments.figures.style"),
    ],
)
def test_an_old_path_gives_the_same_object_and_says_the_new_one(old, name, new):
    with pytest.warns(FutureWarning, match=rf"{new}\.{name} since version 0\.2"):
        found = getattr(importlib.import_module(old), name)
    assert found is getattr(importlib.import_module(new), name)


@pytest.mark.parametrize("old", sorted(moved.MOVED))
def test_every_old_module_hands_on_what_its_new_ones_define(old):
    module = importlib.import_module(old)
    with pytest.raises(AttributeError, match="no_such_name"):
        module.no_such_name  # noqa: B018
    for place in moved.MOVED[old]:
        new = importlib.import_module(place)
        assert new.__file__  # a real file, not an old path in turn
        defined = [
            name
            for name, value in vars(new).items()
            if getattr(value, "__module__", None) == place and not name.startswith("_")
        ]
        for name in defined[:1]:
            with pytest.warns(FutureWarning, match=rf"is {place}\.{name} since version 0\.2"):
                assert getattr(module, name) is getattr(new, name)


def test_what_never_was_is_not_found():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("epi2expr_jax.datasets")
    for module in ("dataset", "training"):
        with pytest.raises(ImportError, match="cannot import name"):
            exec(f"from epi2expr_jax.{module} import no_such_name")


def errors_of(code):
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.parametrize("old", ["runs import Run", "training import Trainer"])
def test_a_user_sees_the_line_and_where_it_went(old):
    said = errors_of(f"\n\nfrom epi2expr_jax.{old}")
    name = old.split()[-1]
    assert said.startswith(f"<string>:3: FutureWarning: epi2expr_jax.{old.split()[0]}.{name} is ")


def test_public_paths_are_silent():
    code = """
from epi2expr_jax.predict import load
from epi2expr_jax.store import WindowStore
from epi2expr_jax import perturb, attribution
perturb.run, perturb.scale, attribution.integrated_gradients
"""
    assert errors_of(code) == ""


def test_the_path_of_attribution_stays_the_module_itself():
    new = importlib.import_module("epi2expr_jax.interpret.attribution")
    name = "attribution"
    code = f"""
import epi2expr_jax.{name}
from epi2expr_jax.{name} import integrated_gradients
from epi2expr_jax import {name}, interpret
from epi2expr_jax.interpret import {name} as new
assert {name} is new is epi2expr_jax.{name}
assert integrated_gradients is new.integrated_gradients
"""
    assert errors_of(code) == ""
    assert importlib.import_module(f"epi2expr_jax.{name}") is new


def test_a_name_is_looked_for_where_it_went():
    with pytest.warns(FutureWarning):
        found = moved.find("old", ["json.decoder", "json"], "dumps")
    assert found is importlib.import_module("json").dumps


def test_everything_public_is_imported_by_a_star():
    names, old = {}, "losses"
    with pytest.warns(FutureWarning):
        exec(f"from epi2expr_jax.{old} import *", names)
    new = importlib.import_module("epi2expr_jax.training.targets")
    assert names["LOSSES"] is new.LOSSES
    assert "LOSSES" in dir(importlib.import_module("epi2expr_jax.losses"))


def test_an_old_program_says_where_it_went():
    done = subprocess.run([sys.executable, "-m", "data_prep.gtf"], capture_output=True, text=True)
    assert done.returncode != 0
    assert "data_prep.gtf is data_prep.formats.gtf since version 0.2" in done.stderr
    assert "Traceback" not in done.stderr
