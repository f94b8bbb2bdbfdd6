"""Where the variants of a gene are expected among its places, given distance and signal.

A conditional logit (McFadden 1974; over a gene's places: fgwas, Pickrell 2014): of a gene's
variants, the share expected in a place is proportional to its exposure (variants tested, or
width) times the exponential of a function of distance and signal. Genes count the same, however
many variants in linkage disequilibrium they have.

Kinds of genes differ in that function, and nobody knows the kinds. So what distance and signal may
say of top places is taken out within each gene, too: places weighted by their chances, what is left
is orthogonal to the gene's own trends of distance and signal, and so to any excess of variants that
follows them (partialling out, as Robinson 1988, with effects of each gene).

Axes: `G` genes, `N` places of a gene, `P` ways to choose top places, `Q` spline coefficients,
`K` chromosomes.
"""

import dataclasses

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Bool, Float, Int

from epi2expr_jax.genome import sort_chromosomes

_RIDGE = 0.1  # of a variant: keeps spline coefficients finite where no variant lies


@dataclasses.dataclass(frozen=True, eq=False)
class GenePlaces:
    """Places by gene, genes by chromosome; a gene's places come first in its row.

    Attributes:
        row, column: of every place of the table, the row of its gene and its column there.
        chrom: `[G]` each gene's chromosome.
        at_risk: `[G N]` where there is a place.
        share: `[G N]` which share of the gene's significant variants lies there.
        exposure: `[G N]` logarithm of what chances are proportional to; -inf where no place is.
        covariates: `[G N]` each: distance (absolute), distance (signed: position), signal and
            exposure, as normal scores; side of the TSS.
    """

    row: Int[np.ndarray, " places"]
    column: Int[np.ndarray, " places"]
    chrom: np.ndarray
    at_risk: Bool[np.ndarray, "G N"]
    share: Float[np.ndarray, "G N"]
    exposure: Float[np.ndarray, "G N"]
    covariates: dict[str, Float[np.ndarray, "G N"]]

    @classmethod
    def of(cls, table: pd.DataFrame) -> "GenePlaces":
        """From a table of places made by `variants.assign_variants`."""
        genes = table.drop_duplicates("gene_id")[["gene_id", "chrom"]]
        rank = {name: i for i, name in enumerate(sort_chromosomes(genes["chrom"]))}
        genes = genes.iloc[np.argsort(genes["chrom"].map(rank), kind="stable")]
        row = pd.Index(genes["gene_id"]).get_indexer(pd.Index(table["gene_id"]))
        column = table.groupby("gene_id").cumcount().to_numpy()
        empty = np.zeros((len(genes), column.max() + 1))
        self = cls(row, column, genes["chrom"].to_numpy(), empty > 0, empty, empty, {})
        significant = self.pad(table["significant"])
        exposure = np.log(table["exposure"].to_numpy(float))
        of = {
            "distance": _normal_scores(np.abs(table["distance"].to_numpy(float))),
            "position": _normal_scores(table["distance"].to_numpy(float)),
            "signal": _normal_scores(table["signal"].to_numpy(float)),
            "exposure": exposure - exposure.mean(),
            "upstream": np.where(table["distance"] < 0, 1.0, 0.0),
        }
        return dataclasses.replace(
            self,
            at_risk=self.pad(np.ones(len(table))) > 0,
            share=significant / significant.sum(1, keepdims=True),
            exposure=self.pad(exposure, -np.inf),
            covariates={name: self.pad(values) for name, values in of.items()},
        )

    @property
    def starts(self) -> Int[np.ndarray, " K"]:
        """The first gene of every chromosome, `[K]`."""
        return np.flatnonzero(np.r_[True, self.chrom[1:] != self.chrom[:-1]])

    def pad(self, values: np.ndarray | pd.Series, fill: float = 0.0) -> Float[np.ndarray, "G N"]:
        """Values of the table's places, gene by gene `[G N]`; `fill` where a gene has no more."""
        padded = np.full(self.share.shape, fill)
        padded[self.row, self.column] = values
        return padded

    def no_basis(self) -> Float[np.ndarray, "G N 0"]:
        """An empty basis `[G N 0]`: chances depend on nothing but the exposure."""
        return np.zeros((*self.share.shape, 0))

    def splines(self) -> Float[np.ndarray, "G N Q"]:
        """Distance × signal (tensor product), distance upstream, exposure: `[G N Q]`.

        0 where there is no place.
        """
        size = int(np.clip(3 + len(self.chrom) ** 0.5 / 10, 4, 8))
        near, strong = (self._spline(name, size) for name in ("distance", "signal"))
        both = (near[..., :, None] * strong[..., None, :]).reshape(*self.share.shape, -1)
        upstream = near * self.covariates["upstream"][..., None]
        return np.concatenate([both, upstream, self.covariates["exposure"][..., None]], axis=-1)

    def bands(self) -> Float[np.ndarray, "G N Q"]:
        """`splines`, signal in bands of distance (up- and downstream), and bands of signal:
        `[G N Q]`."""
        place, strong = self._bands("position", 24), self._spline("signal", 3)
        both = (place[..., :, None] * strong[..., None, :]).reshape(*self.share.shape, -1)
        return np.concatenate([self.splines(), both, self._bands("signal", 12)], axis=-1)

    def trends(self, distance: int, signal: int) -> Float[np.ndarray, "G N q"]:
        """What of distance and signal is taken out gene by gene: splines of so many
        coefficients."""
        return np.concatenate(
            [self._spline("distance", distance), self._spline("signal", signal)], axis=-1
        )

    def _bands(self, name: str, number: int) -> Float[np.ndarray, "G N q"]:
        """1 in the band that a place is in, of bands with equally many places."""
        values = self.covariates[name]
        among = values[self.at_risk]
        edges = np.unique(np.quantile(among, np.linspace(0, 1, number + 1)[1:-1]))
        there = np.searchsorted(edges, values, side="right")[..., None] == range(len(edges) + 1)
        return there * self.at_risk[..., None].astype(float)

    def _spline(self, name: str, size: int) -> Float[np.ndarray, "G N q"]:
        """Quadratic B-splines with knots at quantiles."""
        values = self.covariates[name][self.at_risk]
        inner = np.unique(np.quantile(values, np.linspace(0, 1, size - 1)))
        if len(inner) < 2:  # all alike
            return self.at_risk[..., None].astype(float)
        basis = np.zeros((*self.share.shape, len(inner) + 1))
        knots = np.r_[inner[:1].repeat(2), inner, inner[-1:].repeat(2)]
        basis[self.at_risk] = scipy.interpolate.BSpline.design_matrix(values, knots, 2).toarray()
        return basis


