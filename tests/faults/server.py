"""A slow local server of files, which heeds ranges and hangs up now and then."""

from __future__ import annotations

import hashlib
import re
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_PIECE = 2**14  # bytes


def make(folder: Path, bytes_a_second: float, cut_every: int = 0) -> ThreadingHTTPServer:
    """Bind a server of the files of a folder to a free port; ``serve_forever()`` answers.

    Args:
        folder: With the files.
        bytes_a_second: How fast each is sent.
        cut_every: Hang up in the midst of every so many answers; never by default.
    """
    answers = 0

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            nonlocal answers
            answers += 1
            path = folder / Path(self.path).name
            if not path.is_file():
                self.send_error(404)
                return
            data = path.read_bytes()
            tag = f'"{hashlib.sha256(data).hexdigest()[:16]}"'
            asked = re.fullmatch(r"bytes=(\d+)-", self.headers.get("Range", ""))
            if self.headers.get("If-Range", tag) != tag:
                asked = None
            start = int(asked[1]) if asked else 0
            if start >= len(data):
                self.send_error(416)
                return
            self.send_response(206 if asked else 200)
            if asked:
                self.send_header("Content-Range", f"bytes {start}-{len(data) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(data) - start))
            self.send_header("ETag", tag)
            self.end_headers()
            end = len(data)
            if cut_every and answers % cut_every == 0:
                end = start + (len(data) - start) // 2
            for place in range(start, end, _PIECE):
                self.wfile.write(data[place : min(place + _PIECE, end)])
                time.sleep(_PIECE / bytes_a_second)

        def log_message(self, *_: object) -> None:
            """Write nothing to stderr."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """Write nothing to stderr about clients that have gone."""

    return Quiet(("127.0.0.1", 0), Handler)
