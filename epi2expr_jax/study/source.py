"""Training that starts from trained weights: which run starts from which, what those have seen."""

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import pandas as pd

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import listing, match_chromosomes
from epi2expr_jax.inputs.pools import cells_of
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import as_built
from epi2expr_jax.models.config import ModelConfig
from epi2expr_jax.predict.ensemble import Ensemble, Member
from epi2expr_jax.predict.loading import load
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training.runs import Run, seen_words
from epi2expr_jax.training.splits import PARTS, Fold
from epi2expr_jax.training.targets import TargetScale

_Row = tuple[Member, int]  # a trained run: where its weights are


@dataclasses.dataclass(frozen=True)
class Source:
    """Trained weights, and from which of them each run starts.

    Attributes:
        rows: by run.
    """

    ensemble: Ensemble
    rows: Mapping[Run, _Row]

    @classmethod
    def of(
        cls,
        request: TrainRequest,
        store: WindowStore,
        runs: Sequence[Run],
        folds: Iterable[Fold],
        models: Mapping[int, ModelConfig],
    ) -> "Source":
        """Choose for every run: of the same assays, that of its cell, fold (of the same
        chromosomes) and seed; where there is none, the only one.

        Args:
            models: the configuration to train, by how many assays a run reads.

        Raises:
            InputError: if the weights are of another model, target, transform or signal, naming
                what differs; if there is none for a run, or several; if they were trained in a
                cell that is to be new to the models; or if trained weights have seen test genes (of
                converted ones, which have seen all, see `warnings`).
        """
        where, ensemble = f"--from={request.start_from}", load(request.start_from)
        by_name = {fold.name: fold for fold in folds}
        found: dict[Run, _Row] = {}
        with collect(most=8) as problems:
            with problems.part():
                _require_same(where, request, store, ensemble, runs)
            for run in runs:
                with problems.part():
                    found[run] = _chosen(where, ensemble, run, by_name[run.fold])
            for size in dict.fromkeys(len(run.assays) for run in found):
                member = next(m for run, (m, _) in found.items() if len(run.assays) == size)
                now = _sizes(models[size])
                differ = [
                    f"{name}={value!r}, now {now.get(name)!r}"
                    for name, value in _sizes(member.model_config).items()
                    if value != now.get(name)
                ]
                if differ:
                    remedy = "give the same flags of the model as there"
                    problems.add(where, listing(differ, 20), "the same model", remedy)
            with problems.part():
                _require_new_cells(where, store.manifest.cells, ensemble, found)
        made = cls(ensemble, found)
        leaks = [run for run in runs if made._seen(run, store.genes, by_name[run.fold])[0]]
        if leaks and "converted" not in ensemble.card and not made._seen_before:
            run = leaks[0]
            seen, tested = made._seen(run, store.genes, by_name[run.fold])
            found_words = f"weights that have seen {seen} of {tested} test genes of {run.fold}"
            expected = "weights of models that never saw a test gene"
            remedy = "train with the --cv, --blind and --split_seed of that run"
            raise InputError(where, found_words, expected, remedy)
        return made

    def weights(self, run: Run) -> tuple[Any, Any]:
        """Weights and moving averages that a run starts from, on the host."""
        member, i = self.rows[run]
        own = jax.tree.map(lambda x: x[i], member.weights)
        return own["params"], own["stats"]

    def scale(self, run: Run, own: TargetScale) -> TargetScale:
        """The scale of the target that a run's weights were trained on, in its own unit."""
        member, i = self.rows[run]
        known = member.scales[i]
        return dataclasses.replace(own, mean=known.mean, deviation=known.deviation)

    def records(self, genes: pd.DataFrame, folds: Iterable[Fold]) -> dict[str, dict[str, Any]]:
        """By run id, what a run's record says: of which run its weights were, and how many of its
        test genes that had seen."""
        by_name = {fold.name: fold for fold in folds}
        records = {}
        for run, (member, i) in self.rows.items():
            seen, tested = self._seen(run, genes, by_name[run.fold])
            of = member.runs[i]
            said = {"from": of.run_id, "cell": of.cell, "fold": of.fold, "seed": of.seed}
            said |= {"cells": _trained_in(self.ensemble, of), "test_genes": tested, "seen": seen}
            records[run.run_id] = {"started": said}
        return records

    def warnings(self, records: Mapping[str, dict[str, Any]]) -> list[str]:
        """What must be said aloud: empty if no test gene was seen."""
        return seen_words([record["started"] for record in records.values()])

    @functools.cached_property
    def _seen_before(self) -> set[str]:
        """Runs that started, themselves, from weights that had seen their test genes: which genes
        those had seen is not known any more, so it may be any."""
        rows = self.ensemble.trained
        return {run["run_id"] for run in rows if run.get("started", {}).get("seen")}

    def _seen(self, run: Run, genes: pd.DataFrame, fold: Fold) -> tuple[int, int]:
        """How many test genes of a run its weights were trained on or chosen by, of how many."""
        member, i = self.rows[run]
        known = _spelled(self.ensemble.folds[member.runs[i].fold], genes).masks(genes)
        tested = fold.masks(genes)["test"] | fold.named(genes)
        if member.runs[i].run_id in self._seen_before:
            return int(tested.sum()), int(tested.sum())
        return int((tested & (known["train"] | known["validation"])).sum()), int(tested.sum())


