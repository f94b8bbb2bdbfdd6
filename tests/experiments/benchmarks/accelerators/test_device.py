"""How the time is shared out, and that no figure costs the others."""

import json
import sys
import types

import pytest

from epi2expr_jax.errors import InputError
from experiments.benchmarks.accelerators import device as room
from experiments.benchmarks.accelerators.training import Task


def test_what_a_stage_does_not_use_the_others_share():
    weights = {"first": 10, "second": 30, "third": 10}
    assert room.share(weights, "first", 100) == pytest.approx(20)
    assert room.share(weights, "second", 80) == pytest.approx(60)
    assert room.share(weights, "second", 100) == pytest.approx(75)
    assert room.share(weights, "third", 7) == pytest.approx(7)


def test_every_figure_is_a_line_and_an_error_is_one_too(clock, monkeypatch, tmp_path, capsys):
    def refuse():
        raise ValueError("no such device")

    def tasks(small):
        assert small
        yield Task({"model": "cnn"}, lambda: clock.taking(3)() or {"per_s": 7})
        yield Task({"model": "other"}, refuse)
        yield Task({"model": "cnn", "lanes": 2}, lambda: clock.taking(5)() or {"per_s": 8})
        yield Task({"model": "late"}, refuse)

    monkeypatch.setattr(room, "STAGES", {"cnn": (1, tasks)})
    monkeypatch.setattr(room, "time", clock)
    room.stage("cnn", 10, True, str(tmp_path))
    lines = (tmp_path / "results.jsonl").read_text().splitlines()
    assert capsys.readouterr().out.splitlines() == lines
    assert [json.loads(line) for line in lines] == [
        {"stage": "cnn", "model": "cnn", "per_s": 7},
        {"stage": "cnn", "model": "other", "error": "ValueError('no such device')"},
        {"stage": "cnn", "model": "cnn", "lanes": 2, "per_s": 8},
        {"stage": "cnn", "skipped": "no time left for 1 of 4"},  # 2 s, and the last took 5
    ]


def test_a_stage_that_takes_too_long_or_fails_does_not_end_the_check(
    monkeypatch, tmp_path, parse_flags
):
    from experiments.benchmark import define_flags

    parse_flags([define_flags], "--what=device", "--seconds=10", "--ahead=0", f"--out={tmp_path}")
    for name, program in (
        ("python", "import time; time.sleep(60)"),
        ("broken", "raise SystemExit('no memory')"),
    ):
        script = tmp_path / name
        script.write_text(f'#!/bin/sh\nexec {sys.executable} -c "{program}"\n')
        script.chmod(0o755)
        monkeypatch.setattr(room, "sys", types.SimpleNamespace(executable=str(script)))
        monkeypatch.setattr(room, "STAGES", {name: (1, None)})
        monkeypatch.setattr(room, "share", lambda *_: 5.0)
        found = room.device(1)
        assert list(found["seconds"]) == [name]
    late, broken = map(json.loads, (tmp_path / "results.jsonl").read_text().splitlines())
    assert late == {"stage": "python", "error": "stopped after 5 s", "stderr": ""}
    assert broken == {"stage": "broken", "error": 1, "stderr": "no memory\n"}


def test_stages_are_chosen_by_name(monkeypatch, tmp_path, parse_flags):
    from experiments.benchmark import define_flags

    started = []
    monkeypatch.setattr(room, "_start", lambda name, seconds, *_: started.append((name, seconds)))
    given = ["--what=device", "--seconds=100", "--ahead=0", f"--out={tmp_path}"]
    parse_flags([define_flags], *given, "--stages=host,tests")
    room.device(1)
    assert [name for name, _ in started] == ["host", "tests"]
    assert started[0][1] == pytest.approx(50, rel=0.01)  # they have equal shares
    parse_flags([define_flags], *given, "--stages=host,gpu")
    with pytest.raises(InputError, match="found gpu; expected some of machine, cnn"):
        room.device(1)


def test_programs_are_shared_out_and_compiled_once_by_whoever_comes_first(
    monkeypatch, tmp_path, capsys
):
    compiled = []

    def refuse():
        raise ValueError("too large")

    def tasks(small):
        yield Task({"lanes": 8}, dict, lambda: compiled.append(8))
        yield Task({"lanes": 9}, dict)  # nothing to compile
        yield Task({"lanes": 16}, dict, refuse)
        yield Task({"lanes": 32}, dict, lambda: compiled.append(32))

    monkeypatch.setattr(room, "STAGES", {"cnn": (1, tasks), "other": (1, None)})
    (tmp_path / "0").touch()  # another process has claimed the first
    for _ in range(2):
        room.ahead(["cnn"], str(tmp_path), True, str(tmp_path))
    assert compiled == [32]
    refused, done = map(json.loads, capsys.readouterr().out.splitlines())
    assert (refused["of"], refused["lanes"], refused["error"]) == (
        "cnn",
        16,
        "ValueError('too large')",
    )
    assert (done["lanes"], done["compile_s"]) == (32, 0.0)
