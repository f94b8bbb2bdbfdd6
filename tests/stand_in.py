"""What answers to `python`, `epi2expr`, `make`, … where `tests.blocks` runs a block of a page.

Trainings are made small, `make` and `pip` only say what they would do; of downloads and of contacts
from maps, which are of whole genomes, the flags alone are read.
"""

import importlib
import os
import subprocess
import sys

import tests.blocks as blocks


def main(name: str, given: list[str]) -> None:
    if name == "make":
        os.execv("/usr/bin/make", ["make", "-n", *given])
    if name == "pip":
        line = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", *given[1:]]
        os.execv(sys.executable, line)
    if name == "sbatch":  # the jobs one after the other
        (text,) = [given[i + 1] for i, word in enumerate(given) if word == "--wrap"]
        (array,) = [word.partition("=")[2] for word in given if word.startswith("--array")]
        first, last = map(int, array.split("-"))
        for task in range(first, last + 1):
            own = {**os.environ, "SLURM_ARRAY_TASK_ID": str(task)}
            subprocess.run(["bash", "-euc", text], check=True, env=own)
        return
    if name == "epi2expr":
        given = ["-m", "epi2expr_jax", *given]
        own = next(blocks.commands(" ".join(["epi2expr", *given[2:]])), ("", []))[0]
    else:
        own = given[1] if given[:1] == ["-m"] else ""
    if own in ("data_prep.download", "data_prep.contacts_from_map"):
        from epi2expr_jax.program import flags_alone

        with flags_alone(importlib.import_module(own).run, given[2:]):
            return
    has = {word.partition("=")[0] for word in given}
    given = ["--epochs=3" if word == "--epochs=200" else word for word in given]
    given += [flag for flag in blocks.STAND_INS.get(own, ()) if flag.partition("=")[0] not in has]
    os.execv(sys.executable, [sys.executable, *given])


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
