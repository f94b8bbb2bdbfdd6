"""The house holds, and each fault that is planted in a copy of it is found (see `tests.house`)."""

import ast
import pathlib
import shutil
import subprocess
import sys

import pytest

from tests.house import (
    BUILDINGS,
    MOST_ENTRIES,
    MOST_ROOMS,
    ROOT,
    TESTED_ELSEWHERE,
    House,
    circles,
    dotted,
    full_folders,
    imports_of_nothing,
    parsed,
    relative_imports,
    unknown_folders,
    untested_rooms,
    upward_imports,
)


@pytest.fixture(scope="module")
def house():
    return House(ROOT)


def test_every_folder_has_its_place(house):
    assert unknown_folders(house) == []


def test_no_import_runs_up(house):
    assert upward_imports(house) == []


def test_no_import_is_relative(house):
    assert relative_imports(house) == []


def test_imports_in_strings_exist(house):
    assert imports_of_nothing(house) == []
    tests = sorted(
        path
        for path in (ROOT / "tests").rglob("*.py")
        if path.name not in ("house.py", "test_house.py")
    )
    for path in tests:
        missing = set(house.imported(parsed(path.read_text()))) - set(house.texts)
        assert missing == set(), f"{path} imports {missing}"


def test_no_imports_run_in_a_circle(house):
    assert circles(house) == []


def test_no_folder_is_full(house):
    assert full_folders(house) == []


def test_every_room_is_tested(house):
    assert untested_rooms(house) == []
    assert len(TESTED_ELSEWHERE) <= MOST_ENTRIES


@pytest.fixture
def copied(tmp_path):
    """The house, copied, to plant faults in."""
    for name in BUILDINGS:
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("*.csv"))
    shutil.copytree(
        ROOT / "tests", tmp_path / "tests", ignore=shutil.ignore_patterns("golden", "__pycache__")
    )
    return tmp_path


def _append(path: pathlib.Path, line: str) -> None:
    path.write_text(f"{path.read_text()}\n{line}\n")


@pytest.mark.parametrize(
    "line",
    [
        "from epi2expr_jax.scores import ranking",
        "import epi2expr_jax.scores.ranking",
        "def late():\n    from epi2expr_jax.scores.ranking import rank_assays",
        'PROGRAM = "import sys; from epi2expr_jax.scores.ranking import rank_assays"',
        'NAME = "epi2expr_jax.scores.ranking.rank_assays"',
        "import epi2expr_jax.scores.ranking as ranking",
    ],
)
def test_a_planted_upward_import_is_found(copied, line):
    _append(copied / "epi2expr_jax/store/arrays.py", line)
    found = ["epi2expr_jax/store/arrays.py imports epi2expr_jax/scores/ranking.py"]
    assert upward_imports(House(copied)) == found


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("from epi2expr_jax.predict import load", "epi2expr_jax/predict/loading.py"),
        ("from epi2expr_jax import attribution", "epi2expr_jax/__init__.py"),
        ('NAME = "experiments.cli.flags"', "experiments/cli/flags.py"),
    ],
)
def test_an_upward_import_through_a_face_or_a_name_is_found(copied, line, found):
    _append(copied / "epi2expr_jax/store/arrays.py", line)
    assert upward_imports(House(copied)) == [f"epi2expr_jax/store/arrays.py imports {found}"]


def test_a_relative_import_is_found(copied):
    _append(copied / "epi2expr_jax/store/arrays.py", "from ..scores import ranking")
    assert relative_imports(House(copied)) == ["epi2expr_jax/store/arrays.py"]


def test_a_circle_through_a_face_is_found(copied):
    _append(copied / "epi2expr_jax/store/manifest.py", "import epi2expr_jax.store as s")
    room, face = "epi2expr_jax/store/manifest.py", "epi2expr_jax/store/__init__.py"
    assert circles(House(copied)) == [f"{room} → {face} → {room}"]


def test_a_planted_circle_is_found(copied):
    _append(copied / "epi2expr_jax/store/manifest.py", "from epi2expr_jax.store import WindowStore")
    found = circles(House(copied))
    assert "epi2expr_jax/store/manifest.py → epi2expr_jax/store/window_store.py" in found[0]
    assert all(circle.count("epi2expr_jax/store/manifest.py") for circle in found)


def test_a_planted_eleventh_room_is_found(copied):
    rooms = sum(path.name != "__init__.py" for path in (copied / "data_prep/work").glob("*.py"))
    for number in range(rooms, MOST_ROOMS):
        (copied / f"data_prep/work/room{number}.py").write_text("")
    assert full_folders(House(copied)) == []
    (copied / "data_prep/work/eleventh.py").write_text("")
    assert full_folders(House(copied)) == ["data_prep/work: 11 rooms"]


def test_a_planted_room_without_a_test_is_found(copied):
    room, test = "data_prep/work/attic.py", "tests/data_prep/work/test_attic.py"
    (copied / room).write_text("def dust():\n    return 1\n")
    found = [f"{room}: {test} does not call a public name of it"]
    assert untested_rooms(House(copied)) == found
    # Neither an empty test file nor one that only imports the room is a test of it.
    (copied / test).write_text("from data_prep.work.attic import dust\n")
    assert untested_rooms(House(copied)) == found
    _append(copied / test, "def test_dust():\n    assert dust() == 1")
    assert untested_rooms(House(copied)) == []


def test_a_false_entry_is_found(copied):
    room, test = "data_prep/work/attic.py", "tests/data_prep/work/test_cluster.py"
    (copied / room).write_text("def dust():\n    return 1\n")
    house = House(copied)
    entries = {**TESTED_ELSEWHERE, room: f"{test}::test_dust"}
    found = [f"{room}: {test}::test_dust does not call a public name of it"]
    assert untested_rooms(house, entries) == found
    text = "def test_dust():\n    from data_prep.work import attic\n    assert attic.dust() == 1"
    _append(copied / test, text)
    assert untested_rooms(house, entries) == []
    gone = {**entries, "data_prep/work/cellar.py": test}
    assert untested_rooms(house, gone) == ["data_prep/work/cellar.py does not exist"]


def test_a_planted_folder_without_a_place_is_found(copied):
    (copied / "epi2expr_jax/annex").mkdir()
    (copied / "epi2expr_jax/annex/__init__.py").write_text("")
    assert unknown_folders(House(copied)) == ["epi2expr_jax/annex"]


def test_the_library_is_light(house):
    """A bare accelerator machine trains from a store without file formats, plots or Dask."""
    # Orbax may load absl and tqdm of its own accord; the library's own sources must not.
    heavy = ("pyBigWig", "pyensembl", "zarr", "distributed", "dask", "bioframe", "matplotlib",
             "jinja2", "absl", "tqdm")  # fmt: skip
    library = [file for file in house.texts if file.startswith("epi2expr_jax/")]
    for file in library:
        for node in parsed(house.texts[file]).body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
                assert not (module or "").startswith(heavy), f"{file} imports {module}"
    names = ", ".join(map(dotted, library))
    script = (
        f"import {names}, sys\n"
        "print([name for name in ('pyBigWig', 'matplotlib', 'distributed') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
