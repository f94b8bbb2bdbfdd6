"""Programs: train, evaluate, report and all that is asked of a run."""

from epi2expr_jax import ending, moved

ending.while_importing()
moved.install()
