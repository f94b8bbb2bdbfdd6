"""The pages: they stay short, and what they name exists."""

import ast
import collections
import functools
import importlib
import json
import pathlib
import re
import tomllib

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.program import flags_alone
from tests.blocks import ORDER, blocks, commands, run_block, workshop

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILDINGS = ("epi2expr_jax", "data_prep", "experiments")
DECISIONS = sorted((ROOT / "docs/decisions").glob("[0-9]*.md"))
PAGES = [ROOT / "README.md", ROOT / "BUILD_NOTES.md", *sorted((ROOT / "docs").rglob("*.md"))]
# Old figures and superseded decisions name what was there then.
CURRENT = [
    page for page in PAGES if not re.search(r"^- Status: superseded", page.read_text(), re.M)
]
FOREIGN_FLAGS = {  # of other programs
    *("--array", "--gpus", "--wrap", "--ntasks", "--help", "--cores", "--config"),
    "--xla_cpu_experimental_ynn_fusion_type",
}
# Files that commands write, and other people's.
NOT_OURS = re.compile(
    r"(demo|runs|files|tracks|depth|checkpoints|perturb|attribution|attention|report|OUT|DIR|STORE)/"
    r"|/proc$|regions/|.*\.(zarr|csv|gz)$|[A-Z]+\."
)
STATUS = re.compile(r"accepted|(?:accepted, in part )?superseded by (\d{4})")


def name_of(page: pathlib.Path) -> str:
    return str(page.relative_to(ROOT))


def in_code(text: str) -> list[str]:
    """What stands between backticks in sentences and tables."""
    return re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", text, flags=re.S))


@functools.cache
def defined(file: pathlib.Path) -> set[str]:
    """Names that a module has at its top level."""
    names = set()
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {alias.asname or alias.name for alias in node.names}
        else:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", 0)]
            names |= {target.id for target in targets if isinstance(target, ast.Name)}
    return names


def is_there(dotted: str) -> bool:
    """Whether a dotted name is a module or folder, or a name in one."""
    path = ROOT / dotted.replace(".", "/")
    if path.is_dir() or path.with_suffix(".py").exists():
        return True
    module, _, name = dotted.rpartition(".")
    files = [ROOT / f"{module.replace('.', '/')}{end}" for end in (".py", "/__init__.py")]
    face = ROOT / "epi2expr_jax/__init__.py"
    lazily = face.exists() and module == "epi2expr_jax" and f'"{name}"' in face.read_text()
    return lazily or any(file.exists() and name in defined(file) for file in files)


@functools.cache
def known_flags() -> set[str]:
    """Names that are quoted where flags are defined, or read as flags. Needs no import of JAX."""
    sources = [path.read_text() for name in BUILDINGS for path in (ROOT / name).rglob("*.py")]
    found = set()
    for text in sources:
        found |= set(re.findall(r"FLAGS\.(\w+)", text))
        if re.search(r"DEFINE_|define_", text):
            found |= set(re.findall(r"\"(\w+)\"", text))
    found |= set(re.findall(r"\"--(\w+)\"", (ROOT / "tests/torture/__main__.py").read_text()))
    return {f"--{prefix}{name}" for name in found for prefix in ("", "no")}


def missing_paths(text: str) -> list[str]:
    """Files and folders between backticks that do not exist.

    In a table a bare file name is in the folder named before it in its row.
    """
    missing = []
    for line in re.sub(r"```.*?```", "", text, flags=re.S).splitlines():
        folder = ROOT
        for code in re.findall(r"`([^`]+)`", line):
            if "/" in code and re.fullmatch(r"[\w./-]+", code) and not NOT_OURS.match(code):
                path = ROOT / code
                folder = path if path.is_dir() else path.parent
                if not path.exists():
                    missing.append(code)
            elif not line.startswith("|") or not re.fullmatch(r"\w+\.py", code):
                continue
            elif not (folder / code).exists():
                missing.append(f"{folder.relative_to(ROOT)}/{code}")
    return missing


def missing_names(text: str) -> list[str]:
    """Dotted names of the three packages that do not exist, and programs that cannot start."""
    programs = re.findall(r"python -m ((?:data_prep|experiments)\.\w+)", text)
    missing = [name for name in programs if not (ROOT / f"{name.replace('.', '/')}.py").exists()]
    for module, names in re.findall(r"from ([\w.]+) import ([\w, ]+)", text):
        if module.split(".")[0] in BUILDINGS:
            wanted = [f"{module}.{name.strip()}" for name in names.split(",")]
            missing += [name for name in wanted if not is_there(name)]
    dotted = rf"(?:{'|'.join(BUILDINGS)})(?:\.\w+)+"
    return missing + [
        code for code in in_code(text) if re.fullmatch(dotted, code) and not is_there(code)
    ]


def unknown_flags(text: str) -> list[str]:
    named = set(re.findall(r"(?<![\w-])--[a-z]\w*(?![\w-])", text))
    return sorted(named - known_flags() - FOREIGN_FLAGS)


