"""What a study will take, from its file alone: cells, models, downloads, work."""

import contextlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from data_prep.formats.text import read_rows
from data_prep.formats.track_sheet import TrackSheet, read_sheet, shipped_sheets
from epi2expr_jax.errors import InputError, Problem, collect, reworded
from epi2expr_jax.genome import WindowSpec, listing
from epi2expr_jax.inputs.pools import parse_cells
from epi2expr_jax.models import REGISTRY
from epi2expr_jax.models.config import ModelConfig
from epi2expr_jax.program import BAD_VALUE, UNKNOWN_FLAG
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.study.lookup import fitted_options, folds_of, pairs_with_tracks
from epi2expr_jax.study.request import TrainRequest
from epi2expr_jax.training.splits import (
    MONTE_CARLO,
    Fold,
    blind_in,
    chosen_folds,
    fold_names,
    make_folds,
    refuse_impossible,
    scheme_for_all,
    select_folds,
)
from epi2expr_jax.units import count
from epi2expr_jax.words.methods import tested
from experiments.cli.progress import quicker_ways, time_on_cpu
from experiments.cli.study_file import Step, StudyFile

_GB = {"bigwig": 0.43, "gz": 0.23}  # of a Roadmap track and of its alignments, see docs/inputs.md
# Gene-steps a second, measured on one H100 in bfloat16: BUILD_NOTES.md.
_H100 = {"cnn": 490_900, "chromoformer": 143_000}
_WINDOW = {"window_bp": 10_000, "bin_bp": 25}  # of a store, unless its flags say otherwise
# Seconds to read a MB of a human GTF, gzipped or plain (2.2 million lines, 31 MB gzipped: 12 s on
# two cores); with contacts, transcripts take 2.4 times as long on top.
_GZIPPED, _PLAIN, _TRANSCRIPTS = 0.4, 0.018, 2.4
_GTF_MB = 50  # of a gzipped GTF not yet downloaded: human ones have 30 to 60 MB
_GENES = 19_000  # protein-coding, of chromosomes that are used; until there is a store


def naming_table(study: StudyFile, step: Step) -> contextlib.AbstractContextManager[None]:
    """Problems within name the table of the study, and the program whose flags its keys are."""
    table = step.table or step.name

    def change(one: Problem) -> Problem:
        of_flags = one.where == "command line"
        where = f"{study.source}, {table}" + ("" if of_flags else f", {one.where}")
        found, expected = one.found, one.expected
        if one.kind == UNKNOWN_FLAG:
            found = found.replace("flag --", "key ")
        elif one.kind == BAD_VALUE:
            found = found.removeprefix("--").replace("=", " = ", 1)
        if of_flags and one.kind != BAD_VALUE:
            expected = f"flags of {step.module}"
        remedy = one.remedy.replace("see --help", f"see python -m {step.module} --help")
        return Problem(where, found, expected, remedy, one.kind)

    return reworded(change)


