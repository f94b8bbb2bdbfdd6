"""A program that sows seeds. (This text is what its --help must show.)"""

import os
import pathlib
import re
import subprocess
import sys
import warnings

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.program import WITHIN_STUDY, flags_alone, print_next, start, within_study

ROOT = pathlib.Path(__file__).resolve().parents[2]


def define():
    from absl import flags

    flags.DEFINE_integer("seeds", 3, "How many seeds to sow.")
    flags.DEFINE_string("name", "", "Of the field.")
    flags.DEFINE_boolean("dry", False, "Without water.")


def sow():
    from absl import flags, logging

    logging.info("a step")
    logging.warning("it is late")
    warnings.warn("dry\n  soil", stacklevel=1)
    if flags.FLAGS.seeds < 1:
        raise InputError("--seeds", "none", "at least 1", "sow one")
    print(f"{flags.FLAGS.seeds} seeds sown")


def program():
    """Run in processes of its own: absl parses the flags of a process once."""
    start(sow, define)


# As an installed command does, whose script is not the program's module.
COMMAND = [
    sys.executable, "-c", "from tests.epi2expr_jax.test_program import program as p; p()",
]  # fmt: skip


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, cwd=ROOT)


@pytest.mark.parametrize(("arguments", "seeds"), [((), 3), (("--seeds=8",), 8)])
def test_flags_are_read_and_only_warnings_are_logged(arguments, seeds):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (0, f"{seeds} seeds sown\n")
    assert "it is late" in done.stderr
    assert done.stderr.endswith("\nwarning: dry soil\n")  # no file, no line of code
    assert "a step" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--seeds=abc", "--help=true"), "--seeds=abc"),
        (("--seeds=abc", "--stderrthreshold=bad"), "--seeds=abc"),
        (("--stderrthreshold=bad",), "bad"),
    ],
)
def test_a_bad_value_beside_flags_of_absl_itself_is_told(arguments, told):
    done = run(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_help_shows_the_programs_own_text_and_flags():
    done = run("--help")
    shown = done.stdout
    assert done.returncode == 0
    assert __doc__ is not None
    assert __doc__ in shown
    assert "--seeds: How many seeds to sow." in shown
    assert "(default: '3')" in shown
    assert "seeds sown" not in shown


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--seeds=8", "stray", "words"), "unexpected arguments: stray words"),
        (("--seed_count=8",), "unknown flag --seed_count"),
        (("--seeds=many",), "found:    --seeds=many\n    expected: an integer\n"),
        (("--seeds", "many"), "found:    --seeds=many\n"),
        (
            ("--seeds",),
            "found:    --seeds without a value\n    expected: --seeds=VALUE: an integer",
        ),
        (("--name", "--seeds=8"), "found:    --name without a value (--seeds=8 follows)\n"),
        (("--noseeds",), "found:    --noseeds\n    expected: --seeds=VALUE\n"),
        (("--nodry=1",), "found:    --nodry=1\n    expected: --dry, --nodry\n"),
        (("",), "unexpected arguments: \n"),
    ],
)
def test_what_is_not_understood_is_refused_before_anything_is_done(arguments, said):
    done = run(*arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_input_is_told_without_a_traceback():
    done = run("--seeds=0")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.endswith(
        "\n1 problem with the input:\n"
        "  --seeds\n"
        "    found:    none\n"
        "    expected: at least 1\n"
        "    remedy:   sow one\n"
    )
    assert "Traceback" not in done.stderr


def test_limits_under_which_libraries_abort_are_told_at_the_start():
    limits = "ulimit -n 40; ulimit -d 1048576; ulimit -v 2097152"
    limited = ["sh", "-c", f'{limits}; exec "$@"', "sh", *COMMAND]
    done = subprocess.run(limited, capture_output=True, text=True, cwd=ROOT)
    assert (done.returncode, done.stdout) == (2, "")
    assert "found:    a limit of 40 (ulimit -n)\n" in done.stderr
    assert "found:    a limit of 1024 MiB (ulimit -d)\n" in done.stderr
    assert "found:    a limit of 2048 MiB (ulimit -v)\n" in done.stderr
    assert done.stderr.count("expected: 4096 MiB or more\n") == 2


def test_a_closed_pipe_ends_it_in_silence():
    """As `| head` does, also of --help."""
    reader, writer = os.pipe()
    os.close(reader)
    for more in ([], ["--help"]):
        done = subprocess.run([*COMMAND, *more], stdout=writer, stderr=subprocess.PIPE, cwd=ROOT)
        assert done.returncode == 141
        assert b"Traceback" not in done.stderr
        assert b"Exception ignored" not in done.stderr
    for arguments in (["--sedes=8"], ["stray"]):  # errors go there, too: `2>&1 | true`
        done = subprocess.run([*COMMAND, *arguments], stdout=writer, stderr=writer, cwd=ROOT)
        assert done.returncode == 141
    os.close(writer)


@pytest.mark.parametrize("within", [False, True])
def test_what_comes_next_is_said_unless_a_study_runs_it(monkeypatch, capsys, within):
    monkeypatch.setenv(WITHIN_STUDY, "1" if within else "")
    assert within_study() == within
    for done, command in (("a.csv", "python -m x"), ("", "python -m x"), ("", ""), ("a.csv", "")):
        print_next(done, command)
    first, next_one = (
        ("a.csv\n", "") if within else ("a.csv; next: python -m x\n", "next: python -m x\n")
    )
    assert capsys.readouterr().out == f"{first}{next_one}a.csv\n"


def test_a_full_disk_under_what_it_prints_is_told():
    with open("/dev/full", "w") as full:
        done = subprocess.run(COMMAND, stdout=full, stderr=subprocess.PIPE, cwd=ROOT)
    assert done.returncode == 2
    assert b"No space left on device" in done.stderr
    assert b"Exception ignored" not in done.stderr


def ask_another():
    """A program that reads the flags of the one above, and has one of the same name."""
    from absl import flags

    with flags_alone(program, ["--seeds=8"]):
        print("within", flags.FLAGS.seeds)
    try:
        with flags_alone(program, ["--sed=8"]):
            print("read")
    except InputError as error:
        print(error.problems[0].found)
    print("again", flags.FLAGS.seeds)


def asking():
    start(ask_another, define)


def test_flags_of_another_program_are_read_without_beginning_it():
    script = "from tests.epi2expr_jax.test_program import asking; asking()"
    command = [sys.executable, "-c", script, "--seeds=2"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    within, refused, again = done.stdout.splitlines()
    assert (within, again) == ("within 8", "again 2")
    assert refused == "unknown flag --sed"


def test_every_unknown_flag_is_named_with_the_nearest():
    done = run("--sedes=8", "--nothing-else", "--seeds=2", "--", "--seeed=1")
    assert done.returncode == 2
    assert "3 problems" in done.stderr
    assert "unexpected arguments: --seeed=1\n" in done.stderr
    assert "unknown flag --sedes\n" in done.stderr
    assert "remedy:   did you mean seeds?; see --help" in done.stderr
    assert "unknown flag --nothing-else" in done.stderr


def test_all_that_is_wrong_is_told_at_once_and_nothing_that_is_not(tmp_path):
    """Also what a file of flags says; flags that absl itself has are no unknown ones."""
    (tmp_path / "flags").write_text("--seeds=some\n--undefok=later,sooner\n")
    given = [f"--flagfile={tmp_path / 'flags'}", "--later=1", "--nosooner", "--dry=soon", "--name"]
    done = run("word", "--sead", "3", *given)
    assert done.returncode == 2
    told = re.findall("found: +(.*)", done.stderr)
    assert told == ["unknown flag --sead", "--seeds=some", "--dry=soon", "--name without a value",
                    "unexpected arguments: word"]  # fmt: skip
    done = run(*given[:-1], "--seeds=8", "--sead")
    assert told[1:3] + told[:1] == re.findall("found: +(.*)", done.stderr)
    done = run("--flagfile", str(tmp_path / "none"), "--seeds=many")
    assert "Unable to open flagfile" in done.stderr
    assert "found:    --seeds=many\n" in done.stderr
    assert run("--sead=2", "--undefok=sead", "--seeds", "x").stderr.count("found: ") == 1
    assert run("--undefok=sead", "--sead=2", "--seeds", "4").stdout == "4 seeds sown\n"
