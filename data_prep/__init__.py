"""Public files to a window store."""

from epi2expr_jax import moved

moved.install()
