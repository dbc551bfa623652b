"""Interruptions: a signal ends a run after its step, with a checkpoint."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)  # Ctrl-C; what schedulers of clusters send


class Interruption:
    """What a signal asks for.

    Attributes:
        signal: Which came, if any.
    """

    def __init__(self):
        self.signal: signal.Signals | None = None

    @property
    def is_asked(self) -> bool:
        """Whether one came."""
        return self.signal is not None

    def note(self) -> None:
        """Note that another process of the run got one."""
        self.signal = self.signal or signal.SIGTERM

    def settle(self, is_first: bool) -> None:
        """Leave it to the first process to end by the signal, which tells all others' users."""
        if not is_first:
            self.signal = None


@contextmanager
def interruption() -> Iterator[Interruption]:
    """Note SIGINT and SIGTERM instead of ending by them; a second Ctrl-C ends at once.

    More SIGTERMs are passed over: schedulers send it to a process and to its group.

    After the body, the signal that came is sent again, to whom it was meant for. Outside of the main thread,
    which alone gets signals, nothing is noted.
    """
    noted = Interruption()
    before = {}

    def note(number: int, _: FrameType | None) -> None:
        noted.signal = signal.Signals(number)
        signal.signal(number, before[number] if number == signal.SIGINT else signal.SIG_IGN)

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    if threading.current_thread() is threading.main_thread():
        for number in _SIGNALS:
            handler = signal.getsignal(number)
            if handler not in (signal.SIG_IGN, None):  # as of a job in the background
                before[number] = handler
                signal.signal(number, note)
    try:
        yield noted
    finally:
        restore()
    if noted.signal is not None:
        signal.raise_signal(noted.signal)
