"""Say what a training will take, before it starts.

    python -m experiments.plan --store=roadmap.zarr --model=cnn
    python -m experiments.plan --store=distal.zarr --model=chromoformer --cv=chromoformer_4
    python -m experiments.plan --store=roadmap.zarr --model=cnn --share=0/4

Takes the flags of experiments.train, and prints for each program (a model shape) how many runs
share it, how they are cut to fit the devices, and what that needs of memory, disk and time. Time
comes from a short calibration here; runs that stop early take less. Next: experiments.train.
"""

import pathlib
import shutil

from absl import flags

from epi2expr_jax.inputs.track_cache import device_memory
from epi2expr_jax.program import start
from epi2expr_jax.study.lookup import Group, Study
from epi2expr_jax.training.planning import MemoryPlan, Pace, calibrate, lanes_for, plan_memory
from epi2expr_jax.units import count
from experiments.cli.flags import define_training, request_of_flags
from experiments.cli.progress import Shown, in_words
from experiments.cli.shares import define_machine, machine_of_flags

FLAGS = flags.FLAGS


def describe(group: Group, how: MemoryPlan, pace: Pace) -> str:
    """One program's part of the plan, in words."""
    epochs = group.trainer.config.epochs
    seconds, at_once = pace.seconds(group.inputs, epochs), min(how.runs, how.at_once)
    streamed = "" if how.data_limit is None else f", of which {_size(how.data_limit)} at a time"
    lines = [
        f"{group.name}: {count(how.runs, 'run')} of at most {count(epochs, 'epoch')}",
        f"  side by side   {count(how.lanes.width, 'run')} on each of "
        f"{count(len(how.lanes.devices), 'device')}",
        f"  in memory      {count(at_once, 'run')}, which take turns: {how.chunks} an epoch"
        + (f"; {how.runs - at_once} wait" if how.runs > at_once else ""),
        f"  a run's state  {_size(how.state_bytes)}",
        f"  signal         {count(how.tracks, 'track')} of {_size(how.track_bytes)}{streamed}",
        f"  device memory  {_size(how.device_bytes)} of {_size(device_memory())}, and temporaries",
        f"  disk           {_size(how.disk_bytes)} at most, "
        f"{_size(how.runs * how.weight_bytes)} in the end",
        f"  pace           {pace.genes_per_s:,.0f} gene-steps/s (a gene in an epoch of a run), as "
        f"measured here; {pace.compile_s:.0f} s to compile",
        f"  time           {in_words(seconds)} at most",
    ]
    return "\n".join(lines)


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.3g} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def main() -> None:
    study, machine = Study(request_of_flags(needs_run=False)), machine_of_flags()
    if study.left_out:
        print(study.left_out)
    at_once, disk, seconds = machine.runs_at_once, 0, 0.0
    shown = Shown(pathlib.Path(FLAGS.run or "."))
    for group in study.groups(machine.share, machine.data_limit, shown.reading):
        lanes = lanes_for(group.trainer, machine.devices)
        how = plan_memory(group.trainer, group.runs, group.cache, lanes, at_once=at_once)
        print(f"{group.name}: compiling, and measuring the pace of a few batches ...", flush=True)
        pace = calibrate(group.trainer, group.runs, group.inputs, group.cache, lanes)
        print(describe(group, how, pace))
        disk += how.disk_bytes
        seconds += pace.seconds(group.inputs, group.trainer.config.epochs)
    folder = pathlib.Path(FLAGS.run or ".").resolve()
    there = next(path for path in (folder, *folder.parents) if path.exists())  # the run is to come
    free = shutil.disk_usage(there).free
    enough = "enough" if disk < free else "NOT ENOUGH"
    print(f"all: {in_words(seconds)} at most; disk {_size(disk)} of {_size(free)} free: {enough}")


def run() -> None:
    start(main, define_training, define_machine)


if __name__ == "__main__":
    run()
