"""What trained models say of genes they never saw."""

from epi2expr_jax.predict.ensemble import Ensemble, Member, gene_rows, load

__all__ = ["Ensemble", "Member", "gene_rows", "load"]
