"""Texts and bytes by lot for every parser: a value comes of it, or the words of a refusal.

`make torture` tries 10,000 of each, `make test` a few.
"""

import contextlib
import gzip
import io
import json
import os
import pathlib
import types
import warnings

import pandas as pd
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from data_prep.contacts.chromoformer_meta import read_metadata
from data_prep.contacts.chromoformer_pickles import load_plain
from data_prep.contacts.contact_files import read_contact_file
from data_prep.formats.annotation import read_genes
from data_prep.formats.assembly import load_assembly
from data_prep.formats.bed import read_bed
from data_prep.formats.expression import read_expression
from data_prep.formats.track_sheet import read_sheet
from data_prep.import_window_counts import read_counts
from data_prep.work.lock_file import LockFile
from epi2expr_jax.errors import collect, exit_on_bad_input
from epi2expr_jax.inputs.pools import parse_cells
from epi2expr_jax.perturb.places import promoter
from epi2expr_jax.store.manifest import read_manifest
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.runs import parse_assay_sets
from epi2expr_jax.training.splits import read_splits
from experiments.cli.certificate import read_certificate
from experiments.cli.edits import named_edits, named_places, to_number
from experiments.cli.given_table import read_table

SIZES = {"chr1": 10_000, "chr2": 5000}
EXAMPLES = 10_000 if os.environ.get("EPI2EXPR_TORTURE") == "full" else 12
# What parsers stumble over.
WORDS = [
    *("nan", "inf", "-inf", "-1", "0", "1e999", "1e-999", "9" * 20, "0x10", "1_000", "٣", "²"),
    *("½", "é", "\ufeff", "\x00", "\x1a", "\x85", "\u2028", "NA", "None", "true", "null", "chr1"),
    *("chrM", "1", "+", "-", ".", "..", ";", ":", "/", "//", "~", "{}", "[]", "'", '"', "\\", "#"),
    *(",", ",,", "@", "|", "E003", "H3K27ac", "all", "each", "pairs", "leave_one_out", "pool"),
    *("", " ", "\t", "\n", "\r\n", "\r", "\n\n", "a" * 300, "9" * 400),
]

GTF = "".join(
    f"chr1\th\t{kind}\t{100 + 1000 * g}\t{900 + 1000 * g}\t.\t+\t{frame}\t"
    f'gene_id "G{g}.1"; transcript_id "T{g}"; gene_name "N{g}"; gene_type "protein_coding"; '
    'transcript_type "protein_coding"; exon_number 1;\n'
    for g in range(2)
    for kind, frame in (("gene", "."), ("transcript", "."), ("exon", "."), ("CDS", "0"))
)
SHEET = (
    "cell,assay,path,unit,sha256\nE003,DNase,a.bw,pvalue,\nE003,H3K4me3,b.bw,depth," + "a" * 64
) + "\n"
META = (
    "gene_id,expression,eid,label,chrom,start,end,strand,neighbors,scores\n"
    "a,0.5,E1,0,chr1,5000,5001,+,chr2:500-750;chr1:200-300,2.5;1.5\nb,2,E1,1,chr1,7000,7001,-,,\n"
)
MANIFEST = json.dumps(
    {"format": "epi2expr_jax window store", "version": 2, "cells": ["E003"], "assays": ["DNase"]}
)
CARD = json.dumps({"version": 1, "status": "complete", "runs": [], "groups": {}, "store": {}})
SPLITS = json.dumps(
    {"folds": [{"name": "f", "train": ["chr1"], "validation": ["chr2"], "test": ["chr3"]}]}
)
CERTIFICATE = json.dumps({"claims": [{"name": "a", "holds": True, "found": "b"}], "files": {}})


def in_problems(read, *before, after=()):
    """Of parsers that gather problems: raised at the end."""

    def call(path):
        with collect() as problems:
            read(path, *before, problems, *after)

    return call


