"""The planted truth behind a simulated Roadmap: genes, elements, activity, and the best prediction.

Every gene has in every cell a hidden activity `t`, a standard Gaussian. Expression follows it:
`log2(RPKM+1) = max(0, MEAN + SPREAD·z)` with `z = FIDELITY·t + noise`, so that a real-looking share
of genes is silent and RPKM is skewed. An assay reads `t` at elements of the gene, each with its own
correlation ρ and noise; the reading sets the height of the element's peak. Assays without effect
have the same peaks with ρ = 0. As everything is Gaussian before the clip at 0, the best possible
prediction from the elements that a window shows has a closed form: the *oracle*.

Positions are 0-based, intervals half-open. Offsets are in bp from the TSS along the gene's strand.
"""

import dataclasses
import functools
import itertools
import math
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import scipy
from jaxtyping import Float

from epi2expr_jax.roadmap import AUTOSOMES

# Protein-coding genes of chr1..22 in the Roadmap matrix (GENCODE v10): a realistic imbalance.
_CODING_GENES = (2010, 1241, 1047, 752, 862, 1016, 894, 721, 795, 756, 1294)
_CODING_GENES += (1035, 323, 641, 611, 852, 1176, 276, 1393, 539, 231, 450)
_EACH_AT_LEAST = 2  # genes of a chromosome
LEAST_GENES = 60  # below this no chromosome has room for distal elements

_MARGIN_BP = 32_000  # from a chromosome's ends to the nearest TSS: a 40 kb window fits
_GAP_BP = (26_000, 40_000)  # between neighbouring TSSs: 10 kb windows never overlap
_BODY_BP = (4_000, 10_500)  # length of a gene
_DISTAL_BP = (25_000, 1_000_000)  # from a TSS to an element that only a contact reaches
_DISTAL_HALF_BP = 700

MEAN, SPREAD = 2.0, 2.4  # of log2(RPKM+1) before the clip: 20 % silent, median 3 RPKM
FIDELITY = 0.95  # correlation of `t` with expression (before the clip)
SHARED = 0.75  # share of the variance of `t` that all cells have in common
DISTAL_RHO = 0.6  # what one distal element knows of `t`

# What a predictor may see: a window's width in bp, or the widest window and the contacts' ends.
SCOPES = ("6000", "10000", "40000", "contacts")

_IDS = "ENSG0009"  # of no gene in nature


def simulated(gene_ids: Iterable[str]) -> bool:
    """Whether all of these genes are simulated ones; not of no gene at all."""
    ids = list(gene_ids)
    return bool(ids) and all(name.startswith(_IDS) for name in ids)


@dataclasses.dataclass(frozen=True)
class Component:
    """A kind of regulatory element, at its place relative to the TSS along the strand.

    Attributes:
        scope: the narrowest of `SCOPES` that shows it.
        centre_bp, jitter_bp, half_bp: centre, how far it varies over genes, half its width.
        base, slope: peak height is `sinh(base + slope·reading)`, so linear in arcsinh space.
    """

    scope: str
    centre_bp: int = 0
    jitter_bp: int = 0
    half_bp: int = 0
    base: float = 2.6
    slope: float = 0.85


COMPONENTS = {
    "promoter": Component("6000", 0, 200, 700),
    "body": Component("6000", base=2.2, slope=0.75),  # from +1 kb to the gene's end
    "flank_up": Component("10000", -4150, 150, 450),
    "flank_down": Component("10000", 4150, 150, 450),
    "enhancer": Component("40000", -8000, 250, 900),
    "distal": Component("contacts", half_bp=_DISTAL_HALF_BP),
}
_BODY_START_BP = 1000


def reach(name: str) -> tuple[int, int] | None:
    """Between which offsets from the TSS a component lies, in bp; None where contacts place it."""
    if name == "distal":
        return None
    if name == "body":
        return _BODY_START_BP, _BODY_BP[1]
    component = COMPONENTS[name]
    spread = component.jitter_bp + component.half_bp
    return component.centre_bp - spread, component.centre_bp + spread


@dataclasses.dataclass(frozen=True)
class Role:
    """What an assay does in the simulation.

    Attributes:
        sign: 1 activating, -1 repressive, 0 without effect.
        rho: component → correlation of its reading with `t`; 0 for peaks that know nothing.
    """

    sign: int
    rho: dict[str, float]


