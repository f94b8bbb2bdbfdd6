"""Check all inputs of a build and list every problem at once, before hours are spent on them.

    python -m data_prep.doctor --tracks=tracks.csv --expression=57epigenomes.RPKM.pc.gz \\
        --genes=genes.gtf.gz --store=roadmap.zarr

    … --json=doctor.json        # the same for programs
    … --nochecksums             # do not read files whole: which takes long for hundreds of GB

Takes the flags of build_store. Errors would stop a build. Warnings are about data that
look wrong but may be right, with figures: coverage and range of tracks, tracks and
expression columns that look like another's. Both come from the windows of up to 500 genes. Genes
that are copies of others show in the windows of all genes alone: experiments.evaluate lists them.
Exit status 0: go, maybe with warnings; 2: no-go, with what to do about each error. Nothing but the
JSON is written.
"""

import dataclasses
import math
import pathlib
from collections.abc import Sequence
from typing import Any

from absl import flags
from tqdm import tqdm

from data_prep.checks.build_inputs import BuildConfig, BuildInputs, define_flags, gather_inputs
from data_prep.checks.needs import Needs
from data_prep.checks.next_command import build_command
from data_prep.checks.track_files import (
    blacklisted,
    check_files,
    file_warnings,
    summary,
)
from data_prep.checks.track_signal import Reading, read_sample, sample_genes, suspicions
from epi2expr_jax.errors import InputError, Problem, Problems, describe
from epi2expr_jax.files import write_json
from epi2expr_jax.program import print_next, start
from epi2expr_jax.units import DEFAULT_UNIT

FLAGS = flags.FLAGS


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """What was found.

    Attributes:
        errors: what a build would refuse or fail at.
        warnings: what may be right and looks wrong.
        inputs: as far as they could be read; None without a track or an assembly.
        needs: of a build; None without inputs.
    """

    errors: list[Problem]
    warnings: list[Problem]
    inputs: BuildInputs | None = None
    needs: Needs | None = None

    @property
    def go(self) -> bool:
        """Whether a build can begin."""
        return not self.errors

    def record(self) -> dict[str, Any]:
        """For JSON."""
        problems = [
            {"severity": severity, **dataclasses.asdict(problem)}
            for severity, found in (("error", self.errors), ("warning", self.warnings))
            for problem in found
        ]
        content: dict[str, Any] = {"go": self.go, "problems": problems, "summary": None}
        if self.inputs and self.needs:
            sheet = self.inputs.sheet
            needs = dataclasses.asdict(self.needs)
            if math.isnan(self.needs.hours):
                needs["hours"] = None
            content["summary"] = {
                "tracks": len(sheet.tracks),
                "cells": len(sheet.cells),
                "assays": len(sheet.assays),
                "genes": len(self.inputs.genes),
                "left_out": self.inputs.left_out,
                "blacklist": blacklisted(self.inputs),
                "expression_unit": self.inputs.read.unit,
                **needs,
            }
        return content


def diagnose(config: BuildConfig, *, checksums: bool = True) -> Diagnosis:
    """Look into everything that a build would read.

    Args:
        config: what is to be built.
        checksums: compare all files whose sha256 the sheet names with it.
    """
    errors = Problems()
    inputs = gather_inputs(config, errors)
    if inputs is None:
        return Diagnosis(errors.found, [])
    sound = check_files(inputs, errors, checksums=checksums)
    warnings = file_warnings(inputs)
    genes = sample_genes(inputs.genes)
    readings: list[Reading] = []
    for track in tqdm(sound if len(genes) else [], "sampling", unit="track", disable=None):
        with errors.part():
            readings.append(read_sample(track, inputs.genes.iloc[genes], inputs.window))
    warnings += suspicions(inputs, genes, readings)
    seconds = {reading.track: reading.seconds for reading in readings}
    return Diagnosis(errors.found, warnings, inputs, Needs.of(inputs, seconds, len(genes)))


def define_more_flags() -> None:
    """The doctor's own flags."""
    flags.DEFINE_string("json", "", "File for the diagnosis as JSON. Empty: none.")
    flags.DEFINE_bool(
        "checksums", True, "Read files whole to compare them with the sha256 of the sheet."
    )


def verdict(warnings: Sequence[Problem]) -> str:
    """The last word where nothing stops a build: what is taken for granted, too."""
    others = [warning for warning in warnings if warning.kind != "unit_assumed"]
    see = "no error found; see the warnings" if others else ""
    assumed = f"unit of expression {DEFAULT_UNIT} (--expression_unit gives another)"
    if len(others) < len(warnings):
        return f"go, with 1 assumption: {assumed}" + (f"; {see}" if see else "")
    return f"go: {see or 'no problem found'}"


def main() -> None:
    found = diagnose(BuildConfig.from_flags(), checksums=FLAGS.checksums)
    if FLAGS.json:
        write_json(pathlib.Path(FLAGS.json), found.record())
    if found.inputs:
        print(summary(found.inputs))
    if found.needs:
        print(found.needs)
    if found.warnings:
        print(f"\n{len(found.warnings)} warning{'s' if len(found.warnings) > 1 else ''}:")
        print(describe(found.warnings))
    if found.errors:
        raise InputError.of(found.errors)
    print(verdict(found.warnings))
    print("copied genes are not looked for here: experiments.evaluate lists them in copies.csv")
    print_next("", build_command())


def run() -> None:
    start(main, define_flags, define_more_flags)


if __name__ == "__main__":
    run()
