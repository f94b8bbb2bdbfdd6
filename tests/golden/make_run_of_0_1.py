"""A small store and run as version 0.1.0 (commit 9d4861f) wrote them.

    git worktree add ../old 9d4861f && cd ../old
    python …/tests/golden/make_run_of_0_1.py FOLDER

Run at that commit, in its root, with the versions of its constraints.txt; the result is kept with
this script as run_of_0_1.tar.gz. Later versions must load, verify and predict with it as before.
`predictions.parquet` in it holds what that version predicted. Paths in the run card are relative to
FOLDER.
"""

import os
import pathlib
import shutil
import subprocess
import sys

COMMANDS = (
    "data_prep.simulate --out=data --genes=66 --cells=1 --assays=2",
    "data_prep.build_store --tracks=data/tracks.csv --expression=data/RPKM.pc.gz"
    " --genes=data/genes.gtf.gz --assembly=data/genome.chrom.sizes --store=store.zarr"
    " --window_bp=6000 --bin_bp=100",
    "experiments.train --store=store.zarr --run=run --model=promoter_cnn --width=0.04"
    " --cv=chromosomes_3 --epochs=20 --batch_size=8",
    "experiments.evaluate --run=run",
)


def main() -> None:
    folder = pathlib.Path(sys.argv[1]).resolve()
    folder.mkdir(parents=True)
    environment = {**os.environ, "PYTHONPATH": os.getcwd()}
    for command in COMMANDS:
        subprocess.run(
            [sys.executable, "-m", *command.split()], cwd=folder, env=environment, check=True
        )
    shutil.rmtree(folder / "data")


if __name__ == "__main__":
    main()
