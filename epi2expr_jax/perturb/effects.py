"""Marks altered in silico: what would expression be if this mark changed here?

from epi2expr_jax import perturb
from epi2expr_jax.predict import load
ensemble = load("RUN")
edits = [perturb.scale("H3K27ac", perturb.promoter(), factor) for factor in (0, 0.5, 2)]
effects = perturb.run(ensemble, ensemble.open_store(), edits)
perturb.summarise(effects).effect.mean("gene")     # log2(RPKM + 1), by model and edit

An edit is data: what is done (`scale`, `set_to`, `shift`, `swap_with`, `remove_peak`) to which
assay at which place (`promoter`, `distal_bins`, `pcre`, `interval`, …). A tuple of edits counts as
one edit. Raw signal is altered in the store's own bins; an edit alters the promoter window and
every region of the gene that overlaps the place. Models predict from the altered signal; they do
not prove that a cell would do the same.

Axes: `R` runs, `G` genes, `E` edits.
"""

from collections.abc import Callable, Sequence

import numpy as np
import xarray as xr

from epi2expr_jax.errors import InputError, collect, nearest
from epi2expr_jax.genome import listing
from epi2expr_jax.perturb.edits import Edit
from epi2expr_jax.perturb.queries import EditedRuns
from epi2expr_jax.predict.ensemble import Ensemble
from epi2expr_jax.store.window_store import WindowStore
from epi2expr_jax.training.splits import overlap


def run(
    ensemble: Ensemble,
    store: WindowStore,
    edits: Sequence[Edit | tuple[Edit, ...]],
    genes: str | Sequence[str] | None = None,
    *,
    include_seen: bool = False,
    reread: bool = True,
    must_reach: bool = True,
    progress: Callable[[int], object] = lambda done: None,
) -> xr.Dataset:
    """Predicted expression before and after every edit, by the models that never saw the gene.

    Args:
        edits: `E` of them, each an `Edit`, or a tuple of edits made one after the other. What they
            mix in is the unedited signal.
        genes: ids or symbols; by default every gene of the store that some model never saw.
        include_seen: also by models that saw the gene in training or validation.
        reread: where an edit alters regions and not the window, keep what the model made of the
            rest. The same up to rounding, and faster; False computes everything again.
        must_reach: refuse edits that reach none of the genes.
        progress: told how many edited genes have been predicted since it was last told.

    Returns:
        Of each run that reads the edited assays, in log2(RPKM + 1): `before [R G]`,
        `after [R G E]` and their difference `effect [R G E]`, NaN where the run saw the gene;
        `changed`, false where the edit left the gene's input as it was (the effect is then 0);
        and `outside`, true where the edited signal lies outside what the run was trained on (the
        lowest, highest or mean value of an edited assay in a window); and `overlap [2 F F]`, how
        much folds have in common. `summarise` averages over runs.

    Raises:
        InputError: for unknown assays, cells or genes; genes that every model saw; edits of both
            spaces; and naming every edit that reaches none of the genes, or makes predictions that
            are not finite.
    """
    steps = [edit if isinstance(edit, tuple) else (edit,) for edit in edits]
    store = ensemble.input_config.view(store)
    ensemble = _readers(ensemble, store, steps)
    rows, wanted = ensemble.chosen(store, genes, include_seen)
    parts: list[dict[str, np.ndarray]] = []
    first = 0
    for member in ensemble.members:
        for of_runs in member.by_tracks().values():
            here = member.only(of_runs)
            at = first + np.array(of_runs)
            group = EditedRuns(ensemble, here, store, steps, rows, wanted[at], reread)
            parts.append({"run": at, **group.predict(progress)})
        first += len(member.runs)
    order = np.argsort(np.concatenate([part.pop("run") for part in parts]))
    out = {name: np.concatenate([part[name] for part in parts])[order] for name in parts[0]}
    labels = [" & ".join(edit.name for edit in step) for step in steps]
    broken = np.isfinite(out["before"])[..., None] & ~np.isfinite(out["after"])
    if broken.any():
        names = (label for e, label in enumerate(labels) if broken[..., e].any())
        raise InputError(
            "edits",
            f"signal so large that predictions are not finite ({listing(names)})",
            "signal as the models can read it",
            "set or scale to less",
        )
    nowhere = [label for e, label in enumerate(labels) if not out["reached"][..., e].any()]
    if nowhere and must_reach:
        raise InputError(
            "edits",
            f"{len(nowhere)} that reach none of the genes ({listing(nowhere)})",
            "places in the genes' windows or regions",
            "check the places, their assembly, and the genes",
        )
    runs, table = ensemble.runs, store.genes.iloc[rows]
    dims = ("run", "gene", "edit")
    return xr.Dataset(
        {
            "before": (dims[:2], out["before"]),
            "after": (dims, out["after"]),
            "effect": (dims, out["after"] - out["before"][..., None]),
            "changed": (dims, out["changed"]),
            "outside": (dims, out["outside"]),
            "overlap": overlap_of(ensemble, store),
        },
        coords={
            "run": [run.run_id for run in runs],
            "cell": ("run", [run.cell for run in runs]),
            "assays": ("run", [run.label for run in runs]),
            "fold": ("run", [run.fold for run in runs]),
            "seed": ("run", [run.seed for run in runs]),
            "gene": table.gene_id.to_numpy(),
            "chrom": ("gene", table.chrom.to_numpy()),
            "edit": labels,
            "place": ("edit", [step[0].place.name for step in steps]),
            "mark": ("edit", [" & ".join(dict.fromkeys(e.assay for e in step)) for step in steps]),
            "change": ("edit", [" & ".join(edit.change for edit in step) for step in steps]),
            "distance": ("edit", [step[0].place.distance for step in steps]),
            "factor": ("edit", [step[0].factor for step in steps]),
        },
        attrs={
            "units": ensemble.units,
            "space": steps[0][0].space,
            "train_share": ensemble.card.get("request", {}).get("train_share", 1.0),
        },
    )


