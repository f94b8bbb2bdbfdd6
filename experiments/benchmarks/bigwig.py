"""Reading bigWigs: `--what=windows` and `--what=binning` of `experiments.benchmark`."""

import pathlib
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pyBigWig
from distributed import Client

from data_prep import build_store
from data_prep.bin_bigwigs import bin_bigwig
from data_prep.checks.build_inputs import BuildConfig
from data_prep.formats.bin_means import window_means
from data_prep.formats.track_sheet import Track, read_sheet
from data_prep.simulate import simulate
from data_prep.work import cluster
from epi2expr_jax.genome import WindowSpec
from experiments.benchmarks.turns import rate, ratio, require_peers, take_turns

_CHROMOSOMES = {"chr1": 60_000_000, "chr2": 40_000_000}
_WINDOW = WindowSpec(10_000, 25)
_WINDOWS = 1000
MEAN_RUN_BP = 60  # of a track of 100 Mb in 1.7 million runs
_RUN_BP = (240, 120, 60, 30, 15)
_WINDOW_BP = (2_000, 10_000, 40_000, 100_000)
# pyBigWig's exact means of bins read some 30 windows/s: a part is enough to know.
_STATS_WINDOWS = 30
_STATS_BP = 400_000
_TRACKS = 24  # built by one worker and by two
_GENES = 2000


def write_track(
    path: pathlib.Path,
    chrom_sizes: Mapping[str, int],
    mean_run_bp: int = MEAN_RUN_BP,
    seed: int = 0,
) -> None:
    """Run-length signal like a Roadmap p-value track: short runs in peaks, long ones between.

    Written by pybigtools, in blocks of 1,024 runs as UCSC's own tools write them (pyBigWig's are
    larger). 1 kb at both ends of a chromosome is without data.
    """
    import pybigtools  # pyright: ignore[reportMissingImports]

    random = np.random.default_rng(seed)

    def runs() -> Iterator[tuple[str, int, int, float]]:
        for chrom, length in chrom_sizes.items():
            count = 2 * length // mean_run_bp
            lengths = np.where(
                random.random(count) < 0.7,
                random.integers(1, 30, count),
                random.integers(30, 300, count),
            )
            lengths = np.maximum(lengths * (mean_run_bp / MEAN_RUN_BP), 1).astype(int)
            ends = 1000 + np.cumsum(lengths)
            ends = ends[ends < length - 1000]
            values = np.round(random.exponential(1.5, len(ends)), 4)
            starts = [1000, *ends[:-1].tolist()]
            yield from zip([chrom] * len(ends), starts, ends.tolist(), values.tolist(), strict=True)

    pybigtools.open(str(path), "w").write(dict(chrom_sizes), runs())


