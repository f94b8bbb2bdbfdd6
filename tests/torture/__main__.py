"""Inject faults into every command, and see that nothing is lost and nothing silently wrong.

    python -m tests.torture                           of 1,600 trials, what an hour allows
    python -m tests.torture --trials=100 --seed=3
    python -m tests.torture --minutes=20                   as many as that
    python -m tests.torture --commands=train,evaluate --faults="bit flipped,KILL"
    python -m tests.torture --only=17                 one trial of those, its output shown

A trial ends in one of: finished_equal (as without the fault), resumed_equal (once the same command
is run again), refused (in words, with status 2, or a check that does not hold); or in what must not
be: silent (other results without a word), traceback, hang, crash. The last line is JSON.
"""

import argparse
import collections
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import time

from tests.torture.commands import COMMANDS
from tests.torture.outcome import BAD, OUTCOMES
from tests.torture.process import ENVIRONMENT, Become, load, require_untouched
from tests.torture.server import started
from tests.torture.trials import HANG_S, Bench, drawn
from tests.torture.workshop import Workshop


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1600, help="how many to draw")
    parser.add_argument("--seed", type=int, default=0, help="of what is drawn")
    parser.add_argument("--only", default="", help="some of them, by number")
    parser.add_argument("--commands", default="", help="these alone, and what they need")
    parser.add_argument("--faults", default="", help="these alone")
    parser.add_argument("--at_once", type=int, default=2, help="trials under way at once")
    parser.add_argument("--minutes", type=float, default=60, help="begin no trial after so many")
    parser.add_argument("--keep", help="folder for the output of failures, and a line a trial")
    return parser.parse_args()


def _with_needs(names: list[str]):
    """These commands, and of those before them all that name what they need, in order."""
    if not names:
        return list(COMMANDS)
    order = {command.name: i for i, command in enumerate(COMMANDS)}
    wanted, queue = {"simulate"}, list(names)
    while queue:
        name = queue.pop()
        if name not in order:
            raise SystemExit(f"no command {name}: {', '.join(order)}")
        wanted.add(name)
        at = order[name]
        for earlier in COMMANDS[:at]:
            written = {
                word.partition("=")[2]
                for word in earlier.arguments
                if word.startswith(("--store=", "--run=", "--out="))
            }
            if earlier.name not in wanted and written & set(COMMANDS[at].needs):
                queue.append(earlier.name)
    return [command for command in COMMANDS if command.name in wanted]


def _drain(children) -> None:
    for child in children:
        child.wait(600)


def main() -> int:
    arguments = _arguments()
    if ENVIRONMENT.items() - os.environ.items():  # read by libraries as they are imported
        anew = [sys.executable, "-m", "tests.torture", *sys.argv[1:]]
        os.execve(sys.executable, anew, {**os.environ, **ENVIRONMENT})
    began = time.monotonic()
    commands = _with_needs([name for name in arguments.commands.split(",") if name])
    load(sorted({command.module for command in commands}))
    require_untouched()
    keep = pathlib.Path(arguments.keep or tempfile.mkdtemp(prefix="torture-"))
    folder = pathlib.Path(tempfile.mkdtemp(prefix="epi2expr-torture-"))
    workshop = Workshop(folder, commands)
    try:
        _server, url = started(workshop.base / "data")
        _drain(workshop.prepare(url))
        print(f"{len(commands)} commands undisturbed: {time.monotonic() - began:.0f} s", flush=True)
        trials = drawn(
            workshop,
            arguments.trials,
            arguments.seed,
            [name for name in arguments.commands.split(",") if name],
            [name for name in arguments.faults.split(",") if name],
        )
        only = [int(number) for number in arguments.only.split(",") if number]
        trials = [trial for trial in trials if not only or trial.number in only]
        outcomes = _run(Bench(workshop, arguments.seed), trials, arguments, keep)
    except Become:
        raise  # a child: nothing of the parent is its own
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    shutil.rmtree(folder, ignore_errors=True)
    _print_table(outcomes)
    kinds = [outcome.kind for _, outcome in outcomes]
    counts = {kind: kinds.count(kind) for kind in OUTCOMES}
    seconds = round(time.monotonic() - began)
    processor = round(workshop.processor)
    line = {"trials": sum(counts.values()), **counts, "unproved": kinds.count("unproved")}
    more = {"seed": arguments.seed, "seconds": seconds, "processor_seconds": processor}
    print(json.dumps(line | more))
    return int(any(counts[kind] for kind in BAD))