@dataclasses.dataclass(frozen=True, eq=False)
class Chances:
    """A fit of the logit.

    Attributes:
        basis: `[G N Q]`, what chances depend on besides exposure. `theta`: its coefficients.
        chance: of each place, that a variant of the gene lies there.
        centred: the basis less its mean within genes, weighted by chances.
        slope, curvature: by chromosome, of the log-likelihood.
    """

    basis: Float[np.ndarray, "G N Q"]
    theta: Float[np.ndarray, " Q"]
    chance: Float[np.ndarray, "G N"]
    centred: Float[np.ndarray, "G N Q"]
    slope: Float[np.ndarray, "K Q"]
    curvature: Float[np.ndarray, "K Q Q"]

    @classmethod
    def of(cls, data: GenePlaces, basis: Float[np.ndarray, "G N Q"]) -> "Chances":
        """Fit by penalised maximum likelihood."""
        theta = np.zeros(basis.shape[-1])
        for _ in range(50):  # Newton's method; the penalised likelihood is concave
            self = cls(basis, theta, *_moments(data, basis, theta))
            step = np.linalg.solve(self.bent(), self.slope.sum(0) - _RIDGE * theta)
            # Far from the optimum a quadratic says little: at most e² in odds at a time.
            theta = theta + step * min(1, 2 / max(np.abs(step).max(initial=0), 1e-300))
            if np.abs(step).max(initial=0) < 1e-6:
                break
        return cls(basis, theta, *_moments(data, basis, theta))

    def bent(self) -> Float[np.ndarray, "Q Q"]:
        """Curvature of the penalised likelihood."""
        return self.curvature.sum(0) + _RIDGE * np.eye(len(self.theta))


