"""Where the modules of version 0.1 went. Old paths work for this version, and say the new one.

Delete this file with version 0.3, and the lines that import it.
"""

import importlib
import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types
import warnings
from collections.abc import Sequence
from typing import Any

_TABLE = """
epi2expr_jax.across_cells: epi2expr_jax.scores.across_cells
epi2expr_jax.agreement: epi2expr_jax.scores.agreement
epi2expr_jax.arrays: epi2expr_jax.store.arrays
epi2expr_jax.baselines: epi2expr_jax.predict.baselines
epi2expr_jax.batches: epi2expr_jax.inputs.batch_plan epi2expr_jax.models.region_batch
epi2expr_jax.checkpoint: epi2expr_jax.training.checkpoint epi2expr_jax.models.weights
epi2expr_jax.comparison: epi2expr_jax.scores.comparison
epi2expr_jax.conditional_logit: epi2expr_jax.interpret.conditional_logit
epi2expr_jax.convert: epi2expr_jax.models.chromoformer_torch
epi2expr_jax.dataset: epi2expr_jax.inputs.dataset epi2expr_jax.training.runs
epi2expr_jax.edit_reader: epi2expr_jax.perturb.read_edits
epi2expr_jax.edited: epi2expr_jax.perturb.edited_signal
epi2expr_jax.edited_outputs: epi2expr_jax.perturb.outputs
epi2expr_jax.edited_runs: epi2expr_jax.perturb.queries
epi2expr_jax.edits: epi2expr_jax.perturb.edits
epi2expr_jax.enrichment: epi2expr_jax.interpret.enrichment
epi2expr_jax.losses: epi2expr_jax.training.targets
epi2expr_jax.manifest: epi2expr_jax.store.manifest epi2expr_jax.files
epi2expr_jax.masking: epi2expr_jax.inputs.masking
epi2expr_jax.metrics: epi2expr_jax.scores.metrics
epi2expr_jax.places: epi2expr_jax.perturb.places
epi2expr_jax.planning: epi2expr_jax.training.planning
epi2expr_jax.pooling: epi2expr_jax.inputs.pools
epi2expr_jax.population: epi2expr_jax.training.many_runs epi2expr_jax.training.lanes
epi2expr_jax.ranking: epi2expr_jax.scores.ranking epi2expr_jax.scores.intervals
epi2expr_jax.regions: epi2expr_jax.store.regions
epi2expr_jax.resident: epi2expr_jax.inputs.device_tracks
epi2expr_jax.runs: epi2expr_jax.training.runs epi2expr_jax.training.targets
epi2expr_jax.schedules: epi2expr_jax.training.schedules
epi2expr_jax.scoring: epi2expr_jax.scores.table
epi2expr_jax.shapley: epi2expr_jax.scores.shapley
epi2expr_jax.signal: epi2expr_jax.inputs.transforms epi2expr_jax.units
epi2expr_jax.splits: epi2expr_jax.training.splits
epi2expr_jax.streaming: epi2expr_jax.inputs.track_cache
epi2expr_jax.subsets: epi2expr_jax.scores.subsets
epi2expr_jax.variants: epi2expr_jax.interpret.variants
data_prep.annotation: data_prep.formats.annotation
data_prep.assembly: data_prep.formats.assembly
data_prep.bed: data_prep.formats.bed
data_prep.bigwig: data_prep.formats.bigwig
data_prep.bin_means: data_prep.formats.bin_means
data_prep.catalogue: data_prep.formats.track_sheet
data_prep.chromoformer_arrays: data_prep.contacts.chromoformer_arrays
data_prep.chromoformer_meta: data_prep.contacts.chromoformer_meta
data_prep.cluster: data_prep.work.cluster
data_prep.contact_files: data_prep.contacts.contact_files
data_prep.conversion: data_prep.work.conversion
data_prep.examination: data_prep.checks.track_files
data_prep.expression: data_prep.formats.expression data_prep.formats.text
data_prep.gtf: data_prep.formats.gtf
data_prep.inputs: data_prep.checks.build_inputs
data_prep.interactions: data_prep.contacts.link_genes
data_prep.needs: data_prep.checks.needs
data_prep.plain_pickle: data_prep.contacts.chromoformer_pickles
data_prep.program: epi2expr_jax.program
data_prep.suspicions: data_prep.checks.track_signal
data_prep.swaps: data_prep.checks.swaps
data_prep.transfer: data_prep.work.transfer
experiments.benchmark_bigwig: experiments.benchmarks.bigwig
experiments.benchmark_chromoformer: experiments.benchmarks.chromoformer
experiments.benchmark_perturb: experiments.benchmarks.perturb
experiments.benchmark_roadmap: experiments.benchmarks.roadmap
experiments.benchmark_scaling: experiments.benchmarks.scaling
experiments.chosen_genes: experiments.cli.genes
experiments.figures_effects: experiments.figures.altered_marks
experiments.figures_studies: experiments.figures.studies
experiments.figures_training: experiments.figures.training
experiments.flags: experiments.cli.flags epi2expr_jax.study.request epi2expr_jax.study.train
experiments.located_effects: epi2expr_jax.interpret.located
experiments.named_edits: experiments.cli.edits
experiments.progress: experiments.cli.progress
experiments.shares: epi2expr_jax.study.lookup
experiments.turns: experiments.benchmarks.turns
"""
# Old module to the new ones that hold what was in it.
MOVED: dict[str, tuple[str, ...]] = {
    old: tuple(new.split())
    for old, new in (line.split(": ") for line in _TABLE.split("\n") if line)
}
# A public path that stays: the new module itself, under both names, without a warning.
STAYS = {"epi2expr_jax.attribution": "epi2expr_jax.interpret.attribution"}
# Modules that became folders of the same name: which file has their names now. (`store` and
# `perturb` hand on all that they had.)
TRAINING = {
    "runs": "RUNNING STOPPED FINISHED QUARANTINED STATUS_NAMES",
    "one_run": "PRECISIONS TrainConfig RunState EpochRecord Trainer parts_of predict_genes "
    "over_batches",
}
PREDICT = {"inference": "on_scale predict_runs chunks_of plan_of"}
FIGURES = {
    "style": "STYLE WIDTH drop_panels data_uri heat_map new_figure number ranking_figure unit_of "
    "wrap"
}


