"""`epi2expr`, the one command with all others under it."""

import os
import subprocess
import sys

import pytest

from epi2expr_jax.__main__ import commands, listed, main
from epi2expr_jax.errors import InputError
from tests.conftest import REPOSITORY


def test_every_command_of_the_readme_is_there_with_what_it_does():
    known = commands()
    rows = [line.split("`")[1] for line in (REPOSITORY / "README.md").read_text().splitlines()
            if line.startswith(("| `data_prep.", "| `experiments."))]  # fmt: skip
    assert {f"{folder}.{name}" for name, (folder, _) in known.items()} == {*rows}
    text = listed(known)
    assert all(f"  {name} " in text and does in text for name, (_, does) in known.items())
    assert all(does.endswith((".", "?")) or " -> " in does for _, does in known.values())


def test_a_name_that_is_none_is_answered_by_the_nearest():
    with pytest.raises(InputError, match="did you mean train"):
        main(["trian"])


def test_hyphens_do_and_arguments_are_handed_on(monkeypatch, capsys):
    handed = []
    import data_prep.build_store

    monkeypatch.setattr(data_prep.build_store, "run", lambda: handed.append([*sys.argv]))
    monkeypatch.setattr(sys, "argv", ["epi2expr"])
    main(["build-store", "--store=x", "--help"])
    assert handed == [["epi2expr build_store", "--store=x", "--help"]]
    main(["--version"])
    assert capsys.readouterr().out.strip()[0].isdigit()


def test_the_list_needs_nothing_heavy():
    """Without what commands load, so that it answers at once."""
    script = (
        "import sys; from epi2expr_jax.__main__ import main; main([]); "
        "print([name for name in ('jax', 'numpy', 'absl', 'pandas') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True
    )
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


@pytest.mark.parametrize("arguments", ["", "--help", "--version", "nonsense"])
def test_a_closed_pipe_ends_it_with_its_status(arguments):
    """As `epi2expr --help | head -2` may do, and `epi2expr nonsense 2>&1 | true`."""
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "epi2expr_jax", *arguments.split()]
    errors = writer if arguments == "nonsense" else subprocess.PIPE
    done = subprocess.run(command, stdout=writer, stderr=errors, cwd=REPOSITORY)
    os.close(writer)
    assert (done.returncode, done.stderr or b"") == (141, b"")


def test_another_package_of_the_same_name_is_refused(tmp_path):
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "__init__.py").write_text("")
    script = (
        f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(REPOSITORY)!r}]; "
        "sys.argv = ['epi2expr', 'train']; from epi2expr_jax.__main__ import run; run()"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert f"found:    {tmp_path}/experiments" in done.stderr
    assert "take the other one off PYTHONPATH" in done.stderr
    assert "Traceback" not in done.stderr
