"""The house: what is read of the source files, and every fault that is looked for in them.

A folder is a step of the way from public files to a report, a room is a file. Imports run one way:
from the programs down to the ground, never up. `ORDER` below is that way, from the ground up.
"""

import ast
import collections
import functools
import pathlib
import re
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILDINGS = ("epi2expr_jax", "data_prep", "experiments")
ORDER = (
    "epi2expr_jax",
    "epi2expr_jax/store",
    "epi2expr_jax/models",
    "epi2expr_jax/inputs",
    "epi2expr_jax/training",
    "epi2expr_jax/predict",
    "epi2expr_jax/scores",
    "epi2expr_jax/perturb",
    "epi2expr_jax/interpret",
    "epi2expr_jax/screens",
    "epi2expr_jax/words",
    "epi2expr_jax/study",
    "data_prep/formats",
    "data_prep/contacts",
    "data_prep/work",
    "data_prep/checks",
    "data_prep",
    "experiments/figures",
    "experiments/cli",
    "experiments/benchmarks",
    "experiments/benchmarks/accelerators",
    "experiments",
)
COMMANDS = ("data_prep", "experiments")  # folders of programs, of which there may be many
MOST_ROOMS = 10
# Rooms without a test file of their name, and the test that calls them.
TESTED_ELSEWHERE: dict[str, str] = {}
MOST_ENTRIES = 15
# The face of the library hands on to rooms of any folder: `from epi2expr_jax import attribution`.
FACES = ("epi2expr_jax/__init__.py",)
HAND_ON = (*FACES, "epi2expr_jax/moved.py")

parsed = functools.cache(ast.parse)  # of each planted copy almost all is the same


@functools.cache
def nodes(tree: ast.AST) -> tuple[ast.AST, ...]:
    """Those of a tree that tell of imports and calls."""
    kinds = ast.Import, ast.ImportFrom, ast.Constant, ast.Name, ast.Attribute, ast.FunctionDef
    return tuple(node for node in ast.walk(tree) if isinstance(node, kinds))


class House:
    """The source files under a root, and what they import of each other."""

    def __init__(self, root: pathlib.Path):
        self.root = root
        files = [path for name in BUILDINGS for path in sorted((root / name).rglob("*.py"))]
        self.texts = {str(path.relative_to(root)): path.read_text() for path in files}
        self.files = {dotted(file): file for file in self.texts}
        self.imports = {file: set(self.imported(parsed(text))) for file, text in self.texts.items()}

    @property
    def rooms(self) -> list[str]:
        """Every file but the folders' faces."""
        return [file for file in self.texts if not _is_face(file)]

    def imported(self, tree: ast.AST, own: bool = True) -> Iterator[str]:
        """The files that a source imports, those named in strings included.

        A name that a folder's face hands on is traced to the room that has it. What does not exist
        is given as its dotted name.
        """
        for node in nodes(tree):
            if isinstance(node, ast.Import):
                yield from (self._file(alias.name) for alias in node.names if _ours(alias.name))
            elif isinstance(node, ast.ImportFrom) and node.module and _ours(node.module):
                yield from (self._file(node.module, alias.name) for alias in node.names)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str) and own:
                yield from self._in_string(node.value)

    def _in_string(self, text: str) -> Iterator[str]:
        for line in re.split(r"[\n;]", text):
            if re.match(r"\s*(from|import)\s+(epi2expr_jax|data_prep|experiments)\b", line):
                try:
                    tree = ast.parse(line.strip())
                except SyntaxError:
                    continue  # a sentence, not code
                yield from self.imported(tree, own=False)
        if re.fullmatch(r"(epi2expr_jax|data_prep|experiments)(\.\w+)+", text):
            file = self._file(*text.rsplit(".", 1))  # for importlib, or to be patched
            if folder_of(file) not in COMMANDS:  # the name of a command is how a user starts it
                yield file

    def _file(self, module: str, name: str = "") -> str:
        """The file of a module, or of a name in it; the dotted name if there is none."""
        whole = f"{module}.{name}" if name else module
        file = self.files.get(whole) or self.files.get(module)
        if file and file == self.files.get(module) and name and _is_face(file):
            for node in parsed(self.texts[file]).body:  # handed on?
                if isinstance(node, ast.ImportFrom) and name in [a.name for a in node.names]:
                    return self._file(str(node.module), name)
        return file or whole


def _ours(module: str) -> bool:
    return module.split(".")[0] in BUILDINGS


def _is_face(file: str) -> bool:
    return pathlib.PurePosixPath(file).name == "__init__.py"


