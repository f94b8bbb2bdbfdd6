"""What the signal was that models were trained on, and whether a store holds the same.

Models read transformed signal. If the transform were looked up again in whatever store they predict
from, tracks of another unit would pass through another transform, and predictions would be wrong
without a word. So it is kept with the run, and other signal is refused.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.transforms import TRANSFORMS
from epi2expr_jax.store.manifest import Manifest
from epi2expr_jax.units import transform_of


@dataclasses.dataclass(frozen=True)
class TrainedSignal:
    """The signal that models were trained on.

    Attributes:
        units: assay to the unit of its tracks.
        transforms: assay to the transform its signal went through, one of `transforms.TRANSFORMS`.
        assembly: its name; None if that is not known (imported weights).
        chrom_sizes: length in bp of each chromosome whose genes were stored; empty if not known.
    """

    units: Mapping[str, str]
    transforms: Mapping[str, str]
    assembly: str | None = None
    chrom_sizes: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @classmethod
    def of(cls, manifest: Manifest, transform: str) -> "TrainedSignal":
        """The signal of a store.

        Args:
            transform: as asked for, `auto` for that of each assay's unit.
        """
        return cls(
            units=dict(manifest.units),
            transforms={a: transform_of(transform, unit) for a, unit in manifest.units.items()},
            assembly=manifest.assembly,
            chrom_sizes={
                name: size
                for name, size in manifest.chrom_sizes.items()
                if name in manifest.chromosomes
            },
        )

    @classmethod
    def of_depth(cls, assays: Sequence[str]) -> "TrainedSignal":
        """The signal of published Chromoformer weights: ln(read depth + 1), assembly unknown."""
        return cls(units=dict.fromkeys(assays, "depth"), transforms=dict.fromkeys(assays, "log1p"))

    @classmethod
    def from_json(cls, content: Any, where: str) -> "TrainedSignal":
        """What a run card kept.

        Raises:
            InputError: if that is something else.
        """
        fields = {field.name for field in dataclasses.fields(cls)}
        if isinstance(content, dict) and {"units", "transforms"} <= content.keys() <= fields:
            signal = cls(**content)
            if signal.units.keys() == signal.transforms.keys() and (
                set(signal.transforms.values()) <= set(TRANSFORMS)
            ):
                return signal
        raise InputError(
            f"{where}: signal",
            str(content)[:120],
            "a unit and a known transform for each assay",
            "use the version of epi2expr_jax that wrote it, or train again",
        )

    def as_json(self) -> dict[str, Any]:
        """What a run card keeps."""
        return dataclasses.asdict(self)

    def require_same(self, manifest: Manifest, where: str, assays: Sequence[str]) -> None:
        """Check that a store holds signal that models trained on this can read.

        Args:
            where: the store's path.
            assays: those that are read.

        Raises:
            InputError: naming every assay of another unit, and another assembly.
        """
        with collect() as problems:
            for assay in assays:
                unit, known = manifest.units.get(assay), self.units.get(assay)
                if assay in manifest.assays and known != unit:
                    problems.add(
                        f"{where}: {assay}",
                        f"unit {unit or 'not given'}",
                        f"unit {known or 'not known'}, which the models were trained on",
                        "predict from a store of tracks in that unit (if these are, correct the "
                        "unit in the track sheet and build the store again), or train models on "
                        "this store",
                    )
            sizes = manifest.chrom_sizes
            different = [
                name for name, size in self.chrom_sizes.items() if sizes.get(name, size) != size
            ]
            # Lengths tell more than names: a file of them may be called anything.
            same = self.chrom_sizes and self.chrom_sizes.items() <= sizes.items()
            renamed = self.assembly != manifest.assembly and not same
            if self.assembly is not None and (renamed or different):
                found = f"assembly {manifest.assembly}"
                if different:
                    found += f", with other lengths of {listing(different)}"
                remedy = "train models on this store"
                if not different:
                    remedy += f"; {under_name(self.assembly)}"
                expected = f"assembly {self.assembly}, which the models were trained on"
                problems.add(where, found, expected, remedy)


def under_name(assembly: str) -> str:
    """What to do where a store has the assembly of a run under another name."""
    return (
        "if it is the same assembly under another name, build the store with "
        f"--assembly={assembly}, or, where that is the name of a file of lengths, with the same "
        f"lengths in a file {assembly}.chrom.sizes"
    )
