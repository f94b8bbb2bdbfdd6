"""Elements silenced, as CRISPRi does it: what would become of each gene whose model reads them?

A repressor that is bound to an element takes its active marks and its accessibility away over some
hundred bp on either side. Here that is one edit: of every active assay that the model reads, down
to the local background (`edits.silence`). Repressive marks stay as they are.

Axes: `G` genes of the store, `K` elements within reach of a gene, `V` ways of silencing.
"""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from epi2expr_jax.errors import InputError
from epi2expr_jax.genome import listing, window_bounds
from epi2expr_jax.inputs.pools import PLUS
from epi2expr_jax.models.config import ModelConfig
from epi2expr_jax.names import known_names
from epi2expr_jax.perturb.edits import Edit, silence
from epi2expr_jax.perturb.effects import run
from epi2expr_jax.perturb.places import OwnStretch
from epi2expr_jax.perturb.summary import summarise
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.targets import LABEL

REPRESSIVE = ("H3K27me3", "H3K9me3", "H3K9me2", "H4K20me3")
FLANK_BP = 250
QUERIES = 1 << 16  # a gene under an edit is one; so many are held at a time


@dataclasses.dataclass(frozen=True)
class Silencing:
    """What is done to an element.

    Attributes:
        marks: assays that are silenced together.
        flank_bp: how far beyond the element on either side.
        apart: whether each mark is also silenced by itself.
    """

    marks: tuple[str, ...]
    flank_bp: int = FLANK_BP
    apart: bool = False

    @property
    def ways(self) -> dict[str, tuple[str, ...]]:
        """What is silenced together, by the name of the column of effects."""
        alone = {f"effect_{mark}": (mark,) for mark in self.marks} if self.apart else {}
        return {"effect": self.marks} | alone


def models_of(ensemble: Ensemble, cell: str = "", assays: str | Sequence[str] = "") -> Ensemble:
    """The models of one cell and assay set; by default those that read the most assays.

    Raises:
        InputError: if several cells or assay sets would do, or none; for models of labels, or of
            pools of cells, whose effects are no changes of expression in a cell.
    """
    cells = list(dict.fromkeys(run.cell for run in ensemble.runs))
    pools = [each for each in cells if PLUS in each]
    if ensemble.target == LABEL or pools:
        found = f"models of pools of cells ({listing(pools)})" if pools else "models of labels"
        expected, remedy = "models of expression in one cell", "train such models"
        raise InputError(str(ensemble.run_dir), found, expected, remedy)
    if cell:
        known_names(cell, cells, str(ensemble.run_dir), "cell")
    elif len(cells) > 1:
        raise InputError("--cell", f"models of {listing(cells)}", "one cell", "name it")
    own = ensemble.select(lambda run: run.cell == (cell or cells[0]))
    if assays:
        return own.only(assays)
    most = max(len(run.assays) for run in own.runs)
    sets = list(dict.fromkeys(run.label for run in own.runs if len(run.assays) == most))
    if len(sets) > 1:
        expected = "models of one assay set"
        raise InputError("--assays", f"models of {listing(sets)}", expected, "name one of them")
    return own.only(sets[0])


def silencing_of(
    ensemble: Ensemble,
    marks: str | Sequence[str] = "",
    spared: Iterable[str] = REPRESSIVE,
    flank_bp: int = FLANK_BP,
    apart: bool = False,
) -> Silencing:
    """What is done to an element for models of one assay set.

    Args:
        marks: assays, or their names joined by +; by default all that are read but for `spared`.

    Raises:
        InputError: for assays that the models do not read, or if none is left.
    """
    read = ensemble.runs[0].assays
    named = marks.split(PLUS) if isinstance(marks, str) and marks else list(marks)
    known_names(named, read, "--marks", "assay")
    chosen = tuple(named or (assay for assay in read if assay not in set(spared)))
    if not chosen:
        found = f"no assay but repressive ones ({listing(read)})"
        raise InputError("--marks", found, "an active mark", "name marks, or other models")
    if flank_bp < 0:
        raise InputError("--flank_bp", f"{flank_bp}", "0 or more", "correct it")
    return Silencing(chosen, flank_bp, apart and len(chosen) > 1)


