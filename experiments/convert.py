"""Published Chromoformer weights (PyTorch) to a run directory, and a run back to PyTorch.

    python -m experiments.convert --checkpoint=E003_fold1.pt --out=runs/published --cell=E003 \\
        --fold=1 --assays=H3K4me1,H3K4me3,H3K9me3,H3K27me3,H3K36me3,H3K27ac,H3K9ac
    python -m experiments.convert --run=runs/mine --run_id=0123456789ab --out=mine.pt

The run directory then predicts like a trained one, from a store of read depth:

    load("runs/published").predict(store, include_seen=True)

Published training watched the group it held out, so these weights have seen every gene. A
classifier predicts the softmax of its two outputs, the probability that a gene is expressed, as it
was trained; the original's demo takes a sigmoid of them, which gives other numbers.

Weights are read bare or under net, state_dict, model_state_dict or model (as Lightning saves them),
with or without what wrappers put before their names (module., _orig_mod., net.). A pickled model is
not read: save its state_dict(). Needs PyTorch (pip install 'epi2expr_jax[convert]'); a file's
pickle may hold weights, but no code.
"""

import contextlib
import dataclasses
import importlib
import io
import pathlib
import re
import time
import warnings
from collections.abc import Mapping
from typing import Any, cast

import jax
import numpy as np
import pandas as pd
from absl import flags

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import read_bytes, sha256, whole, whole_folder
from epi2expr_jax.genome import listing, sort_chromosomes
from epi2expr_jax.inputs.dataset import InputConfig
from epi2expr_jax.inputs.trained_signal import TrainedSignal
from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.chromoformer_torch import StateDict, from_torch, to_torch
from epi2expr_jax.predict.loading import load
from epi2expr_jax.program import require, start
from epi2expr_jax.roadmap import CHROMOFORMER_GROUPS
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.runs import Run
from epi2expr_jax.training.splits import Fold, write_splits
from epi2expr_jax.training.targets import LABEL, TargetScale
from epi2expr_jax.units import count
from experiments.cli.flags import command_line, define_run, refuse_without_effect

FLAGS = flags.FLAGS

_NAME = "published"  # of the one population
_CONTAINERS = ("net", "state_dict", "model_state_dict", "model")  # of weights, in a checkpoint
# Published files hold scores and labels with the weights, as NumPy pickles them.
_NUMPY = (
    "numpy.dtype",
    "numpy.ndarray",
    *(
        f"numpy.{core}.multiarray.{name}"
        for core in ("core", "_core")
        for name in ("scalar", "_reconstruct")
    ),
)


def define_flags() -> None:
    """The flags of this program."""
    define_run()
    flags.DEFINE_string("checkpoint", None, "PyTorch file to read.")
    flags.DEFINE_string("out", None, "Run directory to make of it; or, with --run, file to write.")
    flags.DEFINE_list("assays", [], "The marks the checkpoint reads, in its order.")
    flags.DEFINE_string("cell", None, "The cell whose tracks it reads, as stores name it.")
    flags.DEFINE_enum(
        "fold", "unknown", ["unknown", "1", "2", "3", "4"], "Chromoformer's group it held out."
    )
    flags.DEFINE_integer("contacts", 8, "Most regions a gene (i_max).", lower_bound=1)
    flags.DEFINE_integer("window_bp", 40_000, "Width of its promoter window (w_prom), in bp.")
    flags.DEFINE_list(
        "resolutions", [], "Bins it reads, in bp, in its order. Default: as the file has them."
    )
    flags.DEFINE_string("run_id", None, "Which run of --run; needed if it has several.")