def unknown_targets(text: str) -> list[str]:
    known = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.M))
    named = {code for code in in_code(text) if code.startswith("make ")}
    return sorted(name for name in named if name.split()[1] not in known)


def broken_links(page: pathlib.Path, text: str) -> list[str]:
    """Relative links to files that do not exist, or to headings that a page does not have."""
    broken = []
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        target, _, anchor = link.partition("#")
        if re.match(r"\w+://", link):
            continue
        path = (page.parent / target) if target else page
        headings = re.findall(r"^#+ (.+)$", path.read_text(), re.M) if path.is_file() else []
        anchors = {re.sub(r"[^\w -]", "", head.lower()).replace(" ", "-") for head in headings}
        if not path.exists() or (anchor and anchor not in anchors):
            broken.append(link)
    return broken


def wrong_decisions(files: list[pathlib.Path], index: str) -> list[str]:
    """Decisions out of number or date order, without a status, or missing from the list."""
    found, last = [], ""
    listed = re.findall(r"^\| \[(\d{4})\]\(([^)]+)\) \| ([\d-]+) \| (.+) \|$", index, re.M)
    if len(listed) != len(files):
        found.append(f"{len(listed)} listed of {len(files)}")
    for number, path in enumerate(files, 1):
        text = path.read_text()
        head = re.match(
            r"# (\d{4}) · (.+)\n\n- Date: (\d{4}-\d\d-\d\d)\n- Status: (.+)\n\n(?=\S)", text
        )
        if not head or not path.name.startswith(f"{head[1]}-") or int(head[1]) != number:
            found.append(f"{path.name}: number, title, date or status")
            continue
        status = STATUS.fullmatch(head[4])
        later = status and status[1]
        if not status or (later and not number < int(later) <= len(files)):
            found.append(f"{path.name}: status {head[4]}")
        if head[3] < last:
            found.append(f"{path.name}: date {head[3]} after {last}")
        last = head[3]
        line = head[2] + ("" if head[4] == "accepted" else f" ({head[4]})")
        if (head[1], path.name, head[3], line) not in listed:
            found.append(f"{path.name} is not listed so")
    return found


@pytest.mark.parametrize(("page", "most"), [("README.md", 160), ("BUILD_NOTES.md", 150)])
def test_a_page_is_short(page, most):
    assert len((ROOT / page).read_text().splitlines()) <= most


def test_the_glossary_has_one_meaning_a_word():
    rows = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/glossary.md").read_text(), re.M)[1:]
    assert 20 <= len(rows) <= 30
    words = [word for row in rows for word in row.split("; ")]
    assert [word for word, count in collections.Counter(words).items() if count > 1] == []
    asked = "assay set, attempt, gene-step, jackknife, lane, rank set, stack, universal"
    assert {*asked.split(", ")} <= {*words}, "what newcomers missed"


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_somewhere(page):
    assert broken_links(page, page.read_text()) == []


@pytest.mark.parametrize("page", CURRENT, ids=name_of)
def test_what_a_page_names_exists(page):
    text = page.read_text()
    assert missing_paths(text) == []
    assert missing_names(text) == []
    assert unknown_flags(text) == []
    assert unknown_targets(text) == []


def test_the_readme_lists_every_command():
    rows = re.findall(
        r"^\| `((?:data_prep|experiments)\.\w+)` \|", (ROOT / "README.md").read_text(), re.M
    )
    texts = {
        f"{name}.{path.stem}": path.read_text()
        for name in ("data_prep", "experiments")
        for path in (ROOT / name).glob("*.py")
    }
    programs = {name for name, text in texts.items() if re.search(r"^def run\(", text, re.M)}
    for name in programs:  # as `python -m` runs it
        assert texts[name].endswith('if __name__ == "__main__":\n    run()\n'), name
    assert sorted(rows) == sorted(programs)
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    named = {target.removesuffix(":run") for target in scripts.values()}
    assert named == programs - {"experiments.benchmark"} | {"epi2expr_jax.__main__"}  # of all


def test_the_readme_maps_every_folder():
    drawn = re.search(r"```\n(experiments/ .*?)```", (ROOT / "README.md").read_text(), re.S)
    assert drawn
    lines = re.findall(r"^( *)(\w+)/ ", drawn[1], re.M)
    folders: list[str] = []
    within: dict[int, str] = {}
    for indent, name in lines:
        within[len(indent)] = f"{within[len(indent) - 2]}/{name}" if indent else name
        folders.append(within[len(indent)])
    there = {
        str(path.parent.relative_to(ROOT))
        for name in BUILDINGS
        for path in (ROOT / name).rglob("__init__.py")
    }
    assert sorted(folders) == sorted(there | {"tests"})


def test_decisions_are_in_order():
    assert wrong_decisions(DECISIONS, (ROOT / "docs/decisions/README.md").read_text()) == []


START = ("README.md", "docs/start.md", "docs/inputs.md")
NOT_RUN = {  # why, and how many blocks
    ("docs/accelerators.md", "some 7 GB of packages, and minutes of compiling"): 1,
    ("docs/clusters.md", "needs SLURM or a TPU pod"): 1,
    ("docs/walks.md", "needs the file that the walk writes"): 3,
}
CODE = [block for page in PAGES for block in blocks(name_of(page))] + blocks("CONTRIBUTING.md")


