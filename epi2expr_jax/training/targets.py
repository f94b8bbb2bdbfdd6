"""What the loss sees of expression: values to a standardised target, and back; and the losses.

Expression is in the store's unit throughout: RPKM, TPM or another. Losses are over the genes that
are there: those outside the mask count for nothing, whatever stands there, NaN included; no gene
at all makes 0. Inside the mask a NaN stays a NaN.
"""

import dataclasses
from collections.abc import Callable, Mapping
from types import MappingProxyType

import jax
import jax.numpy as jnp
import numpy as np
import scipy
from jaxtyping import Array, Bool, Float

from epi2expr_jax.errors import InputError

TARGETS = ("minmax", "log2")
LABEL = "label"  # the target of classification


@dataclasses.dataclass(frozen=True)
class TargetScale:
    """From expression to what one run is trained on, and back, by its training genes only.

    `minmax` is expression scaled to 0-1 within the cell; `log2` is log2(expression + 1). The loss
    is taken on the standardised target, so that thresholds mean the same for every cell and target.
    `label` is whether a gene is expressed: 0 or 1, as given with the store, or expression at or
    above the median of the cell's genes (`low`), above it where half of them have none; the
    model's output are log odds.
    """

    kind: str
    low: float
    high: float
    mean: float
    deviation: float

    @classmethod
    def fit(cls, kind: str, values: Float[np.ndarray, " G"], where: str) -> "TargetScale":
        """Fit to the expression of the training genes (for `label`: of all the study's genes).

        Raises:
            InputError: for an unknown kind, or if all genes are expressed alike.
        """
        if kind not in (*TARGETS, LABEL):
            raise InputError("--target", kind, " or ".join(TARGETS), "choose one of these")
        values = values.astype(np.float64)
        if not values.max() > values.min():
            raise InputError(
                where,
                f"the same expression ({values.min():g}) in all {len(values)} training genes",
                "expression that differs between genes",
                "check the expression table, or leave this cell out",
            )
        if kind == LABEL:
            median = np.median(values)
            low = median if median > values.min() else values[values > median].min()
            return cls(kind, float(low), float(values.max()), 0.0, 1.0)
        scale = cls(kind, float(values.min()), float(values.max()), 0.0, 1.0)
        raw = scale.to_raw(values)
        return dataclasses.replace(scale, mean=float(raw.mean()), deviation=float(raw.std()))

    def to_raw(self, values: np.ndarray) -> np.ndarray:
        """Expression on the target's own scale: 0-1, log2(expression + 1), or the label."""
        if self.kind == "log2":
            return np.log2(values + 1)
        if self.kind == LABEL:
            return (values >= self.low).astype(float)
        return (values - self.low) / (self.high - self.low)

    def standardise(self, raw: np.ndarray) -> np.ndarray:
        """The target's own scale as the loss sees it: mean 0 and deviation 1 in training."""
        return (raw - self.mean) / self.deviation

    def unscaled(self, standardised: np.ndarray) -> np.ndarray:
        """Undoes `standardise`."""
        return standardised * self.deviation + self.mean

    def unstandardise(self, prediction: np.ndarray) -> np.ndarray:
        """A model's output on the target's own scale; log odds become a probability."""
        if self.kind == LABEL:
            return scipy.special.expit(prediction)
        return self.unscaled(prediction)

    def raw_to_log2(self, raw: np.ndarray) -> np.ndarray:
        """The target's own scale as log2(expression + 1); what is predicted below 0 counts as 0.

        Labels and probabilities stay what they are.
        """
        return raw if self.kind in ("log2", LABEL) else np.log2(self.raw_to_linear(raw) + 1)

    def raw_to_linear(self, raw: np.ndarray) -> np.ndarray:
        """The target's own scale as expression; what is predicted below 0 counts as 0."""
        if self.kind == "log2":
            return np.maximum(np.exp2(raw) - 1, 0)
        return np.maximum(raw * (self.high - self.low) + self.low, 0)

    def observed(
        self, values: Float[np.ndarray, " G"], label: Bool[np.ndarray, " G"] | None
    ) -> Float[np.ndarray, " G"]:
        """What was observed, on the target's own scale: a given label, or made of expression."""
        if self.kind == LABEL and label is not None:
            return label.astype(float)
        return self.to_raw(values.astype(np.float64))


def masked_mse(
    *, prediction: Float[Array, "B"], target: Float[Array, "B"], mask: Bool[Array, "B"]
) -> Float[Array, ""]:
    """Mean squared error over the genes in `mask`, in squared units of the target."""
    # Masked before squaring: a NaN squared and then masked would still have a NaN gradient.
    error = jnp.where(mask, prediction - target, 0)
    return _mean(error**2, mask)


def masked_cross_entropy(
    *, prediction: Float[Array, "B"], target: Float[Array, "B"], mask: Bool[Array, "B"]
) -> Float[Array, ""]:
    """Mean cross-entropy, in nats, of log odds against labels 0 and 1, over the genes in `mask`.

    With two logits this is the cross-entropy of their softmax, the log odds being their difference.
    """
    odds = jnp.where(mask, prediction, 0)
    label = jnp.where(mask, target, 0)
    # softplus(-odds) for label 1, softplus(odds) for label 0; a NaN in the mask passes through.
    loss = jax.nn.softplus(odds) - label * odds
    return _mean(jnp.where(mask, loss, 0), mask)


def _mean(loss: Float[Array, "B"], mask: Bool[Array, "B"]) -> Float[Array, ""]:
    return jnp.sum(loss) / jnp.maximum(jnp.sum(mask), 1).astype(loss.dtype)


LOSSES: Mapping[str, Callable[..., Float[Array, ""]]] = MappingProxyType(
    {"regression": masked_mse, "classification": masked_cross_entropy}
)