@dataclasses.dataclass(frozen=True)
class Published:
    """What a checkpoint does not say of itself.

    Attributes:
        cell, assays: the tracks it reads, in its order.
        fold: the group of chromosomes it held out, 1 to 4; None if that is not known.
        options: of `chromoformer_torch.from_torch`.
    """

    cell: str
    assays: tuple[str, ...]
    fold: int | None = None
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_flags(cls) -> "Published":
        """From the command line.

        Raises:
            InputError: naming every flag that is missing or makes no sense.
        """
        require("cell", "assays")
        if not all(text.isdecimal() for text in FLAGS.resolutions):
            found = ",".join(FLAGS.resolutions)
            expected = "bins in bp, such as 2000,500,100"
            raise InputError("--resolutions", found, expected, "correct it")
        options = {"contacts": FLAGS.contacts, "window_bp": FLAGS.window_bp}
        if FLAGS.resolutions:
            options["resolutions"] = tuple(map(int, FLAGS.resolutions))
        fold = None if FLAGS.fold == "unknown" else int(FLAGS.fold)
        return cls(FLAGS.cell, tuple(FLAGS.assays), fold, options)

    @property
    def split(self) -> Fold:
        """What it was trained and chosen on. Nothing is left to test it on."""
        held_out = CHROMOFORMER_GROUPS[self.fold - 1] if self.fold else ()
        rest = {name for group in CHROMOFORMER_GROUPS for name in group} - set(held_out)
        name = f"group{self.fold}" if self.fold else "unknown"
        return Fold(name, tuple(sort_chromosomes(rest)), tuple(sort_chromosomes(held_out)), ())


class _Skipped:
    """Stands in for NumPy's values, so that none is made of what a stranger wrote."""

    def __init__(self, *_: Any):
        pass

    def __setstate__(self, _: Any) -> None:
        pass


def read_checkpoint(path: pathlib.Path) -> StateDict:
    """The weights of a PyTorch file, name → array: those in one of `_CONTAINERS`, or all of it.

    Raises:
        InputError: without PyTorch; for a file that is not a checkpoint, or whose pickle names
            anything but weights; naming all values that are not tensors.
    """
    torch = _torch()
    where, expected = (
        str(path),
        "weights by name, as torch.save(model.state_dict(), FILE) saves them",
    )
    allowed = [(_Skipped, name) for name in _NUMPY]
    packed = read_bytes(path, "a checkpoint")
    try:
        with warnings.catch_warnings(action="ignore"), torch.serialization.safe_globals(allowed):
            content = torch.load(io.BytesIO(packed), map_location="cpu", weights_only=True)
    except Exception as error:  # whatever a stream of wrong bytes makes the unpickler raise
        named = re.search(r"GLOBAL (\S+)", str(error))
        if named:
            found = f"a pickle that names {named[1]}: a whole model, or code hidden in a checkpoint"
            remedy = (
                "do not open it unless you trust who made it; then load it with the model's own "
                "code, and save its weights alone: torch.save(model.state_dict(), FILE)"
            )
        elif "TorchScript" in str(error):
            found = "a TorchScript archive, which holds code"
            remedy = "if you trust it: torch.save(torch.jit.load(OLD).state_dict(), FILE)"
        else:
            found = "no checkpoint, or a damaged one"
            remedy = "download it again, and compare its size"
        raise InputError(where, found, expected, remedy) from None
    net = content
    while isinstance(net, Mapping) and (under := [name for name in _CONTAINERS if name in net]):
        net = net[under[0]]
    if not isinstance(net, Mapping):
        found = f"a {type(net).__name__}"
        raise InputError(where, found, expected, "save the model's state_dict()")
    with collect() as problems:
        for name, value in net.items():
            tensor = isinstance(value, torch.Tensor)
            if not tensor or value.layout != torch.strided or not value.is_floating_point():
                found = f"values {value.dtype}, {value.layout}" if tensor else type(value).__name__
                found = "NumPy values" if isinstance(value, _Skipped) else found
                remedy = "save a state_dict() of weights"
                problems.add(f"{where}: {name}", found, "a dense tensor of real numbers", remedy)
    return {str(name): tensor.detach().float().numpy() for name, tensor in net.items()}