def overlap_of(ensemble: Ensemble, store: WindowStore) -> xr.DataArray:
    """How much of their training genes the folds of an ensemble share, `[of trained also]`."""
    counts = {str(chrom): int(n) for chrom, n in store.genes.chrom.value_counts().items()}
    names = list(dict.fromkeys(run.fold for run in ensemble.runs))
    axes = {"of": ["genes", "chromosomes"], "trained": names, "also": names}
    return xr.DataArray(overlap([ensemble.folds[name] for name in names], counts), axes, [*axes])


def _readers(ensemble: Ensemble, store: WindowStore, steps: Sequence[tuple[Edit, ...]]) -> Ensemble:
    """The runs that read every edited assay; all problems of the edits at once."""
    every = [edit for step in steps for edit in step]
    named = list(dict.fromkeys(edit.assay for edit in every))
    manifest = store.manifest
    read = list(dict.fromkeys(assay for run in ensemble.runs for assay in run.assays))
    unknown = [assay for assay in named if assay not in read]
    kept = ensemble.select(lambda run: all(assay in run.assays for assay in named))
    pooled = sorted({run.cell for run in kept.runs} - set(manifest.cells))
    with collect() as problems:
        if not every:
            problems.add("edits", "none", "at least one", "give one")
        if len({edit.space for edit in every}) > 1:
            problems.add("edits", "raw and log space", "one space at a time", "run them apart")
        if unknown:
            problems.add(
                "edits",
                f"{listing(unknown)}, which no model was trained on",
                f"some of {', '.join(read)}",
                nearest(unknown, read) or "edit an assay that a model reads",
            )
        if pooled:
            problems.add(
                "edits",
                f"models of pools of cells ({listing(pooled)}), which have no signal of their own",
                "models of single cells",
                "train with --cells=all (in Python, take some with Ensemble.select)",
            )
        if not unknown and not kept.runs:
            problems.add(
                "edits",
                f"{listing(named)}, which no model reads together",
                "edits of assays that one model reads",
                "train a model of them (--assays=A+B), or edit them apart",
            )
        for edit in every:
            for kind, name, there in (
                ("assay", edit.from_assay, manifest.assays),
                ("cell", edit.from_cell, manifest.cells),
            ):
                if name and name not in there:
                    remedy = nearest([name], there) or "name another"
                    problems.add(
                        edit.name, f"no {kind} {name} in the store", listing(there), remedy
                    )
    return kept