def dotted(file: str) -> str:
    return file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def folder_of(file: str) -> str:
    return str(pathlib.PurePosixPath(file).parent)


def unknown_folders(house: House) -> list[str]:
    """Folders that `ORDER` does not place, and places without a folder."""
    there = {folder_of(file) for file in house.texts}
    return sorted(there ^ set(ORDER))


def relative_imports(house: House) -> list[str]:
    """Files with imports that begin with a dot, which nothing here follows."""
    return [
        file
        for file, text in house.texts.items()
        for node in nodes(parsed(text))
        if isinstance(node, ast.ImportFrom) and node.level
    ]


def upward_imports(house: House) -> list[str]:
    """Imports from a folder to one above it. The face of the library is above all of its rooms."""
    rank = {folder: place for place, folder in enumerate(ORDER)}
    return [
        f"{file} imports {other}"
        for file, others in house.imports.items()
        for other in sorted(others)
        if file not in HAND_ON and other in house.texts
        if rank.get(folder_of(other), -1) > rank.get(folder_of(file), -1) or other in FACES
    ]


def imports_of_nothing(house: House) -> list[str]:
    """Imports of modules that do not exist: only strings can hide them."""
    return [
        f"{file} imports {other}"
        for file, others in house.imports.items()
        for other in sorted(others)
        if other not in house.texts
    ]


def circles(house: House) -> list[str]:
    """Each circle of imports between rooms, once; a room that imports its own face is one."""
    found = [
        f"{file} → {other} → {file}"
        for file in house.rooms
        for other in house.imported(parsed(house.texts[file]), own=False)
        if _is_face(other)
        and folder_of(other) == folder_of(file)
        and "import" in house.texts[other]
    ]
    graph = {
        file: {other for other in house.imports[file] if other in house.texts and other != file}
        for file in house.rooms
    }
    done: set[str] = set()

    def visit(file: str, trail: tuple[str, ...]) -> None:
        if file in trail:
            found.append(" → ".join((*trail[trail.index(file) :], file)))
        elif file not in done:
            for other in sorted(graph.get(file, ())):
                visit(other, (*trail, file))
            done.add(file)

    for file in graph:
        visit(file, ())
    return found


def full_folders(house: House) -> list[str]:
    counts = collections.Counter(folder_of(file) for file in house.rooms)
    return [
        f"{folder}: {count} rooms"
        for folder, count in counts.items()
        if count > MOST_ROOMS and folder not in COMMANDS
    ]


def untested_rooms(house: House, elsewhere: dict[str, str] = TESTED_ELSEWHERE) -> list[str]:
    """Rooms that no test file of their name imports, and entries that do not hold."""
    found = [f"{room} does not exist" for room in elsewhere if room not in house.texts]
    for room in house.rooms:
        path = pathlib.PurePosixPath(room)
        own = house.root / "tests" / path.parent / f"test_{path.name}"
        if room in elsewhere:
            file, _, name = elsewhere[room].partition("::")
            test = house.root / file
            if own.exists():
                found.append(f"{room} has a test file of its name: it needs no entry")
            elif not test.exists() or not _calls(house, test, room, name):
                found.append(f"{room}: {elsewhere[room]} does not call a public name of it")
        elif not own.exists() or not _calls(house, own, room):
            found.append(f"{room}: {own.relative_to(house.root)} does not call a public name of it")
    return found


def _calls(house: House, test: pathlib.Path, room: str, function: str = "") -> bool:
    """Whether a test file (or one test function of it) imports the room and uses its names.

    A command may also be started by its name, as users start it.
    """
    tree = parsed(test.read_text())
    names: set[str] = set()  # what the room, or a public name of it, is called there
    faces: dict[str, str] = {}  # what a folder is called there
    for node in nodes(tree):
        if isinstance(node, ast.ImportFrom) and node.module and _ours(node.module):
            for alias in node.names:
                file, called = house._file(node.module, alias.name), alias.asname or alias.name
                if file == room and not alias.name.startswith("_"):
                    names.add(called)
                elif _is_face(file):
                    faces[called] = dotted(file)

    def used(node: ast.AST) -> bool:
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            face = faces.get(node.value.id)
            return face is not None and house._file(face, node.attr) == room
        if isinstance(node, ast.Constant) and folder_of(room) in COMMANDS:
            return node.value == dotted(room)
        return isinstance(node, ast.Name) and node.id in names

    functions = (node for node in nodes(tree) if isinstance(node, ast.FunctionDef))
    chosen = [node for node in functions if not function or node.name == function]
    return any(used(node) for place in chosen for node in nodes(place))
