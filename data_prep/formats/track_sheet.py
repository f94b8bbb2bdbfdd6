"""The track sheet: a CSV that says which file holds which assay of which cell.

    cell,assay,path,url,sha256,unit,replicate,group
    E003,H3K4me3,E003-H3K4me3.bigWig,,,pvalue,,histone

Needed are `cell`, `assay` and one of `path` (relative to the sheet) or `url`; both may be given,
then the path is where the download of the URL will lie. Several rows of one cell and assay are
replicates, to be averaged, if their `replicate` fields differ. Sheets that ship: `shipped_sheets`.
"""

import csv
import dataclasses
import os
import pathlib
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence

from data_prep.formats.foreign import is_url
from data_prep.formats.text import read_rows
from epi2expr_jax.errors import InputError, Problems, collect
from epi2expr_jax.files import whole
from epi2expr_jax.genome import listing
from epi2expr_jax.names import known_names
from epi2expr_jax.units import UNIT_TRANSFORM

_SHEETS = pathlib.Path(__file__).parent / "sheets"
_REQUIRED = ("cell", "assay")
_OPTIONAL = ("path", "url", "sha256", "unit", "replicate", "group")

# Roadmap, ENCODE and MACS2 publish -log10 p-values, and approach 1 reads them. Its transform,
# arcsinh, is also the forgiving one: it is defined for negative values and close to a logarithm
# for large ones, so a sheet that forgot to say "fold_change" loses nothing.
DEFAULT_UNIT = "pvalue"

# Units as people write them: p-value, fold change, -log10(p), …
_UNITS = {unit.replace("_", ""): unit for unit in UNIT_TRANSFORM}
_UNITS |= dict.fromkeys(("log10p", "log10pvalue", "log10pval", "pval"), "pvalue")
_UNITS |= dict.fromkeys(("fc", "foldenrichment"), "fold_change")

# Names become directories, flag values and parts of assay sets ("H3K4me3+DNase,H3K27ac").
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_RESERVED = ("all", "each")  # what --cells and --assays understand besides names


@dataclasses.dataclass(frozen=True)
class Source:
    """One file of a track.

    Attributes:
        location: absolute path of the file, or its URL where the sheet names no path.
        sha256: what the file's checksum should be, in lower-case hex, if the sheet says.
        replicate: which replicate it is; empty for the only one.
        url: where to download the file from, if the sheet says.
    """

    location: str
    sha256: str | None = None
    replicate: str = ""
    url: str | None = None

    def require_sha256(self, digest: str) -> None:
        """Compare the file's checksum with that of the sheet, if it names one.

        Raises:
            InputError: if they differ.
        """
        if self.sha256 not in (None, digest):
            raise InputError(
                self.location,
                f"sha256 {digest}",
                f"{self.sha256}, as the track sheet says",
                "download the file again, or correct the sheet",
                kind="checksum",
            )


@dataclasses.dataclass(frozen=True)
class Track:
    """One assay in one cell.

    Attributes:
        cell: the epigenome, for example E003.
        assay: the histone mark or accessibility assay, for example H3K4me3.
        sources: its files; several are replicates, to be averaged.
        unit: what the signal measures, a key of `epi2expr_jax.units.UNIT_TRANSFORM`.
        group: a label to group assays by in reports; may be empty.
    """

    cell: str
    assay: str
    sources: tuple[Source, ...]
    unit: str = DEFAULT_UNIT
    group: str = ""


@dataclasses.dataclass(frozen=True)
class TrackSheet:
    """The tracks of a study, in the order of the sheet.

    Attributes:
        where: names the sheet in messages.
        assumed: assays whose unit it does not say: `DEFAULT_UNIT` is taken for it.
    """

    where: str
    tracks: tuple[Track, ...]
    assumed: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[str, ...]:
        """The cells, in order of first appearance."""
        return tuple(dict.fromkeys(track.cell for track in self.tracks))

    @property
    def assays(self) -> tuple[str, ...]:
        """The assays, in order of first appearance."""
        return tuple(dict.fromkeys(track.assay for track in self.tracks))

    def select(
        self, cells: str | Sequence[str] | None = None, assays: str | Sequence[str] | None = None
    ) -> "TrackSheet":
        """The tracks of these cells and assays; None keeps them all.

        Raises:
            InputError: naming every cell and assay that the sheet does not have.
        """
        kept = self.tracks
        with collect() as problems:
            for what, wanted, known in (
                ("cell", cells, self.cells),
                ("assay", assays, self.assays),
            ):
                remedy = "correct the name, or add its rows to the sheet"
                with problems.part():
                    named = (
                        known
                        if wanted is None
                        else known_names(wanted, known, self.where, what, remedy)
                    )
                    kept = tuple(track for track in kept if getattr(track, what) in named)
        return dataclasses.replace(self, tracks=kept)


def shipped_sheets() -> dict[str, pathlib.Path]:
    """The sheets that come with the package, by name."""
    return {path.stem: path for path in sorted(_SHEETS.glob("*.csv"))}


