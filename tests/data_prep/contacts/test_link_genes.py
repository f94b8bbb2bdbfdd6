import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data_prep.contacts.contact_files import ContactFile
from data_prep.contacts.link_genes import ContactRule, link_genes, read_contacts
from data_prep.formats.annotation import read_genes, read_tss
from data_prep.formats.assembly import load_assembly
from epi2expr_jax.errors import InputError, collect
from tests.data_prep.contact_texts import (
    BAIT,
    CONTACTS,
    SECOND,
    SIZES,
    bedpe,
    ibed,
    interval,
    pickles,
)
from tests.data_prep.problems import problems_of

GENES = pd.DataFrame({"gene_id": ["A", "B", "C"]})
# A has two TSSs, in two fragments; B shares the first of them; D is not to be stored.
TSS = pd.DataFrame(
    [("A", "chr1", 1500), ("A", "chr1", 9000), ("B", "chr1", 1999), ("D", "chr2", 5)],
    columns=["gene_id", "chrom", "tss"],
)


def read(path, cells, sizes=SIZES, min_score=None):
    with collect() as problems:
        return read_contacts(path, cells, sizes, min_score, problems)


def link(path, genes=GENES, tss=TSS, cells=("E1",), min_score=None, **rule):
    files = read(path, cells, min_score=min_score)
    return link_genes(files, genes, tss, ContactRule(**rule))[cells[0]]


def rows(found) -> list[tuple]:
    assert list(found.table.columns) == ["gene_id", "chrom", "start", "end", "score"]
    return [
        (row.gene_id, interval((row.chrom, row.start, row.end)), row.score)
        for row in found.table.itertuples()
    ]


EXPECTED = [
    ("A", "chr1:60000-61500", 7.25),
    ("A", "chr1:70000-75000", 6.0),
    ("B", "chr1:60000-61500", 7.25),
]


def problems(path, **changes) -> list[str]:
    return list(map(str, problems_of(link, path, **changes)))


def test_each_format_has_its_own_score_to_lie_above(write, tmp_path):
    contacts = [
        (BAIT, ("chr1", 1000 * i, 1000 * i + 500), score)
        for i, score in enumerate([1.5, 1.51, 5.0, 5.01], start=100)
    ]
    for path, least in [
        (write(bedpe(contacts)), 1.51),
        (pickles(tmp_path, contacts), 1.51),
        (write(ibed(contacts), "x.ibed"), 5.01),
    ]:
        assert link(path).table.score.min() == least
        assert link(path, min_score=5).table.score.min() == 5.01
        assert link(path, min_score=0).table.score.min() == 1.5


def test_the_best_contacts_of_a_gene_are_kept_each_once(write):
    # A touches the same end through both baits, and in two rows of one; ends of equal scores are
    # ordered as text.
    ends = [("chr1", 100_000, 101_000), ("chr1", 20_000, 21_000), ("chr1", 3000, 4000)]
    contacts = [(BAIT, end, 2.0) for end in ends]
    contacts += [(SECOND, ends[2], 9.0), (BAIT, ends[2], 4.0), (SECOND, ends[1], 1.9)]
    found = link(write(bedpe(contacts)))
    first, second, third = (interval(end) for end in ends)
    assert rows(found) == [
        ("A", third, 9.0), ("A", first, 2.0), ("A", second, 2.0),
        ("B", third, 4.0), ("B", first, 2.0), ("B", second, 2.0),
    ]  # fmt: skip
    assert found.dropped["pairs listed before with a higher score"] == 4
    found = link(write(bedpe(contacts)), max_contacts=2)
    assert rows(found) == [("A", third, 9.0), ("A", first, 2.0), ("B", third, 4.0),
                           ("B", first, 2.0)]  # fmt: skip
    assert found.dropped["pairs beyond the best 2 of their gene"] == 2


