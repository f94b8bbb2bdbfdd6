"""What is done to a command: damage to a file that it reads, or a disturbance while it runs.

Each fault proves itself: `Unproved` is raised where it did not come about.
"""

import os
import pathlib
import random
import re
import shutil

from tests.torture.ground import Ground, remove


class Unproved(Exception):
    """The fault did not come about, so that the trial says nothing."""


# -- Damage ------------------------------------------------------------------------------------

# Plain text that users supply carries no checksum: a changed digit is another input. Of it a bit is
# flipped that leaves no valid text, and what is cut is all.
_PLAIN = re.compile(r"^(data|npy|eqtl|reads|counts)/.*\.(csv|bed|bedpe|sizes|txt)$")
# What no command reads.
_UNREAD = re.compile(r"truth|\.(png|svg|html)$|\.log$")


def readable(folder: pathlib.Path) -> dict[str, list[str]]:
    """The files that can be damaged, by their kind."""
    kinds: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_file() and not path.is_symlink() and not _UNREAD.search(name):
            kinds.setdefault(kind_of(name), []).append(name)
    return kinds


def kind_of(name: str) -> str:
    """A name without what tells the files of one kind apart: numbers, cells, hashes."""
    name = re.sub(r"\b[0-9a-f]{16,}\b", "HASH", name)
    name = re.sub(r"(/c)(/\d+)+$", r"\1/…", name)
    name = re.sub(r"E\d{3}|H3K\w+?(?=[./-])|\d+-assay", "*", name)
    return re.sub(r"\d+", "N", name)


def damage(folder: pathlib.Path, name: str, how: str, dice: random.Random) -> None:
    """Truncate, delete, flip a bit of, or swap a file.

    Raises:
        Unproved: if the file is as before, or has nothing that could be swapped with it.
    """
    path = folder / name
    before = path.read_bytes()
    plain = bool(_PLAIN.search(name))
    if how == "deleted":
        path.unlink()
        return
    if how == "truncated":
        after = b"" if plain else before[: dice.randrange(max(1, len(before)))]
    elif how == "flipped":
        if not before:
            raise Unproved("an empty file")
        after = bytearray(before)
        bit = 7 if plain else dice.randrange(8)
        after[dice.randrange(len(before))] ^= 1 << bit
    else:
        after = _another(folder, name, before, dice)
    if after == before:
        raise Unproved("the same bytes")
    path.write_bytes(after)
    if path.read_bytes() == before:
        raise Unproved("the same bytes")


def _another(folder: pathlib.Path, name: str, before: bytes, dice: random.Random) -> bytes:
    """The bytes of another valid file of the same kind."""
    if _PLAIN.search(name):
        raise Unproved("another plain input is another input")
    others = [other for other in readable(folder)[kind_of(name)] if other != name]
    others = [other for other in others if (folder / other).read_bytes() != before]
    if not others:
        raise Unproved("no other file of its kind")
    return (folder / dice.choice(others)).read_bytes()
