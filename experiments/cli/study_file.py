"""A study file: which commands a study is, in what order, with which flags."""

import dataclasses
import os
import pathlib
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from epi2expr_jax.errors import InputError, Problems, collect, nearest
from epi2expr_jax.files import as_name, read_bytes

SHIPPED = pathlib.Path(__file__).parent.parent / "studies"
_OF_A_RUN = ("across_cells", "attribution", "combinations", "enrichment", "perturb", "predict")
_OF_A_STORE = ("select", "sweep")
# Runs that differ in these are not compared on one page.
_COMPARED = ("cv", "cells", "folds", "blind", "split_seed", "target", "task", "test_genes")
_TO_A_STORE = ("simulate", "download", "depth", "store")
_SECTIONS = ("out", *_TO_A_STORE, "train", "evaluate", *_OF_A_RUN, *_OF_A_STORE, "report")

# Flags that every program has, which print, or read more flags.
_TYPED_ALONE = {"help", "helpshort", "helpfull", "helpxml", "flagfile", "undefok"}


@dataclasses.dataclass(frozen=True)
class Step:
    """One command of a study.

    Attributes:
        name: of this step, unique in its study.
        module: the program.
        arguments: its flags.
        needs: steps whose results it reads.
        makes: what is there when it is done, relative to the study's folder.
        reads: files of the user's that it reads, relative to the same.
        run: the training that it makes or asks, if one.
        table: where its flags stand in the file.
    """

    name: str
    module: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...] = ()
    makes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    run: str = ""
    table: str = ""


@dataclasses.dataclass(frozen=True)
class StudyFile:
    """A study as its file says.

    Attributes:
        source: the file.
        folder: where its commands run; its paths are relative to it.
        out: folder of everything that is made, relative to `folder`.
        steps: the commands, in an order in which each finds what it needs.
        tracks: the sheet of the tracks, or of the alignments that they are made of, as the file
            names it.
        store: the store, relative to `folder`.
        runs: the names of the trainings.
    """

    source: pathlib.Path
    folder: pathlib.Path
    out: str
    steps: tuple[Step, ...]
    tracks: str
    store: str
    runs: tuple[str, ...]


def find_study(name: str) -> tuple[pathlib.Path, pathlib.Path]:
    """The file of a study, and the folder that its paths are relative to.

    Args:
        name: a path, or the name of a study that ships: then its paths are relative to the folder
            one stands in.

    Raises:
        InputError: if there is neither.
    """
    path = pathlib.Path(name)
    if path.is_file():
        return path, path.resolve().parent
    shipped = {file.stem: file for file in sorted(SHIPPED.glob("*.toml"))}
    if name in shipped:
        return shipped[name], pathlib.Path.cwd()
    remedy = nearest(name, shipped) or "check the path"
    raise InputError(name, "no such file", f"a study file, or {', '.join(shipped)}", remedy)


