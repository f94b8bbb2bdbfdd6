"""What a window store says of itself: the manifest, its format version, its reading."""

import dataclasses
import hashlib
import json
import pathlib
from typing import Any

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.files import read_json, write_json
from epi2expr_jax.genome import WindowSpec
from epi2expr_jax.store.regions import REGION_BIN_BP
from epi2expr_jax.units import DEFAULT_UNIT

MANIFEST = "manifest.json"
FORMAT = "epi2expr_jax window store"
FORMAT_VERSION = 3  # raised whenever older code would misread a store
LEAST_VERSION = 2  # without checksums in the arrays; still read, and `resume` brings it up

# What a build finds out, as against what it was asked for.
_OUTCOMES = (
    "left_out", "blacklisted", "genes_sha256", "expression_sha256", "regions_sha256",
    "labels_sha256", "tables_sha256", "version",
)  # fmt: skip
_IN_WORDS = {"candidates_sha256": "sha256 of genes, expression and counts"}


@dataclasses.dataclass(frozen=True)
class Manifest:
    """What a store is, in full: two builds with equal manifests and sources hold equal arrays.

    Attributes:
        window_bp, bin_bp: the stored window around each TSS, in bp.
        assembly: its name; `chrom_sizes` gives its chromosomes' lengths in bp.
        chromosomes: those whose genes are stored.
        blind: the chromosomes no model of `monte_carlo_5` may see before the final test.
        cells, assays: labels, in the order of the arrays.
        tracks: the (cell, assay) pairs that have a track; the others stay NaN.
        units: assay to unit of its tracks, which decides the transform at load.
        groups: assay to its kind (histone, accessibility, …), for reports.
        min_covered: genes were left out whose window has less data than this share.
        tss: the rule by which a gene's TSS was chosen.
        candidates_sha256: of the genes and expression the build started from.
        contacts: cell to what its contacts were read from, and by which rules (name, format,
            sha256, min_score, max_width_bp, max_contacts, trans); a cell without is not named.
        blacklist: name and sha256 of the BED whose intervals count as bases without data, if any.
        region_bin_bp: width of the bins of the regions that contacts reach, in bp.
        given_labels: whether the inputs say which genes are expressed (1) and which silent (0).
        expression_unit: one of `units.EXPRESSION_UNITS`; empty: the store holds no expression.
        left_out: why and how many genes of the inputs are not here.
        blacklisted: how many `genes` have window bins that the blacklist touches, and how many such
            `bins` there are; empty without one.
        genes_sha256, expression_sha256: of the gene table and the expression array.
        regions_sha256: cell to the checksum of its region and contact tables.
        labels_sha256: of the label array; empty if there is none.
        tables_sha256: of the bytes of each file that is written before the slabs (tables, labels,
            expression, descriptions of arrays), by path in the store; none in version 2.
        version: of the format.
    """

    window_bp: int
    bin_bp: int
    assembly: str
    chrom_sizes: dict[str, int]
    chromosomes: list[str]
    blind: list[str]
    cells: list[str]
    assays: list[str]
    tracks: list[list[str]]
    units: dict[str, str]
    groups: dict[str, str]
    min_covered: float
    tss: str
    candidates_sha256: str
    contacts: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    blacklist: dict[str, str] = dataclasses.field(default_factory=dict)
    region_bin_bp: int = REGION_BIN_BP
    given_labels: bool = False
    expression_unit: str = DEFAULT_UNIT
    left_out: dict[str, int] = dataclasses.field(default_factory=dict)
    blacklisted: dict[str, int] = dataclasses.field(default_factory=dict)
    genes_sha256: str = ""
    expression_sha256: str = ""
    regions_sha256: dict[str, str] = dataclasses.field(default_factory=dict)
    labels_sha256: str = ""
    tables_sha256: dict[str, str] = dataclasses.field(default_factory=dict)
    version: int = FORMAT_VERSION

    @property
    def window(self) -> WindowSpec:
        return WindowSpec(self.window_bp, self.bin_bp)

    def require_same_request(self, asked: "Manifest", where: str) -> None:
        """Check that the request for a store was the same as now.

        What a build finds out (which genes stay) does not count, nor does another name of an
        assembly with the same lengths.

        Raises:
            InputError: naming all that differs.
        """
        old, new = dataclasses.asdict(self), dataclasses.asdict(asked)
        remedy = "give another --store, or delete this one"
        with collect() as problems:
            for name in new:
                if name == "assembly" and new["chrom_sizes"] == old["chrom_sizes"]:
                    continue
                if new[name] != old[name] and name not in _OUTCOMES:
                    expected = f"{_brief(new[name])}, as asked for now"
                    what = _IN_WORDS.get(name, name)
                    problems.add(f"{where}: {what}", _brief(old[name]), expected, remedy)


def read_manifest(path: pathlib.Path) -> Manifest:
    """The manifest of the store at `path`.

    Raises:
        InputError: if there is no store, one of another format version, or a damaged manifest.
    """
    file = path / MANIFEST
    if not file.exists():
        raise InputError(
            str(path), "no manifest.json", "a window store", "make it with build_store"
        )
    fields = read_json(file, "manifest", "rebuild the store")
    if fields.pop("format", None) != FORMAT:
        raise InputError(str(file), "some other file", f'"format": "{FORMAT}"', "check --store")
    version = fields.get("version")
    if version not in range(LEAST_VERSION, FORMAT_VERSION + 1):
        newer = isinstance(version, int) and version > FORMAT_VERSION
        raise InputError(
            str(file),
            f"format version {version}",
            f"version {FORMAT_VERSION}",
            "upgrade epi2expr_jax" if newer else "migrate: rebuild it with build_store",
        )
    # A flipped digit would be another width, or another chromosome.
    if version > LEAST_VERSION and fields.pop("sha256", None) != _sum(fields):
        raise InputError(
            str(file),
            "a manifest that was changed after it was written",
            "what build_store wrote",
            "bring back the file, or delete the store and build it again",
        )
    try:
        return Manifest(**fields)
    except TypeError as error:
        raise InputError(
            str(file), f"{error}", "the fields of a manifest", "rebuild the store"
        ) from None


def write_manifest(path: pathlib.Path, manifest: Manifest) -> None:
    """Write the manifest of the store at `path`, whole or not at all."""
    fields = dataclasses.asdict(manifest)
    write_json(path / MANIFEST, {"format": FORMAT, "sha256": _sum(fields), **fields})


def _sum(fields: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()


def _brief(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 120 else text[:117] + "…"
