"""Chromosome-held-out folds, drawn once, sorted, and frozen into a manifest.

Whole chromosomes are held out, so that no window of a test gene overlaps a training window.
Three schemes:

    monte_carlo_5   approach 1: blind chromosomes for testing (chr3, chr7, chr20), and five seeded
                    draws of whole chromosomes holding 30 ± 3 % of the remaining genes to validate
    chromoformer_4  Chromoformer's four groups; each held-out group is split into a validation and
                    a test half, and then the halves are swapped, so every gene is tested once
    chromosomes_K   K groups of equal size, from whatever chromosomes the data have; each is tested
                    once while the next one validates
"""

import dataclasses
import hashlib
import itertools
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from epi2expr_jax.errors import InputError, collect, nearest
from epi2expr_jax.files import read_json, write_json
from epi2expr_jax.genome import chromosome_key, listing, match_chromosomes, sort_chromosomes
from epi2expr_jax.names import known_names
from epi2expr_jax.roadmap import CHROMOFORMER_GROUPS
from epi2expr_jax.units import count

PARTS = ("train", "validation", "test")
MONTE_CARLO, _CHROMOFORMER = "monte_carlo_5", "chromoformer_4"
_VALIDATION_SHARE = (0.27, 0.33)
_DRAWS = 5
_LEAST_GROUPS, _MOST_GROUPS = 3, 10_000  # so many that a mistyped number makes no endless list


@dataclasses.dataclass(frozen=True)
class Fold:
    """One division of the chromosomes: disjoint, each part sorted, none empty.

    Attributes:
        held_out: ids of genes that are in neither train nor validation, wherever they lie; sorted,
            each once.
    """

    name: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    held_out: tuple[str, ...] = ()

    def __post_init__(self):
        object.__setattr__(self, "held_out", tuple(sorted(set(self.held_out))))

    def masks(self, genes: pd.DataFrame) -> dict[str, np.ndarray]:
        """For each part, `[G]`: which genes, by columns `chrom` and `gene_id`, belong to it."""
        chrom, others = np.asarray(list(genes.chrom)), ~self.named(genes)
        masks = {part: np.isin(chrom, getattr(self, part)) for part in PARTS}
        return {part: mask & others if part != "test" else mask for part, mask in masks.items()}

    def named(self, genes: pd.DataFrame) -> Bool[np.ndarray, " G"]:
        """Which genes are left out of training: named by the user, or like a test gene."""
        return genes.gene_id.isin(self.held_out).to_numpy()

    def leaked(self, genes: pd.DataFrame, groups: pd.DataFrame) -> set[str]:
        """Test genes that share a group with a gene that is trained on or validates.

        Args:
            genes: the gene table of the store.
            groups: columns gene and group.
        """
        masks = self.masks(genes)
        seen = genes["gene_id"][masks["train"] | masks["validation"]]
        known = groups["group"][groups["gene"].isin(seen)]
        tested = groups["gene"].isin(genes["gene_id"][masks["test"]])
        return set(groups["gene"][tested & groups["group"].isin(known)])


def make_folds(
    scheme: str, gene_counts: Mapping[str, int], *, blind: Iterable[str] = (), seed: int = 0
) -> list[Fold]:
    """The folds of a scheme over the chromosomes that have genes.

    Args:
        scheme: `monte_carlo_5`, `chromoformer_4` or `chromosomes_K` with K of 3 to 10,000.
        gene_counts: genes per chromosome.
        blind: the test chromosomes of `monte_carlo_5`.
        seed: of the draws of `monte_carlo_5`; the other schemes have nothing random.

    Raises:
        InputError: for an unknown scheme, or naming every fold and part that would be empty.
    """
    gene_counts = {name: gene_counts[name] for name in sort_chromosomes(gene_counts)}
    k = _groups(scheme)
    if scheme == MONTE_CARLO:
        folds = _monte_carlo(gene_counts, match_chromosomes(blind, gene_counts).values(), seed)
    elif scheme == _CHROMOFORMER:
        folds = _chromoformer(gene_counts)
    else:
        folds = _balanced(gene_counts, k)
    with collect() as problems:
        for fold, part in itertools.product(folds, PARTS):
            if not sum(gene_counts.get(name, 0) for name in getattr(fold, part)):
                problems.add(
                    f"fold {fold.name}",
                    f"no genes for its {part} part (genes lie on {listing(gene_counts, 30)})",
                    f"at least one chromosome with genes to make the {part} part from",
                    "choose a scheme that suits these chromosomes (chromosomes_K), other --blind, "
                    "or add genes",
                )
    return folds


