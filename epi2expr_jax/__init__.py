"""Which epigenetic mark best predicts gene expression, where, and how sure are we?

    import epi2expr_jax as e2e

    run = e2e.load("demo/run")
    store = e2e.open_store("demo/store.zarr")
    run.predict(store, genes=["ENSG00000116213"])

Names are looked up when they are used: the import alone loads neither JAX nor anything else that
takes time.
"""

import importlib
import importlib.metadata
import sys
from typing import TYPE_CHECKING, Any

from epi2expr_jax import moved

if TYPE_CHECKING:  # what `__getattr__` finds, for editors and type checkers
    from epi2expr_jax.inputs.dataset import load_dataset
    from epi2expr_jax.interpret import attribution
    from epi2expr_jax.predict.gene_table import predict
    from epi2expr_jax.predict.loading import load
    from epi2expr_jax.store.window_store import open_store
    from epi2expr_jax.study import TrainRequest, evaluate, published, train

    from epi2expr_jax import perturb, study  # isort: skip

__all__ = [
    "TrainRequest",
    "attribution",
    "evaluate",
    "load",
    "load_dataset",
    "open_store",
    "perturb",
    "predict",
    "published",
    "study",
    "train",
]
# `predict` is a folder that can be called: see there.
_MODULES = {"attribution": "epi2expr_jax.interpret.attribution"} | {
    name: f"{__name__}.{name}" for name in ("perturb", "predict", "study")
}
_PLACES = {"load_dataset": "epi2expr_jax.inputs.dataset", "open_store": "epi2expr_jax.store"}

moved.install()


def __getattr__(name: str) -> Any:
    if name == "__version__":
        try:
            return importlib.metadata.version(__name__)
        except importlib.metadata.PackageNotFoundError:  # a checkout on Python's path
            return "not installed"
    if name not in __all__:
        said = f"module {__name__!r} has no attribute {name!r}"
        raise AttributeError(said, name=name, obj=sys.modules[__name__])
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    return getattr(importlib.import_module(_PLACES.get(name, "epi2expr_jax.study")), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})
