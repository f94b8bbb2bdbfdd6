"""The models by name: a frozen configuration each, whose `build` makes the module."""

from typing import Any, TypeVar

from epi2expr_jax.errors import InputError, nearest
from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.models.config import MEMBERS
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig

_Config = TypeVar("_Config", bound=type)

REGISTRY: dict[str, Any] = {}


def register(config: _Config) -> _Config:
    """Add a model, so that programs train it by its `NAME`, and its trained runs can be loaded.

        @register
        @dataclasses.dataclass(frozen=True)
        class MyConfig(WindowModelConfig): ...

    A program that trains the model, or loads its runs, first imports the module that does this.

    Args:
        config: a frozen dataclass that offers all of `models.config.ModelConfig`. A subclass of
            `WindowModelConfig` adds only `NAME`, `TRAINING`, defaults of the window, and `build`.

    Returns:
        The same class.

    Raises:
        InputError: naming what the class lacks; or if another model has its name.
    """
    fields = getattr(config, "__dataclass_fields__", {})
    lacking = sorted(name for name in MEMBERS - fields.keys() if not hasattr(config, name))
    where = f"the model configuration {config.__name__}"
    if lacking:
        raise InputError(
            where,
            f"without {', '.join(lacking)}",
            "all that models.config.ModelConfig lists",
            "add them, or make it a subclass of WindowModelConfig",
        )
    if REGISTRY.setdefault(config.NAME, config) is not config:
        raise InputError(
            where, f"the name {config.NAME} of another model", "a new name", "change NAME"
        )
    return config


def model_named(name: str, where: str = "--model") -> Any:
    """The configuration class of a registered model.

    Args:
        where: who names it, for the error.

    Raises:
        InputError: if no model has this name.
    """
    if name not in REGISTRY:
        remedy = nearest(name, REGISTRY) or "choose one, or import the module that has it"
        raise InputError(where, f"a model {name}", " or ".join(REGISTRY), remedy)
    return REGISTRY[name]


for _config in (CnnConfig, PromoterCnnConfig, ChromoformerConfig):
    register(_config)