def _sizes(config: ModelConfig) -> dict[str, Any]:
    """What a model is, whether its widths were given or multiplied."""
    built = as_built(config) if isinstance(config, ChromoformerConfig) else config
    return dataclasses.asdict(built)


def _require_same(
    where: str, request: TrainRequest, store: WindowStore, source: Ensemble, runs: Sequence[Run]
) -> None:
    """Refuse weights that expect other inputs, or predict another target."""
    config = request.train_config
    now = {"model": request.model, "target": request.target, "masked": config.masked}
    then = {"model": source.card["model"], "target": source.target, "masked": source.masked}
    then |= dataclasses.asdict(source.input_config)
    now |= dataclasses.asdict(request.input_config)
    signal = source.signal
    if signal is not None:  # `auto` and the transform it stands for are the same
        of_store = TrainedSignal.of(store.manifest, request.input_config.transform).transforms
        used = {assay for run in runs for assay in run.assays} & signal.transforms.keys()
        then["transform"] = {assay: signal.transforms[assay] for assay in sorted(used)}
        now["transform"] = {assay: of_store.get(assay) for assay in sorted(used)}
    differ = [f"{name}={then[name]}, now {now[name]}" for name in now if then[name] != now[name]]
    with collect() as problems:
        if differ:
            expected = "the same model, target, inputs and training"
            problems.add(where, listing(differ, 20), expected, "give the same flags as there")
        if signal is not None:
            with problems.part():
                signal.require_same(store.manifest, str(store.path), list(signal.transforms))


def _chosen(where: str, source: Ensemble, run: Run, fold: Fold) -> _Row:
    """The trained run that a run starts from."""
    rows = [(m, i) for m in source.members for i, one in enumerate(m.runs)]
    own = [(m, i) for m, i in rows if m.runs[i].assays == run.assays]
    if not own:
        known = dict.fromkeys(m.runs[i].label for m, i in rows)
        found, expected = f"no run of {run.label}", f"one of {listing(known, 12)}, in this order"
        raise InputError(where, found, expected, "choose --assays that it has")
    parts = (fold.train, fold.validation, fold.test)
    for name, wanted, value in (
        ("cells", run.cell, lambda one: one.cell),
        ("folds", parts, lambda one: _parts(source.folds[one.fold])),
        ("seeds", run.seed, lambda one: one.seed),
    ):
        same = [(m, i) for m, i in own if value(m.runs[i]) == wanted]
        if not same and len({value(m.runs[i]) for m, i in own}) > 1:
            one = f"{run.cell} {run.label} {run.fold} seed {run.seed}"
            found = f"runs of several {name} for {one}, and none of its own"
            raise InputError(where, found, "its own, or one alone", _REMEDIES[name])
        own = same or own
    return own[0]


_REMEDIES = {
    "cells": "give --from a run directory of one cell or pool",
    "folds": "give the --cv, --blind and --split_seed of that run",
    "seeds": "ask for no more --seeds than it has",
}


def _parts(fold: Fold) -> tuple[tuple[str, ...], ...]:
    return fold.train, fold.validation, fold.test


def _spelled(fold: Fold, genes: pd.DataFrame) -> Fold:
    """The fold with chromosomes as a table of genes spells them: `1` for `chr1`."""
    parts = _parts(fold)
    known = match_chromosomes({name for part in parts for name in part}, set(genes["chrom"]))
    named = (tuple(known.get(name, name) for name in part) for part in parts)
    return dataclasses.replace(fold, **dict(zip(PARTS, named, strict=True)))


def _trained_in(source: Ensemble, run: Run) -> list[str]:
    """The cells that a trained run has seen, in its own training or before."""
    started = {one["run_id"]: one["started"] for one in source.trained if "started" in one}
    before = started.get(run.run_id, {}).get("cells", ())
    return sorted({*before, *cells_of(run.cell, source.card.get("store", {}).get("cells", ()))})


def _require_new_cells(
    where: str, cells: Sequence[str], source: Ensemble, rows: Mapping[Run, _Row]
) -> None:
    """Refuse weights of a cell that models of a pool are tested in as one they never saw."""
    for run, (member, i) in rows.items():
        if run.cell in cells:
            continue
        tested = set(cells) - set(cells_of(run.cell, cells))
        if seen := tested & set(_trained_in(source, member.runs[i])):
            found = f"weights trained in {listing(sorted(seen))}, for models of {run.cell}"
            expected = "weights of models that never saw the cells they are tested in"
            raise InputError(where, found, expected, "give --from a run of the same --cells")