def of_folder(name, read):
    def call(path):
        (path.parent / name).write_bytes(path.read_bytes())
        read(path.parent)

    return call


FILES = {
    "track sheet": (SHEET, "csv", read_sheet),
    "GTF": (GTF, "gtf", lambda path: read_genes(path, chrom_sizes=SIZES)),
    "canonical GTF": (GTF, "gtf", lambda p: read_genes(p, tss="canonical", chrom_sizes=SIZES)),
    "gene table": (
        "gene_id,chrom,tss,strand\na,chr1,100,+\nb,2,200,-\n",
        "csv",
        lambda path: read_genes(path, chrom_sizes=SIZES),
    ),
    "expression": ("id\tE003\tE004\t\na.1\t0.5\t2\t\nb\t1\t3\t\n", "tsv",
                   in_problems(read_expression, ["E003"])),
    "BEDPE": ("chr1\t1\t9\tchr2\t5\t50\tx\t5\t.\t.\nchr1\t7\t90\tchr1\t400\t500\ty\t2\t.\t.\n",
              "bedpe", in_problems(read_contact_file, None, SIZES)),
    "ibed": ("bait_chr\tbait_start\tbait_end\tbait_name\totherEnd_chr\totherEnd_start\t"
             "otherEnd_end\totherEnd_name\tN_reads\tscore\nchr1\t1\t50\tg\tchr1\t90\t200\t.\t3\t7.5\n",
             "ibed", in_problems(read_contact_file, None, SIZES)),
    "BED": ("track name=x\nchr1\t5\t50\n2\t10\t20\tname\n", "bed",
            lambda path: read_bed(path, SIZES)),
    "window counts": ("a_A_1,1,2\na_A_2,3,4\nb_B_1,0,0\nb_B_2,5,6\n", "csv",
                      lambda path: read_counts(str(path), 2)),
    "metadata": (META, "csv", lambda path: read_metadata(path, SIZES)),
    "chrom sizes": ("chr1\t10000\nchr2\t5000\n", "chrom.sizes", load_assembly),
    "table": ("gene_id\tchrom\tpos\na\tchr1\t5\n", "tsv", read_table),
    "manifest": (MANIFEST, "json", of_folder("manifest.json", read_manifest)),
    "run card": (CARD, "json", of_folder("run_card.json", checkpoint.read_card)),
    "finished run": (CARD, "json", of_folder("run_card.json", checkpoint.read_finished)),
    "splits": (SPLITS, "json", read_splits),
    "certificate": (CERTIFICATE, "json", of_folder("verify.json", read_certificate)),
    "lock file": ('{"u": {"bytes": 3, "sha256": "a", "seal": "0364a0d17c1076f4"}}', "json",
                  of_folder("downloads.lock.json", LockFile)),
    "pickle": ("(dp0\nS'chr1:5-9'\np1\n(lp2\nS'a'\np3\nas.", "pickle", load_plain),
}  # fmt: skip

# What once ended in a traceback.
FOUND = {
    "GTF": [GTF.replace("\t1100\t", "\t\t", 1).encode()],
    "canonical GTF": [GTF.replace("\t1100\t", "\t\t").encode()],
    "gene table": [b"gene_id,chrom,tss,strand\na,chr1," + b"9" * 20 + b",+\n"],
    "window counts": [
        b"a_A_1,1,2\na_A_2,3," + b"9" * 400 + b"\n",
        b"a_A_1,1,2\na_A_" + b"9" * 400 + b",3,4\n",
    ],
}