def install() -> None:
    """Make the old paths importable, each with a warning."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.append(_Finder())


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives a module for an old path, after all others have found none."""

    def find_spec(
        self, name: str, path: Any = None, target: Any = None
    ) -> importlib.machinery.ModuleSpec | None:
        known = name in MOVED or name in STAYS
        return importlib.util.spec_from_loader(name, self) if known else None

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        old = module.__name__
        if old in STAYS:  # the import system takes what it finds here
            sys.modules[old] = importlib.import_module(STAYS[old])
            return
        vars(module)["__getattr__"] = lambda name: find(old, MOVED[old], name)
        vars(module)["__dir__"] = lambda: _public(MOVED[old])

    def get_code(self, name: str) -> types.CodeType:  # asked for by python -m
        places = MOVED.get(name) or (STAYS[name],)
        raise ImportError(f"{name} is {' and '.join(places)} since version 0.2")


def _public(places: Sequence[str]) -> list[str]:
    """The public names of the new modules."""
    modules = map(importlib.import_module, places)
    return sorted({name for module in modules for name in dir(module) if not name.startswith("_")})


def find(old: str, places: Sequence[str], name: str, stacklevel: int = 3) -> Any:
    """The attribute `name` of the old module `old`, from the new module that has it; warns.

    Args:
        stacklevel: whose line the warning names: the caller of a module's `__getattr__`.

    Raises:
        AttributeError: if none has it.
    """
    if name == "__all__":  # for import *
        return _public(places)
    modules = [] if name.startswith("__") else map(importlib.import_module, places)
    having = [module for module in modules if hasattr(module, name)]
    if not having:
        raise AttributeError(f"module {old!r} has no attribute {name!r}")
    # Where it is defined comes before where it is only imported.
    having.sort(key=lambda own: getattr(getattr(own, name), "__module__", "") != own.__name__)
    place = having[0].__name__
    said = f"{old}.{name} is {place}.{name} since version 0.2; {old} goes with 0.3"
    warnings.warn(said, FutureWarning, stacklevel=stacklevel)
    return getattr(having[0], name)


def find_in_folder(folder: str, rooms: dict[str, str], name: str) -> Any:
    """Likewise for a module that became a folder: `rooms` says which names to look for where."""
    places = [f"{folder}.{room}" for room, names in rooms.items() if name in names.split()]
    return find(folder, places, name, stacklevel=4)
