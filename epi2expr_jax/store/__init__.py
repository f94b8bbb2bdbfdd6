"""What was measured: the window store."""

from epi2expr_jax.store.window_store import WindowStore, open_store

__all__ = ["WindowStore", "open_store"]