_STORE = types.SimpleNamespace(
    manifest=types.SimpleNamespace(chrom_sizes=SIZES, assembly="toy"),
    genes=pd.DataFrame({"chrom": ["chr1"], "gene_id": ["a"], "tss": [100], "strand": ["+"]}),
)
_TRACKS = ["DNase", "H3K27ac", "H3K4me3"]
TEXTS = {
    "--where": ("chr1:100-200,promoter", lambda text: named_places(text.split(","), _STORE, 6000)),
    "--edits": (
        "scale:0.5,shift:500,swap:@E005,remove_peak",
        lambda text: named_edits("DNase", [promoter()], "raw", text.split(","), [0.0]),
    ),
    "--assays": ("each,H3K27ac+DNase", lambda text: parse_assay_sets(text.split(","), _TRACKS)),
    "--cells": ("all,E003+E004", lambda text: parse_cells(text.split(","), ["E003", "E004"])),
    "--factors": ("0.5", lambda text: to_number(text, "--factors")),
}


@st.composite
def changed(draw, sample: str):
    """The sample after a few changes: pieces left out, repeated, replaced or put in."""
    pieces = _pieces(sample)
    for _ in range(draw(st.integers(0, 4))):
        place = draw(st.integers(0, len(pieces)))
        how = draw(st.sampled_from(["out", "in", "instead", "again", "cut", "letters"]))
        word = draw(st.sampled_from(WORDS) if how != "letters" else st.text(max_size=8))
        if how == "out":
            del pieces[place : place + draw(st.integers(1, 8))]
        elif how == "cut":
            del pieces[place:]
        elif how == "again":
            pieces[place:place] = pieces[max(0, place - 8) : place]
        else:
            pieces[place : place + (how != "in")] = [word]
    return "".join(pieces)


def _pieces(text: str) -> list[str]:
    """Words and what lies between them."""
    pieces = [""]
    for letter in text:
        if letter.isalnum() != pieces[-1].isalnum() or not letter.isalnum():
            pieces.append("")
        pieces[-1] += letter
    return pieces


@st.composite
def file_bytes(draw, sample: str):
    """A changed sample, maybe packed, maybe with damaged bytes; or any bytes."""
    if draw(st.integers(0, 19)) == 0:
        return draw(st.binary(max_size=60))
    content = draw(changed(sample)).encode("utf-8", errors="replace")
    if draw(st.integers(0, 9)) == 0:
        content = gzip.compress(content, mtime=0)
    if content and draw(st.integers(0, 4)) == 0:
        place, value = draw(st.integers(0, len(content) - 1)), draw(st.integers(0, 255))
        content = content[:place] + bytes([value]) + content[place + draw(st.integers(0, 3)) :]
    return content


_QUICKLY = settings(
    max_examples=EXAMPLES,
    deadline=5000,  # ms: a parser that takes longer for a few lines hangs
    derandomize=EXAMPLES < 1000,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def _tried(call, given_):
    """As a command does it: done, or words."""
    said = io.StringIO()
    with warnings.catch_warnings(action="ignore"), contextlib.redirect_stderr(said):
        try:
            with exit_on_bad_input():
                call(given_)
        except SystemExit as left:
            status = left.code
        else:
            return
    assert status == 2
    for word in ("found", "expected", "remedy"):
        assert f"\n    {word}: " in said.getvalue(), said.getvalue()


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_read_or_refused(name, tmp_path):
    sample, ending, read = FILES[name]
    place = tmp_path / f"file.{ending}"

    @_QUICKLY
    @given(file_bytes(sample))
    @example(sample.encode())
    @example(b"")
    def try_one(content):
        for path in tmp_path.iterdir():
            path.unlink()
        place.write_bytes(content)
        _tried(read, place)

    for content in FOUND.get(name, ()):
        try_one = example(content)(try_one)
    try_one()


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_understood_or_refused(name):
    sample, read = TEXTS[name]

    @_QUICKLY
    @given(changed(sample))
    @example(sample)
    @example("")
    def try_one(text):
        _tried(read, text)

    try_one()


@pytest.fixture(autouse=True)
def elsewhere(tmp_path_factory, monkeypatch):
    """Texts that are taken for paths name nothing here; the index of each GTF goes away."""
    monkeypatch.chdir(tmp_path_factory.mktemp("nowhere"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(pathlib.Path.cwd() / "cache"))
