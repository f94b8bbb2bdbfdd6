"""Whole tiny studies: killed and run again, or as the jobs of a workflow, they end the same."""

import os
import random
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest

from tests.conftest import REPOSITORY

TINY = """
[simulate]
genes = 220
cells = 1
assays = 3
[store]
tracks = "{out}/data/tracks.csv"
expression = "{out}/data/RPKM.pc.gz"
genes = "{out}/data/genes.gtf.gz"
assembly = "{out}/data/genome.chrom.sizes"
[train.small]
model = "promoter_cnn"
width = 0.02
cv = "chromosomes_3"
epochs = 3
batch_size = 32
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory, trial_size):
    """`tiny(out)`: the command line of a whole tiny study, which has no results yet."""
    if trial_size(True, False):
        pytest.skip("whole studies, minutes long, run in `make trials`")
    folder = tmp_path_factory.mktemp("tiny")
    (folder / "tiny.toml").write_text(TINY)

    def command(out):
        line = [sys.executable, "-m", "experiments.study", str(folder / "tiny.toml")]
        return [*line, f"--out={folder / out}"], folder / out / "runs" / "small"

    return command


@pytest.fixture(scope="module")
def undisturbed(tiny):
    """The run of a tiny study that nothing disturbed, and how long the study took."""
    command, run_dir = tiny("undisturbed")
    began = time.monotonic()
    subprocess.run(command, check=True, cwd=REPOSITORY)
    return run_dir, time.monotonic() - began


@pytest.mark.trial
def test_killed_and_run_again_a_study_ends_the_same(tiny, undisturbed, same_weights):
    """At ten random moments: all of it killed or interrupted, or itself told to end."""
    expected, seconds = undisturbed
    draw, kills, number = random.Random(0), [], 0
    while len(kills) < 10:
        command, run_dir = tiny(f"killed{number}")
        number += 1
        while len(kills) < 10:
            child = subprocess.Popen(command, cwd=REPOSITORY, start_new_session=True)
            try:
                child.wait(timeout=draw.uniform(0.02, 0.3) * seconds)
                break  # it was done before
            except subprocess.TimeoutExpired:
                how = draw.choice((signal.SIGKILL, signal.SIGINT, signal.SIGTERM))
                if how == signal.SIGTERM:
                    child.terminate()
                else:  # as Ctrl-C does, which all processes of a terminal hear
                    os.killpg(child.pid, how)
                kills.append(child.wait())
        subprocess.run(command, check=True, cwd=REPOSITORY)
        for name in ("ranking", "calls", "groups", "questions", "quality"):
            assert (run_dir / f"{name}.csv").read_bytes() == (
                expected / f"{name}.csv"
            ).read_bytes(), name
        same_weights(run_dir, expected)
        assert (run_dir / "report.html").exists()
    print(f"{kills} over {number} studies; {seconds:.0f} s undisturbed")
    assert set(kills) <= {-signal.SIGKILL, -signal.SIGTERM, -signal.SIGINT, 130, 143}


def run_snakemake(folder, *arguments):
    pytest.importorskip("snakemake", reason="needs the extra `workflow`")
    line = [sys.executable, "-m", "snakemake", "-s", str(REPOSITORY / "workflow/Snakefile")]
    line += ["--cores=2", f"--directory={folder}", *arguments]
    done = subprocess.run(line, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.trial
def test_a_workflow_gives_what_the_study_gives(tiny, undisturbed, same_weights, tmp_path):
    """Also where two jobs share the training."""
    command, run_dir = tiny("workflow")
    out = run_dir.parents[1]
    run_snakemake(tmp_path, "--config", f"study={command[-2]}", f"out={out}", "shares=2")
    expected, _ = undisturbed
    for name in ("ranking.csv", "report.html"):
        assert (run_dir / name).exists()
    ranking = pd.read_csv(run_dir / "ranking.csv")
    pd.testing.assert_frame_equal(ranking, pd.read_csv(expected / "ranking.csv"))
    same_weights(run_dir, expected)