def _role(sign: int, *steps: tuple[str, float], idle: tuple[str, ...] = ()) -> Role:
    """A role from the correlation with expression to be reached after each further component."""
    rho, known = {}, 0.0
    for component, score in steps:
        precision = _precision(score / FIDELITY)
        rho[component] = math.sqrt((precision - known) / (1 + precision - known))
        known = precision
    return Role(sign, rho | dict.fromkeys(idle, 0.0))


def _precision(rho: float) -> float:
    """How much a reading of correlation ρ narrows `t`, in units of the prior's precision."""
    return rho**2 / (1 - rho**2)


def _with_distal(role: Role) -> Role:
    return Role(role.sign, role.rho | {"distal": DISTAL_RHO})


# Ordered so that any first few hold strong, weak and idle ones. Seven drive, five do not; the
# scores at 6 kb are .90 .76 .67 .58 .49 .40 .30, and at 10 kb the last becomes .83.
ROLES = (
    _role(1, ("promoter", 0.90), idle=("distal",)),
    _role(0, idle=("promoter", "distal")),
    _role(-1, ("promoter", 0.67), idle=("enhancer",)),
    _role(1, ("promoter", 0.30), ("flank_down", 0.83)),
    _role(0, idle=("promoter", "flank_up")),
    _role(1, ("body", 0.76), idle=("distal",)),
    _with_distal(_role(1, ("promoter", 0.58))),
    _role(0, idle=("body", "distal")),
    _role(-1, ("body", 0.49), ("enhancer", 0.75)),
    _role(0, idle=("promoter", "enhancer")),
    _with_distal(_role(1, ("promoter", 0.40), idle=("flank_up",))),
    _role(0, idle=("promoter", "flank_down", "distal")),
)


def stream(seed: int, purpose: str, *which: int) -> np.random.Generator:
    """Random numbers of their own for each purpose, cell and assay, whatever else is simulated."""
    return np.random.default_rng([seed, *purpose.encode(), *which])


def assign_roles(assays: Sequence[str], seed: int) -> dict[str, Role]:
    """Which assay plays which role: a seeded permutation. Assays beyond the roles do nothing."""
    roles = [ROLES[i] if i < len(ROLES) else ROLES[1] for i in range(len(assays))]
    order = stream(seed, "roles").permutation(len(assays))
    return {assay: roles[place] for assay, place in zip(assays, order, strict=True)}


@dataclasses.dataclass(frozen=True)
class Landscape:
    """A small genome.

    Attributes:
        sizes: chromosome → length in bp.
        genes: gene_id (versioned), name, chrom, tss, strand, start, end; along the genome.
        elements: gene (row of `genes`), component, chrom, start, end.
        contacts: gene (row of `genes`), chrom, start1, end1 (bait), start2, end2, score.
    """

    sizes: dict[str, int]
    genes: pd.DataFrame
    elements: pd.DataFrame
    contacts: pd.DataFrame


def lay_out(genes: int, seed: int, chromosomes: Sequence[str] = AUTOSOMES) -> Landscape:
    """Place `genes` genes (at least `LEAST_GENES`) with elements and contacts.

    Args:
        chromosomes: at most 22 names, longest first; they are as long as their genes need.
    """
    rng = stream(seed, "landscape")
    counts = _share_out(genes, len(chromosomes))
    sizes, tables = {}, []
    for chrom, count in zip(chromosomes, counts, strict=True):
        tss = _MARGIN_BP + np.cumsum(rng.integers(*_GAP_BP, count)) - _GAP_BP[0]
        sizes[chrom] = int(tss[-1]) + _MARGIN_BP + int(rng.integers(1000))
        tables.append(pd.DataFrame({"chrom": chrom, "tss": tss}))
    table = pd.concat(tables, ignore_index=True)
    table["strand"] = rng.choice(["+", "-"], genes)
    length = rng.integers(*_BODY_BP, genes)
    forward = table.strand == "+"
    table["start"] = np.where(forward, table.tss, table.tss - length + 1)
    table["end"] = np.where(forward, table.tss + length, table.tss + 1)
    # Ids in another order than the genome's, so that tables must be joined by id.
    number = rng.permutation(genes) + 1
    version = rng.integers(1, 16, genes)
    table.insert(0, "name", [f"SIM{n}" for n in number])
    table.insert(
        0,
        "gene_id",
        [f"{_IDS}{n:07d}.{v}" for n, v in zip(number, version, strict=True)],
    )
    slots = _distal_slots(table, rng)
    elements = pd.concat([_near_elements(table, length, rng), slots], ignore_index=True)
    return Landscape(sizes, table, elements, _contacts(table, slots, rng))


