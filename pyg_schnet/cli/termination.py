"""SIGTERM, which batch systems and ``kill`` send, as an end that keeps what is done."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

TERMINATED = 128 + signal.SIGTERM  # the exit code, as shells give it


@contextmanager
def orderly_termination() -> Iterator[None]:
    """Make SIGTERM raise ``SystemExit(143)``, so that files are closed and it is told what is kept."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def end(*_: object) -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # one is enough
        print("pyg-schnet: terminated", file=sys.stderr)
        raise SystemExit(TERMINATED)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