def shipped_sheet(name: str) -> pathlib.Path:
    """The path of a sheet that comes with the package.

    Raises:
        InputError: if there is none of that name.
    """
    sheets = shipped_sheets()
    if name not in sheets:
        raise InputError(
            "track sheet",
            f"no shipped sheet {name!r}",
            f"one of {', '.join(sheets)}",
            "correct the name, or give the path of your own CSV",
        )
    return sheets[name]


def read_sheet(path: str | pathlib.Path) -> TrackSheet:
    """Read a track sheet, checking everything but the tracks' contents.

    Args:
        path: the CSV file, or the name of a shipped sheet.

    Raises:
        InputError: every problem of every row at once, by line number.
    """
    with collect() as problems:
        return read_sound_rows(path, problems)


def read_sound_rows(path: str | pathlib.Path, problems: Problems) -> TrackSheet:
    """The tracks of rows that are sound, or but for their unit; `problems` takes what is wrong.

    Raises:
        InputError: if the sheet cannot be read.
    """
    if str(path) in shipped_sheets() and not pathlib.Path(path).exists():
        path = shipped_sheet(str(path))
    path = pathlib.Path(path)
    rows: dict[tuple[str, str], list[_Row]] = defaultdict(list)
    for row in _read_rows(path, problems):
        if row.given_unit not in UNIT_TRANSFORM:
            found, expected = f"unit {row.given_unit!r}", f"one of {', '.join(UNIT_TRANSFORM)}"
            remedy = "name the unit of the signal, which decides its transform"
            problems.add(row.where, found, expected, remedy)
        with problems.part():
            _check_row(row)
            rows[row.fields["cell"], row.fields["assay"]].append(row)
    for pair, replicates in rows.items():
        if _are_repeated(replicates, problems):
            rows[pair] = replicates[:1]
    kept = [row for group in rows.values() for row in group]
    _check_shared(kept, problems)
    _check_mixtures(kept, problems)
    tracks = (
        Track(
            cell, assay, tuple(map(_source, group)), group[0].unit, group[0].fields.get("group", "")
        )
        for (cell, assay), group in rows.items()
    )
    assumed = dict.fromkeys(row.fields["assay"] for row in kept if "unit" not in row.fields)
    return TrackSheet(str(path), tuple(tracks), tuple(assumed))


def write_sheet(sheet: TrackSheet, path: pathlib.Path) -> None:
    """Write a track sheet, whole or not at all; files below its folder are named relative to it."""
    with whole(path) as place, place.open("w", newline="", encoding="utf-8") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow((*_REQUIRED, *_OPTIONAL))
        for track in sheet.tracks:
            for source in track.sources:
                location = pathlib.Path(source.location)
                if location.is_relative_to(path.parent.absolute()):
                    location = location.relative_to(path.parent.absolute())
                checked = source.url or "", source.sha256 or ""
                described = track.unit, source.replicate, track.group
                lines.writerow((track.cell, track.assay, location, *checked, *described))


@dataclasses.dataclass(frozen=True)
class _Row:
    """A line of the sheet; empty fields are left out of `fields`."""

    sheet: pathlib.Path
    line: int
    fields: dict[str, str]

    @property
    def where(self) -> str:
        return f"{self.sheet}, line {self.line}"

    @property
    def given_unit(self) -> str:
        text = self.fields.get("unit", DEFAULT_UNIT).lower()
        return _UNITS.get(re.sub(r"[^a-z0-9]", "", text), text)

    @property
    def unit(self) -> str:
        """`none` in place of an unknown one, which is a problem: its file can be looked into."""
        return self.given_unit if self.given_unit in UNIT_TRANSFORM else "none"

    @property
    def file(self) -> pathlib.Path | None:
        """Where its `path` lies; the sheet's folder is the starting point."""
        path = self.fields.get("path")
        return (self.sheet.parent / os.path.expanduser(path)).absolute() if path else None


def _read_rows(path: pathlib.Path, problems: Problems) -> Iterator[_Row]:
    """The rows of the sheet but those of another width than the header."""
    shipped = ", ".join(shipped_sheets())
    numbered = read_rows(path, f"a track sheet: a CSV, or one of the shipped ones: {shipped}")
    start, header = numbered[0] if numbered else (1, [])
    header = [name.lower() for name in header]
    _check_header(f"{path}, line {start}", header)
    if len(numbered) == 1:
        problems.add(str(path), "no track", "a row for each track", "add the rows")
    for number, line in numbered[1:]:
        if len(line) != len(header):
            where, expected = f"{path}, line {number}", f"{len(header)}, as in the header"
            problems.add(where, f"{len(line)} fields", expected, "add or remove commas")
            continue
        pairs = zip(header, line, strict=True)
        yield _Row(path, number, {name: field for name, field in pairs if field})


