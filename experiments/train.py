"""Train one model for every cell x assay set x fold x seed, many at once.

    python -m experiments.train --store=roadmap.zarr --run=runs/cnn --model=cnn
    python -m experiments.train --store=roadmap.zarr --run=runs/pairs --model=promoter_cnn \\
        --cells=E003,E123 --assays=each,H3K27ac+DNase --cv=chromosomes_5 --target=log2
    python -m experiments.train --store=distal.zarr --run=runs/distal --model=chromoformer
    python -m experiments.train --store=distal.zarr --run=runs/near --model=chromoformer --no_pcre

One process uses all GPUs (or the TPU chips) of its machine. Several processes share the work and
the run directory; each trains its runs, at its own pace, and the last one to finish closes the run:

    sbatch --array=0-3 --wrap 'python -m experiments.train ... --share=$SLURM_ARRAY_TASK_ID/4'
    srun --ntasks=4 python -m experiments.train ... --distributed=auto      (SLURM, TPU pods)
    python -m experiments.train ... --distributed=HOST:PORT --process=0/2    (by hand)

The same command run again resumes an interrupted training, on any number of devices or processes:
runs are saved in the background as they train, and on SIGTERM. A run whose loss stops being finite
is quarantined and named; the others go on. Once all are trained, the same command with more
--seeds, --cells, --assays or --folds trains what is missing. With more --epochs, runs
that used all their epochs go on from the state they ended in; runs that stopped early stay. No
other flag may change. experiments.plan says beforehand what a training will take. Next:
experiments.evaluate, experiments.report.
"""

import pathlib
import time

import jax
from absl import flags

from epi2expr_jax.program import print_next, start
from epi2expr_jax.training import checkpoint
from epi2expr_jax.units import count
from experiments.cli.flags import define_training, request_of_flags
from experiments.cli.progress import train_shown
from experiments.cli.shares import define_machine, machine_of_flags

FLAGS = flags.FLAGS

_POLL = 1.0  # seconds between looks at what the other processes have done


def main() -> None:
    request, run_dir = request_of_flags(), pathlib.Path(FLAGS.run)
    card = train_shown(request, run_dir, machine_of_flags(), FLAGS.track)
    while jax.process_count() > 1 and card["status"] != "complete":
        # Processes that were started together end together: the first one serves the others.
        time.sleep(_POLL)
        card = checkpoint.read_card(run_dir)
    if card["status"] == "complete":
        runs = [run for population in card["populations"] for run in population["runs"]]
        done = f"{FLAGS.run}: {count(len(runs), 'run')} in {card['seconds']:.0f} s"
        print_next(done, f"python -m experiments.evaluate --run={FLAGS.run}")


def run() -> None:
    start(main, define_training, define_machine)


if __name__ == "__main__":
    run()