def in_reach(
    store: WindowStore, config: ModelConfig, cell: str, elements: pd.DataFrame
) -> pd.DataFrame:
    """Which elements the model of a gene reads: whose middle is in its window or a region of it.

    Args:
        elements: columns chrom (as the store spells it), start, end (bp, 0-based, half-open).

    Returns:
        A row a pair: gene and element, rows of the two tables; by gene, then element.
    """
    genes = store.genes
    low, high = window_bounds(genes.tss.to_numpy(), config.window.window_bp)
    read = pd.DataFrame({"gene": np.arange(len(genes)), "chrom": genes.chrom.to_numpy(),
                         "start": low, "end": high})  # fmt: skip
    if config.contacts:
        regions = store.regions(cell)
        number, _ = regions.by_gene(len(genes), config.contacts)
        gene, slot = np.nonzero(number >= 0)
        touched = regions.table.iloc[number[gene, slot]][["chrom", "start", "end"]]
        read = pd.concat([read, touched.assign(gene=gene)])
    middle = ((elements["start"] + elements["end"]) // 2).to_numpy()
    on = np.asarray(elements["chrom"], dtype=object)
    parts = [pd.DataFrame({"gene": np.zeros(0, int), "element": np.zeros(0, int)})]
    for chrom, own in read.groupby("chrom", sort=False):
        there = np.flatnonzero(on == chrom)
        there = there[np.argsort(middle[there], kind="stable")]
        first, last = (np.searchsorted(middle[there], own[side]) for side in ("start", "end"))
        count = last - first
        place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count - first, count)
        gene = np.repeat(own["gene"].to_numpy(), count)
        parts.append(pd.DataFrame({"gene": gene, "element": there[place]}))
    pairs = pd.concat(parts).drop_duplicates()
    return pairs.sort_values(["gene", "element"], ignore_index=True)


def predictable(ensemble: Ensemble, store: WindowStore, pairs: pd.DataFrame) -> pd.DataFrame:
    """The pairs whose gene some model never saw."""
    unseen = np.any(ensemble.wanted(store, np.arange(len(store.genes)), False), axis=0)
    return pairs[unseen[pairs["gene"].to_numpy()]].reset_index(drop=True)


def batches(pairs: pd.DataFrame, ways: int = 1, queries: int = QUERIES) -> list[pd.DataFrame]:
    """Pairs in parts that are predicted at a time, of whole genes.

    Returns:
        `pairs` with a column `rank`, which element of its gene each is. Every gene takes as much
        room as the one with the most elements, so that all parts share a program.
    """
    rank = pairs.groupby("gene").cumcount()
    number = pairs["gene"].ne(pairs["gene"].shift()).cumsum() - 1
    genes = max(1, queries // max(1, ways * (int(rank.max()) + 1 if len(rank) else 1)))
    return [part for _, part in pairs.assign(rank=rank).groupby(number // genes)]


def predict_silenced(
    ensemble: Ensemble,
    store: WindowStore,
    elements: pd.DataFrame,
    pairs: pd.DataFrame,
    silencing: Silencing,
    most: int,
) -> pd.DataFrame:
    """Predicted effect of silencing each element on each gene, by models that never saw the gene.

    Args:
        ensemble: of one cell and assay set, see `models_of`.
        elements: as for `in_reach`.
        pairs: one of `batches`.
        most: elements that a gene has at most, K.

    Returns:
        `pairs` and before (log2(x + 1)), effect (its change), low and high (95 % interval of models
        retrained on other genes; NaN where too few models predict), models, changed, outside, see
        `summary.summarise`; change (2^effect − 1, the change of x + 1 as a fraction); and for
        `silencing.apart` effect_MARK.
    """
    genes = np.unique(pairs["gene"])
    rank, gene, element = (pairs[name].to_numpy() for name in ("rank", "gene", "element"))
    ends = np.zeros((most, len(store.genes), 2), np.int64)
    start, end = (elements[side].to_numpy()[element] for side in ("start", "end"))
    ends[rank, gene, 0] = np.maximum(0, start - silencing.flank_bp)
    ends[rank, gene, 1] = end + silencing.flank_bp
    places = [OwnStretch(f"element {k}", of_gene=own) for k, own in enumerate(ends)]
    edits: list[tuple[Edit, ...]] = [
        tuple(silence(mark, place) for mark in marks)
        for marks in silencing.ways.values()
        for place in places
    ]
    ids = store.genes.gene_id.iloc[genes].tolist()
    effects = run(ensemble, store, edits, ids, must_reach=False)
    found = summarise(effects).isel(model=0)
    row = np.searchsorted(genes, gene)
    own = {name: found[name].to_numpy() for name in ("effect", "low", "high", "changed", "outside")}
    out = pairs.assign(before=found.before.to_numpy()[row])
    for name in ("effect", "low", "high"):
        out[name] = own[name][row, rank]
    out["change"] = np.exp2(out["effect"]) - 1
    out["models"] = found.models.to_numpy()[row]
    for name in ("changed", "outside"):
        out[name] = own[name][row, rank]
    for number, name in enumerate(silencing.ways):
        if number:
            out[name] = own["effect"][row, number * most + rank]
    return out
