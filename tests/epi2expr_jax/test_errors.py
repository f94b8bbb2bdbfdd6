"""Every problem is shown at once, and no program ends with a traceback for bad input."""

import dataclasses
import errno
import pickle

import pytest

from epi2expr_jax.errors import (
    InputError,
    OutOfMemory,
    Problem,
    collect,
    describe,
    exit_on_bad_input,
    nearest,
)

ONE = Problem("a.csv, line 2", "strand x", "+ or -", "correct it")
OTHER = Problem("b.csv", "no rows", "a row a gene", "add them", kind="empty")


def test_an_error_says_all_its_problems():
    lines = [
        "a.csv, line 2: found strand x; expected + or -; correct it",
        "b.csv: found no rows; expected a row a gene; add them",
    ]
    assert str(ONE) == lines[0]
    assert str(InputError.of(problem for problem in (ONE, OTHER))) == "\n".join(lines)
    assert InputError.of(ONE).problems == (ONE,)
    with pytest.raises(ValueError, match="strand x"):
        raise InputError.of(ONE)


def test_an_error_of_a_worker_process_keeps_its_problems():
    back = pickle.loads(pickle.dumps(InputError.of([ONE, OTHER])))
    assert type(back) is InputError
    assert back.problems == (ONE, OTHER)
    assert str(back) == str(InputError.of([ONE, OTHER]))


@pytest.mark.parametrize(
    ("found", "remedy"),
    [
        ("h3k27AC", "did you mean H3K27ac?"),
        ("DNAse1", "did you mean DNase?"),
        (["H3K27a", "DNas"], "did you mean H3K27ac, DNase?"),
        (["DNas", "zzz", "DNasee"], "did you mean DNase?"),
        ("zzz", ""),
        ([], ""),
    ],
)
def test_the_nearest_names_are_offered_once_each(found, remedy):
    assert nearest(found, ["H3K27ac", "DNase", "CTCF"]) == remedy


def find_several(went_on):
    with collect() as problems:
        problems.add("a.csv, line 2", "strand x", "+ or -", "correct it")
        with problems.part("strand"):
            problems.extend([ONE])
            raise InputError.of([ONE, OTHER])
        with problems.part():
            went_on.append(True)
        raise InputError("c.csv", "nothing", "rows", "add them")


def test_all_that_is_found_inside_is_raised_at_the_end():
    went_on = []
    with pytest.raises(InputError) as caught:
        find_several(went_on)
    assert went_on
    named = dataclasses.replace(ONE, kind="strand")
    last = Problem("c.csv", "nothing", "rows", "add them")
    assert caught.value.problems == (ONE, named, OTHER, last)


def test_where_nothing_is_found_work_goes_on():
    with collect() as problems:
        assert not problems
        with problems.part():
            done = True
    assert done


def fail_after_a_problem():
    with collect() as problems:
        problems.extend([ONE])
        with problems.part():
            raise KeyError("a fault of ours")


def test_faults_of_ours_are_not_gathered():
    with pytest.raises(KeyError):
        fail_after_a_problem()


def find_many(count, most):
    with collect(most=most) as problems:
        for line in range(count):
            problems.add(f"a.csv, line {line}", "x", "y", "z")


@pytest.mark.parametrize(("count", "shown"), [(3, 3), (4, 4), (5, 4), (50, 4)])
def test_of_many_problems_the_first_are_shown_and_the_rest_counted(count, shown):
    with pytest.raises(InputError) as caught:
        find_many(count, most=3)
    found = caught.value.problems
    assert [problem.where for problem in found] == [f"a.csv, line {i}" for i in range(shown)]
    more = "" if count == shown else f", and {count - 4} more problems"
    assert found[-1].found == "x" + more


SHOWN = """\
  a.csv, line 2
    found:    strand x
    expected: + or -
    remedy:   correct it
  b.csv
    found:    no rows
    expected: a row a gene
    remedy:   add them
"""


def test_problems_are_described_in_four_lines_each():
    assert describe([ONE, OTHER]) + "\n" == SHOWN
    assert describe([]) == ""


@pytest.mark.parametrize(
    ("problems", "said"),
    [
        ([ONE], "\n1 problem with the input:\n" + SHOWN[: SHOWN.index("  b.csv")]),
        ([ONE, OTHER], "\n2 problems with the input:\n" + SHOWN),
    ],
)
def test_bad_input_ends_a_program_with_status_2(capfd, problems, said):
    with pytest.raises(SystemExit) as left, exit_on_bad_input():
        raise InputError.of(problems)
    assert left.value.code == 2
    assert tuple(capfd.readouterr()) == ("", said)


def make_folder_in_file(path):
    path.write_text("")
    (path / "inside").mkdir()


@pytest.mark.parametrize(
    ("refused", "reason"),
    [
        (lambda path: path.parent.mkdir(), "File exists"),
        (lambda path: path.parent.write_text(""), "Is a directory"),
        (make_folder_in_file, "Not a directory"),
    ],
)
def test_a_place_that_refuses_is_named_without_a_traceback(tmp_path, capfd, refused, reason):
    with pytest.raises(SystemExit) as left, exit_on_bad_input():
        refused(tmp_path / "file")
    assert left.value.code == 2
    said = capfd.readouterr().err
    assert f"  {tmp_path}" in said
    assert f"found:    {reason}" in said
    assert "run the same command again" in said


def test_a_full_disk_is_reported_even_where_no_file_is_named(capfd):
    with pytest.raises(SystemExit), exit_on_bad_input():
        raise OSError(errno.ENOSPC, "No space left on device")
    assert "  a file\n    found:    No space left on device\n" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("fault", "remedy"),
    [
        (OSError(errno.EFBIG, "File too large", "x"), "free room"),
        (FileNotFoundError(errno.ENOENT, "gone", "x"), "check the path"),
        (OSError(errno.EMFILE, "Too many open files", "x"), "ulimit -n"),
        (OSError(errno.ELOOP, "Too many levels of symbolic links", "x"), "name another place"),
        (OSError(errno.ENOMEM, "Cannot allocate memory", "x"), "take less at once"),
        (MemoryError(), "take less at once"),
        (OutOfMemory("GPU 0"), "take less at once"),
        (RuntimeError("can't start new thread"), "take less at once"),
    ],
)
def test_what_the_system_refuses_is_told_in_words(capfd, fault, remedy):
    with pytest.raises(SystemExit) as left, exit_on_bad_input():
        raise fault
    assert left.value.code == 2
    assert remedy in capfd.readouterr().err


@pytest.mark.parametrize(
    "fault", [OSError(errno.EBADF, "bad", "x"), OSError("odd"), KeyError("x"), RuntimeError("odd")]
)
def test_faults_that_are_not_the_users_keep_their_traceback(fault):
    with pytest.raises(type(fault)) as caught, exit_on_bad_input():
        raise fault
    assert caught.value is fault


def test_good_input_passes(capfd):
    with exit_on_bad_input():
        done = True
    assert done
    assert capfd.readouterr().err == ""
