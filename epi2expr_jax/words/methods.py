"""How models were trained and on what, in the words of a paper's methods."""

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from epi2expr_jax.genome import listing, sort_chromosomes
from epi2expr_jax.training.splits import Fold
from epi2expr_jax.units import count

_UNITS = {"pvalue": "−log10 p", "fold_change": "fold change over control", "depth": "read depth",
          "counts": "read counts", "none": "values without a unit"}  # fmt: skip
_TRANSFORMS = {"arcsinh": "arcsinh(x)", "log1p": "ln(x + 1)", "none": "they are"}


def tested(folds: Sequence[Fold], genes: pd.DataFrame) -> str:
    """Of which genes the scores will be, where these are not all of them; else empty.

    Args:
        folds: that are trained.
        genes: the gene table of the store.
    """
    n = int(np.any([fold.masks(genes)["test"] for fold in folds], axis=0).sum())
    if n == len(genes):
        return ""
    where = listing(sort_chromosomes({name for fold in folds for name in fold.test}), 8)
    return f"scores will be of {n:,} of the {count(len(genes), 'gene')}: those on {where}"


def network(card: Mapping[str, Any]) -> str:
    """What the models read, and how wide they are, from a run's card; empty if it says neither."""
    config = card["populations"][0]["model_config"]
    said = []
    if "window_bp" in config:
        window, bins = config["window_bp"], config.get("bin_bp")
        said.append(f"reads {window:,} bp around the TSS")
        if bins:
            said[-1] += f" in {window // bins} bins of {bins} bp"
        elif sizes := [f"{size:,}" for size in config.get("resolutions", ())]:
            said[-1] += f" in bins of {listing(sizes)} bp"
    width = config.get("width", card["request"].get("model_options", {}).get("width"))
    if width is not None:
        said.append(
            "has the published numbers of filters and units"
            if width == 1
            else f"has {width:g} times the published numbers of filters and units"
        )
    return " and ".join(said)


def training(card: Mapping[str, Any], epochs: Sequence[int]) -> str:
    """How long models trained, in which steps.

    Args:
        card: of the run.
        epochs: that each run took.
    """
    asked = card["request"].get("train_config", {})
    taken = [int(n) for n in epochs if n]
    said = []
    if most := asked.get("epochs"):
        said.append(f"for at most {count(most, 'epoch')}")
        patience = (asked.get("early_stop") or {}).get("patience", most)
        if patience < most:
            row = count(patience, "epoch") + (" in a row" if patience > 1 else "")
            said.append(f"or until {row} brought no lower validation loss")
        if taken:
            low, high = min(taken), max(taken)
            number = count(high, "epoch") if low == high else f"{low} to {high} epochs"
            said[-1] += f" ({number} {'was' if high == 1 else 'were'} taken)"
    if asked.get("batch_size"):
        said.append(f"in batches of {count(asked['batch_size'], 'gene')}")
    if "learning_rate" in asked:
        said.append(f"at a learning rate of {asked['learning_rate']:g}")
    return f"Models were trained {', '.join(said)}." if said else ""


def signal(card: Mapping[str, Any]) -> str:
    """In which unit signal was, and what it went through; empty of cards that do not say it."""
    known = card.get("signal") or {}
    units, transforms = known.get("units", {}), known.get("transforms", {})
    alike: dict[tuple[str, str], list[str]] = collections.defaultdict(list)
    for assay in transforms:
        alike[units.get(assay, "none"), transforms[assay]].append(assay)
    if not alike:
        return ""
    kinds = [
        f"{_UNITS.get(unit, unit)}, read as {_TRANSFORMS.get(name, name)}"
        + (f" ({listing(assays, 6)})" if len(alike) > 1 else "")
        for (unit, name), assays in alike.items()
    ]
    return f"Signal was {'; '.join(kinds)}."


def excluded(blacklist: Mapping[str, Any] | None) -> str:
    """Which intervals count as bases without data.

    Args:
        blacklist: name of the BED, and how many genes and bins it touches, where that is known;
            empty without one; None if nobody knows.
    """
    if blacklist is None:
        return ""
    if not blacklist:
        return "No intervals were excluded (no blacklist)."
    touched = ""
    if "genes" in blacklist:
        bins = count(blacklist["bins"], "bin") + " " if "bins" in blacklist else ""
        touched = f" ({bins}of {count(blacklist['genes'], 'gene')})"
    name = blacklist.get("name", "a file")
    return f"Bins that overlap an interval of {name}{touched} count as bases without data."
