import pickle

from data_prep.contacts.chromoformer_pickles import FORMAT
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