def fold_names(scheme: str) -> list[str]:
    """The names of all folds of a scheme, as of `make_folds`, whatever the chromosomes.

    Raises:
        InputError: for an unknown scheme, or one of too few or too many groups.
    """
    k = _groups(scheme)
    if scheme == MONTE_CARLO:
        return [f"draw{i}" for i in range(1, _DRAWS + 1)]
    if scheme == _CHROMOFORMER:
        numbers = range(1, len(CHROMOFORMER_GROUPS) + 1)
        return [f"group{number}{half}" for number in numbers for half in "ab"]
    if not 3 <= k <= _MOST_GROUPS:
        expected = f"between 3 (train, validation, test) and {_MOST_GROUPS:,} groups"
        near = min(max(k, 3), _MOST_GROUPS)
        raise InputError("--cv", scheme, expected, f"the nearest is --cv=chromosomes_{near}")
    return [f"fold{i}" for i in range(1, k + 1)]


def _groups(scheme: str) -> int:
    """K of `chromosomes_K`, 0 of the other schemes."""
    known = (MONTE_CARLO, _CHROMOFORMER, "chromosomes_5")
    found = re.fullmatch(r"chromosomes_(\d{1,9})", scheme)
    if not found and scheme not in known:
        expected = f"{MONTE_CARLO}, {_CHROMOFORMER} or chromosomes_K"
        remedy = nearest(scheme, known) or "choose one of these, for example chromosomes_5"
        raise InputError("--cv", scheme, expected, remedy)
    return int(found[1]) if found else 0


def chosen_folds(scheme: str, names: str | Sequence[str]) -> list[str]:
    """The names of the folds of a scheme that are asked for (`all` for every one), each once.

    Raises:
        InputError: as `fold_names`, or naming every unknown fold.
    """
    return _chosen(fold_names(scheme), names)


def _chosen(known: Sequence[str], names: str | Sequence[str]) -> list[str]:
    names = known_names(names, ["all", *known], "--folds", "fold")
    return list(known if "all" in names else dict.fromkeys(names))


def scheme_for_all(scheme: str, folds: Sequence[str], chromosomes: int) -> str:
    """What tests every gene, where these folds do not; else empty. `chromosomes` have genes."""
    whole = scheme == MONTE_CARLO and [*folds] == ["all"] and chromosomes >= _LEAST_GROUPS
    return f"chromosomes_{min(_DRAWS, chromosomes)}" if whole else ""


def blind_in(names: Iterable[str], known: Iterable[str], what: str = "assembly's") -> list[str]:
    """How the known chromosomes, the assembly's or chosen ones, spell blind chromosomes.

    Raises:
        InputError: naming every one that is not among them.
    """
    names, known = list(names), list(known)
    found = match_chromosomes(names, known)
    if unknown := [name for name in names if name not in found]:
        expected = f"some of the {what} chromosomes ({listing(sort_chromosomes(known), 30)})"
        remedy = nearest(unknown, known) or "correct it"
        raise InputError("--blind", f"unknown chromosome {listing(unknown)}", expected, remedy)
    return list(dict.fromkeys(found.values()))


def refuse_impossible(scheme: str, chromosomes: Iterable[str], blind: Iterable[str]) -> None:
    """Refuse a scheme that fails however the genes are spread over these chromosomes.

    Args:
        scheme, blind: as of `make_folds`.

    Raises:
        InputError: as `make_folds`.
    """
    counts = dict.fromkeys(chromosomes, 1)
    if scheme == _CHROMOFORMER:  # others may turn out to have no gene
        groups = [name for group in CHROMOFORMER_GROUPS for name in group]
        counts = dict.fromkeys(match_chromosomes(groups, counts).values(), 1) or counts
    held_out = match_chromosomes(blind, counts)
    rest = len(counts) - len(set(held_out.values()))
    if scheme != MONTE_CARLO or not held_out or rest < 3:  # of two there are no five draws
        make_folds(scheme, counts, blind=blind)