def _share_out(genes: int, chromosomes: int) -> np.ndarray:
    """Genes per autosome: two each, the rest in proportion to the real human counts."""
    coding = _CODING_GENES[:chromosomes]
    rest = genes - _EACH_AT_LEAST * len(coding)
    share = np.array(coding) / sum(coding) * rest
    counts = np.floor(share).astype(int)
    counts[np.argsort(counts - share, kind="stable")[: rest - counts.sum()]] += 1
    return counts + _EACH_AT_LEAST


def _near_elements(
    genes: pd.DataFrame, length: np.ndarray, rng: np.random.Generator
) -> pd.DataFrame:
    """Every gene's elements at a fixed place relative to its TSS."""
    tables = []
    for name, component in COMPONENTS.items():
        if name == "distal":
            continue
        centre = component.centre_bp + rng.integers(
            -component.jitter_bp, component.jitter_bp + 1, len(genes)
        )
        low, high = centre - component.half_bp, centre + component.half_bp
        if name == "body":
            low, high = np.full(len(genes), _BODY_START_BP), length
        forward = genes.strand == "+"
        tables.append(
            pd.DataFrame(
                {
                    "gene": np.arange(len(genes)),
                    "component": name,
                    "chrom": genes.chrom,
                    "start": np.where(forward, genes.tss + low, genes.tss - high),
                    "end": np.where(forward, genes.tss + high, genes.tss - low),
                }
            )
        )
    return pd.concat(tables, ignore_index=True)


