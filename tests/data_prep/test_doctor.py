"""The doctor on one simulated data set with a fault of every kind, and on clean ones."""

import dataclasses
import gzip
import json
import pathlib
import subprocess
import sys

import numpy as np
import pandas as pd
import pyBigWig
import pytest

from data_prep.checks.build_inputs import BuildConfig
from data_prep.doctor import Diagnosis, diagnose, verdict
from data_prep.simulate import simulate
from epi2expr_jax.errors import Problem

ERRORS = {
    "blind",
    "checksum",
    "contacts_off_chromosome",
    "duplicate_rows",
    "infinite_signal",
    "missing_chromosome",
    "missing_expression",
    "missing_file",
    "negative_expression",
    "negative_signal",
    "no_bigwig",
    "other_assembly",
    "same_file",
    "truncated",
}
WARNINGS = {
    "all_zero",
    "baits_without_tss",
    "chromosome_names",
    "clipped",
    "constant",
    "coverage",
    "duplicate_genes",
    "genes_without_expression",
    "log_transformed",
    "memory",
    "nan_share",
    "not_downloaded",
    "swapped_assays",
    "swapped_cells",
    "swapped_expression",
}


@pytest.fixture(scope="module")
def clean(tmp_path_factory) -> pathlib.Path:
    out = tmp_path_factory.mktemp("doctor") / "clean"
    return simulate(out, genes=180, cells=5, assays=8)


def config_of(folder: pathlib.Path, sheet: str = "tracks.csv", **changes) -> BuildConfig:
    return BuildConfig(
        tracks=str(folder / sheet),
        expression=str(folder / "RPKM.pc.gz"),
        genes=str(folder / "genes.gtf.gz"),
        assembly=str(folder / "genome.chrom.sizes"),
        interactions=str(folder / "contacts.bedpe"),
        store=str(folder / "store.zarr"),
        **changes,
    )


def rewrite(source: pathlib.Path, path: pathlib.Path, change, names=lambda chrom: chrom, **sizes):
    """A copy of a bigWig: `change(chrom, starts, ends, values)` of its runs, lengths of `sizes`
    instead of its own; a length of 0 leaves the chromosome out."""
    with pyBigWig.open(str(source)) as file, pyBigWig.open(str(path), "w") as out:
        header = {chrom: sizes.get(chrom, size) for chrom, size in file.chroms().items()}
        header = {chrom: size for chrom, size in header.items() if size}
        out.addHeader([(names(chrom), size) for chrom, size in header.items()])
        for chrom in header:
            runs = (np.array(part) for part in zip(*file.intervals(chrom), strict=True))
            # Lists: pyBigWig takes no infinite value from an array.
            starts, ends, signal = (np.asarray(part).tolist() for part in change(chrom, *runs))
            if starts:
                out.addEntries([names(chrom)] * len(starts), starts, ends=ends, values=signal)


def values(change):
    return lambda chrom, starts, ends, signal: (starts, ends, change(signal))


