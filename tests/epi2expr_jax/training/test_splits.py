import dataclasses

import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.roadmap import AUTOSOMES, BLIND_CHROMOSOMES, CHROMOFORMER_GROUPS
from epi2expr_jax.training.splits import (
    PARTS,
    Fold,
    blind_in,
    chosen_folds,
    fold_names,
    make_folds,
    read_splits,
    refuse_impossible,
    scheme_for_all,
    select_folds,
    without_groups,
    write_splits,
)

# Protein-coding genes per human autosome, roughly: only their unevenness matters.
COUNTS = dict(
    zip(
        AUTOSOMES,
        [1950, 1190, 1030, 720, 830, 990, 860, 650, 740, 720, 1240, 1000, 310, 590, 560, 810,
         1130, 260, 1350, 520, 220, 420],
        strict=True,
    )
)  # fmt: skip
GENES = pd.DataFrame({"gene_id": ["g0", "g1", "g2"], "chrom": [*COUNTS][:3]})


def check_parts(folds, counts):
    for fold in folds:
        parts = [set(getattr(fold, part)) for part in PARTS]
        assert all(parts)
        assert sum(map(len, parts)) == len(set.union(*parts)), "parts overlap"
        assert set.union(*parts) <= set(counts)


def test_monte_carlo_keeps_blind_chromosomes_and_validation_share():
    folds = make_folds("monte_carlo_5", COUNTS, blind=BLIND_CHROMOSOMES)
    check_parts(folds, COUNTS)
    assert len({fold.validation for fold in folds}) == 5
    rest = sum(n for name, n in COUNTS.items() if name not in BLIND_CHROMOSOMES)
    for fold in folds:
        assert fold.test == BLIND_CHROMOSOMES
        assert 0.27 <= sum(COUNTS[name] for name in fold.validation) / rest <= 0.33


def test_order_of_chromosomes_does_not_matter_and_seed_does():
    backwards = dict(reversed(COUNTS.items()))
    for scheme in ("monte_carlo_5", "chromoformer_4", "chromosomes_5"):
        folds = make_folds(scheme, COUNTS, blind=BLIND_CHROMOSOMES)
        assert folds == make_folds(scheme, backwards, blind=reversed(BLIND_CHROMOSOMES))
    assert make_folds("monte_carlo_5", COUNTS, blind=["chr3"], seed=1) != make_folds(
        "monte_carlo_5", COUNTS, blind=["chr3"], seed=2
    )


@pytest.mark.parametrize(("scheme", "number"), [("chromoformer_4", 8), ("chromosomes_5", 5)])
def test_every_gene_is_tested_once(scheme, number):
    folds = make_folds(scheme, COUNTS)
    check_parts(folds, COUNTS)
    assert len(folds) == number
    tested = [name for fold in folds for name in fold.test]
    assert sorted(tested) == sorted(COUNTS)


def test_chromoformer_halves_are_swapped_within_the_held_out_group():
    for a, b in zip(*[iter(make_folds("chromoformer_4", COUNTS))] * 2, strict=True):
        assert (a.validation, a.test) == (b.test, b.validation)
        assert a.train == b.train
        group = CHROMOFORMER_GROUPS[int(a.name[5]) - 1]
        assert set(a.validation + a.test) == set(group) & set(COUNTS)


def test_balanced_groups_and_next_one_validates():
    folds = make_folds("chromosomes_5", COUNTS)
    sizes = [sum(COUNTS[name] for name in fold.test) for fold in folds]
    assert max(sizes) / min(sizes) < 1.1
    assert [fold.validation for fold in folds] == [fold.test for fold in folds[1:] + folds[:1]]


def test_bare_chromosome_names_are_understood():
    bare = {name[3:]: n for name, n in COUNTS.items()}
    assert make_folds("monte_carlo_5", bare, blind=BLIND_CHROMOSOMES)[0].test == ("3", "7", "20")
    assert len(make_folds("chromoformer_4", bare)) == 8