def without_groups(folds: Iterable[Fold], genes: pd.DataFrame, groups: pd.DataFrame) -> list[Fold]:
    """The same folds; training and validation genes that share a group with a test gene of the fold
    are held out. Test chromosomes stay whole.

    Args:
        genes: the gene table of the store.
        groups: columns gene and group.

    Raises:
        InputError: naming every fold and part that would be empty.
    """
    made = []
    with collect() as problems:
        for fold in folds:
            tested = genes["gene_id"][fold.masks(genes)["test"]]
            known = groups["group"][groups["gene"].isin(tested)]
            alike = set(groups["gene"][groups["group"].isin(known)]) - set(tested)
            more = tuple(gene for gene in genes["gene_id"] if gene in alike - set(fold.held_out))
            made.append(dataclasses.replace(fold, held_out=(*fold.held_out, *more)))
            for part, mask in made[-1].masks(genes).items():
                if not mask.any():
                    found = f"no gene for its {part} part: all share a group with a test gene"
                    expected, remedy = "smaller groups", "group only genes that are much alike"
                    problems.add(f"fold {fold.name}", found, expected, remedy)
    return made


def _fold(name: str, train: Iterable[str], validation: Iterable[str], test: Iterable[str]) -> Fold:
    return Fold(name, *(tuple(sort_chromosomes(part)) for part in (train, validation, test)))


def _monte_carlo(counts: Mapping[str, int], blind: Iterable[str], seed: int) -> list[Fold]:
    blind = set(blind)
    rest = [name for name in counts if name not in blind]
    total = sum(counts[name] for name in rest)
    if not blind or not total:
        return [_fold("draw1", rest, rest, blind)]  # an empty part: named by the caller
    low, high = (share * total for share in _VALIDATION_SHARE)
    random = np.random.default_rng(seed)
    draws: list[list[str]] = []
    nearest = 0.0
    for _ in range(10_000):
        chosen, size = [], 0
        for name in random.permutation(rest):
            if size + counts[name] <= high:
                chosen.append(str(name))
                size += counts[name]
        nearest = max(nearest, size / total)
        if size >= low and set(chosen) not in map(set, draws):
            draws.append(chosen)
        if len(draws) == _DRAWS:
            break
    if len(draws) < _DRAWS:
        raise InputError(
            f"--cv={MONTE_CARLO}",
            f"{len(draws)} ways to hold out whole chromosomes with 27 to 33 % of "
            f"{count(total, 'gene')} on {count(len(rest), 'chromosome')} (the nearest below: "
            f"{nearest:.0%})",
            f"{_DRAWS} different ones",
            f"use --cv=chromosomes_{min(5, len(counts))} (in Python or a study file: cv), which "
            "takes chromosomes as they come",
        )
    return [
        _fold(f"draw{i}", set(rest) - set(chosen), chosen, blind)
        for i, chosen in enumerate(draws, 1)
    ]


