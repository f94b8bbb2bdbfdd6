"""Checkpoints of several runs: what was written is whole, what has changed is not."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from epi2expr_jax.errors import InputError
from epi2expr_jax.files import write_json
from epi2expr_jax.training import checkpoint
from epi2expr_jax.training.pieces import Piece, Pieces, read_pieces, remove_states
from epi2expr_jax.training.runs import FINISHED, STOPPED, Log


def rows(*values):
    """A part of a piece: what is known of its runs, and their arrays."""
    return [{"run_id": str(v)} for v in values], {"w": np.array(values, np.float32)}


NONE: tuple = ([], None)
ROW = {"w": jax.ShapeDtypeStruct((), np.float32)}


def test_pieces_keep_the_newest_state_and_all_that_ended(tmp_path):
    pieces = Pieces(tmp_path / "0-of-1")
    pieces.save(("state", *rows(1, 2, 3)))
    pieces.save(("best", *rows(2)), ("state", *rows(1, 3)))
    pieces.save(("best", *rows(1, 3)), ("state", *NONE))
    pieces.close()
    assert read_pieces(tmp_path, "state") == ([], [])
    best, damage = read_pieces(tmp_path, "best")
    assert damage == []
    assert [[r["run_id"] for r in piece.records] for piece in best] == [["2"], ["1", "3"]]
    np.testing.assert_array_equal(best[1].restore(ROW)["w"], [1, 3])


def test_a_state_goes_when_each_of_its_runs_has_been_saved_anew(tmp_path):
    """In pieces of any make-up; parts that are given together become one."""
    pieces = Pieces(tmp_path / "0-of-1")

    def kept():
        pieces.wait()
        return {path.stem[-1] for path in pieces.folder.glob("state-*.json")}

    pieces.save(("state", *rows(1, 2)))
    pieces.save(("state", *rows(3)), ("state", *rows(4, 5)))
    assert kept() == {"1", "2"}
    (_, both), _ = read_pieces(tmp_path, "state")
    np.testing.assert_array_equal(both.restore(ROW)["w"], [3, 4, 5])
    pieces.save(("state", *rows(2, 3)))
    assert kept() == {"1", "2", "3"}
    pieces.save(("best", *rows(1)))
    assert kept() == {"2", "3"}
    pieces.save(("best", *rows(4)), ("state", *rows(5)))
    assert kept() == {"3", "6"}
    pieces.close()


def test_what_a_killed_save_left_is_never_taken_for_whole(tmp_path):
    folder = tmp_path / "0-of-2"
    pieces = Pieces(folder)
    pieces.save(("state", *rows(1)))
    pieces.close()
    # Killed within the second save: who its rows are is there, the arrays are not.
    write_json(folder / "state-000002.json", rows(1)[0])
    (folder / "state-000002.0a1b2c3d.partial").mkdir()
    (folder / "state-000002.orbax-checkpoint-tmp-123").mkdir()  # as older versions did
    (folder / "state-000003.json.0a1b2c3d.partial.json").write_text("[{")
    ((piece,), _) = read_pieces(tmp_path, "state")
    assert piece.path.name == "state-000001"
    again = Pieces(folder)
    assert not [*folder.glob("*tmp*"), *folder.glob("*partial*"), *folder.glob("*-000002*")]
    again.hold([piece])
    again.save(("state", *rows(1)))
    again.close()
    ((piece,), _) = read_pieces(tmp_path, "state")
    assert (piece.path.name, piece.records) == ("state-000003", [{"run_id": "1"}])
    assert len(list(folder.iterdir())) == 3
    remove_states(tmp_path, 9)
    assert list(folder.iterdir()) == []


def saved(tmp_path):
    """Runs 1 and 2 have ended, in a piece each; 3 is under way."""
    pieces = Pieces(tmp_path / "0-of-1")
    pieces.save(("best", *rows(1)), ("state", *rows(2, 3)))
    pieces.save(("best", *rows(2)), ("state", *rows(3)))
    pieces.close()
    return tmp_path / "0-of-1"


def largest(folder):
    """The file with the weights, of those of a checkpoint."""
    return max(
        (path for path in folder.rglob("*") if path.is_file()), key=lambda p: p.stat().st_size
    )


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


DAMAGE = {
    "a flipped bit": lambda piece: flip(largest(piece)),
    "a flipped bit in the records": lambda piece: flip(piece.with_suffix(".json")),
    "a file cut short": lambda piece: largest(piece).write_bytes(b""),
    "records cut short": lambda piece: piece.with_suffix(".json").write_text("[{"),
    "no metadata": lambda piece: (piece / "_METADATA").unlink(),
    "checksums cut short": lambda piece: piece.with_suffix(".sha256").write_text(""),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_piece_that_has_changed_is_told_from_the_whole_ones(tmp_path, damage):
    folder = saved(tmp_path)
    damage(folder / "best-000001")
    (whole,), (problem,) = read_pieces(tmp_path, "best")
    assert whole.path == folder / "best-000003"
    assert problem.where.startswith(str(folder / "best-000001"))


@pytest.mark.parametrize("name", ["_METADATA", "manifest.ocdbt", "d/*"])
def test_of_an_older_version_what_can_be_read_is_whole(tmp_path, name):
    folder = saved(tmp_path)
    for sums in folder.glob("*.sha256"):
        sums.unlink()
    assert len(read_pieces(tmp_path, "best")[0]) == 2
    piece = folder / "best-000001"
    for file in piece.glob(name):
        file.write_bytes(file.read_bytes()[:9])
    (whole,), (problem,) = read_pieces(tmp_path, "best")
    assert whole.path == folder / "best-000003"
    assert problem.where == str(piece)
    with pytest.raises(InputError, match=r"best-000001: found damage"):
        checkpoint.restore(piece, {"w": jax.ShapeDtypeStruct((1,), np.float32)})


def test_records_that_a_kill_left_half_written_are_passed_over(tmp_path):
    folder = saved(tmp_path)
    (folder / "state-000003.json.0a1b2c3d.partial.json").write_text("[{")
    ((piece,), _) = read_pieces(tmp_path, "state")
    assert piece.records == [{"run_id": "3"}]
    Pieces(folder).close()


def test_after_a_failed_save_it_still_ends(tmp_path):
    """A file lies where the folder of the checkpoint should be made."""
    pieces = Pieces(tmp_path / "0-of-1")
    (tmp_path / "0-of-1").rmdir()
    (tmp_path / "0-of-1").write_text("")
    pieces.save(("state", *rows(1)))
    with pytest.raises(InputError, match="could not be written"):
        pieces.save(("state", *rows(2)))
    pieces.close()


def test_runs_that_took_all_of_fewer_epochs_are_known():
    log = Log(train_loss=[1.0, 0.5], status=FINISHED)
    assert (log.short_of(2), log.short_of(3)) == (False, True)
    assert not dataclasses.replace(log, status=STOPPED).short_of(3)
    records = [{"log": dataclasses.asdict(one)} for one in (Log(), log)]
    assert Piece(pathlib.Path("best"), records).short_of(3)
    assert not Piece(pathlib.Path("best"), records[:1]).short_of(3)
