"""A local server that drops, truncates, stalls, lies and refuses, by the path that is asked for."""

import collections
import contextlib
import http.server
import re
import threading
import time

import numpy as np

from data_prep.work.transfer import Limits

CONTENT = np.random.default_rng(0).bytes(700_000)
QUICK = Limits(connections=2, attempts=4, timeout_s=0.4, pause_s=0.01)  # to be borne in a test


class Handler(http.server.BaseHTTPRequestHandler):
    """`/MODE/name` misbehaves in its way; `asked` remembers path and Range of every request."""

    def log_message(self, *args):
        pass

    def do_GET(self):
        server = self.server
        mode, name = self.path.strip("/").split("/")[-2:]
        server.asked.append((self.path, self.headers.get("Range")))
        seen = server.seen[self.path] = server.seen[self.path] + 1
        content = server.files.get(name, CONTENT)
        if mode == "404":
            return self.send_error(404)
        if mode in ("503", "429") and seen < 3:
            self.send_response(int(mode))
            if mode == "429":
                self.send_header("Retry-After", "1")
            self.send_header("Content-Length", "0")
            return self.end_headers()
        begin = 0
        found = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range") or "")
        if found and mode != "norange":
            begin = int(found[1])
        if begin >= len(content):
            return self.send_error(416)
        body = content[begin:]
        self.send_response(206 if begin else 200)
        length = len(body) + (1000 if mode == "long" else -1000 if mode == "short" else 0)
        self.send_header("Content-Length", str(length))
        self.send_header("ETag", '"one"')
        if begin:
            end = f"{begin}-{len(content) - 1}/{len(content)}"
            self.send_header("Content-Range", f"bytes {end}")
        self.end_headers()
        if mode in ("drop", "stall", "norange") and seen < 3:
            body = body[:300_000]
        self.wfile.write(body)
        self.wfile.flush()
        if mode == "stall" and seen < 3:
            time.sleep(0.8)
        self.close_connection = True
        return None


@contextlib.contextmanager
def serving():
    """A server with `url`, `files` by name (to be filled), and what was `asked` of it."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.seen, server.files = [], collections.Counter(), {}
    server.url = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()