def _chromoformer(counts: Mapping[str, int]) -> list[Fold]:
    folds = []
    groups = [list(match_chromosomes(group, counts).values()) for group in CHROMOFORMER_GROUPS]
    strange = set(counts) - {name for group in groups for name in group}
    if strange:
        raise InputError(
            "--cv=chromoformer_4",
            f"genes on {listing(sort_chromosomes(strange))}",
            "genes on chromosomes of its four groups (human 1-22, X, Y)",
            "use --cv=chromosomes_K, or build a store without these chromosomes",
        )
    for number, group in enumerate(groups, 1):
        held_out = sort_chromosomes(group)
        halves = held_out[: len(held_out) // 2], held_out[len(held_out) // 2 :]
        train = set(counts) - set(held_out)
        folds += [
            _fold(f"group{number}a", train, *halves),
            _fold(f"group{number}b", train, *halves[::-1]),
        ]
    return folds


def _balanced(counts: Mapping[str, int], k: int) -> list[Fold]:
    if k < 3 or k > len(counts):
        likely = min(max(k, 3), len(counts))
        raise InputError(
            f"--cv=chromosomes_{k}",
            f"{count(k, 'group')} for genes on {count(len(counts), 'chromosome')}",
            f"between 3 (train, validation, test) and {len(counts)} groups",
            f"the nearest is --cv=chromosomes_{likely}"
            if likely >= 3
            else "build a store with genes on at least 3 chromosomes",
        )
    # Largest chromosome first, into the group that holds the fewest genes so far.
    groups: list[list[str]] = [[] for _ in range(k)]
    sizes = [0] * k
    for name in sorted(counts, key=lambda name: (-counts[name], chromosome_key(name))):
        smallest = sizes.index(min(sizes))
        groups[smallest].append(name)
        sizes[smallest] += counts[name]
    folds = []
    for i in range(k):
        test, validation = groups[i], groups[(i + 1) % k]
        train = set(counts) - set(test) - set(validation)
        folds.append(_fold(f"fold{i + 1}", train, validation, test))
    return folds


def overlap(folds: Sequence[Fold], gene_counts: Mapping[str, int]) -> Float[np.ndarray, "2 F F"]:
    """How much of their training genes folds have in common, `[2 F F]`.

    Products of the folds' weights, each spread evenly over its training genes: by gene, and by
    chromosome, which is right where what a model learns wrongly goes by chromosome. In the ratio
    of two folds' product to one fold's own, models of two folds err together.

    Args:
        gene_counts: genes per chromosome.
    """
    counts = np.array(list(gene_counts.values()), float)
    trained = np.array([np.isin(list(gene_counts), fold.train) for fold in folds])
    shares = trained * counts
    shares /= np.maximum(1, shares.sum(axis=1, keepdims=True))
    by_gene = shares / np.sqrt(np.maximum(1, counts))
    return np.stack([by_gene @ by_gene.T, shares @ shares.T])


def select_folds(folds: Sequence[Fold], names: str | Sequence[str]) -> list[Fold]:
    """The named folds (`all` for every one), each once.

    Raises:
        InputError: naming every unknown fold.
    """
    known = {fold.name: fold for fold in folds}
    return [known[name] for name in _chosen(list(known), names)]


def digest(genes: Iterable[str]) -> str:
    """Sha256 of a list of gene ids: tells whether a model was trained on the genes of its fold."""
    return hashlib.sha256("\n".join(genes).encode()).hexdigest()


def write_splits(
    path: pathlib.Path, scheme: str, seed: int, folds: Sequence[Fold], genes: pd.DataFrame
) -> None:
    """Freeze the folds, with how many genes each part holds, as `splits.json`."""
    rows = [
        {
            **dataclasses.asdict(fold),
            "genes": {part: int(mask.sum()) for part, mask in fold.masks(genes).items()},
        }
        for fold in folds
    ]
    write_json(path, {"scheme": scheme, "seed": seed, "folds": rows}, sort_keys=False)


def read_splits(path: pathlib.Path, tested: bool = True) -> list[Fold]:
    """The folds of a `splits.json`.

    Args:
        tested: whether something must be left to test on; not so for imported weights.

    Raises:
        InputError: if it cannot be read, holds something else, no fold, or a fold with a part that
            is empty.
    """
    remedy = "copy it from where the run was trained"
    content = read_json(path, "list of folds", remedy)
    try:
        folds = [
            Fold(row["name"], *(tuple(row[p]) for p in PARTS), held_out=(*row.get("held_out", ()),))
            for row in content["folds"]
        ]
        lists = [row[part] for row in content["folds"] for part in PARTS]
        lists += [
            one for row in content["folds"] for one in ([row["name"]], row.get("held_out", []))
        ]
    except (KeyError, TypeError):
        folds, lists = [], [""]
    if not all(isinstance(one, list) and all(isinstance(n, str) for n in one) for one in lists):
        found, expected = "folds without name or chromosomes", f"name, {', '.join(PARTS)} of each"
        raise InputError(str(path), found, expected, remedy)
    names = [fold.name for fold in folds]
    both = [f.name for f in folds if len({*f.train, *f.validation, *f.test}) <
            len(f.train) + len(f.validation) + len(f.test)]  # fmt: skip
    if both or len(set(names)) < len(names):
        found = f"a chromosome twice in {listing(both)}" if both else "two folds of one name"
        raise InputError(str(path), found, "parts that share no chromosome", remedy)
    empty = [f"no {part} chromosomes in {fold.name}" for fold in folds
             for part in (PARTS if tested else PARTS[:1]) if not getattr(fold, part)]  # fmt: skip
    if empty or not folds:
        expected = f"chromosomes for {', '.join(PARTS)} of each fold"
        raise InputError(str(path), listing(empty) or "no folds", expected, remedy)
    return folds
