"""The house's one rule: experiments → data_prep → epi2expr_jax, and inside, only downward."""

import ast
import functools
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILDINGS = (
    "epi2expr_jax",
    "data_prep",
    "experiments",
)  # each imports only itself and those before

FLOORS = {
    0: ["errors", "roadmap", "genome"],
    1: ["signal", "batches", "regions", "manifest", "arrays", "store",
        "splits", "losses", "metrics", "schedules", "conditional_logit"],
    2: ["models", "resident", "trained_signal", "dataset", "runs", "masking", "variants"],
    3: ["training", "checkpoint", "streaming", "pooling", "edited", "places"],
    4: ["population", "convert", "edits", "edited_outputs"],
    5: ["predict", "planning", "edit_reader"],
    6: ["scoring", "baselines", "edited_runs"],
    7: ["ranking", "perturb"],
    8: ["comparison", "across_cells", "subsets", "shapley", "agreement", "enrichment",
        "attribution"],
}  # fmt: skip
FLOOR_OF = {name: floor for floor, names in FLOORS.items() for name in names}
# Within one floor these may look at each other: shapes of one thing, or plain vocabulary.
NEIGHBOURS = {
    ("genome", "errors"),
    ("manifest", "regions"),
    *{("arrays", name) for name in ("manifest", "regions")},
    *{("dataset", name) for name in ("models", "resident", "trained_signal")},
    ("runs", "dataset"),
    *{("store", name) for name in ("manifest", "regions", "arrays")},
}


def modules(building: str) -> list[pathlib.Path]:
    return sorted((ROOT / building).rglob("*.py"))


@functools.cache
def imports_of(path: pathlib.Path) -> set[str]:
    """Dotted names this file imports from the three buildings."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{path}: relative import"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return {name for name in found if name.split(".")[0] in BUILDINGS}


def dotted(path: pathlib.Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("building", BUILDINGS)
def test_buildings_import_only_downward(building):
    allowed = BUILDINGS[: BUILDINGS.index(building) + 1]
    for path in modules(building):
        for name in imports_of(path):
            assert name.split(".")[0] in allowed, f"{path} imports {name}"


def test_library_modules_import_only_lower_floors():
    for path in modules("epi2expr_jax"):
        parts = dotted(path).split(".")
        if len(parts) == 1:
            continue
        here = parts[1]
        for name in imports_of(path):
            there = [*name.split("."), ""][1]
            if there not in FLOOR_OF or there == here:
                continue
            downward = FLOOR_OF[there] < FLOOR_OF[here] or (here, there) in NEIGHBOURS
            assert downward, f"{path} (floor {FLOOR_OF[here]}) imports {name}"


def test_every_library_module_has_a_floor():
    names = {
        dotted(path).split(".")[1]
        for path in modules("epi2expr_jax")
        if len(dotted(path).split(".")) > 1
    }
    assert names == set(FLOOR_OF)


def test_imports_make_no_circle():
    known = {dotted(path): path for building in BUILDINGS for path in modules(building)}
    graph = {
        name: {
            target
            for target in known
            for imported in imports_of(path)
            if imported == target or imported.rsplit(".", 1)[0] == target
        }
        - {name}
        for name, path in known.items()
    }
    # A package's __init__ is imported by its own modules' importers; only real modules count.
    graph = {name: targets - {name.rsplit(".", 1)[0]} for name, targets in graph.items()}
    done: set[str] = set()

    def visit(name: str, trail: tuple[str, ...]) -> None:
        assert name not in trail, " → ".join((*trail, name))
        if name not in done:
            for target in graph[name]:
                visit(target, (*trail, name))
            done.add(name)

    for name in graph:
        visit(name, ())


def test_library_is_light():
    """A bare accelerator machine trains from a store without file formats, plots or Dask."""
    heavy = ("pyBigWig", "pyensembl", "zarr", "distributed", "dask", "bioframe", "matplotlib",
             "jinja2", "absl.app", "tqdm")  # fmt: skip
    names = ", ".join(f"epi2expr_jax.{name}" for name in sorted(FLOOR_OF))
    # Orbax may load absl and tqdm of its own accord; the library's own sources must not.
    for path in modules("epi2expr_jax"):
        tree = ast.parse(path.read_text())
        top = [node for node in tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
        for node in top:
            module = node.module if isinstance(node, ast.ImportFrom) else node.names[0].name
            assert not (module or "").startswith(heavy), f"{path} imports {module}"
    heavy = ("pyBigWig", "matplotlib", "distributed")
    script = f"import {names}, sys; print([name for name in {heavy} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr
