"""Prediction of the structures of a file, in this process or in several worker processes."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import traceback
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import cycle, islice
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess, parent_process

import torch
from ase import Atoms

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.potentials.model_files import Model
from pyg_schnet.prediction.export import encode
from pyg_schnet.prediction.partial_output import PredictionResult
from pyg_schnet.prediction.predictor import Predictor
from pyg_schnet.prediction.run import out_of_domain_reason, with_number
from pyg_schnet.prediction.shards import ShardSpec
from pyg_schnet.simulation.structures import StructureError

_MAX_QUEUED = 4  # batches of each worker that wait for their turn
_SIGNALS = {signal.SIGINT, signal.SIGTERM}


@dataclass(frozen=True)
class PredictionTask:
    """Predictions for a shard of the structures of a file.

    Args:
        models: Paths of checkpoints; or a potential, for this process alone.
        source: Input.
        shard: Which structures of the input.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, …; by default that of a potential, the CPU for paths.
        run: Name of the run, stored in each frame.
        kind: ASE's name of the output's format.
        begin: Place in the stream of the first structure to predict; those before are done.
    """

    models: Model
    source: StructureFile
    shard: ShardSpec
    device: str | torch.device | None
    run: str
    kind: str
    begin: int = 0

    def batches(self) -> Iterator[list[PredictionResult]]:
        """Predict batch after batch; the first is computed whole, and yielded from ``begin`` on.

        Raises:
            ValueError: If a structure cannot be read.
        """
        predictor = Predictor(self.models, device=self.device, stress=True)
        stream = self.source.read(self.shard.places(self.begin))
        for batch in self.shard.batches(self.begin):
            structures = list(islice(stream, self.shard.batch_size))
            if not structures:
                return
            frames = [with_number(atoms, number) for number, atoms in structures]
            first = batch * self.shard.batch_size
            predictions = predictor.predict_batch(frames, batch, first)
            results = [
                self._result(number, prediction, predictor)
                for (number, _), prediction in zip(structures, predictions, strict=True)
            ]
            yield results[max(0, self.begin - first) :]

    def _result(
        self, number: int, prediction: Atoms | StructureError, predictor: Predictor
    ) -> PredictionResult:
        if isinstance(prediction, StructureError):
            return PredictionResult(number, None, prediction.reason)
        outside = out_of_domain_reason(prediction, predictor.domain)
        prediction.info["run"] = self.run
        return PredictionResult(number, encode(prediction, self.kind), None, outside)


class Workers:
    """Processes that share a task; a context manager that ends all of them at exit.

    They do not receive Ctrl-C and SIGTERM, which the parent process handles, and they end whenever the
    parent ends.

    Args:
        task: Task of all of them.
        count: Number of processes.
        threads: Threads of PyTorch in each.
    """

    def __init__(self, task: PredictionTask, count: int, threads: int = 1):
        self._task, self._count, self._threads = task, count, threads
        self._processes: list[BaseProcess] = []
        self._connections: list[Connection] = []
        self._queues: list[deque[list[PredictionResult] | Exception | None]] = [deque() for _ in range(count)]

    def __enter__(self) -> Workers:
        try:
            with _signals_blocked():
                for rank in range(self._count):
                    self._start(replace(self._task, shard=self._task.shard.split(rank, self._count)))
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

    def batches(self) -> Iterator[list[PredictionResult]]:
        """Yield batch after batch, in the order of the file.

        Raises:
            RuntimeError: If a process died; all batches before its next one were yielded.
            ValueError: If a structure cannot be read; likewise.
        """
        # A task that begins in the middle of a round does not begin with the first worker.
        first = next(self._task.shard.batches(self._task.begin))
        turn = (first - self._task.shard.rank) // self._task.shard.size % self._count
        for rank in cycle([*range(turn, self._count), *range(turn)]):
            batch = self._next(rank)
            if batch is None:  # the end of the file, for all workers
                return
            if isinstance(batch, Exception):
                raise batch
            yield batch

    def _start(self, task: PredictionTask) -> None:
        context = multiprocessing.get_context("spawn")  # threads and GPUs do not work after a fork
        receive, send = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(task, send, self._threads), daemon=True)
        process.start()
        send.close()  # the pipe then ends with the process
        self._processes.append(process)
        self._connections.append(receive)

    def _next(self, rank: int) -> list[PredictionResult] | Exception | None:
        """Return the next batch of a worker; while waiting, receive what the other workers send."""
        while not self._queues[rank]:
            open_pipes = {
                connection: other
                for other, connection in enumerate(self._connections)
                if len(self._queues[other]) < _MAX_QUEUED and not self._is_finished(other)
            }
            for connection in wait(list(open_pipes)):
                assert isinstance(connection, Connection)
                other = open_pipes[connection]
                try:
                    self._queues[other].append(connection.recv())
                except (EOFError, OSError):
                    self._queues[other].append(RuntimeError(self._cause_of_death(other)))
        return self._queues[rank].popleft()

    def _is_finished(self, rank: int) -> bool:
        return bool(self._queues[rank]) and not isinstance(self._queues[rank][-1], list)

    def _cause_of_death(self, rank: int) -> str:
        process = self._processes[rank]
        process.join(10)
        code, name = process.exitcode, f"process {rank + 1} of {self._count}"
        if code == -signal.SIGKILL:
            return f"{name} was killed, perhaps for lack of memory; use fewer `--processes`"
        if code is not None and code < 0:
            return f"{name} was ended by {signal.Signals(-code).name}"
        return f"{name} ended with exit code {code}; its error message is above"


def _work(task: PredictionTask, send: Connection, threads: int) -> None:
    """Run a task and send its batches; an error is sent in its turn."""
    threading.Thread(target=_exit_with_parent, daemon=True).start()
    import torch

    torch.set_num_threads(threads)
    try:
        for batch in task.batches():
            send.send(batch)
        send.send(None)
    except BrokenPipeError:
        return  # the parent has ended
    except (ValueError, TypeError, OSError) as error:
        if os.environ.get("PYG_SCHNET_TRACEBACK"):
            traceback.print_exc()
        send.send(ValueError(str(error)))


def _exit_with_parent() -> None:
    """Wait until the parent process ends, be it by SIGKILL, and exit."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


@contextmanager
def _signals_blocked() -> Iterator[None]:
    """Block Ctrl-C and SIGTERM while processes start, which inherit the block."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows has neither
        yield
        return
    resource_tracker.ensure_running()  # it would unblock the signals when it starts
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
