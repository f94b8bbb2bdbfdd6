"""Where and how to train, by the flags: what makes no sense is refused, processes meet."""

import pathlib
import stat

import jax
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.study.lookup import Share
from epi2expr_jax.study.train import Machine
from experiments.cli.shares import cache_compiled_programs, define_machine, machine_of_flags


@pytest.fixture
def given(parse_flags, monkeypatch):
    """`given("--devices=2", ...)`: a command line."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "already/chosen")
    return lambda *arguments: parse_flags([define_machine], *arguments)


def test_a_machine_is_what_its_flags_say(given):
    given()
    assert machine_of_flags() == Machine()
    given(
        "--devices=2", "--runs_at_once=5", "--data_gib=0.5", "--checkpoint_minutes=3",
        "--track=tensorboard", "--share=1/4", "--noresume",
    )  # fmt: skip
    assert machine_of_flags() == Machine(2, 5, 2**29, 3.0, False, Share(1, 4))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--share=4/4"], ["--share"]),
        (["--share=half"], ["--share"]),
        (["--checkpoint_every=3"], ["--checkpoint_every"]),
        (["--process=0/2"], ["--process"]),
        (["--distributed=host:1234"], ["--process"]),
        (["--distributed=auto", "--share=0/2"], ["--share"]),
        (["--track=paper", "--share=-1/2"], ["--track", "--share"]),
    ],
)
def test_machines_that_make_no_sense_are_refused(given, arguments, named):
    given(*arguments)
    with pytest.raises(InputError) as caught:
        machine_of_flags()
    assert [problem.where for problem in caught.value.problems] == named


def test_a_process_that_joins_others_gets_its_share(given, monkeypatch):
    met = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *place: met.append(place))
    given("--share=1/4")
    assert machine_of_flags().share == Share(1, 4)
    assert met == []
    monkeypatch.setattr(jax, "process_index", lambda: 1)
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    given("--distributed=host:1234", "--process=1/2")
    assert machine_of_flags().share == Share(1, 2)
    given("--distributed=auto")
    assert machine_of_flags().share == Share(1, 2)
    assert met == [("host:1234", 2, 1), ()]


def test_a_process_that_no_cluster_started_is_told_how_to_be(given, monkeypatch):
    def alone():
        raise ValueError("coordinator_address should be defined.")  # as JAX 0.10 does

    monkeypatch.setattr(jax.distributed, "initialize", alone)
    given("--distributed=auto")
    with pytest.raises(InputError, match=r"no cluster started .*start it by srun, leave the flag"):
        machine_of_flags()


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--share=0/2"], "--share"),
        (["--distributed=auto"], "--distributed"),
        (["--distributed=host:1234", "--process=0/2"], "--distributed"),
    ],
)
def test_a_program_that_cannot_share_says_what_to_do(given, arguments, named, monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", lambda *_: pytest.fail("it joined"))
    given(*arguments)
    with pytest.raises(InputError, match=f"{named}: found several.*; train each on its own"):
        machine_of_flags("train each on its own")
    given("--share=0/1")
    assert machine_of_flags("train each on its own") == Machine()


def test_compiled_programs_are_kept_where_nobody_else_may_write(tmp_path, monkeypatch):
    kept = []
    monkeypatch.setattr(jax.config, "update", lambda name, value: kept.append((name, value)))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "already/chosen")
    cache_compiled_programs()
    assert kept == []
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache_compiled_programs()
    ((name, folder),) = kept
    assert name == "jax_compilation_cache_dir"
    assert pathlib.Path(folder).is_relative_to(tmp_path)
    assert stat.S_IMODE(pathlib.Path(folder).stat().st_mode) == 0o700
