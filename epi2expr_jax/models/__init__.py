"""The models by name: a frozen configuration each, whose `build` makes the module."""

from epi2expr_jax.models.chromoformer import ChromoformerConfig
from epi2expr_jax.models.cnn import CnnConfig
from epi2expr_jax.models.promoter_cnn import PromoterCnnConfig

REGISTRY = {
    "cnn": CnnConfig,
    "promoter_cnn": PromoterCnnConfig,
    "chromoformer": ChromoformerConfig,
}
