"""What a study will take, from its file alone: cells, models, downloads, work."""

import contextlib
import os
import pathlib
from collections.abc import Sequence

from data_prep.checks.join_expression import first_look
from data_prep.formats.text import read_rows
from data_prep.formats.track_sheet import TrackSheet, read_sheet, shipped_sheets
from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import WindowSpec, listing
from epi2expr_jax.inputs.pools import parse_cells
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.lookup import fitted_options, pairs_with_tracks
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training.splits import make_folds
from epi2expr_jax.words.sentences import count
from experiments.cli.progress import quicker_ways, time_on_cpu
from experiments.cli.study_file import StudyFile

_GB = {"bigwig": 0.43, "gz": 0.23}  # of a Roadmap track and of its alignments, see docs/inputs.md
# Gene-steps a second, measured on one H100 in bfloat16: BUILD_NOTES.md.
_H100 = {"cnn": 490_900, "chromoformer": 143_000}
_WINDOW = {"window_bp": 10_000, "bin_bp": 25}  # of a store, unless its flags say otherwise
# Seconds to read a MB of a human GTF, gzipped or plain (2.2 million lines, 31 MB gzipped: 12 s on
# two cores); with contacts, transcripts take 2.4 times as long on top.
_GZIPPED, _PLAIN, _TRANSCRIPTS = 0.4, 0.018, 2.4
_GTF_MB = 50  # of a gzipped GTF not yet downloaded: human ones have 30 to 60 MB
_GENES = 19_000  # protein-coding, of chromosomes that are used; until there is a store


def plan(study: StudyFile, requests: dict[str, TrainRequest]) -> list[str]:
    """Cells, assays, folds, models, downloads and the work of training, in words.

    Each time is an estimate for all epochs; where early stopping may end sooner, so is told, too.

    Raises:
        InputError: for folds that make no sense, or tracks asked for by name that are not in the
            sheet.
    """
    tracks = study.tracks
    if tracks not in shipped_sheets():
        tracks = study.folder / tracks
        if not tracks.exists():
            return ["  cells and assays: those of the track sheet, which is yet to be made"]
    sheet = read_sheet(tracks)
    sources = [source.location for track in sheet.tracks for source in track.sources]
    remote = [place for place in sources if not pathlib.Path(place).exists()]
    parts = {"cell": sheet.cells, "assay": sheet.assays, "track": sheet.tracks}
    lines = [f"  {', '.join(count(len(part), noun) for noun, part in parts.items())}"]
    if remote:
        size = sum(_GB.get(place.rpartition(".")[2].lower(), _GB["bigwig"]) for place in remote)
        lines.append(f"  to download: {len(remote)} files, about {size:.0f} GB")
    others = _other_files(study)
    if absent := [path for path in others if not path.exists()]:
        names = listing(sorted(path.name for path in absent))
        lines.append(f"  to download first: {count(len(absent), 'smaller file')} ({names})")
    lines += _annotation(study, absent)
    expression = study.folder / _flag(study, "store", "expression")
    unit = first_look(expression, sheet.cells, _flag(study, "store", "expression_unit"))
    genes, known = _genes(study)
    for name, request in requests.items():
        lines += _training(study, sheet, name, request, genes, known)
    return [*lines, *unit]


def _training(
    study: StudyFile, sheet: TrackSheet, name: str, request: TrainRequest, genes: int, known: str
) -> list[str]:
    """What one training will take: models, work, time, and how it would take less."""
    tracks = {(track.cell, track.assay) for track in sheet.tracks}
    pools = parse_cells(request.cells, sheet.cells)
    pairs, lacking = pairs_with_tracks(
        request, pools, sheet.assays, tracks, sheet.where, "add them to the track sheet"
    )
    sets = {assays for _, assays in pairs}
    folds, share = _folds(request)
    models = len(pairs) * folds * request.seeds
    product = f"{count(len(pools), 'cell')} × {count(len(sets), 'assay set')}"
    if lacking:
        product = f"{count(len(pairs), 'pair')} of a cell and an assay set"
    epochs = request.train_config.epochs
    examples = genes * sum(len(pools[name]) for name, _ in pairs)  # a pool has those of its cells
    steps = examples * folds * request.seeds * epochs * share * request.train_share
    lines = [
        f"  {name}: {product} × {count(folds, 'fold')} × {count(request.seeds, 'seed')} = "
        f"{count(models, 'model')} of {request.model}",
        *([f"    {lacking}"] if lacking else []),
        f"    at most {epochs} epochs, {_rounded(steps)} gene-steps {known}"
        f"{_on_device(steps, request)}",
    ]
    window = [_whole(_flag(study, "store", name)) or usual for name, usual in _WINDOW.items()]
    return [*lines, *(f"    {line}" for line in _time_lines(steps, request, WindowSpec(*window)))]