def _check_header(where: str, header: list[str]) -> None:
    expected = f"columns {','.join(_REQUIRED)} and path or url, and maybe others of {_OPTIONAL}"
    missing = [name for name in _REQUIRED if name not in header]
    if not {"path", "url"} & set(header):
        missing.append("path or url")
    unknown = [name for name in header if name not in _REQUIRED + _OPTIONAL]
    twice = sorted({name for name in header if header.count(name) > 1})
    with collect() as problems:
        if missing:
            problems.add(where, f"no column {', '.join(missing)}", expected, "add the column")
        if unknown:
            names = ", ".join(map(repr, unknown))
            problems.add(where, f"unknown column {names}", expected, "rename or remove it")
        if twice:
            problems.add(where, f"{', '.join(twice)} twice", expected, "keep one of the columns")


def _check_row(row: _Row) -> None:
    fields = row.fields
    plain = "a name of letters, digits, `.`, `_` and `-` that begins with a letter or digit"
    with collect() as problems:

        def refuse(found: str, expected: str, remedy: str, kind: str = "") -> None:
            problems.add(row.where, found, expected, remedy, kind)

        for column in _REQUIRED:
            name = fields.get(column)
            if name is None:
                refuse(f"no {column}", f"a {column} in every row", "fill the field")
            elif not _NAME.fullmatch(name) or name.lower() in _RESERVED:
                expected = f"{plain} and is not {' or '.join(_RESERVED)}"
                remedy = "rename it: names become file names and flag values"
                refuse(f"{column} {name!r}", expected, remedy)
        replicate = fields.get("replicate", "")
        if replicate and not _NAME.fullmatch(replicate):
            refuse(f"replicate {replicate!r}", plain, "rename it: names become file names")
        if not re.fullmatch("[0-9a-fA-F]{64}", fields.get("sha256", "0" * 64)):
            remedy = "paste the output of `sha256sum FILE`, or leave the field empty"
            refuse(f"sha256 {fields['sha256']!r}", "64 hexadecimal digits", remedy)
        if row.file is None and "url" not in fields:
            refuse("neither path nor url", "one of them", "name the track's file")
        if "url" in fields and not is_url(fields["url"]):
            expected = "an address that begins with http://, https:// or ftp://"
            remedy = "correct it, or give a local file in the column `path`"
            refuse(f"url {fields['url']!r}", expected, remedy)
        if row.file and is_url(fields["path"]):
            refuse("a URL as path", "a local file", "move it to the column `url`")
        elif row.file and "url" not in fields and not os.path.isfile(row.file):
            expected = "an existing file (paths are relative to the sheet)"
            remedy = "correct the path, or give the url to download it from"
            refuse(f"no file {row.file}", expected, remedy, "missing_file")


def _are_repeated(rows: list[_Row], problems: Problems) -> bool:
    """Whether rows of one track are not replicates: those differ in label and in file."""
    for column, values in (
        ("replicate", [row.fields.get("replicate", "") for row in rows]),
        ("file", [_source(row).location for row in rows]),
    ):
        repeated = [row for row, value in zip(rows, values, strict=True) if values.count(value) > 1]
        if repeated:
            fields = repeated[0].fields
            problems.add(
                f"{rows[0].sheet}, lines {', '.join(str(row.line) for row in repeated)}",
                f"{fields['cell']} {fields['assay']} with the same {column}",
                "one row a track, or replicates that differ in label and file",
                "remove the rows that are not meant, or number them in the column `replicate`",
                kind="duplicate_rows",
            )
            return True
    return False


def _check_shared(rows: list[_Row], problems: Problems) -> None:
    """A file, or a URL, is of one track."""
    by_location: dict[str, list[_Row]] = defaultdict(list)
    for row in rows:
        by_location[_source(row).location].append(row)
    for location, sharing in by_location.items():
        names = dict.fromkeys(f"{row.fields['cell']} {row.fields['assay']}" for row in sharing)
        if len(names) > 1:
            problems.add(
                f"{sharing[0].sheet}, lines {listing(row.line for row in sharing)}",
                f"{location} for {listing(names)}",
                "one file a track",
                "look which track the file is of, and correct the other rows of the sheet",
                kind="same_file",
            )


def _check_mixtures(rows: list[_Row], problems: Problems) -> None:
    """An assay has one unit, since that decides its transform, and one group."""
    for column, default in (("unit", DEFAULT_UNIT), ("group", "")):
        lines: dict[str, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
        for row in rows:
            if column == "unit" and row.unit != row.given_unit:
                continue  # named already
            value = row.unit if column == "unit" else row.fields.get(column, default)
            lines[row.fields["assay"]][value].append(row.line)
        for assay, values in lines.items():
            if len(values) > 1:
                found = " and ".join(
                    f"{value or 'none'} (line {listing(numbers)})"
                    for value, numbers in values.items()
                )
                problems.add(
                    f"{rows[0].sheet}, assay {assay}",
                    f"{column} {found}",
                    f"one {column} for all tracks of an assay",
                    "correct the rows, or give what differs in kind another assay name",
                    kind="mixed_units" if column == "unit" else "mixed_groups",
                )


def _source(row: _Row) -> Source:
    fields = row.fields
    return Source(
        location=str(row.file) if row.file else fields["url"],
        sha256=fields["sha256"].lower() if "sha256" in fields else None,
        replicate=fields.get("replicate", ""),
        url=fields.get("url"),
    )
