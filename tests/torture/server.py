"""A web server for downloads, as a process of its own: the harness has no threads.

    python -m tests.torture.server FOLDER       # prints its URL, serves until it is ended

`URL/fine/NAME` is a file of the folder; other words than `fine` misbehave, see
`tests.data_prep.bad_server`.
"""

import pathlib
import signal
import sys


def main() -> None:
    from tests.data_prep.bad_server import serving

    with serving() as server:
        for path in pathlib.Path(sys.argv[1]).iterdir():
            server.files[path.name] = path.read_bytes()
        print(server.url, flush=True)
        signal.sigwait([signal.SIGTERM, signal.SIGINT])


if __name__ == "__main__":
    main()
