"""Marks altered in silico: what would expression be if this mark changed here?"""

from epi2expr_jax.perturb.edits import Edit, remove_peak, scale, set_to, shift, silence, swap_with
from epi2expr_jax.perturb.effects import run
from epi2expr_jax.perturb.places import (
    Place,
    distal_bins,
    interval,
    intervals,
    original_distal,
    original_promoter,
    pcre,
    promoter,
    span,
)
from epi2expr_jax.perturb.summary import LEAST_MODELS, mean_effects, summarise, to_frame

__all__ = [
    "LEAST_MODELS",
    "Edit",
    "Place",
    "distal_bins",
    "interval",
    "intervals",
    "mean_effects",
    "original_distal",
    "original_promoter",
    "pcre",
    "promoter",
    "remove_peak",
    "run",
    "scale",
    "set_to",
    "shift",
    "silence",
    "span",
    "summarise",
    "swap_with",
    "to_frame",
]
