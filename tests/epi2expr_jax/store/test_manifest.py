"""What a store says of itself comes back as written, and what says something else is refused."""

import dataclasses
import json

import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.store import manifest
from epi2expr_jax.store.manifest import read_manifest, write_manifest
from tests.epi2expr_jax.store.toy import MANIFEST

BUILT = dataclasses.replace(
    MANIFEST,
    contacts={"c2": {"name": "capture", "min_score": 1.5, "trans": False}},
    blacklist={"name": "bad.bed", "sha256": "ab"},
    given_labels=True,
    left_out={"no expression": 12},
    blacklisted={"genes": 2, "bins": 3},
    genes_sha256="cd",
    regions_sha256={"c2": "ef"},
)


def rewrite(path, **changes):
    """Change fields of a written manifest; those changed to None are removed."""
    file = path / "manifest.json"
    fields = json.loads(file.read_text()) | changes
    fields = {name: value for name, value in fields.items() if value is not None}
    own = {name: value for name, value in fields.items() if name not in ("format", "sha256")}
    file.write_text(json.dumps(fields | {"sha256": manifest._sum(own)}))


def test_a_manifest_comes_back_as_it_was_written(tmp_path):
    write_manifest(tmp_path, BUILT)
    assert read_manifest(tmp_path) == BUILT
    assert BUILT.window.bins == 40
    assert [file.name for file in tmp_path.iterdir()] == ["manifest.json"]
    fields = json.loads((tmp_path / "manifest.json").read_text())
    assert (fields["format"], fields["version"]) == ("epi2expr_jax window store", 3)


def test_a_store_without_contacts_blacklist_or_labels_need_not_say_so(tmp_path):
    write_manifest(tmp_path, MANIFEST)
    rewrite(tmp_path, contacts=None, blacklist=None, given_labels=None, labels_sha256=None)
    assert read_manifest(tmp_path) == MANIFEST


@pytest.mark.parametrize(
    ("version", "remedy"),
    [(1, "migrate: rebuild"), (99, "upgrade"), ("2", "migrate: rebuild"), (None, "version None")],
)
def test_format_version_gates_reading(tmp_path, version, remedy):
    write_manifest(tmp_path, MANIFEST)
    rewrite(tmp_path, version=version)
    with pytest.raises(InputError, match=remedy) as caught:
        read_manifest(tmp_path)
    (problem,) = caught.value.problems
    assert (problem.where, problem.expected) == (str(tmp_path / "manifest.json"), "version 3")


def test_what_is_no_store_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"no manifest.*expected a window store; make it"):
        read_manifest(tmp_path)
    for content, message in (
        ("{", "no readable manifest"),
        ("[]", "no readable manifest"),
        ('{"format": "something"}', "some other file"),
    ):
        (tmp_path / "manifest.json").write_text(content)
        with pytest.raises(InputError, match=message):
            read_manifest(tmp_path)


@pytest.mark.parametrize(("changes", "named"), [({"cells": None}, "cells"), ({"tone": 1}, "tone")])
def test_missing_and_unknown_fields_are_named(tmp_path, changes, named):
    write_manifest(tmp_path, MANIFEST)
    rewrite(tmp_path, **changes)
    with pytest.raises(InputError, match=f"'{named}'; expected the fields of a manifest; rebuild"):
        read_manifest(tmp_path)


def test_what_a_build_finds_out_is_no_other_request():
    asked = dataclasses.replace(
        BUILT, left_out={}, blacklisted={}, genes_sha256="", expression_sha256="1",
        regions_sha256={}, labels_sha256="2", assembly="the same lengths",
    )  # fmt: skip
    BUILT.require_same_request(asked, "s.zarr")
    assert asked != BUILT


def test_all_that_was_asked_otherwise_is_named():
    lengths = {"chr9": 5}
    asked = dataclasses.replace(
        BUILT, bin_bp=50, assembly="other", chrom_sizes=lengths, contacts={}
    )
    with pytest.raises(InputError) as caught:
        BUILT.require_same_request(asked, "s.zarr")
    assert [str(problem) for problem in caught.value.problems] == [
        f"s.zarr: {name}: found {old}; expected {new}, as asked for now; "
        "give another --store, or delete this one"
        for name, old, new in (
            ("bin_bp", "25", "50"),
            ("assembly", '"toy"', '"other"'),
            ("chrom_sizes", json.dumps(BUILT.chrom_sizes), json.dumps(lengths)),
            ("contacts", '{"c2": {"name": "capture", "min_score": 1.5, "trans": false}}', "{}"),
        )
    ]


def test_long_values_are_cut_in_messages():
    asked = dataclasses.replace(BUILT, cells=[f"cell{i}" for i in range(500)])
    with pytest.raises(InputError, match=r'"cell0", "cell1".*…, as asked for now') as caught:
        BUILT.require_same_request(asked, "s.zarr")
    assert len(str(caught.value)) < 300