def plan(study: StudyFile, requests: Mapping[str, TrainRequest], built: bool = False) -> list[str]:
    """Cells, assays, folds, models, downloads and the work of training, in words.

    Each time is an estimate for all epochs; where early stopping may end sooner, so is told, too.

    Args:
        requests: of each step that trains.
        built: the store, if it is there, is the one that the file asks for.

    Raises:
        InputError: for whatever the steps would refuse later that can be told now: windows, models,
            folds and blind chromosomes that cannot be, tracks asked for by name that are not in the
            sheet. Where the genome or the genes are not known yet, nothing is said of folds over
            them.
    """
    steps = {step.name: step for step in study.steps}
    genes, known = _genes(study)
    sheet, made, unit = None, [], []
    with collect() as problems:
        stored = genome = store = None
        with problems.part():
            sheet = _sheet(study)
        with problems.part(), naming_table(study, steps["store"]):
            window = [_whole(_flag(study, "store", name), usual) for name, usual in _WINDOW.items()]
            stored = WindowSpec(*window)
        with problems.part(), naming_table(study, steps["store"]):
            genome = _genome(study, sheet)
        with problems.part(), naming_table(study, steps["store"]):
            expression = study.folder / _flag(study, "store", "expression")
            if sheet:
                unit = _assumed(sheet, expression, _flag(study, "store", "expression_unit"))
        if built:
            with contextlib.suppress(InputError):  # what is damaged is built again
                store = WindowStore.open(study.folder / study.store)
        for name, request in requests.items():
            with problems.part(), naming_table(study, steps[name]):
                folds = _folds(request, genome, store)
                told = _tested(request, genome, store)
                if steps[name].module != "experiments.train" or stored is None:
                    continue
                model = REGISTRY[request.model](**fitted_options(request, stored))
                model.window.crop_and_merge(stored)
                if sheet:
                    made += _training(sheet, name, request, model, folds, genes, known) + told
    if sheet is None:
        return ["  cells and assays: those of the track sheet, which is yet to be made"]
    sources = [source.location for track in sheet.tracks for source in track.sources]
    remote = [place for place in sources if not pathlib.Path(place).exists()]
    parts = {"cell": sheet.cells, "assay": sheet.assays, "track": sheet.tracks}
    lines = [f"  {', '.join(count(len(part), noun) for noun, part in parts.items())}"]
    if remote:
        size = sum(_GB.get(place.rpartition(".")[2].lower(), _GB["bigwig"]) for place in remote)
        lines.append(f"  to download: {count(len(remote), 'file')}, about {size:.0f} GB")
    others = _other_files(study)
    if absent := [path for path in others if not path.exists()]:
        names = listing(sorted(path.name for path in absent))
        lines.append(f"  to download first: {count(len(absent), 'smaller file')} ({names})")
    return [*lines, *_annotation(study, absent), *made, *unit]


def _assumed(sheet: TrackSheet, expression: pathlib.Path, unit: str) -> list[str]:
    """What will be taken for granted of expression and tracks.

    Raises:
        InputError: for a table of expression that a build would refuse.
    """
    # Here, since they need pyBigWig, which a bare machine with an accelerator lacks.
    from data_prep.checks.join_expression import first_look
    from data_prep.checks.track_files import assumed_units

    lines = first_look(expression, sheet.cells, unit)
    return [*lines, *(f"  {line}" for line in assumed_units(sheet))]


def _sheet(study: StudyFile) -> TrackSheet | None:
    """The sheet of the tracks; None where it is yet to be made."""
    if study.tracks in shipped_sheets():
        return read_sheet(study.tracks)
    path = study.folder / study.tracks
    return read_sheet(path) if path.exists() else None


def _training(
    sheet: TrackSheet,
    name: str,
    request: TrainRequest,
    model: ModelConfig,
    of_folds: tuple[int, float],
    genes: int,
    known: str,
) -> list[str]:
    """What one training will take: models, work, time, and how it would take less."""
    tracks = {(track.cell, track.assay) for track in sheet.tracks}
    pools = parse_cells(request.cells, sheet.cells)
    pairs, lacking = pairs_with_tracks(
        request, pools, sheet.assays, tracks, sheet.where, "add them to the track sheet"
    )
    sets = {assays for _, assays in pairs}
    folds, share = of_folds
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
        f"    at most {count(epochs, 'epoch')}, {_rounded(steps)} gene-steps {known}"
        f"{_on_device(steps, request)}",
    ]
    told = time_on_cpu(model, request.train_config, steps)
    place = f"first look, in [{name.replace(' ', '.')}] "
    quicker = quicker_ways(model, request.train_config, steps, request.seeds)
    quicker = [line.replace("first look, ", place) for line in quicker]
    told = told or "experiments.plan says how long, once there is a store"
    return [*lines, *(f"    {line}" for line in (told, *quicker))]


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


def _whole(text: str, usual: int) -> int:
    """A whole number as flags take it, 0x2710 too; the usual one if there is none."""
    return int(text, 0 if text[:2].lower() in ("0x", "0o") else 10) if text else usual


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
        return genes, f"of {count(genes, 'gene')}"
    path = study.folder / _flag(study, "store", "expression")
    with contextlib.suppress(InputError):
        if os.path.isfile(path) and 0 < (rows := len(read_rows(path)) - 1) < _GENES:
            said = f"if there {'is' if rows == 1 else 'are'} {count(rows, 'gene')}"
            return rows, f"{said}, the rows of {path.name}"
    return _GENES, f"if there are {_GENES:,} genes"


