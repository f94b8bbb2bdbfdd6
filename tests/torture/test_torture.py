"""A few of the trials of `make torture`: nothing silently wrong, and no traceback."""

import json
import subprocess
import sys

import pytest

from epi2expr_jax.__main__ import commands
from tests.conftest import REPOSITORY
from tests.torture.commands import COMMANDS as ALL
from tests.torture.outcome import BAD, OUTCOMES

COMMANDS = "doctor,depth,import_window_counts"
FAULTS = "bit flipped,cut short,garbage,deleted,swapped,input not readable"


def test_every_command_has_trials():
    but = {"benchmark", "demo"}  # of other commands, and for hours
    tried = {command.module.partition(".")[2] for command in ALL}
    assert set(commands()) - but <= tried
    assert any("--run" in command.typed for command in ALL if "crispri" in command.module)


@pytest.mark.trial
def test_faults_end_in_the_same_results_or_in_words(tmp_path):
    command = [sys.executable, "-m", "tests.torture", "--trials=64", f"--commands={COMMANDS}",
               f"--faults={FAULTS}", f"--keep={tmp_path / 'failed'}"]  # fmt: skip
    run = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert run.stdout, run.stderr
    counts = json.loads(run.stdout.splitlines()[-1])
    assert [*counts][:8] == ["trials", *OUTCOMES]
    assert not any(counts[kind] for kind in BAD), run.stdout
    assert counts["trials"] >= 60, run.stdout
    assert counts["refused"] >= 30, run.stdout
    assert run.returncode == 0, run.stdout
