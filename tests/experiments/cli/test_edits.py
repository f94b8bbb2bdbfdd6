"""The words of --where, --edits and --factors."""

import types

import pandas as pd
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.perturb.places import promoter
from experiments.cli.edits import FACTORS, named_edits, named_places, to_number


def store_of(contacts=()):
    """A store of genes on chr1 and chr2, and by cell the ranks of what each gene touches."""
    tables = {f"E{i}": pd.DataFrame({"rank": list(ranks)}) for i, ranks in enumerate(contacts)}
    sizes = {"chr1": 1_000_000, "chr2": 500_000, "chr3": 400_000}
    return types.SimpleNamespace(
        genes=pd.DataFrame({"chrom": ["chr1", "chr1", "chr2"]}),
        manifest=types.SimpleNamespace(chrom_sizes=sizes, assembly="hg19", contacts=list(tables)),
        regions=lambda cell: types.SimpleNamespace(contacts=tables[cell]),
    )


def places(*texts, store=None, window_bp=40_000):
    return named_places(texts, store or store_of(), window_bp)


def test_presets_are_the_places_they_name():
    found, space = places("promoter", "distal")
    assert space == "raw"
    assert [(place.start, place.end) for place in found[:2]] == [(-3000, 3000), (-20_000, -18_000)]
    assert len(found) == 1 + 2 * 8  # of the 10 bins on either side 2 reach into the promoter
    found, space = places("original_distal")
    assert space == "log"
    assert len(found) == 17


def test_every_rank_of_contact_is_a_place():
    store = store_of(contacts=[(0, 1, 0), (0, 1, 2), ()])
    assert [place.rank for place in places("pcre", store=store)[0]] == [0, 1, 2]


def test_a_store_without_contacts_has_no_pcre():
    with pytest.raises(InputError, match="a store without contacts"):
        places("pcre")


def test_no_place_at_all_is_refused():
    with pytest.raises(InputError, match="--where: found nothing"):
        places()


def test_empty_places_and_edits_are_refused_by_name():
    with pytest.raises(InputError, match="--where: found an empty place"):
        places("", "promoter")
    with pytest.raises(InputError, match="--edits: found an empty edit"):
        named_edits("K4", [promoter()], "raw", ["scale:0.5", " "], FACTORS)


def test_a_window_that_is_all_promoter_has_no_distal_bin():
    with pytest.raises(InputError, match="all of it promoter"):
        places("distal", window_bp=6000)


def test_places_of_one_name_are_told_apart_and_named_once(tmp_path):
    bed = tmp_path / "dots.bed"
    bed.write_text("chr1\t10\t20\t.\nchr1\t50\t60\t.\nchr1\t70\t80\tx\nchr2\t7\t8\tx\n")
    found, _ = places(str(bed), str(bed), "chr1:10-20")
    names = ["chr1:10-20", "chr1:50-60", "x chr1:70-80", "x chr2:7-8"]
    assert [place.name for place in found] == names


@pytest.mark.parametrize("end", ["1,000,001", "4294967296", "9" * 30])
def test_an_interval_ends_within_its_chromosome(end):
    with pytest.raises(InputError, match="an end beyond the chromosome; expected at most 1,000,00"):
        places(f"chr1:0-{end}")


def test_edits_and_factors_given_twice_count_once():
    found = named_edits("DNase", [promoter()], "raw", ["remove_peak"] * 2 + ["scale"], (0, 0, 0.5))
    assert [edit.change for (edit,) in found] == ["without peak", "x0", "x0.5"]


def test_marks_joined_by_plus_are_altered_together():
    found = named_edits("DNase+K4", [promoter()], "raw", ["scale", "shift:10"], [0.5])
    assert [[(edit.assay, edit.change) for edit in step] for step in found] == [
        [("DNase", "x0.5"), ("K4", "x0.5")],
        [("DNase", "shifted +10 bp"), ("K4", "shifted +10 bp")],
    ]


def test_intervals_come_from_the_command_line_or_a_bed_file(tmp_path):
    bed = tmp_path / "peaks.bed"
    bed.write_text("chr2\t10\t20\tnamed\nchr3\t5\t9\tno gene there\n")
    found, _ = places("chr1:1,000-2,500", str(bed))
    assert [(place.chrom, place.start, place.end) for place in found] == [
        ("chr1", 1000, 2500),
        ("chr2", 10, 20),
    ]
    assert [place.name for place in found] == ["chr1:1000-2500", "named"]


def test_all_that_is_no_place_is_named_together():
    with pytest.raises(InputError) as caught:
        places("promotr", "original_promoter", "chr3:1-2", "promoter")
    mixed, unknown, elsewhere = caught.value.problems
    assert mixed.expected == "one kind"
    assert (unknown.found, unknown.remedy) == ("promotr", "did you mean promoter?")
    assert "chr1, chr2" in elsewhere.expected


def test_every_kind_of_edit_at_every_place():
    kinds = ["scale", "remove_peak", "set:2.5", "shift:-500", "swap:DNase@E114", "swap:@E114"]
    spots = places("promoter", "chr1:10-20")[0]
    edits = named_edits("H3K27ac", spots, "raw", kinds, [0.0, 0.5])
    changes = ["x0", "x0.5", "without peak", "= 2.5", "shifted -500 bp", "from E114 DNase",
               "from E114"]  # fmt: skip
    of_place = {place.name: [] for place in spots}
    for (edit,) in edits:
        assert (edit.assay, edit.space) == ("H3K27ac", "raw")
        of_place[edit.place.name].append(edit.change)
    assert of_place == {"promoter": changes, "chr1:10-20": changes}
    assert [edit.times for (edit,) in edits[:2]] == [0.0, 0.5]
    ((one,),) = named_edits("K4", spots[:1], "raw", ["scale:2"], [0.5])
    assert one.times == 2.0


def test_all_that_is_no_edit_is_named_once():
    spots = [promoter(), promoter(2000)]
    with pytest.raises(InputError) as caught:
        named_edits("DNase", spots, "raw", ["scal", "set:much", "swap"], FACTORS)
    assert [(problem.where, problem.found) for problem in caught.value.problems] == [
        ("edits", "scal"),
        ("edits", "set:much"),
        ("edits", "swap"),
    ]
    assert caught.value.problems[0].remedy == "did you mean scale?"


def test_numbers_are_read_and_what_is_none_is_refused():
    assert to_number("-1e3", "--edits=shift") == -1000
    for text, found in (("much", "much"), ("", "nothing")):
        with pytest.raises(InputError, match=f"--factors: found {found}; expected a number"):
            to_number(text, "--factors")


def test_factors_take_a_tenth_away_at_a_time():
    assert FACTORS == (0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1)
