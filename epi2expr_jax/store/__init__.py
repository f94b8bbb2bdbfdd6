"""What was measured: the window store."""

from epi2expr_jax.store.window_store import WindowStore

__all__ = ["WindowStore"]
