"""The flags that say where and how to train, and which of the runs this process trains."""

import os
import sys

import jax
from absl import flags

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.study.lookup import Share
from epi2expr_jax.study.train import Machine
from experiments.cli.flags import define_field, described_fields
from experiments.cli.progress import TRACKERS

FLAGS = flags.FLAGS


def define_machine() -> None:
    """Where and how to train, which changes no result."""
    define_field(Machine, "devices", lower_bound=0)
    define_field(Machine, "runs_at_once", lower_bound=0)
    flags.DEFINE_float(
        "data_gib",
        0,
        "Signal on each device at a time, in GiB, the rest is streamed from the store; 0: as much "
        "as fits.",
        lower_bound=0,
    )
    text = described_fields(Machine)["checkpoint_minutes"].split(" None:")[0]
    flags.DEFINE_float(
        "checkpoint_minutes",
        None,
        f"{text} by default as often as keeps all saving within 5 % of the time.",
        lower_bound=0,
    )
    flags.DEFINE_integer("checkpoint_every", None, "Replaced by --checkpoint_minutes.")
    define_field(Machine, "resume")
    flags.DEFINE_string(
        "share", "0/1", "I/N: cut the runs into N groups and train the I-th of them (from 0)."
    )
    flags.DEFINE_string(
        "distributed", "", "auto (SLURM, TPU pods) or HOST:PORT: processes that share the runs."
    )
    flags.DEFINE_string("process", "", "I/N: this process, for --distributed=HOST:PORT.")
    flags.DEFINE_list("track", [], f"Also show losses in: {', '.join(TRACKERS)}.")


def machine_of_flags(alone: str = "") -> Machine:
    """The machine that the flags describe, once this process has met the others, if there are any.

    Args:
        alone: of a program that cannot share its runs, what to do instead.

    Raises:
        InputError: naming every flag that makes no sense.
    """
    by_hand = FLAGS.distributed not in ("", "auto")
    with collect() as problems:
        unknown = [name for name in FLAGS.track if name not in TRACKERS]
        if unknown:
            problems.add("--track", ", ".join(unknown), " or ".join(TRACKERS), "correct it")
        if FLAGS.checkpoint_every is not None:
            remedy = "leave it out, or give --checkpoint_minutes (0: after every epoch)"
            problems.add("--checkpoint_every", "a flag of older versions", "no such flag", remedy)
        if by_hand != bool(FLAGS.process):
            expected = "I/N with --distributed=HOST:PORT, nothing otherwise"
            problems.add("--process", FLAGS.process or "nothing", expected, "give both or neither")
        share = process = Share()
        with problems.part():
            share = _share("share", FLAGS.share)
        with problems.part():
            process = _share("process", FLAGS.process or "0/1")
        if FLAGS.distributed and share.count > 1:
            problems.add("--share", FLAGS.share, "it without --distributed", "give one of them")
        if alone and (FLAGS.distributed or share.count > 1):
            flag = "--distributed" if FLAGS.distributed else "--share"
            problems.add(flag, "several processes", "one for all runs", alone)
    cache_compiled_programs()
    if FLAGS.distributed:
        if by_hand:
            jax.distributed.initialize(FLAGS.distributed, process.count, process.index)
        else:
            _meet()
        share = Share(jax.process_index(), jax.process_count())
    return Machine(
        devices=FLAGS.devices,
        runs_at_once=FLAGS.runs_at_once,
        data_limit=int(FLAGS.data_gib * 2**30) or None,
        checkpoint_minutes=FLAGS.checkpoint_minutes,
        resume=FLAGS.resume,
        share=share,
    )


def _meet() -> None:
    """Meet the other processes of this job.

    Raises:
        InputError: if this is not a job whose processes know of each other.
    """
    try:
        jax.distributed.initialize()
    except ValueError as error:  # JAX found no address to meet at
        raise InputError(
            "--distributed=auto",
            f"a process that no cluster started ({error})",
            "a job of SLURM (srun), Open MPI (mpirun), Kubernetes or a TPU pod, which tells each "
            "process where to meet the others",
            "start it by srun, leave the flag out for one process, or give "
            "--distributed=HOST:PORT --process=I/N to each",
        ) from None


def _share(flag: str, text: str) -> Share:
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and int(index) < int(count)):
        raise InputError(
            f"--{flag}", repr(text), "I/N with I from 0 to N-1, such as 0/4", "correct it"
        )
    return Share(int(index), int(count))


def cache_compiled_programs() -> None:
    """Keep compiled programs for the next start, in a folder of the user's own.

    Who can write there can run code, so nobody else may. JAX's own variable goes first.
    """
    if os.environ.get("JAX_COMPILATION_CACHE_DIR"):
        return
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = os.path.join(home, "epi2expr_jax", "programs")
    try:
        os.makedirs(folder, mode=0o700, exist_ok=True)
        os.chmod(folder, 0o700)
    except OSError as error:
        print(f"note: compiled programs are not kept ({error})", file=sys.stderr)
        return
    jax.config.update("jax_compilation_cache_dir", folder)