def _run(bench, trials, arguments, keep):
    workshop = bench.shop
    waiting, under_way, outcomes = list(reversed(trials)), [], []
    end = time.monotonic() + 60 * arguments.minutes
    keep.mkdir(exist_ok=True)
    while waiting or under_way:
        if time.monotonic() > end:
            waiting.clear()
        while waiting and len(under_way) < arguments.at_once:
            trial = waiting.pop()
            under_way.append([trial, bench.run(trial), None])
        for entry in list(under_way):
            trial, steps, child = entry
            if child is not None:
                if not child.poll() and not child.stuck(HANG_S):
                    continue
                child.wait(0)
                workshop.processor += child.ended.cpu
            try:
                entry[2] = next(steps)
            except StopIteration as ended:
                under_way.remove(entry)
                outcomes.append((trial, ended.value))
                _tell(trial, ended.value, len(outcomes), len(trials), keep, workshop)
        time.sleep(0.02)
    return outcomes


def _tell(trial, outcome, done, count, keep, workshop) -> None:
    logs = sorted((workshop.folder / "logs").glob(f"trial{trial.number}.*"))
    line = {**vars(trial), "command": trial.command.name, **vars(outcome)}
    with open(keep / "trials.jsonl", "a") as file:
        print(json.dumps(line | {"came_to": outcome.kind, "kind": trial.kind}), file=file)
    if outcome.kind in BAD:
        print(f"[{done}/{count}] {outcome.kind.upper()} {trial}: {outcome.why[-400:]}", flush=True)
        for log in logs:
            shutil.copyfile(log, keep / log.name)
    elif done % 50 == 0 or count < 3:
        print(f"[{done}/{count}] {trial}: {outcome.kind}", flush=True)
        if count < 3:
            print(*(log.read_text(errors="replace") for log in logs))
    for log in logs:
        log.unlink()


_GROUPS = {
    "doctor|build_store": "build",
    "download|depth|bin_bigwigs|contacts": "tracks",
    "import_": "import",
    "plan|train|sweep|select": "train",
    "evaluate|verify": "evaluate, verify",
    "report": "report",
    "convert": "convert",
}
_SHORT = {"finished_equal": "=", "resumed_equal": "r", "refused": "w", "unproved": "?"}


def _group(name: str) -> str:
    found = (group for start, group in _GROUPS.items() if re.match(start, name))
    return next(found, "studies")


def _print_table(outcomes) -> None:
    """Fault by group of commands, and what came of it, in Markdown; what is bad by its name."""
    by = collections.defaultdict(collections.Counter)
    for trial, outcome in outcomes:
        by[trial.kind, _group(trial.command.name)][outcome.kind] += 1
    groups = [*dict.fromkeys(_GROUPS.values()), "studies"]
    groups = [group for group in groups if any(g == group for _, g in by)]
    print("\n= finished equal, r resumed equal, w refused in words, ? fault did not take hold\n")
    print("| fault |", " | ".join(groups), "|")
    print("|---|" + "---|" * len(groups))
    for kind in dict.fromkeys(kind for kind, _ in sorted(by)):
        cells = [
            " ".join(f"{n}{_SHORT.get(o, ' ' + o.upper())}" for o, n in sorted(by[kind, g].items()))
            for g in groups
        ]
        print(f"| {kind} |", " | ".join(cells), "|")


if __name__ == "__main__":
    child = None
    try:
        status = main()
    except Become as become:
        child, status = become, 0
    if child:  # not within the except: its own errors come of nothing else
        child.run()
    sys.exit(status)
