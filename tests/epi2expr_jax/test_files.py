"""A JSON file is there whole, or as it was before."""

import json

import pytest

from epi2expr_jax.files import write_json


def test_content_comes_back_in_a_form_that_does_not_depend_on_its_order(tmp_path):
    path = tmp_path / "card.json"
    write_json(path, {"b": [2.5], "a": None})
    assert path.read_text() == '{\n "a": null,\n "b": [\n  2.5\n ]\n}\n'
    first = path.read_bytes()
    write_json(path, {"a": None, "b": [2.5]})
    assert path.read_bytes() == first
    assert json.loads(first) == {"a": None, "b": [2.5]}


def test_nothing_but_the_file_stays(tmp_path):
    for content in ("first", "second"):
        write_json(tmp_path / "card.json", content)
    write_json(tmp_path / "card", "no suffix")
    assert {file.name: json.loads(file.read_text()) for file in tmp_path.iterdir()} == {
        "card.json": "second",
        "card": "no suffix",
    }


def test_what_cannot_be_written_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / "card.json"
    write_json(path, "old")
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"a": 1, "b": object()})
    (tmp_path / "card.json.partial").mkdir()  # a disk that refuses
    with pytest.raises(IsADirectoryError):
        write_json(path, "new")
    assert json.loads(path.read_text()) == "old"


def test_a_leftover_of_a_killed_program_is_no_hindrance(tmp_path):
    (tmp_path / "card.json.partial").write_text('{"half": ' + "1" * 99)
    write_json(tmp_path / "card.json", "new")
    assert [file.name for file in tmp_path.iterdir()] == ["card.json"]
    assert json.loads((tmp_path / "card.json").read_text()) == "new"
