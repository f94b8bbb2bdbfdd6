"""What the commands do, for Python: train what a request asks for, evaluate it, predict from it."""

from epi2expr_jax.predict.gene_table import predict
from epi2expr_jax.predict.loading import load
from epi2expr_jax.study.evaluate import evaluate
from epi2expr_jax.study.request import TrainRequest, published
from epi2expr_jax.study.train import Machine, Watcher, train

__all__ = [
    "Machine",
    "TrainRequest",
    "Watcher",
    "evaluate",
    "load",
    "predict",
    "published",
    "train",
]