@pytest.fixture(scope="module")
def faulty(clean, tmp_path_factory) -> BuildConfig:
    """Everything that can be wrong, each once."""
    out = tmp_path_factory.mktemp("doctor") / "faulty"
    out.mkdir()
    for name in ("genes.gtf.gz", "genome.chrom.sizes"):
        (out / name).write_bytes((clean / name).read_bytes())
    sheet = pd.read_csv(clean / "tracks.csv")
    sheet["path"] = [str(clean / path) for path in sheet.path]
    sheet = sheet.set_index(["cell", "assay"])
    sheet["url"] = None

    def plant(cell, assay, change=lambda chrom, *runs: runs, **how):
        path = out / f"{cell}-{assay}.bigwig"
        rewrite(pathlib.Path(sheet.path[cell, assay]), path, change, **how)
        sheet.loc[(cell, assay), ["path", "sha256"]] = [str(path), None]
        return path

    # Files
    sheet.loc[("E003", "H3K4me3"), "path"] = "nowhere.bigwig"
    cut = plant("E114", "H3K4me3")
    cut.write_bytes(cut.read_bytes()[:-1000])
    plant("E116", "H3K4me3", chr1=249_250_621)
    plant("E117", "H3K4me3", chr2=0)
    plant("E118", "H3K4me3", names=lambda chrom: chrom.removeprefix("chr"))
    sheet.loc[("E003", "DNase"), "sha256"] = "0" * 64
    plant("E114", "DNase").write_text("<html>404</html>")
    copy = plant("E116", "DNase")
    copy.write_bytes(pathlib.Path(sheet.path["E117", "DNase"]).read_bytes())
    # Data and range
    few = {f"chr{number}" for number in range(1, 6)}
    plant("E118", "DNase", lambda chrom, *runs: [part if chrom in few else [] for part in runs])
    plant("E003", "H3K27me3", lambda chrom, *runs: [part[::2] for part in runs])
    plant("E114", "H3K27me3", values(lambda signal: np.full(len(signal), 3.0)))
    plant("E116", "H3K27me3", values(np.zeros_like))
    plant("E117", "H3K27me3", values(lambda signal: np.minimum(signal, 8)))
    plant("E118", "H3K27me3", values(np.log1p))
    top = values(lambda signal: np.where(signal == signal.max(), np.inf, signal))
    plant("E003", "H3K9me3", top)
    plant("E114", "H3K9me3", values(lambda signal: signal - 0.5))
    # Tracks under another's name
    columns = ["path", "sha256"]
    for one, other in (
        (("E117", "H3K27ac"), ("E117", "H3K9me3")),
        (("E003", "H3K27ac"), ("E114", "H3K27ac")),
    ):
        sheet.loc[[one, other], columns] = sheet.loc[[other, one], columns].to_numpy()
    sheet.loc[sheet.index.get_level_values("assay") == "H3K9me3", "unit"] = "counts"
    rows = sheet.reset_index()
    like = rows[rows.assay == "DNase"].iloc[0]
    far = {"cell": "E999", "assay": "DNase", "unit": like.unit, "group": like.group}
    far["url"] = "https://example.org/far.bigWig"
    rows = pd.concat([rows, rows.head(1), pd.DataFrame([far])])
    rows.to_csv(out / "tracks.csv", index=False)

    # Expression
    table = pd.read_csv(clean / "RPKM.pc.gz", sep="\t", index_col=False)
    table = table.rename(columns={"E116": "E118", "E118": "E116"})
    table = pd.concat([table.iloc[20:], table.tail(1).assign(E114=7.5)])
    table.iloc[0, table.columns.get_loc("E003")] = -1.0
    (out / "RPKM.pc.gz").write_bytes(gzip.compress(table.to_csv(sep="\t", index=False).encode()))
    # Contacts
    lines = (clean / "contacts.bedpe").read_text().splitlines()
    first = lines[1].split("\t")
    beyond = [*first[:4], "999000000", "999001000", *first[6:]]
    baits = [["chr1", str(i), str(i + 9), *first[3:]] for i in range(100, 5000, 10)]
    text = [*lines, *("\t".join(fields) for fields in (beyond, *baits))]
    (out / "contacts.bedpe").write_text("\n".join(text) + "\n")
    return config_of(out, blind="chr88", worker_gib=0.3)


@pytest.fixture(scope="module")
def diagnosis(faulty) -> Diagnosis:
    return diagnose(faulty)


def test_one_run_finds_every_fault_by_name(diagnosis):
    assert len(ERRORS | WARNINGS) >= 25
    assert {problem.kind for problem in diagnosis.errors} == ERRORS
    assert {problem.kind for problem in diagnosis.warnings} == WARNINGS
    assert not diagnosis.go


@pytest.mark.parametrize(
    ("kind", "where", "found"),
    [
        ("missing_file", "line 4", "nowhere.bigwig"),
        ("truncated", "E114-H3K4me3", "truncated"),
        ("other_assembly", "E116-H3K4me3", "chr1 of 249,250,621 bp"),
        ("missing_chromosome", "E117-H3K4me3", "no chr2"),
        ("chromosome_names", "E118-H3K4me3", "1 for chr1"),
        ("checksum", "E003-DNase", "sha256"),
        ("no_bigwig", "E114-DNase", "HTML"),
        ("same_file", "E117 DNase", "the same file"),
        ("coverage", "E118 DNase", "data in the windows of"),
        ("nan_share", "E003 H3K27me3", "no value"),
        ("constant", "E114 H3K27me3", "3 everywhere"),
        ("all_zero", "E116 H3K27me3", "0 everywhere"),
        ("clipped", "E117 H3K27me3", "the highest value, 8,"),
        ("log_transformed", "E118 H3K27me3", "logarithm"),
        ("infinite_signal", "E003-H3K9me3", "infinite"),
        ("negative_signal", "E114-H3K9me3", "lowest -0.5"),
        ("missing_expression", "header", "E999"),
        ("not_downloaded", "tracks.csv", "tracks not downloaded yet (E999 DNase)"),
        ("baits_without_tss", "contacts.bedpe", "490 of "),
        ("contacts_off_chromosome", "contacts.bedpe", "999000000"),
        ("genes_without_expression", "genes.gtf.gz", "of 180 protein-coding genes"),
        ("duplicate_genes", "RPKM.pc.gz", "1 genes listed twice, with other values"),
        ("negative_expression", "column E003", "1 negative value"),
        ("duplicate_rows", "lines 2, 42", "E003"),
        ("memory", "--worker_gib=0.3", "GiB"),
        ("blind", "--blind", "chr88"),
    ],
)
def test_it_says_where(diagnosis, kind, where, found):
    (problem,) = [p for p in diagnosis.errors + diagnosis.warnings if p.kind == kind]
    assert where in problem.where
    assert found in problem.found


