"""A program that waits. (Processes of it are told to end.)"""

import ctypes
import multiprocessing
import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from epi2expr_jax.ending import in_time, saving, sparing_children
from epi2expr_jax.files import whole

ROOT = pathlib.Path(__file__).resolve().parents[2]


def in_c(_):
    """Nothing of Python runs, and no signal ends the call: as in XLA while it compiles."""
    with sparing_children():
        multiprocessing.get_context("spawn").Process(target=time.sleep, args=[60]).start()
    c, lock = ctypes.CDLL(None), ctypes.create_string_buffer(256)
    print("waiting", flush=True)
    for _ in range(2):
        c.pthread_mutex_lock(lock)


def in_python(file):
    with whole(file):
        print("waiting", flush=True)
        time.sleep(60)


def that_saves(_):
    with saving() as asked:
        print("waiting", flush=True)
        while not asked:
            time.sleep(0.01)
        time.sleep(1.3)  # longer than those have that do not save
        print("saved", flush=True)
        raise SystemExit(143)


def run(program, file):
    with in_time():
        program(file)


@pytest.mark.parametrize(
    ("program", "number", "status", "printed", "said"),
    [
        (in_c, signal.SIGINT, 130, "", "stopped by Ctrl-C\n"),
        (in_python, signal.SIGINT, 130, "", "stopped by Ctrl-C\n"),
        (in_python, signal.SIGTERM, 143, "", "stopped by SIGTERM\n"),
        (that_saves, signal.SIGTERM, 143, "saved\n", "stopped by SIGTERM: saving\n"),
    ],
)  # fmt: skip
def test_it_ends_in_time_with_one_line_and_all_its_children(
    program, number, status, printed, said, tmp_path
):
    """As from a terminal, which tells all processes of the command."""
    name, file = program.__name__, str(tmp_path / "a")
    command = f"from tests.epi2expr_jax import test_ending as t; t.run(t.{name}, {file!r})"
    process = subprocess.Popen(
        [sys.executable, "-c", command], cwd=ROOT, text=True, start_new_session=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "waiting\n"
    begin = time.monotonic()
    os.killpg(process.pid, number)
    # Until nobody, children included, has the pipes open.
    assert process.communicate(timeout=20) == (printed, said)
    assert time.monotonic() - begin < 2
    assert process.returncode == status
    assert list(tmp_path.iterdir()) == []


def test_while_it_is_imported_it_ends_at_once():
    """JAX alone takes a second."""
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments.train", "--help"], cwd=ROOT, stderr=subprocess.PIPE,
        stdout=subprocess.PIPE, env={**os.environ, "PYTHONVERBOSE": "1"},
    )  # fmt: skip
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith(b"import 'jax.version'"):
            process.send_signal(signal.SIGINT)
            break
    said = process.communicate(timeout=20)[1]
    assert process.returncode == 130
    assert b"stopped by Ctrl-C\n" in said
    assert b"Traceback" not in said


@pytest.mark.parametrize("status", [0, 2])
def test_once_a_command_has_ended_its_status_stands(status):
    """Told while Python itself ends, after all was written: as late as one of its own objects."""
    script = f"""
import os, signal, sys
sys.argv = ["-m"]
from epi2expr_jax import ending
ending.while_importing()
class Late:
    def __del__(self, kill=os.kill, me=os.getpid(), numbers=(signal.SIGINT, signal.SIGTERM)):
        for number in numbers:
            kill(me, number)
late = Late()
with ending.in_time():
    print("written", flush=True)
    sys.exit({status})
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout, done.stderr) == (status, "written\n", "")


def test_what_saves_is_asked_in_the_main_thread_and_signals_are_as_before():
    before = signal.getsignal(signal.SIGTERM)
    with saving() as asked:
        assert not asked
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked == [signal.SIGTERM]
    with in_time():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_garbage_is_collected_while_a_command_runs_but_not_sought_in_what_is_imported():
    script = """
import gc, sys
sys.argv = ["-m"]
import experiments
print(gc.isenabled())
from epi2expr_jax.program import start
sys.argv = ["-m"]
start(lambda: print(gc.isenabled(), gc.get_freeze_count() > 1000))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout == "False\nTrue True\n", done.stderr