def test_blocks_that_are_not_run_say_why():
    marked = collections.Counter((block.page, block.reason) for block in CODE if block.reason)
    assert dict(marked) == NOT_RUN
    assert not {page for page, _ in marked} & {*START}


def test_every_block_of_code_is_run():
    """Shell by `test_the_blocks_of_a_page_run`, Python by tests/experiments/test_demo.py."""
    assert {block.language for block in CODE} <= {"", "sh", "python"}
    assert {block.page for block in CODE if block.language == "sh"} <= {*ORDER}
    assert {block.page for block in CODE if block.language == "python"} == {
        "README.md", "docs/python.md"}  # fmt: skip
    assert not [block for block in CODE if not block.language and [*commands(block.text)]]


@pytest.mark.parametrize("page", ORDER)
def test_commands_take_the_flags_of_a_page(page):
    """Of blocks, and of what stands between backticks."""
    texts = [block.text for block in blocks(page) if block.language == "sh"]
    wrong_flags(commands("\n".join(texts)))


def wrong_flags(found) -> None:
    for module, arguments in found:
        if module.split(".")[0] not in BUILDINGS:
            continue
        given = [word.replace("--model=NAME", "--model=cnn") for word in arguments]
        if module == "experiments.study" and not given[0].startswith("-"):
            given[0] = f"--study={given[0]}"
        with flags_alone(importlib.import_module(module).run, given):
            pass


def test_a_wrong_flag_in_a_block_is_found():
    with pytest.raises(InputError, match="epoch"):
        wrong_flags(commands("python -m experiments.train --store=x \\\n   --epoch=3  # a try"))


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem
)
def test_a_notebook_is_short_and_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    assert 6 <= len(cells) <= 11
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert not any(cell["outputs"] or cell["execution_count"] for cell in code)
    for cell in code:
        lines = "".join(cell["source"])
        wrong_flags(commands(re.sub("^!", "", lines, flags=re.M)))
        if not lines.startswith("%%"):
            ast.parse(re.sub("^!.*", "", lines, flags=re.M))


@pytest.fixture(scope="module")
def standing_in(tmp_path_factory, trial_size):
    if trial_size(True, False):
        pytest.skip("every block of the pages, minutes, runs in `make docs`")
    folder = tmp_path_factory.mktemp("pages") / "workshop"
    workshop(folder)
    return folder


@pytest.mark.trial
@pytest.mark.parametrize("page", ORDER)
def test_the_blocks_of_a_page_run(page, standing_in):
    for block in blocks(page):
        if block.language == "sh" and not block.reason:
            done = run_block(block, standing_in)
            assert done.returncode == 0, (
                f"{block.text}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            )


@pytest.mark.parametrize(
    ("find", "text", "found"),
    [
        (missing_paths, "`epi2expr_jax/attic.py`", ["epi2expr_jax/attic.py"]),
        (missing_paths, "| x | `data_prep/work/cluster.py`, `hay.py` |", ["data_prep/work/hay.py"]),
        (missing_names, "python -m experiments.dust", ["experiments.dust"]),
        (missing_names, "from epi2expr_jax.predict import dust", ["epi2expr_jax.predict.dust"]),
        (missing_names, "`epi2expr_jax.errors.Dust`", ["epi2expr_jax.errors.Dust"]),
        (unknown_flags, "`--dusty=1`", ["--dusty"]),
        (unknown_targets, "`make dust`", ["make dust"]),
    ],
)  # fmt: skip
def test_what_is_not_there_is_found(find, text, found):
    assert find(text) == found


def test_a_broken_link_is_found():
    text = "[a](docs/attic.md) [b](docs/glossary.md#dust) [c](docs/glossary.md#glossary)"
    assert broken_links(ROOT / "README.md", text) == ["docs/attic.md", "docs/glossary.md#dust"]


@pytest.mark.parametrize(
    ("second", "found"),
    [
        ("# 0002 · B\n\n- Date: 2026-01-01\n- Status: accepted\n\nx", "0002-b.md: date"),
        ("# 0002 · B\n\n- Date: 2026-01-03\n- Status: maybe\n\nx", "0002-b.md: status maybe"),
        ("# 0003 · B\n\n- Date: 2026-01-03\n- Status: accepted\n\nx", "0002-b.md: number"),
        ("# 0002 · C\n\n- Date: 2026-01-03\n- Status: accepted\n\nx", "0002-b.md is not listed"),
    ],
)
def test_a_wrong_decision_is_found(tmp_path, second, found):
    files = [tmp_path / "0001-a.md", tmp_path / "0002-b.md"]
    files[0].write_text("# 0001 · A\n\n- Date: 2026-01-02\n- Status: accepted\n\nx")
    files[1].write_text(second)
    index = "| [0001](0001-a.md) | 2026-01-02 | A |\n| [0002](0002-b.md) | 2026-01-03 | B |\n"
    problems = wrong_decisions(files, index)
    assert problems
    assert problems[0].startswith(found)
