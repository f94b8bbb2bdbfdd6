import hashlib
import io
import os
import tarfile

import numpy as np
import pytest

from data_prep.contacts.chromoformer_arrays import bin_means, read_arrays, size_on_disk
from epi2expr_jax.errors import InputError

WIDTHS = {"chr1:0-4.npy": 4, "chr1:9-12.npy": 3, "chr2:5-6.npy": 1}


def depth(name: str) -> np.ndarray:
    """Of two marks."""
    return np.arange(2 * WIDTHS[name], dtype=np.float16).reshape(2, -1) + len(name)


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "E1").mkdir()
    for name in WIDTHS:
        np.save(tmp_path / "E1" / name, depth(name))
    return tmp_path / "E1"


@pytest.fixture
def pack(tmp_path):
    """`pack(*(path, name))`: a packed archive of these files under these names."""

    def make(*members):
        path = tmp_path / "packed.tar.gz"
        with tarfile.open(path, "w:gz") as archive:
            for source, name in members:
                archive.add(source, arcname=name)
        return path

    return make


def problems(source, widths=WIDTHS, assays=2) -> list[str]:
    with pytest.raises(InputError) as caught:
        list(read_arrays(source, widths, assays))
    return [str(problem) for problem in caught.value.problems]


def test_a_folder_and_an_archive_hold_the_same_arrays(folder, pack):
    (folder / "notes.txt").write_text("no array, and not asked for")
    for source in (folder, pack((folder, "demo_data"))):
        found = {name: (bases, sha256) for name, bases, sha256 in read_arrays(source, WIDTHS, 2)}
        assert set(found) == set(WIDTHS)
        for name, (bases, sha256) in found.items():
            np.testing.assert_array_equal(bases, depth(name))
            assert sha256 == hashlib.sha256((folder / name).read_bytes()).hexdigest()


def test_all_bad_arrays_are_named_by_their_mistakes(tmp_path):
    mistakes = {
        "1 marks": np.ones((1, 3)),
        "another width": np.ones((2, 2)),
        "not finite": np.full((2, 3), np.nan),
        "1-dimensional float64": np.ones(3),
        "2-dimensional <U1": np.full((2, 3), "x"),
        "no whole .npy": np.array([{}]),
        "no such file": None,
    }
    names = [f"chr1:{i}-{i + 3}.npy" for i in range(len(mistakes))]
    for name, values in zip(names, mistakes.values(), strict=True):
        if values is not None:
            np.save(tmp_path / name, values, allow_pickle=True)
    good, cut = "chr1:20-23.npy", "chr1:30-33.npy"
    np.save(tmp_path / good, np.ones((2, 3)))
    (tmp_path / cut).write_bytes((tmp_path / good).read_bytes()[:-1])
    seen = []
    widths = dict.fromkeys([*names, good, cut], 3)
    with pytest.raises(InputError) as caught:
        seen += (name for name, *_ in read_arrays(tmp_path, widths, 2))
    assert seen == [good]
    found = caught.value.problems
    assert len(found) == len(mistakes)
    for name, mistake in zip(names, mistakes, strict=True):
        (problem,) = [problem for problem in found if mistake in problem.found]
        assert name in problem.found
        count = 2 if mistake == "no whole .npy" else 1
        assert problem.where == f"{tmp_path}, {count} of 9 files"
        assert (cut in problem.found) == (count == 2)
        assert "arrays that belong to the metadata" in problem.remedy


def test_a_name_twice_in_an_archive_is_refused(folder, pack):
    names = [*WIDTHS, "chr1:0-4.npy"]
    path = pack(*((folder / name, f"{i}/{name}") for i, name in enumerate(names)))
    (problem,) = problems(path)
    assert f"{path}, 1 of 3 files: found the same name again: chr1:0-4.npy; expected" in problem


def test_an_archive_reaches_no_file_outside_it(folder, tmp_path):
    """A link that stands for an array is not followed; a name that climbs lands nowhere."""
    path = tmp_path / "odd.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        link = tarfile.TarInfo("demo_data/chr1:0-4.npy")
        link.type, link.linkname = tarfile.SYMTYPE, str(folder / "chr1:0-4.npy")
        archive.addfile(link)
        archive.add(folder / "chr2:5-6.npy", arcname="../../climbs.npy")
    before = sorted(tmp_path.rglob("*"))
    (problem,) = problems(path, {"chr1:0-4.npy": 4})
    assert "1 of 1 files: found no such file: chr1:0-4.npy" in problem
    assert sorted(tmp_path.rglob("*")) == before


def test_what_is_no_archive_is_refused(tmp_path):
    path = tmp_path / "E1.tgz"
    for content in (b"\x1f\x8b" + os.urandom(100), b"text", b""):
        path.write_bytes(content)
        (problem,) = problems(path)
        assert f"{path}: found what cannot be read" in problem
        assert "expected a folder of .npy files, or a tar archive of them" in problem
    path.unlink()
    assert "No such file" in problems(path)[0]


def test_zip_files_are_no_arrays(folder):
    packed = io.BytesIO()
    np.savez(packed, depth("chr1:0-4.npy"))
    (folder / "chr1:0-4.npy").write_bytes(packed.getvalue())
    assert "no whole .npy array: chr1:0-4.npy" in problems(folder)[0]


@pytest.mark.parametrize("shape", ["(1, 4", "(1000000000000, 1000)", "(1, 4), 'x': (", "1"])
def test_damaged_headers_are_no_arrays(folder, shape):
    path = folder / "chr1:0-4.npy"
    header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    path.write_bytes(path.read_bytes()[:8] + b"\x76\0" + header.encode() + bytes(8))
    assert "no whole .npy array: chr1:0-4.npy" in problems(folder)[0]


def test_bin_means_sum_in_float64():
    ones = np.full((1, 100_050), 2049, np.float16)  # float16 sums overflow, float32 sums round
    ones[0, ::3] = 1
    means = bin_means(ones, 100_000)
    exact = [ones[0, :100_000].mean(dtype=np.float64), ones[0, 100_000:].mean(dtype=np.float64)]
    np.testing.assert_array_equal(means, [np.float32(exact)])
    large = np.array([[1, 2**24, 1, 1, 1]], np.float32)  # 2**24 + 1 is none of float32
    np.testing.assert_array_equal(bin_means(large, 5), [[3_355_444]])


def test_the_last_bin_is_the_mean_of_what_remains():
    means = bin_means(np.array([[0, 2, 4, 6, 9], [1, 1, 1, 1, 5]]), 2)
    np.testing.assert_array_equal(means, np.float32([[1, 5, 9], [1, 1, 5]]))


def test_the_size_is_of_the_files_that_are_there(folder, pack, tmp_path):
    sizes = {name: (folder / name).stat().st_size for name in WIDTHS}
    names = ["chr1:0-4.npy", "chr2:5-6.npy"]
    assert size_on_disk(folder, [*names, "absent.npy"]) == sum(sizes[name] for name in names)
    path = pack((folder, "x"))
    assert size_on_disk(path, names) == path.stat().st_size
    assert size_on_disk(tmp_path / "absent", names) == 0