def write_run(
    state: StateDict, source: pathlib.Path, published: Published, out: pathlib.Path
) -> dict[str, Any]:
    """Make a run directory of published weights; returns its card.

    Args:
        source: the file they come from, for the card and for messages.

    Raises:
        InputError: if they are not a Chromoformer's, do not read so many marks, or `out` is taken.
    """
    config, params = from_torch(state, source.name, **published.options)
    _require_assays(config, published.assays, source.name)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        expected = "an empty or new directory"
        raise InputError(str(out), "files already", expected, "give another --out")
    with whole_folder(out) as place:
        return _write(config, params, source, published, place)


def _write(
    config: ChromoformerConfig,
    params: Any,
    source: pathlib.Path,
    published: Published,
    out: pathlib.Path,
) -> dict[str, Any]:
    fold = published.split
    cv = "chromoformer_4" if published.fold else "unknown"
    run = Run(published.cell, published.assays, fold.name, 0)
    classifies = config.task == "classification"
    # Published regressors predict log2(RPKM + 1) itself, so nothing is to be scaled back.
    scale = TargetScale(LABEL if classifies else "log2", low=0.0, high=0.0, mean=0.0, deviation=1.0)
    folder = f"checkpoints/{_NAME}/best"
    (out / folder).parent.mkdir(parents=True)
    # Stacked on the axis of runs, of which there is one; no genes are counted here.
    weights = {"params": jax.tree.map(lambda leaf: leaf[None], params), "stats": {}}
    checkpoint.save(out / folder, weights)
    write_splits(out / "splits.json", cv, 0, [fold], pd.DataFrame(columns=["gene_id", "chrom"]))
    card = {
        "request": {},
        "store_checksum": "unknown",
        "status": "complete",
        "converted": {
            "file": source.name,
            "bytes": source.stat().st_size,
            "sha256": sha256(source),
            "held_out": list(fold.validation),
        },
        "store": {"path": "unknown", "cells": [run.cell], "assays": list(run.assays)},
        "model": ChromoformerConfig.NAME,
        "target": scale.kind,
        "cv": cv,
        "splits_sha256": checkpoint.files_sha256(out / "splits.json"),
        "input_config": dataclasses.asdict(InputConfig("log1p", "strand")),
        "signal": TrainedSignal.of_depth(run.assays).as_json(),
        "versions": checkpoint.versions(),
        "command": command_line(),
        "started": time.strftime("%Y-%m-%d %H:%M:%S"),
        "seconds": 0.0,
        "populations": [
            {
                "name": _NAME,
                "model_config": dataclasses.asdict(config),
                "weights": folder,
                "weights_sha256": checkpoint.files_sha256(out / folder),
                "runs": [
                    {
                        **dataclasses.asdict(run),
                        "run_id": run.run_id,
                        "status": "converted",
                        "epochs": None,
                        "best_validation_loss": None,
                        "target_scale": dataclasses.asdict(scale),
                    }
                ],
            }
        ],
    }
    checkpoint.write_card(out, card)
    return card


def _require_assays(config: ChromoformerConfig, assays: tuple[str, ...], where: str) -> None:
    if config.assays != len(set(assays)) or len(set(assays)) != len(assays):
        raise InputError(
            "--assays",
            listing(assays, 30),
            f"the {config.assays} different marks that {where} reads, in its order",
            "published models read H3K4me1, H3K4me3, H3K9me3, H3K27me3, H3K36me3, H3K27ac, H3K9ac",
        )