class _Genome(NamedTuple):
    """Of a store that is yet to be built.

    Attributes:
        names: of all chromosomes of the assembly.
        chosen, blind: those whose genes are stored, and of these the blind ones.
    """

    names: Sequence[str]
    chosen: Sequence[str]
    blind: Sequence[str]

    def blind_of(self, request: TrainRequest) -> Sequence[str]:
        """The blind chromosomes of a training: its own, or those of the store."""
        return blind_in(request.blind, self.names) or self.blind


def _genome(study: StudyFile, sheet: TrackSheet | None) -> _Genome | None:
    """As the build will see it; None where it cannot be told yet.

    Raises:
        InputError: for chromosomes that the assembly does not have.
    """
    # Here, since they need pyBigWig, which a bare machine with an accelerator lacks.
    from data_prep.checks.build_inputs import blind_chromosomes
    from data_prep.formats.annotation import said_assembly
    from data_prep.formats.assembly import load_assembly, select_chromosomes
    from data_prep.formats.bigwig import assembly_of

    flags = {name: _flag(study, "store", name) for name in ("assembly", "aliases", "genes")}
    files = {name: study.folder / text for name, text in flags.items() if text}
    files = {name: str(path) for name, path in files.items() if os.path.isfile(path)}
    if flags["aliases"] and "aliases" not in files:
        return None
    places = [file.location for track in (sheet.tracks if sheet else ()) for file in track.sources]
    try:
        name = files.get("assembly", flags["assembly"])
        name = name or assembly_of([place for place in places if os.path.isfile(place)])
        if not (name := name or said_assembly(files.get("genes"))):
            return None
        assembly = load_assembly(name, files.get("aliases", ""))
    except InputError:  # a file that is yet to be made, or what the build knows more of
        return None
    chosen = select_chromosomes(assembly, _flag(study, "store", "chromosomes") or "autosomes")
    blind = blind_chromosomes(_flag(study, "store", "blind") or "auto", chosen)
    return _Genome(list(assembly.chrom_sizes), chosen, blind)


def _folds(
    request: TrainRequest, genome: _Genome | None, store: WindowStore | None
) -> tuple[int, float]:
    """How many there are, and the share of genes that one trains on.

    Raises:
        InputError: for folds that make no sense, whatever the genome, or on this one.
    """
    names, k = chosen_folds(request.cv, request.folds), len(fold_names(request.cv))
    if store:
        folds = _store_folds(request, store)
        trained = sum(fold.masks(store.genes)["train"].sum() for fold in folds)
        return len(folds), trained / len(folds) / len(store.genes)
    if genome:
        refuse_impossible(request.cv, genome.chosen, genome.blind_of(request))
    if request.cv != MONTE_CARLO:
        return len(names), 3 / 4 if request.cv == "chromoformer_4" else 1 - 2 / k
    made_up = {f"chr{number}": 1 for number in range(1, 41)}
    folds = make_folds(request.cv, made_up, blind=["chr3"], seed=request.split_seed)
    return len(names), sum(len(fold.train) for fold in folds) / k / len(made_up)


def _store_folds(request: TrainRequest, store: WindowStore) -> list[Fold]:
    """The folds that a training asks for, but for genes like others."""
    more = request.split_seed, request.test_genes, store.genes[:0]
    folds = folds_of(store, request.cv, request.blind, *more)
    return select_folds(folds, chosen_folds(request.cv, request.folds))


def _tested(request: TrainRequest, genome: _Genome | None, store: WindowStore | None) -> list[str]:
    """A line that says which genes will be tested, if not all."""
    said = ""
    if store:
        said = tested(_store_folds(request, store), store.genes)
    elif request.cv == MONTE_CARLO and genome:
        there = [name for name in genome.blind_of(request) if name in genome.chosen]
        said = f"scores will be of the genes on {listing(there, 8)} alone"
    names = genome.chosen if genome else store.genes.chrom.unique() if store else ()
    if said and (scheme := scheme_for_all(request.cv, request.folds, len(names))):
        said += f'; cv = "{scheme}" tests on all genes, and takes about as long'
    return [f"    {said}"] if said else []


def _on_device(steps: float, request: TrainRequest) -> str:
    if request.model not in _H100 or request.model_options.get("width", 1) != 1:
        return ""
    hours = steps / _H100[request.model] / 3600
    return f"; {_rounded(hours)} h of one H100 with --precision=bfloat16"


def _rounded(number: float) -> str:
    return f"{float(f'{number:.2g}'):,.10g}"
