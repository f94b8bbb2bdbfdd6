"""What a study will take, from its file alone: cells, models, downloads, work."""

import pathlib
from collections.abc import Sequence

from data_prep.formats.track_sheet import read_sheet, shipped_sheets
from epi2expr_jax.genome import listing
from epi2expr_jax.inputs.pools import parse_cells
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training.runs import parse_assay_sets
from epi2expr_jax.training.splits import make_folds
from epi2expr_jax.words.sentences import count
from experiments.cli.study_file import StudyFile

_GB = {"bigwig": 0.43, "gz": 0.23}  # of a Roadmap track and of its alignments, see docs/inputs.md
# Gene-steps a second, measured on two cores in float32, on one H100 in bfloat16: BUILD_NOTES.md.
_PACE = {"cnn": (770, 490_900), "chromoformer": (569, 143_000)}
# Seconds to read a MB of a human GTF, gzipped or plain (2.2 million lines, 31 MB gzipped: 12 s on
# two cores); with contacts, transcripts take 2.4 times as long on top.
_GZIPPED, _PLAIN, _TRANSCRIPTS = 0.4, 0.018, 2.4
_GTF_MB = 50  # of a gzipped GTF not yet downloaded: human ones have 30 to 60 MB
_GENES = 19_000  # protein-coding, of chromosomes that are used; until there is a store


def plan(study: StudyFile, requests: dict[str, TrainRequest]) -> list[str]:
    """Cells, assays, folds, models, downloads and the work of training, in words.

    Upper limits: most trainings stop early, and cells are counted as if they had every assay.
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
    for name, request in requests.items():
        pools = parse_cells(request.cells, sheet.cells)
        sets = parse_assay_sets(request.assays, sheet.assays)
        folds = _folds(request)
        models = len(pools) * len(sets) * folds * request.seeds
        epochs = request.train_config.epochs
        steps = models * epochs * _GENES * request.train_share
        lines += [
            f"  {name}: {count(len(pools), 'cell')} × {count(len(sets), 'assay set')} × "
            f"{count(folds, 'fold')} × {count(request.seeds, 'seed')} = "
            f"{count(models, 'model')} of {request.model}",
            f"    at most {epochs} epochs, {_rounded(steps)} gene-steps if there are {_GENES:,} "
            f"genes{_time(steps, request)}",
        ]
    return lines


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


def _folds(request: TrainRequest) -> int:
    """How many there are, whatever the genome; a scheme that makes no sense is refused."""
    most = 22 if request.cv == "chromoformer_4" else 40  # its published groups are human
    genes = {f"chr{number}": 1 for number in range(1, most + 1)}
    folds = make_folds(request.cv, genes, blind=["chr3"], seed=request.split_seed)
    return len(folds) if list(request.folds) == ["all"] else len(request.folds)


def _time(steps: float, request: TrainRequest) -> str:
    if request.model not in _PACE or request.model_options.get("width", 1) != 1:
        return "; experiments.plan says how long, once there is a store"
    here, device = (steps / pace / 3600 for pace in _PACE[request.model])
    return (
        f": {_rounded(here)} h at the pace of two cores, "
        f"{_rounded(device)} h of one H100 with --precision=bfloat16"
    )


def _rounded(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.10g}"
