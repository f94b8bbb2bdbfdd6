"""Every file of `field_cases` is read as its row says, or refused so."""

import pathlib

import pytest

from data_prep.contacts.chromoformer_meta import read_metadata
from data_prep.contacts.contact_files import read_contact_file
from data_prep.depth import write_depth
from data_prep.formats.annotation import read_genes
from data_prep.formats.assembly import load_assembly
from data_prep.formats.bed import read_bed
from data_prep.formats.bigwig import require_whole
from data_prep.formats.expression import read_expression
from data_prep.formats.track_sheet import read_sheet
from data_prep.import_window_counts import read_counts
from epi2expr_jax.errors import InputError, collect
from epi2expr_jax.genome import use_aliases
from tests.data_prep.field_cases import CASES, FOREIGN, KINDS, PAGE, Case, page

# chr21 is that of hg19.
SIZES = {"chr1": 1_000_000, "chr2": 200_000, "chr21": 48_129_895}
SIZES |= {"chrX": 900, "chrY": 900, "chr1_alt": 900}


def annotation(path):
    genes = read_genes(path, chrom_sizes=SIZES)
    return dict(zip(genes.gene_id, genes.tss, strict=True))


def expression(path):
    with collect() as problems:
        return read_expression(path, ["E1", "E2"], problems).table.to_dict("list")


def sheet(path):
    for name in ("a.bw", "b.bw"):
        path.with_name(name).touch()
    return [(track.cell, track.assay, track.unit) for track in read_sheet(path).tracks]


def bed(path):
    columns = ["chrom", "start", "end"]
    return list(read_bed(path, {**SIZES, "chr2": 2000})[columns].itertuples(index=False, name=None))


def reads(path):
    return write_depth(path, path.with_name("depth.bw"), {"chr1": 900, "chr2": 900}).reads


def contacts(path):
    with collect() as problems:
        table = read_contact_file(path, None, SIZES, problems).table
    return list(table.itertuples(index=False, name=None))


def sizes(path):
    return load_assembly(path).chrom_sizes


def counts(path):
    ids, table = read_counts(str(path), 2)
    return dict(zip(ids, table.tolist(), strict=True))


def meta(path):
    found = read_metadata(path, SIZES)
    place = ["chrom", "start", "end", "score"]
    return {
        "genes": found.genes[["gene_id", "chrom", "tss", "strand"]].values.tolist(),
        "expression": None if found.expression is None else found.expression.tolist(),
        "labels": None if found.labels is None else found.labels.tolist(),
        "contacts": found.contacts["E1"][place].values.tolist() if found.contacts else [],
    }


def aliases(path):
    sizes = path.with_name("toy.chrom.sizes")
    sizes.write_text("chr1\t1000\nchr2\t300\n")
    try:
        return load_assembly(sizes, str(path)).aliases
    finally:
        use_aliases({})


READERS = {
    "annotation": annotation,
    "expression": expression,
    "sheet": sheet,
    "bigwig": require_whole,
    "bed": bed,
    "reads": reads,
    "contacts": contacts,
    "sizes": sizes,
    "counts": counts,
    "meta": meta,
    "aliases": aliases,
}


@pytest.fixture
def write(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def write_file(kind: str, content: bytes, name: str = ""):
        path = tmp_path / (name or KINDS[kind][1])
        path.write_bytes(content)
        return path

    return write_file


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.kind}: {case.trait}")
def test_a_file_is_read_or_refused_as_the_table_says(write, case: Case):
    path = write(case.kind, case.data, case.name)
    assert case.outcome.startswith("refused") == isinstance(case.expected, str)
    if not isinstance(case.expected, str):
        assert READERS[case.kind](path) == case.expected
        return
    with pytest.raises(InputError) as caught:
        READERS[case.kind](path)
    text = "\n".join(map(str, caught.value.problems))
    assert path.name in text
    assert case.expected in text


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("what", "remedy", "content"), FOREIGN, ids=[row[0] for row in FOREIGN])
def test_every_reader_names_files_of_another_kind(write, kind, what, remedy, content):
    if kind == "bigwig" and content.startswith(b"\x1f\x8b"):
        pytest.skip("packed: named a gzip file")
    path = write(kind, content)
    with pytest.raises(InputError) as caught:
        READERS[kind](path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)
    assert what in problem.found
    assert remedy in problem.remedy


@pytest.mark.parametrize("kind", ["annotation", "expression", "bed", "contacts"])
def test_every_reader_says_how_to_get_a_url(kind):
    with pytest.raises(InputError, match=r"found a URL; .*curl -LO ftp://x/y"):
        READERS[kind](pathlib.Path("ftp://x/y"))


def test_the_page_says_what_the_table_says():
    assert page() == PAGE.read_text(encoding="utf-8")
    assert len(CASES) >= 100
    assert len(CASES) + len(FOREIGN) * len(KINDS) >= 150
