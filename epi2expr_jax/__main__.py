"""`epi2expr`: every command by its name.

    epi2expr                       the commands, each in a line
    epi2expr train --help          one of them, with examples and all its flags
    epi2expr train --store=roadmap.zarr --run=runs/cnn --model=cnn
    epi2expr --version

The same as `python -m experiments.train …`; `epi2expr build_store` is `python -m
data_prep.build_store`. Status: 0 done, 1 a check did not hold or an internal error, 2 bad input,
130 Ctrl-C, 143 SIGTERM, 141 output pipe closed.
"""

import ast
import importlib
import importlib.util
import pathlib
import sys

from epi2expr_jax import ending
from epi2expr_jax.errors import InputError, collect, exit_on_bad_input, nearest
from epi2expr_jax.program import ends_where_nobody_reads

_GROUPS = {"data_prep": "files to a store", "experiments": "a store to answers"}


def commands() -> dict[str, tuple[str, str]]:
    """Every command by its name: the folder that it lies in, and what it does in a line.

    Read from the sources, so that nothing heavy is imported to list them.

    Raises:
        InputError: if another package has the name of one of the folders.
    """
    found: dict[str, tuple[str, str]] = {}
    ours = pathlib.Path(__file__).resolve().parent.parent
    with collect() as problems:
        for folder in _GROUPS:
            spec = importlib.util.find_spec(folder)
            places = spec.submodule_search_locations if spec else None
            place = pathlib.Path(next(iter(places or ["nothing"]))).resolve()
            if place != ours / folder:
                problems.add(
                    f"the package {folder}",
                    str(place),
                    f"that of epi2expr_jax, {ours / folder}",
                    "take the other one off PYTHONPATH, or start in another folder",
                )
                continue
            for path in sorted(place.glob("*.py")):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                if any(
                    isinstance(node, ast.FunctionDef) and node.name == "run" for node in tree.body
                ):
                    first = (ast.get_docstring(tree) or "").partition("\n")[0]
                    found[path.stem] = (folder, first)
    return found


def listed(known: dict[str, tuple[str, str]]) -> str:
    """The commands as text, those of a folder together."""
    width = max(map(len, known))
    lines = ["usage: epi2expr COMMAND --FLAG=VALUE ...", "       epi2expr COMMAND --help"]
    for group, title in _GROUPS.items():
        rows = [f"  {name:<{width}}  {does}" for name, (folder, does) in known.items()
                if folder == group]  # fmt: skip
        lines += ["", f"{title}:", *rows]
    return "\n".join(lines)


def main(arguments: list[str]) -> None:
    """Run the command that the arguments name, or say which there are.

    Raises:
        InputError: for a name that no command has.
    """
    if arguments[:1] == ["--version"]:
        print(sys.modules["epi2expr_jax"].__version__, flush=True)
        return
    known = commands()
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(listed(known), flush=True)
        return
    name = arguments[0].replace("-", "_")
    if name not in known:
        remedy = nearest(name, known) or "epi2expr alone lists them"
        raise InputError("command line", f"a command {arguments[0]}", "one of epi2expr's", remedy)
    folder, _ = known[name]
    sys.argv = [f"epi2expr {name}", *arguments[1:]]
    importlib.import_module(f"{folder}.{name}").run()


def run() -> None:
    ending.while_importing()
    with ends_where_nobody_reads(), exit_on_bad_input():
        main(sys.argv[1:])


if __name__ == "__main__":
    run()
