import collections
import fractions
import os
import pathlib
import pickle

import numpy as np
import pytest

from data_prep.contacts.chromoformer_pickles import FORMAT, load_plain
from epi2expr_jax.errors import InputError
from tests.data_prep.contact_texts import CONTACTS, pickles
from tests.data_prep.problems import problems_of


def problems(path) -> list[str]:
    return list(map(str, problems_of(FORMAT.read, path)))


def test_the_file_of_neighbours_stands_for_both(tmp_path):
    path = pickles(tmp_path, CONTACTS)
    assert FORMAT.sniff(path, [])
    assert not FORMAT.sniff(path.with_suffix(".txt"), [])
    assert FORMAT.files(path) == [path, tmp_path / "H1_pair2score.pickle"]


def test_pairs_are_split_into_places(tmp_path):
    rows = FORMAT.read(pickles(tmp_path, CONTACTS))
    first = ["chr1", "1000", "2000", "chr1", "50000", "55000", 3.5]
    assert rows.iloc[0].tolist() == [*first, "chr1:1000-2000 to chr1:50000-55000"]
    assert len(rows) == len(CONTACTS)


def test_pickles_of_another_kind_are_refused(tmp_path):
    path = pickles(tmp_path, CONTACTS, scores={})
    (problem,) = problems(path)
    assert "H1_pair2score.pickle: found 3 pairs without a score" in problem
    assert "chr1:50000-55000" in problem
    (tmp_path / "H1_pair2score.pickle").unlink()
    assert "H1_pair2score.pickle: found No such file" in problems(path)[0]
    renamed = path.rename(tmp_path / "H1.pickle")
    assert "with TISSUE_pair2score.pickle in the same folder" in problems(renamed)[0]
    path = pickles(tmp_path, CONTACTS)
    path.write_bytes(pickle.dumps([1]))
    assert "found a list" in problems(path)[0]
    path.write_bytes(pickle.dumps({"chr1:1-2": 5, "chr1:3-4": [["chr1:5-6"]], 7: set()}))
    assert "3 entries of another kind (chr1:1-2, chr1:3-4, 7)" in problems(path)[0]
    path.write_bytes(pickle.dumps({"chr1:1-2": print}))
    assert "builtins.print" in problems(path)[0]


def written(tmp_path, content: bytes) -> pathlib.Path:
    path = tmp_path / "content.pickle"
    path.write_bytes(content)
    return path


def pickle_problem(path) -> str:
    with pytest.raises(InputError) as caught:
        load_plain(path)
    (only,) = caught.value.problems
    assert str(path) in only.where
    return str(only)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_plain_data_come_back_as_they_were(tmp_path, protocol):
    data = {
        "fragments": collections.defaultdict(set, {"chr1:1-5": {"chr1:7-9"}, "chr2:1-5": set()}),
        ("a", "b"): [1, -2.5, True, None, 10**30, "é"],
        1: collections.OrderedDict(x=frozenset({1}), y=(2,)),
        "default": collections.defaultdict(float),
    }
    read = load_plain(written(tmp_path, pickle.dumps(data, protocol)))
    assert read == data
    assert read["fragments"]["absent"] == set()


@pytest.mark.parametrize("value", [np.float64(1.5), np.float32(0.1), np.int64(-3), np.uint8(7)])
def test_scalars_of_numpy_are_numbers(tmp_path, value):
    for protocol in range(3, pickle.HIGHEST_PROTOCOL + 1):
        read = load_plain(written(tmp_path, pickle.dumps({"score": value}, protocol)))["score"]
        assert type(read) in (int, float)
        assert read == value
    older = pickle.dumps(value, 3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert load_plain(written(tmp_path, older)) == value


class Calls:
    """Whose pickle calls a function."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (lambda made: Calls(os.mkdir, str(made)), "posix.mkdir"),
        (lambda made: {"score": [Calls(eval, f"__import__('os').mkdir({str(made)!r})")]}, "eval"),
        (lambda made: {Calls(getattr, "", "upper")}, "builtins.getattr"),
        (lambda _: fractions.Fraction(1, 2), "fractions.Fraction"),
        (lambda _: np.zeros(3), "_reconstruct"),
        (lambda _: collections.defaultdict(collections.Counter), "collections.Counter"),
        (lambda _: os.system, "posix.system"),
        (lambda _: np.float64, "numpy.float64"),
    ],
)
def test_anything_else_is_named_and_not_called(tmp_path, content, name):
    made = tmp_path / "made"
    found = pickle_problem(written(tmp_path, pickle.dumps(content(made))))
    assert f"{name}; expected builtin containers, strings and numbers" in found
    assert not made.exists()


def test_dotted_names_and_objects_in_numpys_place_lead_nowhere(tmp_path):
    # STACK_GLOBAL with an attribute of an allowed name, as protocol 4 may write it.
    dotted = b"\x80\x04\x8c\x08builtins\x8c\x0edict.__class__\x93."
    assert "builtins.dict.__class__" in pickle_problem(written(tmp_path, dotted))
    objects = pickle.dumps(np.float64(1.0), 3).replace(b"f8", b"O8")
    assert "ValueError: a NumPy scalar of type <O8" in pickle_problem(written(tmp_path, objects))


@pytest.mark.parametrize("content", [b"", b"chr1\t0\t5\n", b"\x80\x04", b"\x80\x63.", b"\x00" * 99])
def test_what_is_no_pickle_is_said(tmp_path, content):
    assert "a damaged pickle, or none" in pickle_problem(written(tmp_path, content))


def test_every_cut_of_a_pickle_is_noticed(tmp_path):
    whole = pickle.dumps({("chr1:1-5", "chr1:7-9"): np.float64(1.5), "b": {"c", "d"}})
    for length in range(len(whole)):
        assert "a damaged pickle" in pickle_problem(written(tmp_path, whole[:length]))


def test_a_missing_pickle(tmp_path):
    assert "No such file" in pickle_problem(tmp_path / "absent.pickle")