def test_an_empty_part_is_named():
    # The shared E003 genes: one Chromoformer group and nothing else.
    counts = {"chr1": 50, "chr5": 30, "chr6": 30, "chr8": 20, "chr14": 20}
    with pytest.raises(InputError, match=r"fold group1a: found no genes for its train part"):
        make_folds("chromoformer_4", counts)
    with pytest.raises(InputError, match=r"fold draw1: found no genes for its test part"):
        make_folds("monte_carlo_5", counts, blind=BLIND_CHROMOSOMES)
    assert len(make_folds("chromosomes_5", counts)) == 5


@pytest.mark.parametrize("scheme", ["chromosomes_2", "chromosomes_23", "kfold", "monte_carlo_4"])
def test_impossible_schemes_are_refused(scheme):
    with pytest.raises(InputError):
        make_folds(scheme, COUNTS, blind=["chr3"])


def test_too_coarse_chromosomes_cannot_give_thirty_percent():
    with pytest.raises(InputError, match="27 to 33 %"):
        make_folds("monte_carlo_5", {"chr1": 50, "chr2": 50, "chr3": 50}, blind=["chr3"])


def test_chromosomes_outside_the_groups_are_named():
    with pytest.raises(InputError, match="chrM"):
        make_folds("chromoformer_4", {**COUNTS, "chrM": 13})


def test_frozen_splits_come_back(tmp_path):
    folds = make_folds("chromosomes_4", COUNTS)
    folds[0] = dataclasses.replace(folds[0], held_out=("g0", "g2"))
    write_splits(tmp_path / "splits.json", "chromosomes_4", 0, folds, GENES)
    assert read_splits(tmp_path / "splits.json") == folds
    assert select_folds(folds, ["fold2"]) == select_folds(folds, ["fold2"] * 2) == [folds[1]]
    assert select_folds(folds, ["fold2", "all"]) == folds
    with pytest.raises(InputError, match="fold9"):
        select_folds(folds, ["fold9"])


def test_names_of_folds_are_known_before_there_are_chromosomes():
    for scheme in ("monte_carlo_5", "chromoformer_4", "chromosomes_3", "chromosomes_12"):
        made = make_folds(scheme, COUNTS, blind=["chr3"])
        assert fold_names(scheme) == [fold.name for fold in made]
        assert chosen_folds(scheme, ["all", made[0].name]) == fold_names(scheme)
        assert chosen_folds(scheme, [made[1].name] * 2) == [made[1].name]
        with pytest.raises(InputError, match="unknown fold fold0"):
            chosen_folds(scheme, "fold0")


def test_what_tests_every_gene_where_some_are_never_tested():
    assert scheme_for_all("monte_carlo_5", ["all"], 22) == "chromosomes_5"
    assert scheme_for_all("monte_carlo_5", ["all"], 4) == "chromosomes_4"
    for asked in (("chromosomes_5", ["all"], 22), ("monte_carlo_5", ["draw1"], 22)):
        assert scheme_for_all(*asked) == ""
    with pytest.raises(InputError, match="chromosomes_4"):  # two chromosomes have no five draws
        refuse_impossible("monte_carlo_5", ["chr1", "chr2", "chr3", "chr7"], ["chr3", "chr7"])
    refuse_impossible("monte_carlo_5", ["chr1", "chr2", "chr4", "chr7"], ["chr7"])


def test_a_blind_chromosome_is_one_of_the_assembly():
    assert blind_in(["3", "chrX", "chr3"], [*COUNTS, "chrX"]) == ["chr3", "chrX"]
    with pytest.raises(InputError, match=r"chr99.*did you mean chr"):
        blind_in(["chr3", "chr99"], COUNTS)


def test_masks_follow_chromosomes():
    fold = make_folds("chromosomes_5", COUNTS)[0]
    masks = fold.masks(GENES.assign(chrom=["chr1", "chr2", "chrZ"]))
    assert sum(mask.astype(int) for mask in masks.values()).tolist() == [1, 1, 0]


