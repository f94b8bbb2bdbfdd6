"""The masked-mark models that ship, trained on a simulated Roadmap (`advise --model=simulated`).

    python -m tests.golden.make_advisor FOLDER

Run in the root of a checkout, with the versions of constraints.txt; a minute or two on two cores.
FOLDER keeps what was made; its simulated.zip is kept as experiments/models/simulated.zip. The
genome, its genes and what drives them are those of the demo (the same seed), the cells are five
others: the demo's own three are new to these models. Every third gene and seven marks are kept, and
signal to 6 bits, so that it is small. The same machine makes the same models.
"""

import pathlib
import sys
import zipfile

import numpy as np
import pandas as pd

from data_prep.build_store import build
from data_prep.checks.build_inputs import BuildConfig
from data_prep.formats.annotation import read_genes
from data_prep.formats.assembly import load_assembly
from data_prep.simulate import simulate
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import train
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.one_run import TrainConfig

MARKS = ["H3K4me3", "H3K4me1", "H3K27ac", "H3K9ac", "H3K36me3", "H3K27me3", "DNase"]
OTHERS = slice(3, 8)  # cells; the first three are the demo's
EVERY = 3  # of so many genes one is kept
BITS = 6  # of a signal's mantissa
WINDOW_BP, BIN_BP = 6400, 400


def make(folder: pathlib.Path, epochs: int = 60) -> pathlib.Path:
    """Simulate, build, train and pack; returns the archive."""
    data = simulate(folder / "data", genes=1500, cells=OTHERS.stop, seed=0)
    tracks = pd.read_csv(data / "tracks.csv")
    cells = list(dict.fromkeys(tracks["cell"]))[OTHERS]
    chosen = tracks[tracks["cell"].isin(cells) & tracks["assay"].isin(MARKS)]
    sheet, table = folder / "tracks.csv", folder / "genes.csv"
    chosen.assign(path=[str(data / name) for name in chosen["path"]]).to_csv(sheet, index=False)
    sizes = data / "genome.chrom.sizes"
    genes = read_genes(data / "genes.gtf.gz", chrom_sizes=load_assembly(sizes).chrom_sizes)
    kept = genes.iloc[::EVERY][["gene_id", "name", "chrom", "tss", "strand"]]
    kept.to_csv(table, index=False)
    config = BuildConfig(
        tracks=str(sheet), expression=str(data / "RPKM.pc.gz"), genes=str(table),
        assembly=str(sizes), store=str(folder / "whole.zarr"), window_bp=WINDOW_BP, bin_bp=BIN_BP,
    )  # fmt: skip
    store = rounded(build(config), folder / "store.zarr")
    request = TrainRequest(
        store=str(store.path), model="promoter_cnn", model_options={"width": 0.04},
        cells=["leave_one_out"], assays=["all"], cv="chromosomes_3",
        train_config=TrainConfig(
            epochs=epochs, batch_size=64, early_stop=None, plateau=None, masked=True
        ),
    )  # fmt: skip
    train(request, folder / "run", command="python -m tests.golden.make_advisor")
    return pack(folder)


def rounded(whole: WindowStore, path: pathlib.Path) -> WindowStore:
    """The same store, of signal with fewer digits: half as large when it is packed."""
    known = whole.manifest
    store = WindowStore.create(path, known, whole.genes, whole.read_expression(known.cells))
    for cell, assay in known.tracks:
        means = whole.read_signal([cell], [assay])[0, 0]
        fraction, exponent = np.frexp(means)
        means = np.ldexp(np.round(fraction * 2**BITS) / 2**BITS, exponent)
        record = whole.slab_record(cell, assay)
        store.write_slab(cell, assay, means, np.ones(len(means)), record["sources"])
    return store


def pack(folder: pathlib.Path) -> pathlib.Path:
    """The run and its store in one file, without dates, places, or what only training needs."""
    run, archive, own = folder / "run", folder / "simulated.zip", folder / "card"
    card = checkpoint.read_card(run)
    nowhere = f"{archive.name}/store.zarr"  # it is found from the run directory
    card["store"] |= {"path": nowhere, "relative": "../store.zarr"}
    card["request"]["store"] = nowhere
    card |= {
        "simulated": "models of a simulated Roadmap (data_prep.simulate, seed 0): they answer "
        "questions about simulated genes alone",
        "started": "",
        "seconds": 0.0,
    }
    own.mkdir(exist_ok=True)
    checkpoint.write_card(own, card)
    kept = [run / "splits.json", run / "history.parquet"]
    kept += [file for part in card["populations"] for file in (run / part["weights"]).rglob("*")]
    kept += (folder / "store.zarr").rglob("*")
    files = {str(file.relative_to(folder)): file for file in kept if file.is_file()}
    files[f"run/{checkpoint.RUN_CARD}"] = own / checkpoint.RUN_CARD
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for name, file in sorted(files.items()):
            entry = zipfile.ZipInfo(name)  # without a date
            entry.compress_type = zipfile.ZIP_DEFLATED
            packed.writestr(entry, file.read_bytes())
    return archive


if __name__ == "__main__":
    print(make(pathlib.Path(sys.argv[1]).resolve()))