def read_study(name: str, out: str = "") -> StudyFile:
    """Read a study file.

    Args:
        name: as of `find_study`.
        out: the folder of everything that is made, in place of the one that the file says.

    Raises:
        InputError: if it is no TOML, or naming every section and run that makes no sense. Flags are
            not looked at: the commands know them.
    """
    source, folder = find_study(name)
    try:
        content = tomllib.loads(read_bytes(source, "a study file").decode("utf-8-sig"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(str(source), str(error), "TOML", "correct the file") from None
    with collect() as problems:
        _check_sections(source, content, problems)
    out = out or content.get("out", source.stem)
    content = _filled(content, out)
    store, runs = f"{out}/store.zarr", _runs(content["train"])
    places = {name: str(flags.pop("run", f"{out}/runs/{name}")) for name, flags in runs.items()}
    steps = list(_to_store(content, folder, out, store))
    for run, flags in runs.items():
        place = places[run]
        trained, ranked = (f"{place}/run_card.json",), (f"{place}/ranking.csv",)
        arguments = _flags({"store": store, "run": place, **flags})
        shared = any(not isinstance(value, dict) for value in content["train"].values())
        table = f"[train.{run}]{' or [train]' if shared else ''}"
        name, module = f"train {run}", "experiments.train"
        steps.append(Step(name, module, arguments, ("store",), trained, run=run, table=table))
        arguments, needs = _flags({"run": place, **content.get("evaluate", {})}), (name,)
        name, module = f"evaluate {run}", "experiments.evaluate"
        steps.append(Step(name, module, arguments, needs, ranked, run=run, table="[evaluate]"))
    steps += _questions(content, out, store, places)
    for run, place in places.items():
        arguments, needs = (f"--run={place}",), (f"evaluate {run}",)
        made = (f"{place}/verify.json",)
        steps.append(Step(f"verify {run}", "experiments.verify", arguments, needs, made, run=run))
    steps += _reports(content, runs, places, steps)
    steps = [dataclasses.replace(step, reads=_files(step, folder, out)) for step in steps]
    tracks = str(content.get("depth", content["store"])["tracks"])
    return StudyFile(source, folder, out, tuple(steps), tracks, store, tuple(runs))


def _check_sections(source: pathlib.Path, content: Mapping[str, Any], problems: Problems) -> None:
    for name in content.keys() - set(_SECTIONS):
        remedy = nearest(name, _SECTIONS) or "take it out"
        problems.add(str(source), f"a section {name}", f"some of {', '.join(_SECTIONS)}", remedy)
    for name in (*_TO_A_STORE, "train", "evaluate", "report"):
        if not isinstance(content.get(name, {}), dict):
            found, expected = f"{name} = {_shown(content[name])}", f"[{name}] with its flags"
            problems.add(str(source), found, expected, "make it a table")
            return
    sheet, learned = "name the track sheet", "name the table: it is what models learn to predict"
    needed = [("store", "tracks", sheet), ("store", "expression", learned)]
    for name, key, remedy in (
        [*needed, ("depth", "tracks", sheet)] if "depth" in content else needed
    ):
        if (given := content.get(name, {}).get(key)) is None:
            problems.add(str(source), f"no {key}", f"[{name}] with {key} = ...", remedy)
        elif not isinstance(given, str) or not given.strip():
            where, found = f"{source}, [{name}]", f"{key} = {_shown(given)}"
            problems.add(where, found, "a text: the path of one file", remedy)
    _check_places(source, content, problems)
    _check_keys(str(source), content, problems)
    named = _runs(content.get("train", {}))
    if not named:
        problems.add(str(source), "no training", "[train.NAME] for each model", "add one")
    for section in (*_OF_A_RUN, *_OF_A_STORE):
        for table in _tables(content, section):
            if not isinstance(table, dict):
                found, expected = f"{section} = {_shown(table)}", f"[[{section}]] with its flags"
                problems.add(str(source), found, expected, "make it a table")
            elif named and section in _OF_A_RUN and str(table.get("run")) not in named:
                run = str(table.get("run", ""))
                where, expected = f"{source}, [[{section}]]", f"a training: {', '.join(named)}"
                remedy = nearest(run, named) or "run = NAME says of which training"
                problems.add(where, f"run = {run!r}" if run else "no run", expected, remedy)


def _check_keys(where: str, table: Mapping[str, Any], problems: Problems) -> None:
    """Refuse keys that can be no flag of a program, and those of the command line alone."""
    for key, value in table.items():
        inner = value if isinstance(value, list) else [value]
        tables = [one for one in inner if isinstance(one, dict)]
        for one in tables:
            _check_keys(f"{where}, [{key}]", one, problems)
        if not tables and (key in _TYPED_ALONE or not re.fullmatch(r"[A-Za-z]\w*", key, re.ASCII)):
            problems.add(where, f"a key {key!r}", "the name of a flag, as epochs", "take it out")


def _shown(value: Any) -> str:
    """A value as a study file has it, or nearly: `true`, not `True`."""
    return str(value).lower() if isinstance(value, bool) else repr(value)


def _check_places(source: pathlib.Path, content: Mapping[str, Any], problems: Problems) -> None:
    """Refuse places that the study cannot keep apart, or sets itself."""
    out = content.get("out", source.stem)
    if not isinstance(out, str) or not re.fullmatch(r"[^,\n]*[^,\s/.][^,\n]*", out):
        problems.add(str(source), f"out = {_shown(out)}", "a folder, without commas", "name one")
    runs = _runs(content.get("train", {}))
    places = [str(flags.get("run", name)) for name, flags in runs.items()]
    for name, flags in runs.items():
        if not isinstance(run := flags.get("run", name), str) or not run.strip():
            where, found = f"{source}, [train.{name}]", f"run = {_shown(run)}"
            problems.add(where, found, "a text: a folder", "take it out, or name one")
    for name in runs:
        if not re.fullmatch(r"\w[\w.+-]*", name):
            found, expected = f"[train.{name!r}]", "letters, digits and _ . + -"
            problems.add(str(source), found, expected, "give the training another name")
    if len(set(places)) < len(places):
        found = f"two trainings with run = {max(places, key=places.count)!r}"
        problems.add(str(source), found, "a folder for each", "take it out, or name two")
    own = dict.fromkeys(("simulate", "download", "depth"), ("out",))
    own |= {"store": ("store",), "evaluate": ("run",), "report": ("run", "compare")}
    tables = {name: content.get(name, {}) for name in own}
    tables |= {f"train.{name}": flags for name, flags in runs.items()}
    for name, table in tables.items():
        for key in set(own.get(name, ("store",))) & table.keys():
            found, remedy = (
                f"[{name}] {key} = {_shown(table[key])}",
                "take it out; out = says where",
            )
            problems.add(str(source), found, f"no {key}, which the study sets itself", remedy)


def _files(step: Step, folder: pathlib.Path, out: str) -> tuple[str, ...]:
    """Files of the user's that the flags of a step name."""
    values = [part for word in step.arguments for part in word.partition("=")[2].split(",")]
    made = (folder / out).resolve()
    return tuple(
        value
        for value in dict.fromkeys(values)
        if value and os.path.isfile(folder / value)  # False of too long a name, too
        and made not in (folder / value).resolve().parents
    )  # fmt: skip


def _tables(content: Mapping[str, Any], section: str) -> list[Any]:
    """The tables of a section that may be there once, `[perturb]`, or often, `[[perturb]]`."""
    given = content.get(section, [])
    return given if isinstance(given, list) else [given]


def _numbered(content: Mapping[str, Any], section: str, number: int) -> str:
    """How a reader of the file finds one of the tables of a section."""
    several = isinstance(content[section], list)
    return f"[[{section}]] number {number}" if several else f"[{section}]"


def _runs(train: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """The flags of each training: what stands in `[train]` holds for all."""
    shared = {key: value for key, value in train.items() if not isinstance(value, dict)}
    return {name: {**shared, **value} for name, value in train.items() if isinstance(value, dict)}


def _flags(given: Mapping[str, Any]) -> tuple[str, ...]:
    """Flags as they are typed: `true` is --flag, `false` --noflag, a list is joined by commas."""
    typed = []
    for key, value in given.items():
        if isinstance(value, bool):
            typed.append(f"--{key}" if value else f"--no{key}")
        elif isinstance(value, list):
            typed.append(f"--{key}={','.join(map(str, value))}")
        else:
            typed.append(f"--{key}={value}")
    return tuple(typed)


def _to_store(
    content: Mapping[str, Any], folder: pathlib.Path, out: str, store: str
) -> Iterator[Step]:
    before: tuple[str, ...] = ()
    if "simulate" in content:
        arguments = _flags({"out": f"{out}/data", **content["simulate"]})
        yields = (f"{out}/data/truth.json",)
        yield Step("simulate", "data_prep.simulate", arguments, (), yields, table="[simulate]")
        before = ("simulate",)
    if "download" in content:
        arguments = _flags({"out": f"{out}/files", **content["download"]})
        yields = (f"{out}/files/downloads.lock.json",)
        yield Step("download", "data_prep.download", arguments, (), yields, table="[download]")
        before = (*before, "download")
    if "depth" in content:
        arguments = _flags({"out": f"{out}/depth", **content["depth"]})
        yields = (f"{out}/depth/tracks.depth.csv",)
        yield Step("depth", "data_prep.depth", arguments, before, yields, table="[depth]")
        before = (*before, "depth")
    given = {"store": store, **content["store"]}
    # It checks all that data_prep.doctor does before it begins.
    arguments, yields = _flags(given), (f"{store}/zarr.json",)
    yield Step("store", "data_prep.build_store", arguments, before, yields, table="[store]")


def _questions(
    content: Mapping[str, Any], out: str, store: str, places: Mapping[str, str]
) -> Iterator[Step]:
    """What is asked beyond the ranking."""
    asked: set[tuple[str, str]] = set()
    names: list[str] = []
    for section in _OF_A_RUN:
        for number, table in enumerate(_tables(content, section), 1):
            run = str(table["run"])
            given = {**table, "run": places[run]}
            name = f"{section} {run}"
            if (section, run) in asked:  # the first one is where the report looks for it
                words = _flags({key: table[key] for key in table if key != "run"})
                label = as_name("_".join(word.partition("=")[2] or word for word in words))[:60]
                again = [name for name in names if name.startswith(f"{section} {run} {label}")]
                label += f"_{len(again) + 1}" if again else ""
                given.setdefault("out", f"{places[run]}/{section}_{label}")
                name = f"{name} {label}"
            asked.add((section, run))
            names.append(name)
            needs = (f"evaluate {run}",)
            where, module = _numbered(content, section, number), f"experiments.{section}"
            yield Step(name, module, _flags(given), needs, run=run, table=where)
    for section in _OF_A_STORE:
        for number, table in enumerate(_tables(content, section), 1):
            place = f"{out}/{section}{number if number > 1 else ''}"
            given = {"store": store, "run": place, **table}
            name = f"{section} {number}"
            where, module = _numbered(content, section, number), f"experiments.{section}"
            yield Step(name, module, _flags(given), ("store",), table=where)


def _reports(
    content: Mapping[str, Any],
    runs: Mapping[str, Mapping[str, Any]],
    places: Mapping[str, str],
    before: Sequence[Step],
) -> Iterator[Step]:
    """A page for the runs that can be compared, led by the first of them."""
    by_folds: dict[tuple[str, ...], list[str]] = {}
    for run, flags in runs.items():
        same = tuple(str(flags.get(key, "")) for key in _COMPARED)
        by_folds.setdefault(same, []).append(run)
    sweeps = [step for step in before if step.module == "experiments.sweep"][:1]
    for first, *others in by_folds.values():
        given: dict[str, Any] = {"run": places[first]}
        needs = [step.name for step in before if step.run == first]
        if others:
            given["compare"] = [places[other] for other in others]
            needs += [f"verify {other}" for other in others]
        for step in sweeps:
            given["sweep"] = _place(step)
            needs.append(step.name)
        arguments = _flags(given | content.get("report", {}))
        yields = (f"{places[first]}/report.html",)
        name, module = f"report {first}", "experiments.report"
        yield Step(name, module, arguments, tuple(needs), yields, table="[report]")


def _place(step: Step) -> str:
    return next(word for word in step.arguments if word.startswith("--run=")).partition("=")[2]


def _filled(content: Any, out: str) -> Any:
    """`{out}` in texts, wherever they stand."""
    if isinstance(content, dict):
        return {key: _filled(value, out) for key, value in content.items()}
    if isinstance(content, list):
        return [_filled(value, out) for value in content]
    return content.replace("{out}", out) if isinstance(content, str) else content