def _places(window_bp: int) -> tuple[list[str], np.ndarray]:
    """Where windows begin. TSSs cluster: half of them lie within a few kb of another one."""
    random = np.random.default_rng(1)
    chroms, starts = [], []
    for chrom, length in _CHROMOSOMES.items():
        alone = random.integers(10_000, length - 10_000 - window_bp, _WINDOWS // 4)
        near = alone + random.integers(-5_000, 5_000, len(alone))
        starts += np.sort(np.concatenate([alone, near])).tolist()
        chroms += [chrom] * (2 * len(alone))
    return chroms, np.array(starts)


# A route gives the bin means of windows that begin at these places.
_Route = Callable[[str, Sequence[str], np.ndarray], np.ndarray]


def _ours(path: str, chroms: Sequence[str], starts: np.ndarray) -> np.ndarray:
    return window_means(path, chroms, starts, _WINDOW)[0]


def _lists(path: str, chroms: Sequence[str], starts: np.ndarray) -> np.ndarray:
    """The original's: every base as a Python float, then bin means."""
    with pyBigWig.open(path) as file:
        bases = [
            np.array(file.values(chrom, begin, begin + _WINDOW.window_bp))
            for chrom, begin in zip(chroms, starts.tolist(), strict=True)
        ]
    return np.nan_to_num(np.stack(bases)).reshape(len(starts), _WINDOW.bins, -1).mean(2)


def _stats(path: str, chroms: Sequence[str], starts: np.ndarray) -> np.ndarray:
    """pyBigWig's own exact bin means."""
    with pyBigWig.open(path) as file:
        means = [
            file.stats(chrom, begin, begin + _WINDOW.window_bp, nBins=_WINDOW.bins, exact=True)
            for chrom, begin in zip(chroms, starts.tolist(), strict=True)
        ]
    return np.nan_to_num(np.array(means, float))


def _pybigtools(path: str, chroms: Sequence[str], starts: np.ndarray) -> np.ndarray:
    """Its own exact bin means, which are faster than binning its bases."""
    import pybigtools  # pyright: ignore[reportMissingImports]

    with pybigtools.open(path) as file:
        return np.stack(
            [
                _exact_means(file, chrom, begin, begin + _WINDOW.window_bp, _WINDOW.bins)
                for chrom, begin in zip(chroms, starts.tolist(), strict=True)
            ]
        )


def _exact_means(file: Any, chrom: str, start: int, end: int, bins: int) -> np.ndarray:
    return file.values(chrom, start, end, bins, "mean", exact=True, uncovered=0, fillna=0)


def _cpu_rate(work: Callable[[], object], amount: float) -> Callable[[], float]:
    """A measurement of `amount` of work a second of this process's processor time: a core's."""

    def measure() -> float:
        begin = time.process_time()
        work()
        return amount / (time.process_time() - begin)

    return measure


def windows(rounds: int, out: pathlib.Path = pathlib.Path("throughput")) -> dict:
    """Windows/s of one core on all sides, then what ours depend on: runs, width, workers.

    Writes a table (CSV) and a plot (PNG) to `out`.
    """
    require_peers("pybigtools")
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "track.bigwig"
        write_track(path, _CHROMOSOMES)
        chroms, starts = _places(_WINDOW.window_bp)
        routes: dict[str, tuple[_Route, int]] = {
            "ours": (_ours, len(starts)),
            "list": (_lists, len(starts)),
            "stats_exact": (_stats, _STATS_WINDOWS),
            "pybigtools": (_pybigtools, len(starts)),
        }
        expected = _ours(str(path), chroms, starts)
        sides = {}
        for name, (route, count) in routes.items():
            part = str(path), chroms[:count], starts[:count]
            np.testing.assert_allclose(route(*part), expected[:count], rtol=1e-5, err_msg=name)
            sides[name] = _cpu_rate(lambda route=route, part=part: route(*part), count)
        rates, by_round, disturbed = take_turns(sides, rounds)
        workers, two_to_one = _by_workers(rounds)
        table = pd.concat([_by_runs(rounds), _by_width(path, rounds), workers])
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "windows.csv", index=False, float_format="%.6g")
    _plot(table, out / "windows.png")
    return {
        "what": "windows",
        **{
            f"ratio_vs_{name}": round(ratio(by_round["ours"], by_round[name]), 2)
            for name in routes
            if name != "ours"
        },
        "windows_per_s": {name: round(value) for name, value in rates.items()},
        "mb_per_s": {
            name: round(value * _WINDOW.window_bp / 1e6, 2) for name, value in rates.items()
        },
        "two_workers_to_one": round(two_to_one, 2),
        "disturbed_rounds": disturbed,
        "table": str(out / "windows.csv"),
        "plot": str(out / "windows.png"),
    }


def _row(against: str, value: float, rates: Sequence[float]) -> dict[str, Any]:
    middle = float(np.median(rates))
    print(f"{against} {value:g}: {middle:,.0f} windows/s")
    return {"against": against, "value": value, "windows_per_s": middle}


def _by_runs(rounds: int) -> pd.DataFrame:
    """Against the size of the track: 100 Mb in ever more runs."""
    chroms, starts = _places(_WINDOW.window_bp)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for mean_run_bp in _RUN_BP:
            path = pathlib.Path(folder) / f"{mean_run_bp}.bigwig"
            write_track(path, _CHROMOSOMES, mean_run_bp)
            part = str(path), chroms, starts
            measure = _cpu_rate(lambda part=part: _ours(*part), len(starts))
            runs = sum(_CHROMOSOMES.values()) / mean_run_bp / 1e6
            rows.append(_row("million runs", runs, [measure() for _ in range(rounds)]))
    return pd.DataFrame(rows)


def _by_width(path: pathlib.Path, rounds: int) -> pd.DataFrame:
    rows = []
    for window_bp in _WINDOW_BP:
        part = *_places(window_bp), WindowSpec(window_bp, _WINDOW.bin_bp)
        measure = _cpu_rate(lambda part=part: window_means(str(path), *part), _WINDOWS)
        rows.append(_row("window kb", window_bp / 1e3, [measure() for _ in range(rounds)]))
    return pd.DataFrame(rows)


