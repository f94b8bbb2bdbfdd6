"""A study small enough to know by heart: 2 cells, 3 tracks, 4 genes."""

import pathlib

import pandas as pd
import pytest

from data_prep.checks.build_inputs import BuildConfig
from tests.data_prep.tracks import write_track

SIZES = {"chr1": 10_000, "chr2": 5_000, "chr3": 4_000}


class Study:
    """Its files, and `config(**changes)`: how to build a store of it.

    Windows of 4,000 bp in 40 bins. Of the track's level, signal is 9 on the 200 bp around the TSS
    of gene A, 2 on chr3 and 1 elsewhere; levels are 1, 2 and 3.
    """

    def __init__(self, folder: pathlib.Path):
        self.folder = folder
        lines = [f"{chrom}\t{size}\n" for chrom, size in SIZES.items()]
        (folder / "toy.chrom.sizes").write_text("".join(lines))
        genes = ["gene_id,chrom,tss,strand", "C,chr2,2000,+", "B,chr1,6000,-", "A,chr1,3000,+"]
        (folder / "genes.csv").write_text("\n".join([*genes, "D,chr3,2000,-"]))
        (folder / "rpkm.csv").write_text("g,E1,E2\nA,1,10\nB,2,20\nC,3,30\nD,4,40\n")
        rows = []
        for level, (cell, assay) in enumerate((("E1", "M"), ("E1", "N"), ("E2", "M")), start=1):
            rows.append((cell, assay, self.track(f"{cell}-{assay}.bw", level)))
        table = pd.DataFrame(rows, columns=["cell", "assay", "path"])
        table.to_csv(folder / "tracks.csv", index=False)

    def track(self, name: str, level: float, spelling=lambda chrom: chrom) -> str:
        """A bigWig of this level."""
        shape = [("chr1", 0, 2900, 1), ("chr1", 2900, 3100, 9), ("chr1", 3100, 10_000, 1),
                 ("chr2", 0, 5000, 1), ("chr3", 0, 4000, 2)]  # fmt: skip
        runs = [(spelling(chrom), a, b, float(level * value)) for chrom, a, b, value in shape]
        sizes = {spelling(chrom): size for chrom, size in SIZES.items()}
        write_track(self.folder / name, sizes, runs)
        return name

    def sheet(self, **columns) -> None:
        """Write the track sheet anew, with these columns of three values."""
        path = self.folder / "tracks.csv"
        pd.read_csv(path).assign(**columns).to_csv(path, index=False)

    def config(self, **changes) -> BuildConfig:
        files = {
            "tracks": "tracks.csv",
            "expression": "rpkm.csv",
            "genes": "genes.csv",
            "assembly": "toy.chrom.sizes",
            "store": "store.zarr",
        }
        fields = {name: str(self.folder / file) for name, file in files.items()}
        return BuildConfig(**{**fields, "window_bp": 4000, "bin_bp": 100, **changes})


@pytest.fixture
def study(tmp_path) -> Study:
    return Study(tmp_path)
