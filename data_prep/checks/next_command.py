"""The command that comes next, written out, so that it works as it is."""

import contextlib
import dataclasses
import pathlib
import shlex

from absl import flags

from data_prep.checks.build_inputs import BuildConfig
from epi2expr_jax.errors import InputError
from epi2expr_jax.program import print_next, within_study
from epi2expr_jax.store.window_store import WindowStore

_GROUPS = 5  # of chromosomes, as --cv=chromosomes_5


def build_command() -> str:
    """build_store with the flags of its own that were given to this program."""
    known = (flags.FLAGS[field.name] for field in dataclasses.fields(BuildConfig))
    given = [flag.serialize() for flag in known if flag.present]
    return shlex.join(["python", "-m", "data_prep.build_store", *given])


def print_training(store: WindowStore) -> None:
    """Say what to run after a store is made, unless a study runs it."""
    if not within_study():  # what tells it takes seconds to load
        print_next("", train_command(store))


def train_command(store: WindowStore) -> str:
    """What a store is for: a training whose defaults fit it or whose flags do, or predictions.

    Returns:
        Nothing if it has genes on too few chromosomes.
    """
    # They bring JAX, which the workers of a build do without.
    from epi2expr_jax.models import model_named
    from epi2expr_jax.study.lookup import fitting_flags, folds_of
    from epi2expr_jax.study.request import TrainRequest

    manifest, usual = store.manifest, TrainRequest(str(store.path))
    place = f"--store={store.path}"
    if not manifest.expression_unit and not manifest.given_labels:
        return f"{shlex.join(['python', '-m', 'experiments.predict', place])} --run=RUN"
    words = [place, f"--run=runs/{pathlib.Path(store.path).stem}"]
    if manifest.contacts:
        words += fitting_flags(store, "chromoformer").split()
    else:
        try:
            model_named(usual.model)().window.crop_and_merge(manifest.window)
        except InputError:
            words += fitting_flags(store, usual.model).split()
    if not manifest.expression_unit:
        words.append("--task=classification")
    groups = min(_GROUPS, store.genes.chrom.nunique())
    for scheme in (usual.cv, f"chromosomes_{groups}"):
        with contextlib.suppress(InputError):
            folds_of(store, scheme, [], 0, [], store.genes[:0])
            words += [f"--cv={scheme}"] if scheme != usual.cv else []
            return shlex.join(["python", "-m", "experiments.train", *words])
    return ""