def test_swaps_are_named_on_both_sides(diagnosis):
    places = {
        problem.kind: problem.where
        for problem in diagnosis.warnings
        if problem.kind.startswith("swapped")
    }
    assert {"E117", "H3K27ac", "H3K9me3"} <= set(places["swapped_assays"].split())
    assert {"H3K27ac", "E003", "E114"} <= set(places["swapped_cells"].split())
    assert {"expression", "E116", "E118"} <= set(places["swapped_expression"].split())
    assert sum(problem.kind.startswith("swapped") for problem in diagnosis.warnings) == 3


def test_clean_data_give_nothing(clean, build_config, tmp_path):
    for config in (config_of(clean), build_config(tmp_path / "s.zarr")):
        found = diagnose(config)
        assert found.errors == found.warnings == []
        assert found.go
        assert found.needs
        assert found.needs.hours > 0
        assert not pathlib.Path(config.store).exists()


def test_an_assumed_unit_is_in_the_last_line():
    assumed = Problem("t.tsv", "no unit", "one", "give it", kind="unit_assumed")
    other = Problem("t.tsv", "x", "y", "z", kind="memory")
    words = "go, with 1 assumption: unit of expression RPKM (--expression_unit gives another)"
    assert verdict([assumed]) == words
    assert verdict([other, assumed]) == f"{words}; no error found; see the warnings"
    assert verdict([other]) == "go: no error found; see the warnings"
    assert verdict([]) == "go: no problem found"


def flags_of(config: BuildConfig) -> list[str]:
    fields = dataclasses.asdict(config)
    return [f"--{name}={value}" for name, value in fields.items() if value is not None]


def test_program_writes_json_and_leaves_with_2_on_errors(faulty, diagnosis, tmp_path):
    flags = flags_of(dataclasses.replace(faulty, worker_gib=0.5))
    command = [sys.executable, "-m", "data_prep.doctor", *flags, f"--json={tmp_path / 'd.json'}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    content = json.loads((tmp_path / "d.json").read_text(), parse_constant=pytest.fail)
    assert content["go"] is False
    fields = {"severity", "kind", "where", "found", "expected", "remedy"}
    assert all(set(problem) == fields for problem in content["problems"])
    assert all(all(problem.values()) for problem in content["problems"])
    kinds = {severity: set() for severity in ("error", "warning")}
    for problem in content["problems"]:
        kinds[problem["severity"]].add(problem["kind"])
        assert problem["found"] in (done.stderr if problem["severity"] == "error" else done.stdout)
    assert kinds == {"error": ERRORS, "warning": WARNINGS - {"memory"}}
    summary = content["summary"]
    assert summary["tracks"] == 40  # 40 simulated, one that is nowhere, one that is far
    assert summary["genes"] == len(diagnosis.inputs.genes)
    windows = 40 * summary["genes"] * 400 * 4
    assert summary["store_bytes"] > windows  # and regions
    assert summary["worker_bytes"] > windows / 40
    assert summary["free_bytes"] > 0
    assert summary["hours"] > 0


def test_warnings_alone_are_a_go(clean, tmp_path, program):
    sheet = pd.read_csv(clean / "tracks.csv").head(2)
    source = clean / sheet.path[0]
    rewrite(source, clean / "zero.bigwig", values(np.zeros_like))
    sheet.loc[0, ["path", "sha256"]] = ["zero.bigwig", None]
    sheet.to_csv(clean / "zero.csv", index=False)
    first, size = (clean / "genome.chrom.sizes").read_text().split()[:2]
    (clean / "black.bed").write_text(f"{first}\t0\t{size}\n")
    config = config_of(clean, "zero.csv", blacklist=str(clean / "black.bed"))
    flags = flags_of(config)
    done = program("data_prep.doctor", *flags, f"--json={tmp_path / 'd.json'}")
    assert done.returncode == 0, done.stderr
    assert "1 warning:" in done.stdout
    assert "go: no error found" in done.stdout
    assert "copied genes are not looked for here: experiments.evaluate lists them" in done.stdout
    content = json.loads((tmp_path / "d.json").read_text())
    assert content["go"] is True
    assert [problem["kind"] for problem in content["problems"]] == ["all_zero"]
    black = content["summary"]["blacklist"]
    assert (black["name"], black["intervals"]) == ("black.bed", 1)
    assert black["bins"] == 400 * black["genes"] > 0
    assert f"windows of {black['genes']:,} genes); those bins count as bases" in done.stdout


def test_what_cannot_be_read_does_not_hide_the_rest(clean):
    lacking = {"genes": "none.gtf", "expression": "none.gz", "interactions": ""}
    config = dataclasses.replace(config_of(clean, window_bp=6001), **lacking)
    found = diagnose(config, checksums=False)
    assert {problem.kind for problem in found.errors} == {"annotation", "expression", "window"}
    assert found.record()["summary"]["hours"] is None
    without = diagnose(dataclasses.replace(config, assembly="none.sizes", tracks="none.csv"))
    kinds = {"assembly", "expression", "sheet", "window"}
    assert {problem.kind for problem in without.errors} == kinds
    assert without.record()["summary"] is None
