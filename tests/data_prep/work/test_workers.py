"""Processes that work for another one end with it."""

import multiprocessing
import signal
import subprocess
import sys
import time

import psutil

from data_prep.work.workers import end_with_parent, no_worker_left


def asleep(number):
    return multiprocessing.get_context("spawn").Process(target=time.sleep, args=(60 + number,))


def test_what_is_started_inside_is_killed_and_nothing_else():
    """Of processes that start while what started them closes, too."""
    other, *inside = map(asleep, range(3))
    other.start()
    with no_worker_left() as end:
        inside[0].start()
        end.set()
        inside[0].join(10)
        inside[1].start()
        inside[1].join(10)
        assert [process.exitcode for process in inside] == [-signal.SIGKILL] * 2
    assert other.is_alive()
    other.kill()
    other.join()


def test_a_worker_ends_with_its_parent():
    program = """
import multiprocessing, time
from data_prep.work.workers import end_with_parent
def work():
    end_with_parent()
    time.sleep(60)
process = multiprocessing.get_context("fork").Process(target=work)
process.start()
print(process.pid, flush=True)
time.sleep(60)
"""
    assert end_with_parent.__module__ in program
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout
    worker = psutil.Process(int(parent.stdout.readline()))
    time.sleep(0.2)
    parent.kill()
    parent.communicate()
    assert not psutil.wait_procs([worker], timeout=10)[1]
