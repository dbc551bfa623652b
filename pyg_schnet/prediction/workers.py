"""Processes that do a job together, and give what they found in the order of the file."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process

from pyg_schnet.prediction.task import Job, Row

_AHEAD = 4  # batches of each process that wait for their turn
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


class Workers:
    """Processes, each with its share of a job; a context that leaves none behind.

    They neither see Ctrl-C nor SIGTERM, which are for the process that began them, and end when it does,
    however it ends.

    Args:
        job: Of all of them.
        count: How many.
        threads: Of each.
    """

    def __init__(self, job: Job, count: int, threads: int = 1):
        self._job, self._count, self._threads = job, count, threads
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._waiting: list[deque[list[Row] | Exception | None]] = [deque() for _ in range(count)]

    def __enter__(self) -> Workers:
        try:
            with _signals_wait():
                for number in range(self._count):
                    self._begin(replace(self._job, share=self._job.share.dealt(number, self._count)))
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for process in self._processes:
            process.kill()
        for process, connection in zip(self._processes, self._connections, strict=True):
            process.join()
            process.close()
            connection.close()

    def batches(self) -> Iterator[list[Row]]:
        """Give batch after batch, in the order of the file.

        Raises:
            RuntimeError: If a process died; all batches before its next were given.
            ValueError: If a structure cannot be read; likewise.
        """
        # Whose share begins in the middle of a round is not the first of them.
        first = next(self._job.share.batches(self._job.begin))
        turn = (first - self._job.share.first) // self._job.share.every % self._count
        order = cycle([*range(turn, self._count), *range(turn)])
        for number in order:
            batch = self._next(number)
            if batch is None:  # the file ends here, for all
                return
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def _begin(self, job: Job) -> None:
        context = multiprocessing.get_context("spawn")  # threads and GPUs do not survive a fork
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(job, send, self._threads), daemon=True)
        process.start()
        send.close()  # so that the end of the process is the end of what it sends
        self._processes.append(process)
        self._connections.append(receive)

    def _next(self, number: int) -> list[Row] | Exception | None:
        """Wait for a batch of a process, and meanwhile take from the others what they have."""
        while not self._waiting[number]:
            able = {
                connection: place
                for place, connection in enumerate(self._connections)
                if len(self._waiting[place]) < _AHEAD and not self._is_through(place)
            }
            for connection in wait(list(able)):
                assert isinstance(connection, Connection)
                place = able[connection]
                try:
                    self._waiting[place].append(connection.recv())
                except (EOFError, OSError):
                    self._waiting[place].append(RuntimeError(self._how_it_died(place)))
        return self._waiting[number].popleft()

    def _is_through(self, place: int) -> bool:
        return bool(self._waiting[place]) and not isinstance(self._waiting[place][-1], list)

    def _how_it_died(self, place: int) -> str:
        process = self._processes[place]
        process.join(10)
        code, name = process.exitcode, f"process {place + 1} of {self._count}"
        if code == -signal.SIGKILL:
            return f"{name} was killed, perhaps for want of memory; take fewer `--processes`"
        if code is not None and code < 0:
            return f"{name} was ended by {signal.Signals(-code).name}"
        return f"{name} ended with exit code {code}; what it said is above"


def _work(job: Job, send: Connection, threads: int) -> None:
    """Do a job, and send what is found; an error is sent in its turn."""
    threading.Thread(target=_end_with_the_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    try:
        for batch in job.batches():
            send.send(batch)
        send.send(None)
    except BrokenPipeError:
        return  # nobody listens
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("PYG_SCHNET_TRACEBACK"):
            traceback.print_exc()
        send.send(ValueError(str(error)))


def _end_with_the_parent() -> None:
    """Wait until the parent ends, even by SIGKILL, and end then."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _signals_wait() -> Iterator[None]:
    """Hold Ctrl-C and SIGTERM back while processes are begun, which thereby never see them."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows has neither
        yield
        return
    resource_tracker.ensure_running()  # it would let signals through in its own beginning
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
