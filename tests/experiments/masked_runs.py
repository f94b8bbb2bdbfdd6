"""A masked-mark run on a simulated Roadmap, and models trained on subsets of its assays alone."""

import dataclasses
import json
import pathlib

import pandas as pd
import pyBigWig

from data_prep.checks.build_inputs import BuildConfig
from data_prep.simulate import simulate
from epi2expr_jax.scores.table import ALL
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.study.train import train
from epi2expr_jax.training.one_run import TrainConfig

TWIN = "H3K999ac"


@dataclasses.dataclass(frozen=True)
class MaskedRuns:
    """What lies in a folder: `data`, `store.zarr`, and the runs `masked` and `alone`, evaluated.

    The best assay is there twice, under another name.
    """

    folder: pathlib.Path
    best: str
    idle: list[str]

    @property
    def data(self) -> pathlib.Path:
        return self.folder / "data"

    @property
    def store(self) -> WindowStore:
        return WindowStore.open(self.folder / "store.zarr")


def of(folder: pathlib.Path) -> MaskedRuns:
    truth = json.loads((folder / "data" / "truth.json").read_text())
    oracle = pd.Series(truth["oracle"]["6000"][ALL])
    return MaskedRuns(folder, str(oracle.idxmax()), list(oracle.index[oracle == 0]))


def make(folder: pathlib.Path, build, trial_size) -> None:
    """The trial: 3 cells, 12 assays; of all pairs and all but one as well."""
    genes, cells, assays = trial_size((300, 1, 3), (1500, 3, 11))
    data = simulate(folder / "data", genes=genes, cells=cells, assays=assays)
    table = pd.read_csv(data / "tracks.csv")
    twin = table[table.assay == of(folder).best].assign(assay=TWIN)
    twin["path"] = [written_again(data / path) for path in twin["path"]]
    twins = pd.concat([table, twin.drop(columns="sha256")])
    store = build(inputs_of(data, twins, folder / "store.zarr"))
    alone = trial_size(["each", "all"], ["each", "pairs", "leave_one_out", "all"])
    train(request_for(store, ["all"], trial_size(12, 60), masked=True), folder / "masked")
    train(request_for(store, alone, trial_size(5, 8)), folder / "alone")
    for name in ("masked", "alone"):
        evaluate(folder / name)


def inputs_of(data: pathlib.Path, tracks: pd.DataFrame, store: pathlib.Path, **more) -> BuildConfig:
    """How to build a store of some tracks of simulated data."""
    sheet = store.with_suffix(".csv")
    tracks.assign(path=[str(data / path) for path in tracks["path"]]).to_csv(sheet, index=False)
    fields = {
        "tracks": str(sheet),
        "expression": str(data / "RPKM.pc.gz"),
        "genes": str(data / "genes.gtf.gz"),
        "assembly": str(data / "genome.chrom.sizes"),
        "store": str(store),
        "window_bp": 6000,
        "bin_bp": 100,
    }
    return BuildConfig(**{**fields, **more})


def request_for(store, assays, epochs, *, masked=False, **more):
    return TrainRequest(
        store=str(store.path),
        model="promoter_cnn",
        model_options={"width": 0.1},
        assays=assays,
        cv="chromosomes_3",
        train_config=TrainConfig(
            epochs=epochs, batch_size=32, early_stop=None, plateau=None, masked=masked
        ),
        **more,
    )


def written_again(path: pathlib.Path, times: float = 1) -> str:
    """The same signal, times a number, in another file: one file under two names is refused."""
    copy = path.with_name(f"twin-{path.name}")
    with pyBigWig.open(str(path)) as source, pyBigWig.open(str(copy), "w") as file:
        file.addHeader(list(source.chroms().items()), maxZooms=0)
        for chrom in source.chroms():
            if intervals := source.intervals(chrom):
                starts, ends, values = map(list, zip(*intervals, strict=True))
                scaled = [times * value for value in values]
                file.addEntries([chrom] * len(starts), starts, ends=ends, values=scaled)
    return copy.name