def test_genes_held_out_by_name_are_neither_trained_on_nor_validate():
    fold = Fold("f", ("chr1",), ("chr2",), ("chr3",), held_out=("g0", "g4"))
    genes = pd.DataFrame(
        {"gene_id": ["g0", "g1", "g2", "g3", "g4", "g5"],
         "chrom": ["chr1", "chr1", "chr2", "chr3", "chr3", "chr2"]}
    )  # fmt: skip
    masks = fold.masks(genes)
    assert masks["train"].tolist() == [False, True, False, False, False, False]
    assert masks["validation"].tolist() == [False, False, True, False, False, True]
    assert masks["test"].tolist() == [False, False, False, True, True, False]
    assert fold.named(genes).tolist() == [True, False, False, False, True, False]


SIX = pd.DataFrame({"gene_id": list("abcdef"), "chrom": ["1", "1", "2", "2", "3", "3"]})
FOLD = Fold("f", train=("1",), validation=("2",), test=("3",))


def test_genes_that_are_like_a_test_gene_are_left_out():
    rows = [("a", "x"), ("e", "x"), ("b", "y"), ("c", "y"), ("d", "z"), ("f", "z"), ("f", "x")]
    groups = pd.DataFrame(rows, columns=["gene", "group"])
    assert FOLD.leaked(SIX, groups) == {"e", "f"}
    (fold,) = without_groups([FOLD], SIX, groups)
    assert fold.held_out == ("a", "d")
    assert not fold.leaked(SIX, groups)
    left = {part: "".join(SIX.gene_id[mask]) for part, mask in fold.masks(SIX).items()}
    assert left == {"train": "b", "validation": "c", "test": "ef"}
    (both,) = without_groups([dataclasses.replace(FOLD, held_out=("d", "f"))], SIX, groups)
    assert both.held_out == ("a", "d", "f")


def test_groups_that_leave_a_part_empty_are_refused():
    groups = pd.DataFrame({"gene": ["a", "b", "e"], "group": "x"})
    with pytest.raises(InputError, match=r"fold f.*no gene for its train part"):
        without_groups([FOLD], SIX, groups)


SPLITS = b'{"folds": [{"name": "%s", "train": %s, "validation": %s, "test": %s}]}'


@pytest.mark.parametrize(
    ("content", "found"),
    [(b"\xff", "no readable"), (b"[]", "no readable"), (b"{}", "folds without name"),
     (b'{"folds": [{"name": "a"}]}', "folds without name"), (b'{"folds": [1]}', "folds without"),
     (SPLITS % (b"f", b'"1"', b'"2"', b'"3"'), "folds without"),
     (SPLITS % (b"f", b"[1]", b"[2]", b"[3]"), "folds without"),
     (SPLITS % (b"f", b'["1"]', b'["2"]', b'["3", "1"]'), "a chromosome twice in f"),
     (SPLITS % (b"f", b'["1"]', b'["2"]', b'["3", "3"]'), "a chromosome twice in f"),
     (SPLITS.replace(b"]}", b", %s]}") % (b"f", b"[]", b"[]", b"[]", b'{"name": "f", "train": [], '
      b'"validation": [], "test": []}'), "two folds of one name"),
     (b'{"folds": []}', "no folds"),
     (SPLITS % (b"f", b'["1"]', b'["2"]', b"[]"), "no test chromosomes in f"),
     (SPLITS % (b"f", b"[]", b'["2"]', b'["3"]'), "no train chromosomes in f")],
)  # fmt: skip
def test_splits_that_are_damaged_are_refused_by_name(tmp_path, content, found):
    (tmp_path / "splits.json").write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_splits(tmp_path / "splits.json")
    (problem,) = caught.value.problems
    assert problem.where == str(tmp_path / "splits.json")
    assert problem.found.startswith(found)


def test_imported_weights_need_nothing_to_test_on(tmp_path):
    (tmp_path / "splits.json").write_bytes(SPLITS % (b"f", b'["1"]', b"[]", b"[]"))
    (fold,) = read_splits(tmp_path / "splits.json", tested=False)
    assert fold == Fold("f", ("1",), (), ())
