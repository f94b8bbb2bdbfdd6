"""Public files to a window store."""

from epi2expr_jax import ending, moved

ending.while_importing()
moved.install()