def export_run(
    run_dir: pathlib.Path, run_id: str | None, out: pathlib.Path
) -> tuple[Run, ChromoformerConfig, str, str]:
    """Write one run as a PyTorch file, `{"net": state_dict}`; returns what it is.

    That is the run, its configuration, and the transform and orientation of its signal.

    Its last layer predicts the target's own scale, whatever was done to it in training.

    Raises:
        InputError: if the run is not told or no Chromoformer with regions, or `out` exists.
    """
    torch = _torch()
    ensemble = load(run_dir)
    places = {
        run.run_id: (member, i) for member in ensemble.members for i, run in enumerate(member.runs)
    }
    if (run_id or len(places) != 1) and run_id not in places:
        known = [f"{run.run_id} ({run.cell} {run.label} {run.fold})" for run in ensemble.runs]
        found = run_id or f"nothing, for {count(len(places), 'run')}"
        raise InputError("--run_id", found, f"one of {listing(known, 20)}", "choose one")
    if out.exists():
        raise InputError(str(out), "a file", "a new one", "give another --out")
    member, i = places[run_id or next(iter(places))]
    scale, name = member.scales[i], member.model_config.NAME
    if name != ChromoformerConfig.NAME:
        found = f"a run of {name}"
        raise InputError(str(run_dir), found, "one of chromoformer", "give another --run")
    config = cast(ChromoformerConfig, member.model_config)
    params = jax.tree.map(lambda leaf: np.asarray(leaf)[i], member.weights["params"])
    state = to_torch(config, params, mean=scale.mean, deviation=scale.deviation)
    out.parent.mkdir(parents=True, exist_ok=True)
    with whole(out) as place:
        written = io.BytesIO()  # its own writer of files says nothing of a full disk
        torch.save(
            {"net": {name: torch.from_numpy(array) for name, array in state.items()}}, written
        )
        place.write_bytes(written.getvalue())
    run, inputs = member.runs[i], ensemble.input_config
    known = ensemble.signal.transforms if ensemble.signal else {}
    transforms = {known.get(assay, inputs.transform): None for assay in run.assays}
    return run, config, " or ".join(transforms), inputs.orientation


def _torch() -> Any:
    """PyTorch, which nothing else here needs.

    Raises:
        InputError: if it is not installed.
    """
    with contextlib.suppress(ImportError):
        return importlib.import_module("torch")
    raise InputError(
        "PyTorch",
        "no such package",
        "the extra `convert`",
        "pip install 'epi2expr_jax[convert]', then run the same command again",
    )


def main() -> None:
    if bool(FLAGS.checkpoint) == bool(FLAGS.run):
        raise InputError(
            "command line",
            "both --checkpoint and --run" if FLAGS.run else "no --checkpoint and no --run",
            "--checkpoint to import, or --run to export",
            "see --help for an example",
        )
    require("out")
    out = pathlib.Path(FLAGS.out)
    importing = ("assays", "cell", "fold", "contacts", "window_bp", "resolutions")
    names, other = (importing, "--run") if FLAGS.run else (("run_id",), "--checkpoint")
    refuse_without_effect((name, f"with {other}") for name in names)
    if FLAGS.run:
        exported = export_run(pathlib.Path(FLAGS.run), FLAGS.run_id, out)
        run, config, transform, orientation = exported
        print(
            f"{out}: {config.task} of {run.cell} from {', '.join(run.assays)}, in this order, by "
            f"signal under the transform {transform} and the orientation "
            f"{orientation}\n(n_feats={config.assays}, d_emb={config.token_width}, "
            f"binsizes={list(config.resolutions)}, i_max={config.contacts}, "
            f"w_prom={config.window_bp}; the package reads ln(depth + 1), by strand)"
        )
        return
    published, source = Published.from_flags(), pathlib.Path(FLAGS.checkpoint)
    card = write_run(read_checkpoint(source), source, published, out)
    held_out = card["converted"]["held_out"]
    watched = f"watched {listing(held_out, 30)}" if held_out else "may have seen any chromosome"
    print(
        f"{out}: {card['populations'][0]['model_config']['task']} of {published.cell} from "
        f"{', '.join(published.assays)}\nnote: its training {watched}, so no gene is blind to it; "
        f"load({str(out)!r}).predict(store, include_seen=True)"
    )


def run() -> None:
    start(main, define_flags)


if __name__ == "__main__":
    run()
