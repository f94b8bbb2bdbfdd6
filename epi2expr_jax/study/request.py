"""What a training is asked for: everything that decides what it computes."""

import dataclasses
import json
import os
from collections.abc import Sequence
from typing import Any

from epi2expr_jax.errors import InputError, collect, nearest
from epi2expr_jax.files import sha256
from epi2expr_jax.inputs.dataset import InputConfig
from epi2expr_jax.models import ChromoformerConfig, model_named
from epi2expr_jax.names import as_names
from epi2expr_jax.training.checkpoint import read_finished, weights_digest
from epi2expr_jax.training.one_run import TrainConfig
from epi2expr_jax.training.targets import LABEL

SCHEDULES = ("plateau", "decay")
DECAY: float = ChromoformerConfig.TRAINING["decay"]["decay"]
_NAMED = ("cells", "assays", "folds", "blind", "test_genes")  # fields that are names
_AS_PUBLISHED = TrainConfig()  # known by identity: the published training of whichever model


def published(model: str, schedule: str | None = None, **changes: Any) -> TrainConfig:
    """The published training of a model, with changes.

    Args:
        model: its name in `models.REGISTRY`.
        schedule: `plateau` or `decay`, as in `experiments.train --help`; by default the published
            one of the model.
        changes: fields of `TrainConfig`.

    Raises:
        InputError: for an unknown model or schedule, or naming every value out of range.
    """
    by_schedule = model_named(model).TRAINING
    schedule = schedule or default_schedule(model)
    if schedule not in SCHEDULES:
        raise InputError("--schedule", schedule, " or ".join(SCHEDULES), "choose one")
    fields = dict(by_schedule.get(schedule) or next(iter(by_schedule.values())))
    if schedule == "decay":
        fields = {"decay": DECAY, **fields, "plateau": None, "early_stop": None}
    return TrainConfig(**{**fields, **changes})


def default_schedule(model: str) -> str:
    """The schedule that a model was published with."""
    return next(iter(model_named(model).TRAINING))


@dataclasses.dataclass(frozen=True)
class TrainRequest:
    """Everything that decides what a training computes.

    Attributes:
        store: window store to read, made by data_prep.build_store.
        model: which model.
        model_options: fields of the configuration of the model, such as `width`.
        cells: all (a model for each cell), names, pools of cells joined by + (one model trained on
            all of them), pool (of all cells), leave_one_out (for each cell a pool of the others),
            or several of these, such as E003,E004+E005.
        assays: what a model reads. each: one model an assay; all: one model of all assays; pairs:
            one of every two; leave_one_out: one of all but one, for every assay; names; sets joined
            by +; or several of these. Where all cells are asked for, cells that lack a track are
            left out, unless an assay is named.
        folds: all, or names of folds: draw1,draw2 (monte_carlo_5), group1a (chromoformer_4), or
            fold1 (chromosomes_K).
        cv: which chromosomes are held out. monte_carlo_5: the blind ones are tested, five draws of
            others validate; chromoformer_4: four published groups, halves of which validate and
            test, swapped; chromosomes_K: K groups of equal size, each tested once.
        blind: blind chromosomes of monte_carlo_5; empty: those of the store.
        test_genes: ids or symbols of genes that no run trains on or is chosen by, wherever they lie
            (their neighbours are trained on). experiments.predict predicts them;
            experiments.evaluate scores chromosomes that are held out.
        split_seed: seed of the draws of monte_carlo_5.
        gene_groups: CSV of columns gene and group, such as paralogs or families: genes that share a
            group with a test gene of a fold are left out of its training and validation.
        target: log2: log2(expression + 1); minmax: expression scaled to 0-1; label, in Python,
            with classification alone.
        seeds: how many seeds a run is repeated with.
        train_share: share of its fold's training genes that a run trains on, drawn again for every
            seed. With 0.5 and several seeds, the spread between seeds includes which genes were
            seen, on which the intervals of altered marks rest (see `perturb.summary`).
        start_from: run directory whose weights training starts from (of experiments.train, or of
            experiments.convert): of the same model, assays and target. A run starts from that of
            its cell, fold and seed, or from the only one there is.
        input_config: how signal is transformed.
        train_config: how every run is trained; by default as `published`.

    Raises:
        InputError: naming everything that makes no sense without the store.
    """

    store: str
    model: str = "cnn"
    model_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    cells: str | Sequence[str] = dataclasses.field(default_factory=lambda: ["all"])
    assays: str | Sequence[str] = dataclasses.field(default_factory=lambda: ["each"])
    folds: str | Sequence[str] = dataclasses.field(default_factory=lambda: ["all"])
    cv: str = "monte_carlo_5"
    blind: str | Sequence[str] = dataclasses.field(default_factory=list)
    test_genes: str | Sequence[str] = dataclasses.field(default_factory=list)
    split_seed: int = 0
    gene_groups: str = ""
    target: str = "log2"
    seeds: int = 1
    train_share: float = 1.0
    start_from: str = ""
    input_config: InputConfig = InputConfig()
    train_config: TrainConfig = _AS_PUBLISHED

    def __post_init__(self):
        for name in _NAMED:
            object.__setattr__(self, name, as_names(getattr(self, name)))
        made = model_named(self.model)
        if self.train_config is _AS_PUBLISHED:
            object.__setattr__(self, "train_config", published(self.model))
        fields = (field.name for field in dataclasses.fields(made))
        known = [name for name in fields if name != "assays"]
        labelled, task = self.target == LABEL, self.train_config.task
        with collect() as problems:
            for name in ("cells", "assays", "folds"):
                if not getattr(self, name):
                    expected, remedy = "all, or names", "leave it out for the default"
                    problems.add(f"--{name}", "nothing", expected, remedy)
            for name in self.model_options.keys() - set(known):
                found, remedy = f"no such option of {self.model}", nearest(name, known)
                problems.add(name, found, f"some of {', '.join(known)}", remedy or "leave it out")
            if labelled != (task == "classification"):
                found, expected = f"{self.target} for {task}", "label for classification alone"
                problems.add("--target", found, expected, "change one of them")
            if self.train_config.freeze and not self.start_from:
                found, expected = "weights as they are drawn", "trained weights, of --from"
                problems.add("--freeze", found, expected, "give --from, or leave it out")
            if self.seeds < 1:
                problems.add("--seeds", f"{self.seeds}", "1 or more", "give more")
            if not 0 < self.train_share <= 1:
                expected = "more than 0, at most 1"
                problems.add("--train_share", f"{self.train_share}", expected, "1 takes all genes")

    def as_json(self) -> dict[str, Any]:
        """As the run card keeps it, and compares it on resuming."""
        # A store is known by its checksum, not by where it lies today.
        name = os.path.basename(os.path.normpath(self.store))
        fields = {**dataclasses.asdict(self), "store": name}
        if self.start_from:
            fields["start_from"] = weights_digest(read_finished(self.start_from))
        else:
            del fields["start_from"]
        if not self.train_config.freeze:
            del fields["train_config"]["freeze"]
        if not self.input_config.shuffle_regions:
            del fields["input_config"]["shuffle_regions"]
        if not self.train_config.retry:
            del fields["train_config"]["retry"]
        if not self.test_genes:
            del fields["test_genes"]  # requests from before it compare as the same
        if self.gene_groups:
            fields["gene_groups"] = sha256(self.gene_groups)
        else:
            del fields["gene_groups"]
        return json.loads(json.dumps(fields))