def test_width_and_chromosome_of_the_other_end(write):
    wide, wider = ("chr1", 100_000, 140_000), ("chr1", 200_000, 240_001)
    trans = ("chr2", 100_000, 110_000)
    path = write(bedpe([(SECOND, end, 2.0) for end in (wide, wider, trans)]))
    found = link(path)
    assert rows(found) == [("A", interval(wide), 2.0)]
    assert found.dropped["contacts with an other end of more than 40000 bp"] == 1
    assert found.dropped["contacts with an other end on another chromosome"] == 1
    assert len(link(path, max_width_bp=40_001, trans=True).table) == 3


def test_a_contact_belongs_to_the_genes_of_its_bait(write):
    far = ("chr1", 500_000, 501_000)
    contacts = [(far, BAIT, 9.0), (BAIT, SECOND, 3.0), (BAIT, BAIT, 2.0), (("chr2", 0, 9), far, 4)]
    found = link(write(bedpe(contacts)))
    assert rows(found) == [
        (gene, interval(end), score) for gene in "AB" for end, score in ((SECOND, 3.0), (BAIT, 2.0))
    ]
    assert found.dropped["contacts whose bait holds no TSS"] == 1
    assert found.dropped["contacts of genes that are not stored"] == 1
    assert found.summary().startswith(
        "4 contacts read, 4 pairs of gene and contact kept, with 2 regions: 2 genes have some, "
        "1 none, mean 1.3 a gene; dropped: 1 contacts whose bait holds no TSS, 1 contacts of genes"
    )


places = st.tuples(
    st.just("chr1"), st.sampled_from([0, 9, 10, 100]), st.sampled_from([101, 110, 300])
)
contact_lists = st.lists(
    st.tuples(places, places, st.sampled_from([1.5, 1.6, 2.0, 3.0])), min_size=1, max_size=40
)
tss_lists = st.lists(
    st.tuples(st.sampled_from("ABCD"), st.just("chr1"), st.integers(0, 310)), min_size=1, max_size=9
)


@settings(max_examples=60, deadline=None)
@given(contact_lists, tss_lists, st.integers(1, 4), st.sampled_from([100, 191, 300]))
def test_the_choice_equals_a_brute_force_one(contacts, tss, most, widest):
    flat = [(*bait, *other, score) for bait, other, score in contacts]
    columns = ["bait_chrom", "bait_start", "bait_end", "chrom", "start", "end", "score"]
    file = ContactFile("x", "bedpe", "", 1.5, pd.DataFrame(flat, columns=columns))
    expected = []
    for gene in "CAB":
        own = [position for name, _, position in tss if name == gene]
        best: dict[str, float] = {}
        for bait, other, score in contacts:
            holds = any(bait[1] <= position < bait[2] for position in own)
            if holds and score > 1.5 and other[2] - other[1] <= widest:
                best[interval(other)] = max(score, best.get(interval(other), 0))
        ranked = sorted(best.items(), key=lambda item: (-item[1], item[0]))[:most]
        expected += [(gene, name, score) for name, score in ranked]
    genes = pd.DataFrame({"gene_id": list("CAB")})
    table = pd.DataFrame(tss, columns=["gene_id", "chrom", "tss"]).drop_duplicates()
    rule = ContactRule(max_width_bp=widest, max_contacts=most)
    try:
        found = link_genes({"E1": file}, genes, table, rule)["E1"]
    except InputError:
        assert not expected
        return
    assert rows(found) == expected
    per_row = list(found.dropped.values())[:5]
    assert sum(per_row) <= found.read == len(contacts)