@dataclasses.dataclass(frozen=True, eq=False)
class Fit:
    """Expected shares, and what they leave over.

    Attributes:
        share, expected: in top places, mean over genes; expected is all that the exposure and the
            covariates can explain.
        log_ratio: of both. `left_out`: without each chromosome, fitted without it.
        over: share less expected, by place.
        score: top places less what the covariates say of them, in all genes and in each alone.
    """

    share: Float[np.ndarray, " P"]
    expected: Float[np.ndarray, " P"]
    log_ratio: Float[np.ndarray, " P"]
    left_out: Float[np.ndarray, "K P"]
    over: Float[np.ndarray, "G N"]
    score: Float[np.ndarray, "P G N"]

    @classmethod
    def of(
        cls,
        data: GenePlaces,
        z: Float[np.ndarray, "P G N"],
        chances: Chances,
        trends: Float[np.ndarray, "G N q"] | None = None,
    ) -> "Fit":
        """What is left of top places, and of variants there.

        Args:
            z: `[P G N]` how much of a top place each is, 0 to 1.
            trends: `[G N q]` what else is taken out of top places, in each gene alone.
        """
        starts, chance, bent = data.starts, chances.chance, chances.bent()
        left = np.concatenate([_centre(np.moveaxis(z, 0, -1), chance), chances.centred], axis=-1)
        if trends is not None:
            left = _without(left, _centre(trends, chance), chance)
        of_top, of_basis = left[..., : len(z)], left[..., len(z) :]
        flat = of_basis.reshape(chance.size, len(bent))
        weighted = flat.T * chance.reshape(-1)
        ridge = _RIDGE * np.eye(len(bent))
        gamma = np.linalg.solve(weighted @ flat + ridge, weighted @ of_top.reshape(len(flat), -1))
        score = np.moveaxis(of_top - of_basis @ gamma, -1, 0) * data.at_risk
        held = np.einsum("gn,pgn->gp", data.share, z)
        excess = np.einsum("gn,pgn->gp", data.share - chance, score)
        left_out = []
        for k, (first, last) in enumerate(zip(starts, [*starts[1:], len(z[0])], strict=True)):
            kept = np.r_[0:first, last : len(z[0])]
            if not len(kept):
                continue
            # One step of Newton's method from the optimum of all chromosomes.
            theta = chances.theta - np.linalg.solve(bent - chances.curvature[k], chances.slope[k])
            over = data.share - _chances(data, chances.basis, theta)
            without = np.einsum("gn,pgn->p", over[kept], score[:, kept])
            left_out.append(_log_ratio(held[kept].sum(0), without))
        return cls(
            share=held.mean(0),
            expected=(held - excess).mean(0),
            log_ratio=_log_ratio(held.sum(0), excess.sum(0)),
            left_out=np.array(left_out).reshape(-1, len(z)),
            over=data.share - chance,
            score=score,
        )


def _normal_scores(values: np.ndarray) -> np.ndarray:
    """Ranks as quantiles of a normal distribution: whatever the unit, the tails are spread out."""
    return scipy.special.ndtri((scipy.stats.rankdata(values) - 0.5) / len(values))


def _chances(
    data: GenePlaces, basis: Float[np.ndarray, "G N Q"], theta: Float[np.ndarray, " Q"]
) -> Float[np.ndarray, "G N"]:
    """Where a variant of each gene lies, by the conditional logit."""
    return scipy.special.softmax(data.exposure + basis @ theta, axis=1)


def _moments(
    data: GenePlaces,
    basis: Float[np.ndarray, "G N Q"],
    theta: Float[np.ndarray, " Q"],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Chances, the basis centred within genes, and by chromosome slope and curvature of the
    log-likelihood (`[K, Q]`, `[K, Q, Q]`)."""
    starts = data.starts
    chance = _chances(data, basis, theta)
    centred = _centre(basis, chance)
    slope = np.einsum("gn,gnq->gq", data.share - chance, basis)
    flat, parts = centred.reshape(chance.size, basis.shape[-1]), []
    for first, last in zip(starts, [*starts[1:], len(chance)], strict=True):
        rows = slice(first * chance.shape[1], last * chance.shape[1])
        parts.append(flat[rows].T @ (flat[rows] * chance.reshape(-1, 1)[rows]))
    return chance, centred, np.add.reduceat(slope, starts), np.array(parts)


def _centre(
    values: Float[np.ndarray, "G N q"], chance: Float[np.ndarray, "G N"]
) -> Float[np.ndarray, "G N q"]:
    """Values less their mean over a gene's places, weighted by chances."""
    return values - np.einsum("gn,gnq->gq", chance, values)[:, None]


def _without(
    values: Float[np.ndarray, "G N p"],
    trends: Float[np.ndarray, "G N q"],
    chance: Float[np.ndarray, "G N"],
) -> Float[np.ndarray, "G N p"]:
    """What a regression on trends leaves over, gene by gene, weighted by chances."""
    weighted = (trends * chance[..., None]).swapaxes(1, 2)
    inverse = np.linalg.pinv(weighted @ trends, rcond=1e-6, hermitian=True)
    return values - trends @ (inverse @ (weighted @ values))


def _log_ratio(held: np.ndarray, excess: np.ndarray) -> np.ndarray:
    """Of the share held to that expected, which is not below 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(held) - np.log(np.maximum(held - excess, 0))