def _distal_slots(genes: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Elements midway between neighbouring genes, each given to a farther gene, near ones first."""
    rows = []
    for chrom, group in genes.groupby("chrom", sort=False):
        tss = group.tss.to_numpy()
        for left, right in itertools.pairwise(tss):
            middle = (left + right) // 2
            wide = right - left >= 34_000  # room for two besides both genes' own elements
            for centre in (middle - 3000, middle + 3000) if wide else (middle,):
                distance = np.abs(tss - centre)
                weight = ((distance >= _DISTAL_BP[0]) & (distance <= _DISTAL_BP[1])) / distance
                if weight.any():
                    gene = group.index[rng.choice(len(tss), p=weight / weight.sum())]
                    rows.append((gene, "distal", chrom, centre))
    slots = pd.DataFrame(rows, columns=["gene", "component", "chrom", "centre"])
    slots["start"] = slots.centre - _DISTAL_HALF_BP
    slots["end"] = slots.centre + _DISTAL_HALF_BP
    return slots.drop(columns="centre")


def _contacts(genes: pd.DataFrame, slots: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Promoter-capture contacts: one to every distal element, and about as many that mean nothing.

    Those score below 1.5, which is where Chromoformer cuts such values.
    """
    weak = slots.assign(gene=slots.groupby("chrom", sort=False).gene.transform(rng.permutation))
    weak = weak[weak.gene != slots.gene]
    bait = genes.tss.to_numpy()[:, None] + rng.integers(1000, 6000, (len(genes), 2)) * [-1, 1]
    tables = []
    for pairs, score in (
        (slots, 1.5 + 0.01 + rng.exponential(0.5, len(slots))),
        (weak, rng.uniform(0.5, 1.5, len(weak))),
    ):
        flanks = rng.integers(200, 1300, (len(pairs), 2))
        tables.append(
            pd.DataFrame(
                {
                    "gene": pairs.gene,
                    "chrom": pairs.chrom,
                    "start1": bait[pairs.gene, 0],
                    "end1": bait[pairs.gene, 1],
                    "start2": pairs.start - flanks[:, 0],
                    "end2": pairs.end + flanks[:, 1],
                    "score": score.round(4),
                }
            )
        )
    return pd.concat(tables).sort_values(["gene", "start2"], kind="stable", ignore_index=True)


def activity(genes: int, cell: int, seed: int) -> Float[np.ndarray, "G"]:
    """Hidden activity `t` in cell number `cell`: standard Gaussian, partly shared over cells."""
    shared = stream(seed, "activity").standard_normal(genes)
    own = stream(seed, "own activity", cell).standard_normal(genes)
    return math.sqrt(SHARED) * shared + math.sqrt(1 - SHARED) * own


def rpkm(t: Float[np.ndarray, "G"], cell: int, seed: int) -> Float[np.ndarray, "G"]:
    """Expression in RPKM, to three decimals as Roadmap prints it."""
    noise = stream(seed, "expression", cell).standard_normal(len(t))
    z = FIDELITY * t + math.sqrt(1 - FIDELITY**2) * noise
    return (np.exp2(np.maximum(MEAN + SPREAD * z, 0)) - 1).round(3)


@dataclasses.dataclass(frozen=True)
class Readings:
    """What one assay reads in one cell.

    Attributes:
        elements: the rows of `Landscape.elements` at which the assay has peaks.
        rho: correlation with `t` of each of them, `[E]`.
        value: the readings, standard Gaussian, `[E]`.
        height: arcsinh of the peaks' -log10 p, `[E]`.
    """

    elements: pd.DataFrame
    rho: Float[np.ndarray, "E"]
    value: Float[np.ndarray, "E"]
    height: Float[np.ndarray, "E"]


def read_activity(
    t: Float[np.ndarray, "G"], role: Role, elements: pd.DataFrame, rng: np.random.Generator
) -> Readings:
    """Draw an assay's readings of the activities `t [G]` at the elements of its role."""
    chosen = elements.loc[elements.component.isin(list(role.rho))]
    rho = chosen.component.map(role.rho).to_numpy(float)
    noise = rng.standard_normal(len(chosen))
    value = rho * t[chosen.gene.to_numpy()] + np.sqrt(1 - rho**2) * noise
    base = chosen.component.map({name: c.base for name, c in COMPONENTS.items()}).to_numpy(float)
    slope = chosen.component.map({name: c.slope for name, c in COMPONENTS.items()}).to_numpy(float)
    height = np.maximum(base + (role.sign or 1) * slope * value, 0)
    return Readings(chosen, rho, value, height)


def best_prediction(readings: Readings, genes: int, scope: str) -> Float[np.ndarray, "G"]:
    """Expected log2(RPKM+1) given the readings that `scope` shows: no predictor does better.

    The readings are independent given `t`, so precisions add; expression is a clipped Gaussian.
    """
    shown = SCOPES[: SCOPES.index(scope) + 1]
    visible = readings.elements.component.map(lambda name: COMPONENTS[str(name)].scope in shown)
    rho = np.where(visible, readings.rho, 0.0)
    sum_by_gene = functools.partial(np.bincount, readings.elements.gene, minlength=genes)
    precision = 1 + sum_by_gene(rho**2 / (1 - rho**2))
    t = sum_by_gene(rho / (1 - rho**2) * readings.value) / precision
    mean = MEAN + SPREAD * FIDELITY * t
    sd = SPREAD * np.sqrt(FIDELITY**2 / precision + 1 - FIDELITY**2)
    density = np.exp(-0.5 * (mean / sd) ** 2) / math.sqrt(2 * math.pi)
    return mean * scipy.special.ndtr(mean / sd) + sd * density


def pearson_within(x: Float[np.ndarray, "G"], y: Float[np.ndarray, "G"], chrom: pd.Series) -> float:
    """Pearson correlation within each chromosome, averaged with its gene count as weight.

    Chromosomes of fewer than three genes say nothing and are left out; a constant `x` scores 0.
    """
    total = weight = 0.0
    for rows in chrom.groupby(chrom, sort=False).indices.values():
        if len(rows) < 3:
            continue
        a, b = x[rows] - x[rows].mean(), y[rows] - y[rows].mean()
        norm = math.sqrt((a @ a) * (b @ b))
        total += len(rows) * (a @ b) / norm if norm > 1e-9 else 0.0
        weight += len(rows)
    return total / weight if weight else 0.0