def test_the_demos_pcres_and_scores_come_out_as_published(shared_data):
    sizes = load_assembly("hg19").chrom_sizes
    meta = shared_data / "chromoformer_demo" / "demo_meta.csv"
    genes = read_genes(meta, chrom_sizes=sizes)
    tss = read_tss(meta, genes, chrom_sizes=sizes)
    path = shared_data / "interactions" / "E003_H1_promoter_capture.bedpe"
    found = link_genes(read(path, ["E003"], sizes), genes, tss, ContactRule())["E003"]
    by_gene = found.table.groupby("gene_id")
    published = pd.read_csv(meta, index_col="gene_id", dtype=str).fillna("")
    assert len(published) == 100
    for gene, row in published.iterrows():
        own = by_gene.get_group(gene) if gene in by_gene.groups else found.table[:0]
        names = [interval((r.chrom, r.start, r.end)) for r in own.itertuples()]
        assert ";".join(names) == row["neighbors"]
        assert ";".join(map(str, own.score)) == row["scores"]
    assert (found.read, len(found.table), found.genes) == (580, 580, 100)
    assert "89 genes have some, 11 none, mean 5.8 a gene; dropped: none" in found.summary()


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (bedpe([(("chr1", 5, 9), BAIT, 9)]), "1 contacts, none of whose baits holds a TSS"),
        (bedpe([(BAIT, BAIT, 1)]), "no contact to keep: 1 contacts with a score not above"),
        (bedpe([(("chr2", 5, 9), BAIT, 9)]), "no contact to keep: 1 contacts of genes"),
    ],
)
def test_files_without_contacts_to_keep_are_refused(write, text, found):
    (problem,) = problems(write(text))
    assert f"contacts.bedpe: found {found}" in problem


def test_a_sheet_gives_each_cell_its_own_contacts(write, tmp_path):
    write(bedpe(CONTACTS), "one.bedpe")
    write(ibed(CONTACTS), "two.ibed")
    rows_of = "cell,path,min_score\nE2,two.ibed,\nE1,one.bedpe,6.5\nE3,one.bedpe,6.5\nE4,absent,\n"
    files = read(write(rows_of, "sheet.csv"), ["E1", "E2", "E3"], min_score=5.5)
    linked = link_genes(files, GENES, TSS, ContactRule())
    assert list(linked) == ["E1", "E2", "E3"]
    assert rows(linked["E1"]) == [EXPECTED[0], EXPECTED[2]]
    assert linked["E1"] is linked["E3"]
    assert rows(linked["E2"]) == EXPECTED
    assert linked["E2"].source["min_score"] == 5.5
    assert linked["E1"].source["name"] == "one.bedpe"
    # one file serves all cells
    assert len(set(read(tmp_path / "two.ibed", ["E1", "E2"]).values())) == 1


def test_bad_sheets_are_refused(write):
    write(bedpe([(BAIT, BAIT, "?")]), "bad.bedpe")
    sheet = "cell,path,min_score\nE1,,\nE2,x.bedpe,high\nE2,x.bedpe,\n"
    text = "\n".join(problems(write(sheet, "s.csv"), cells=["E1", "E5", "E6"]))
    for part in ("line 2: found an empty field", "line 3: found min_score high",
                 "line 4: found E2 a second time", "no contacts of E5, E6"):  # fmt: skip
        assert part in text
    sheet = "cell,path\nE1,absent.bedpe\nE2,bad.bedpe\n"
    found = problems(write(sheet, "s.csv"), cells=["E1", "E2"])
    assert "No such file" in found[0]
    assert "bad.bedpe, line 2: found 1 scores" in found[1]
    assert "must not be named .csv" in problems(write(bedpe(CONTACTS), "contacts.csv"))[0]


def test_what_contacts_were_kept_is_part_of_the_request(write):
    path = write(bedpe(CONTACTS))
    source = link(path).source
    assert link(path).source == source
    assert link(path, tss=TSS[1:]).source["kept_sha256"] != source["kept_sha256"]
    assert link(path, max_contacts=7).source != source
    assert {**source, "kept_sha256": "", "sha256": ""} == {
        "name": "contacts.bedpe", "format": "bedpe", "sha256": "", "min_score": 1.5,
        "max_width_bp": 40_000, "max_contacts": 8, "trans": False, "kept_sha256": "",
    }  # fmt: skip
