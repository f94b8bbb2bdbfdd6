"""What a model reads of genes under edits, for tests of what edits do to its input."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from epi2expr_jax.inputs.batch_plan import BatchPlan
from epi2expr_jax.inputs.dataset import InputConfig, load_dataset
from epi2expr_jax.perturb.read_edits import EditReader
from tests.epi2expr_jax.untrained import SMALL

FINE = dataclasses.replace(SMALL, resolutions=(2000, 500, 100))  # as the original


@functools.partial(jax.jit, static_argnums=2)
def gathered(signal, index, plan):
    """What a model reads of a batch, by one program for signals alike."""
    return signal.gather(index, plan)


def reader_of(store, config, assays, edits, **inputs):
    """Lays the edits on what a model of these assays reads in the first cell."""
    config = dataclasses.replace(config, assays=len(assays))
    dataset = load_dataset(store, config, ["E003"], assays, InputConfig(**inputs))
    steps = [edit if isinstance(edit, tuple) else (edit,) for edit in edits]
    return EditReader(store, dataset, config, "E003", tuple(assays), steps)


def signal_of(store, config, assays, edits, rows, **inputs):
    """What a model of these assays reads of some genes under the edits."""
    return jax.device_put(reader_of(store, config, assays, edits, **inputs).read(rows))


def batch_of(signal):
    """Every query's input, in one batch."""
    slots = ()
    if signal.layout.positions:
        slots = (int(signal.n_contacts().max()),) * signal.queries
    plan = BatchPlan(signal.queries, slots)
    return gathered(signal, jnp.arange(signal.queries), plan)


def by_edit(x, edits):
    """`[G E …]` of an array with a first axis of queries; the last edit is none."""
    return np.asarray(x).reshape(-1, edits + 1, *x.shape[1:])
