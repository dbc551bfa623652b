"""A local HTTP server that answers as a test has written down, and remembers what it was asked."""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

Answer = Callable[[BaseHTTPRequestHandler, threading.Event], None]


class Server:
    """A server on a free port of this machine.

    ``server.answers["/a"] = [status(503), content(data)]`` answers the first request with an error and all
    later ones with the data; an address without answers gives 404. ``server.requests`` holds the path and the
    headers of each request, and ``server.go_on`` lets answers go on that wait.
    """

    def __init__(self):
        self.answers: dict[str, list[Answer]] = {}
        self.requests: list[tuple[str, dict[str, str]]] = []
        self.go_on = threading.Event()

    def __enter__(self) -> Server:
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self):
                server.requests.append((self.path, dict(self.headers)))
                answers = server.answers.get(self.path) or [status(404)]
                (answers.pop(0) if len(answers) > 1 else answers[0])(self, server.go_on)

            def log_message(self, *_):
                """Write nothing to stderr."""

        class Quiet(ThreadingHTTPServer):
            def handle_error(self, *_):
                """Write nothing to stderr about clients that have gone."""

        self._server = Quiet(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        return self

    def __exit__(self, *_) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def url(self, path: str = "") -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def ranges(self) -> list[str | None]:
        """The range that each request asked for."""
        return [headers.get("Range") for _, headers in self.requests]


def content(
    data: bytes,
    *,
    start: int | None = None,
    end: int | None = None,
    wait: bool = False,
    ranges: bool = True,
    announced: bool = True,
    headers: dict[str, str] | None = None,
) -> Answer:
    """Send a file, or the rest of it that is asked for.

    Args:
        data: The file.
        start: Where the rest begins, against what is asked for.
        end: The connection is cut at this byte of the file.
        wait: Stand still there until the test lets it go on, before it is cut.
        ranges: Whether ranges are heeded.
        announced: Whether a length is sent.
        headers: More headers, for instance ``ETag``.
    """
    headers = headers or {}
    validators = {headers.get("ETag"), headers.get("Last-Modified")} - {None}

    def answer(handler: BaseHTTPRequestHandler, go_on: threading.Event) -> None:
        asked = handler.headers.get("Range") if ranges else None
        if handler.headers.get("If-Range", next(iter(validators), "")) not in (validators or {""}):
            asked = None
        first = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
        if first and first >= len(data):
            status(416)(handler, go_on)
            return
        first = first if start is None or not asked else start
        handler.send_response(206 if asked else 200)
        if asked:
            handler.send_header("Content-Range", f"bytes {first}-{len(data) - 1}/{len(data)}")
        if announced:
            handler.send_header("Content-Length", str(len(data) - first))
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(data[first:end])
        if wait:
            go_on.wait(30)

    return answer


def status(
    code: int, body: bytes = b"<html>an error</html>", headers: dict[str, str] | None = None
) -> Answer:
    """Send a status with a page."""

    def answer(handler: BaseHTTPRequestHandler, go_on: threading.Event) -> None:
        handler.send_response(code)
        for name, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(body)

    return answer


def silence(handler: BaseHTTPRequestHandler, go_on: threading.Event) -> None:
    """Accept the connection and say nothing until the test ends."""
    go_on.wait(30)


def hang_up(handler: BaseHTTPRequestHandler, go_on: threading.Event) -> None:
    """Close the connection without an answer."""