def _by_workers(rounds: int) -> tuple[pd.DataFrame, float]:
    """Windows a second of wall time, of whole tasks of `build_store`: read, hash, write.

    Returns:
        The table's rows, and two workers' rate in one's.
    """
    with tempfile.TemporaryDirectory() as folder:
        data, store = pathlib.Path(folder) / "data", pathlib.Path(folder) / "store.zarr"
        simulate(data, genes=_GENES, cells=_TRACKS // 12, chromosomes=2)
        config = BuildConfig(
            tracks=str(data / "tracks.csv"),
            expression=str(data / "RPKM.pc.gz"),
            genes=str(data / "genes.gtf.gz"),
            assembly=str(data / "genome.chrom.sizes"),
            store=str(store),
        )
        build_store.build(config)
        tracks = read_sheet(config.tracks).tracks
        windows = len(tracks) * _GENES
        with cluster.local(1, config.worker_gib) as one, cluster.local(2, config.worker_gib) as two:
            sides = {
                name: rate(lambda client=client: build_again(client, tracks, store), windows)
                for name, client in (("2", two), ("1", one))
            }
            found = take_turns(sides, rounds)
    rows = [_row("workers", int(name), found.rates[name]) for name in ("1", "2")]
    return pd.DataFrame(rows), ratio(found.rates["2"], found.rates["1"])


def build_again(client: Client, tracks: Sequence[Track], store: pathlib.Path) -> None:
    """The tasks of `build_store` for a store that is there."""
    client.gather(
        [client.submit(build_store.build_slab, t, str(store), pure=False) for t in tracks]
    )


def _plot(table: pd.DataFrame, path: pathlib.Path) -> None:
    figure, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
    for axis, (what, part) in zip(axes, table.groupby("against", sort=False), strict=True):
        axis.plot(part.value, part.windows_per_s, "o-")
        top = 1.15 * part.windows_per_s.max()
        axis.set(xlabel=what, ylabel="windows/s", xscale="log", ylim=(0, top))
        axis.minorticks_off()
        axis.set_xticks(part.value, [f"{value:.3g}" for value in part.value])
    figure.savefig(path, dpi=120)
    plt.close(figure)


# -- binning ---------------------------------------------------------------------------------


def _write_bins(path: pathlib.Path, means: dict[str, np.ndarray]) -> None:
    with pyBigWig.open(str(path), "w") as file:
        file.addHeader(list(_CHROMOSOMES.items()))
        for chrom, values in means.items():
            file.addEntries(chrom, 0, values=values.astype(float), span=25, step=25)


def _binned_by_lists(source: pathlib.Path, target: pathlib.Path) -> None:
    """Every base as a Python float, a megabase at a time."""
    means = {}
    with pyBigWig.open(str(source)) as file:
        for chrom, length in _CHROMOSOMES.items():
            pieces = [
                np.nan_to_num(np.array(file.values(chrom, begin, min(begin + 1_000_000, length))))
                for begin in range(0, length, 1_000_000)
            ]
            means[chrom] = np.concatenate(pieces).reshape(-1, 25).mean(1)
    _write_bins(target, means)


def _binned_by_pybigtools(source: pathlib.Path, target: pathlib.Path) -> None:
    import pybigtools  # pyright: ignore[reportMissingImports]

    with pybigtools.open(str(source)) as file:
        means = {
            chrom: _exact_means(file, chrom, 0, length, length // 25)
            for chrom, length in _CHROMOSOMES.items()
        }
    _write_bins(target, means)


def _some_stats(source: pathlib.Path) -> np.ndarray:
    with pyBigWig.open(str(source)) as file:
        bins = _STATS_BP // 25
        return np.array(file.stats("chr1", 0, _STATS_BP, nBins=bins, exact=True), float)


def _bins(path: pathlib.Path) -> np.ndarray:
    with pyBigWig.open(str(path)) as file:
        return np.concatenate(
            [
                file.values(chrom, 0, length, numpy=True)[::25]
                for chrom, length in _CHROMOSOMES.items()
            ]
        )


def binning(rounds: int) -> dict:
    """Mb of genome a second of one core, from a bigWig to one of 25 bp.

    All sides write by pyBigWig, with zoom levels; `stats_exact` reads alone, and a part.
    """
    require_peers("pybigtools")
    length = sum(_CHROMOSOMES.values()) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        source, target = pathlib.Path(folder) / "track.bigwig", pathlib.Path(folder) / "25.bw"
        write_track(source, _CHROMOSOMES)
        routes = {
            "ours": bin_bigwig, "list": _binned_by_lists, "pybigtools": _binned_by_pybigtools,
        }  # fmt: skip
        sides, results = {}, {}
        for name, route in routes.items():
            route(source, target)
            results[name] = _bins(target)
            np.testing.assert_allclose(results[name], results["ours"], rtol=1e-5, err_msg=name)
            sides[name] = _cpu_rate(lambda route=route: route(source, target), length)
        some = np.nan_to_num(_some_stats(source))
        np.testing.assert_allclose(some, results["ours"][: len(some)], rtol=1e-5)
        sides["stats_exact"] = _cpu_rate(lambda: _some_stats(source), _STATS_BP / 1e6)
        rates, by_round, disturbed = take_turns(sides, rounds)
    return {
        "what": "binning",
        **{
            f"ratio_vs_{name}": round(ratio(by_round["ours"], by_round[name]), 2)
            for name in sides
            if name != "ours"
        },
        "mb_per_s": {name: float(f"{value:.3g}") for name, value in rates.items()},
        "disturbed_rounds": disturbed,
    }
