"""What the site has beyond docs/: README and its like, --help, docstrings, notebooks, plots.

MkDocs calls these functions (`hooks` in mkdocs.yml). Nothing is written into docs/.
"""

import ast
import concurrent.futures
import importlib
import inspect
import io
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import types
from collections.abc import Iterator

import latex2mathml.converter
import matplotlib.pyplot as plt
import nbformat
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page
from nbclient import NotebookClient
from nbconvert import MarkdownExporter

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Pages of the checkout's root, by the names they have on the site.
PAGES = {
    "README.md": "index.md",
    "BUILD_NOTES.md": "build_notes.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
LINK = re.compile(r"(\]\()([^)\s#:]+)(#[^)\s]*)?\)")
MARK = re.compile(r"<!-- .*? -->\n?")
OUTSIDE = re.compile(
    r"<(?:script|img|link|iframe)[^>]+(?:src|href)=\"?https?://|url\([\"']?https?://"
)


def on_files(files: Files, config: MkDocsConfig) -> Files:
    made = {name: (ROOT / file).read_text() for file, name in PAGES.items()}
    made["reference_commands.md"] = commands()
    made["reference_python.md"] = docstrings()
    for path in sorted((ROOT / "notebooks").glob("*.ipynb")):
        text, images = executed(path)
        made[f"notebooks/{path.stem}.md"] = text
        files.append(File.generated(config, f"files/{path.name}", abs_src_path=str(path)))
        for name, content in images.items():
            files.append(File.generated(config, f"notebooks/{name}", content=content))
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    sources = [(ROOT / file, text) for file, text in ((f, made[n]) for f, n in PAGES.items())]
    sources += [(path, path.read_text()) for path in sorted((ROOT / "docs").rglob("*.md"))]
    for path in {target for page, text in sources for target in beyond(page, text)}:
        files.append(File.generated(config, place_of(path), abs_src_path=str(path)))
    return files


def beyond(page: pathlib.Path, text: str) -> Iterator[pathlib.Path]:
    """Files of the checkout that a page links to and the site would lack."""
    for match in LINK.finditer(text):
        target = (page.parent / match[2]).resolve()
        if target.is_file() and place_of(target).startswith("files/"):
            yield target


def place_of(path: pathlib.Path) -> str:
    """Where a file of the checkout is on the site."""
    name = str(path.relative_to(ROOT))
    if name in PAGES:
        return PAGES[name]
    if name.startswith("notebooks/"):
        return name.replace(".ipynb", ".md")
    return name.removeprefix("docs/") if name.startswith("docs/") else f"files/{name}"


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    roots = {name: file for file, name in PAGES.items()}
    uri = page.file.src_uri
    source = ROOT / roots.get(uri, f"docs/{uri}")

    def moved(match: re.Match[str]) -> str:
        target = (source.parent / match[2]).resolve()
        if not target.exists() or uri.startswith(("notebooks/", "reference_")):
            return match[0]
        place = os.path.relpath(place_of(target), pathlib.PurePosixPath(uri).parent)
        return f"{match[1]}{place}{match[3] or ''})"

    parts = re.split(r"(^ *```.*?^ *```$)", markdown, flags=re.S | re.M)
    for number in range(0, len(parts), 2):  # what lies between code
        text = LINK.sub(moved, parts[number])
        text = re.sub(r"<!-- plot: (\w+) -->", lambda match: PLOTS[match[1]](), text)
        text = re.sub(r"<!-- docstring: (\S+) -->", docstring, text)
        text = re.sub(r"\$\$(.+?)\$\$", lambda match: formula(match[1], "block"), text, flags=re.S)
        text = re.sub(r"\$`(.+?)`\$", lambda match: formula(match[1], "inline"), text)
        parts[number] = MARK.sub("", text)
    return "".join(parts)


def docstring(match: re.Match[str]) -> str:
    """The head of a source file, as it stands there."""
    return f"```text\n{ast.get_docstring(ast.parse((ROOT / match[1]).read_text()))}\n```"


def formula(latex: str, display: str) -> str:
    """MathML, which browsers draw without a script."""
    return latex2mathml.converter.convert(latex.strip(), display=display)


def on_post_build(config: MkDocsConfig) -> None:
    for path in pathlib.Path(config.site_dir).rglob("*"):
        if path.suffix in (".html", ".css") and (found := OUTSIDE.search(path.read_text())):
            raise PluginError(f"{path} asks another server: {found[0]}")


def commands() -> str:
    """What each command says of itself."""
    from epi2expr_jax.__main__ import commands

    known = commands()

    def asked(name: str) -> str:
        module = f"{known[name][0]}.{name}"
        done = subprocess.run([sys.executable, "-m", module, "--help"],
                              cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
        said = re.sub(rf"^{re.escape(str(ROOT))}/.*:\n", "", done.stdout.strip(), flags=re.M)
        return f"## {name}\n\n`python -m {module}`, or `epi2expr {name}`\n\n```text\n{said}\n```\n"

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        parts = pool.map(asked, known)
    return "# Commands\n\nWhat each says when it is asked with `--help`.\n\n" + "\n".join(parts)


def docstrings() -> str:
    """What `import epi2expr_jax as e2e` offers, for mkdocstrings to look up."""
    sys.path.insert(0, str(ROOT))
    import epi2expr_jax

    lines = ["# Python, from docstrings", "", "What [From Python](python.md) begins with, in full."]
    for name in epi2expr_jax.__all__:
        found = getattr(epi2expr_jax, name)
        if not isinstance(found, types.ModuleType):
            lines += ["", *_documented(f"e2e.{name}", found)]
            continue
        for inner in getattr(found, "__all__", []):
            one = getattr(found, inner)
            if inspect.isfunction(one) or inspect.isclass(one):
                lines += ["", *_documented(f"e2e.{name}.{inner}", one)]
    return "\n".join(lines) + "\n"


def _documented(name: str, one: object) -> list[str]:
    if isinstance(one, types.ModuleType):  # `predict`, a folder that can be called
        one = importlib.import_module("epi2expr_jax.predict.gene_table").predict
    place = f"{one.__module__}.{one.__qualname__}"  # type: ignore[attr-defined]
    return [f"## {name}", "", f"::: {place}", "    options: {show_root_heading: false}"]


def executed(path: pathlib.Path) -> tuple[str, dict[str, bytes]]:
    """A notebook run from its own folder, next to the demo: as Markdown, with its images."""
    if not (ROOT / "demo/run/run_card.json").exists():
        raise PluginError("notebooks read demo/run: `make demo` makes it")
    with tempfile.TemporaryDirectory() as folder:
        place = pathlib.Path(folder, "notebooks")
        place.mkdir()
        (place.parent / "demo").symlink_to(ROOT / "demo")
        shutil.copy(path, place)
        notebook = nbformat.read(path, as_version=4)
        os.environ["PATH"] = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
        os.environ["PYTHONPATH"] = str(ROOT)
        client = NotebookClient(
            notebook,
            timeout=900,
            resources={"metadata": {"path": str(place)}},
            extra_arguments=["--log-level=ERROR"],
        )
        client.execute()
    exporter = MarkdownExporter()
    text, resources = exporter.from_notebook_node(
        notebook, {"unique_key": path.stem, "output_files_dir": "."}
    )
    note = f"Run as these pages were built: [{path.name}](../files/{path.name}).\n"
    title, _, rest = text.strip().partition("\n")
    return f"{title}\n\n{note}\n{rest}\n", resources["outputs"]


def _svg(figure: plt.Figure) -> str:
    held = io.StringIO()
    figure.savefig(held, format="svg", bbox_inches="tight", transparent=True)
    plt.close(figure)
    drawn = held.getvalue()
    return f'<div style="background: white">{drawn[drawn.index("<svg") :]}</div>'.replace("\n", " ")


def ratios() -> str:
    """How many times as fast as others: the `ratio_…` of BUILD_NOTES.md, as they stand there."""
    found = {}
    for line in (ROOT / "BUILD_NOTES.md").read_text().splitlines():
        if what := re.match(r"\| `benchmark --what=(\w+)", line):
            for name, value in re.findall(r"`(\w*ratio\w*)` ([\d.]+)", line):
                if name != "memory_ratio":
                    found[f"{what[1]}: {name.replace('_', ' ')}"] = float(value)
    return _bars(found, "times as fast as the other program", log=True)


def h100() -> str:
    """Training on one H100, from its lines."""
    found = {}
    for line in (ROOT / "docs/figures/h100_2026-11-26.jsonl").read_text().splitlines():
        row = json.loads(line)
        if "gene_steps_per_s" in row and ("lanes" in row or "peer" in row):
            name = row.get("peer") or f"{row['model']}, {row['lanes']} lanes"
            found[f"{name}, {row['precision']}"] = row["gene_steps_per_s"]
    return _bars(found, "gene-steps a second")


def _bars(values: dict[str, float], label: str, log: bool = False) -> str:
    figure, ax = plt.subplots(figsize=(7, 0.4 * len(values) + 1))
    names = sorted(values, key=values.__getitem__)
    drawn = ax.barh(names, [values[name] for name in names], color="#3b6ea5")
    said = [
        f"{values[name]:,.0f}" if values[name] > 1000 else f"{values[name]:g}" for name in names
    ]
    ax.bar_label(drawn, said, padding=3)
    ax.set_xlabel(label)
    if log:
        ax.set_xscale("log")
        ax.axvline(1, color="grey", lw=0.8)
    ax.margins(x=0.15)
    return _svg(figure)


PLOTS = {"ratios": ratios, "h100": h100}
