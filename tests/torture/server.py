"""A web server for downloads, as a process of its own: the harness has no threads.

    python -m tests.torture.server FOLDER       # prints its URL, serves until stdin is closed

`URL/fine/NAME` is a file of the folder; other words than `fine` misbehave, see
`tests.data_prep.bad_server`.
"""

import collections
import pathlib
import subprocess
import sys


class _Files(collections.UserDict):
    """What the folder holds when it is asked for."""

    def __init__(self, folder: pathlib.Path):
        super().__init__()
        self.folder = folder

    def get(self, name: str, default: bytes = b"") -> bytes:
        path = self.folder / pathlib.PurePath(name).name
        return path.read_bytes() if path.is_file() else default


def started(folder: pathlib.Path) -> tuple[subprocess.Popen, str]:
    """A server of a folder, and its URL; it ends with this process."""
    command = [sys.executable, "-m", "tests.torture.server", str(folder)]
    pipe = subprocess.PIPE
    server = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
    assert server.stdout
    return server, server.stdout.readline().strip()


def main() -> None:
    from tests.data_prep.bad_server import serving

    with serving() as server:
        server.files = _Files(pathlib.Path(sys.argv[1]))
        print(server.url, flush=True)
        sys.stdin.read()


if __name__ == "__main__":
    main()