def _flag(study: StudyFile, step: str, name: str) -> str:
    """What a flag of a step is given; empty if nothing."""
    words = [word for one in study.steps if one.name == step for word in one.arguments]
    given = [word.partition("=")[2] for word in words if word.startswith(f"--{name}=")]
    return given[0] if given else ""


def _other_files(study: StudyFile) -> list[pathlib.Path]:
    """The files that are not tracks which the study downloads."""
    names = [name for name in _flag(study, "download", "sources").split(",") if name]
    folder = study.folder / _flag(study, "download", "out")
    # Here, since it needs pyBigWig, which a bare machine with an accelerator lacks.
    from data_prep.work.sources import named_downloads

    return [item.target for item in named_downloads(names, folder)]


def _whole(text: str) -> int:
    """A whole number as flags take it, 0x2710 too; 0 if there is none."""
    return int(text, 0 if text[:2].lower() in ("0x", "0o") else 10) if text else 0


def _annotation(study: StudyFile, absent: Sequence[pathlib.Path]) -> list[str]:
    """What reading the genes takes, which is done once; nothing where that is not known."""
    if not (named := _flag(study, "store", "genes")):
        return ["  genes: Ensembl 75 of pyensembl (`pyensembl install --release 75` downloads it)"]
    path = study.folder / named
    if path.absolute() not in absent and not path.is_file():
        return []
    megabytes = path.stat().st_size / 1e6 if path.is_file() else _GTF_MB
    seconds = megabytes * (_GZIPPED if path.suffix == ".gz" else _PLAIN)
    seconds *= 1 + _TRANSCRIPTS * bool(_flag(study, "store", "interactions"))
    known = f"{megabytes:.3g} MB" if path.is_file() else f"about {_GTF_MB} MB to download"
    return [f"  genes: {path.name}, {known}, read once in about {max(seconds, 1):.0f} s"]


def _genes(study: StudyFile) -> tuple[int, str]:
    """About how many genes there will be (without a store `_GENES` at most), and how we know."""
    with contextlib.suppress(InputError):
        genes = len(WindowStore.open(study.folder / study.store).genes)
        return genes, f"of {genes:,} genes"
    path = study.folder / _flag(study, "store", "expression")
    with contextlib.suppress(InputError):
        if os.path.isfile(path) and 0 < (rows := len(read_rows(path)) - 1) < _GENES:
            return rows, f"if there are {rows:,} genes, the rows of {path.name}"
    return _GENES, f"if there are {_GENES:,} genes"


def _folds(request: TrainRequest) -> tuple[int, float]:
    """How many there are, whatever the genome, and the share of genes that one trains on.

    Raises:
        InputError: for a scheme that makes no sense.
    """
    most = 22 if request.cv == "chromoformer_4" else 40  # its published groups are human
    genes = {f"chr{number}": 1 for number in range(1, most + 1)}
    folds = make_folds(request.cv, genes, blind=["chr3"], seed=request.split_seed)
    share = sum(len(fold.train) for fold in folds) / len(folds) / most
    return len(folds) if list(request.folds) == ["all"] else len(request.folds), share


def _on_device(steps: float, request: TrainRequest) -> str:
    if request.model not in _H100 or request.model_options.get("width", 1) != 1:
        return ""
    hours = steps / _H100[request.model] / 3600
    return f"; {_rounded(hours)} h of one H100 with --precision=bfloat16"


def _time_lines(steps: float, request: TrainRequest, stored: WindowSpec) -> list[str]:
    """About how long it takes on the cores here, and what would take less."""
    try:
        config = REGISTRY[request.model](**fitted_options(request, stored))
    except InputError as error:
        return [f"this model cannot be made: {error}"]
    training = request.train_config
    told = time_on_cpu(config, training, steps)
    quicker = quicker_ways(config, training, steps, request.seeds)
    return [told or "experiments.plan says how long, once there is a store", *quicker]


def _rounded(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.10g}"
