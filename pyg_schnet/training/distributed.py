"""The processes of a run: who does which part of a batch, and how they add up what they found.

A run of several processes learns what one would: each takes a part of every batch, and the gradients are
added up before the step. The loss, the wish to stop and the clock travel beside them, so that all processes
agree on these; on GPUs the host waits for them at each step.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from lightning_fabric.loggers.tensorboard import TensorBoardLogger
from torch import Tensor, distributed

from pyg_schnet.training.config import FabricConfig
from pyg_schnet.training.run_directory import RunDirectory

_PATIENCE = 60  # s, in which a process should notice by itself that another ended


class ProcessLostError(RuntimeError):
    """Another process of the run ended."""


class Processes:
    """Those of one run, of which this is one; alone, all is as if there were none.

    Args:
        fabric: Launched, if it has several.

    Attributes:
        rank: Number of this process.
        count: How many there are.
        here: How many of them on this host.
    """

    def __init__(self, fabric: Fabric):
        self.fabric = fabric
        self.rank, self.count = fabric.global_rank, fabric.world_size
        self.here: int = getattr(fabric.strategy, "num_processes", 1)

    @classmethod
    def start(cls, config: FabricConfig, run: RunDirectory) -> Processes:
        """Start the others, which run the same command, or join those that torchrun started.

        Raises:
            ValueError: If there is no such device, or torchrun started another number.
        """
        fabric = _fabric(config, run)
        if fabric.world_size > 1:
            logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # tells of each that registers
            fabric.launch()
            _watch_over(fabric)
        return cls(fabric)

    @property
    def is_first(self) -> bool:
        """Whether this is the one that writes and speaks."""
        return self.rank == 0

    def share(self, ids: Tensor, work: Tensor | None) -> Tensor:
        """Give this process's part of a batch, in which all have about as much work.

        The heaviest structure comes first, each goes to who has least so far.

        Args:
            ids: Numbers of the structures of a step.
            work: Of each structure of the set, as its edges; not looked at by one process alone.
        """
        if self.count == 1:
            return ids
        assert work is not None
        amount = work[ids]
        load = [0] * self.count
        mine = []
        for place in amount.argsort(descending=True, stable=True).tolist():
            least = load.index(min(load))
            load[least] += int(amount[place]) + 1  # a structure without edges is work, too
            if least == self.rank:
                mine.append(place)
        return ids[sorted(mine)]

    def add_up(
        self, gradient: Tensor, loss: Tensor, numbers: tuple[float, ...]
    ) -> tuple[Tensor, tuple[float, ...]]:
        """Add up a gradient of all processes in place, and a loss and some numbers beside it.

        Args:
            gradient: Of this process's part of the loss, in a row.
            loss: This part, ``()``.
            numbers: Anything.

        Returns:
            The sums of loss and numbers.

        Raises:
            ProcessLostError: If another process ended; the gradient may be of any of them.
        """
        if self.count == 1:
            return loss, numbers
        more = torch.tensor([0.0, *numbers], dtype=torch.float64, device=loss.device)
        more[0] = loss
        with self.watched():
            others = distributed.all_reduce(more, async_op=True)
            distributed.all_reduce(gradient)
            cast(distributed.Work, others).wait()
        return more[0], tuple(more[1:].tolist())

    def follow(self, *tensors: Tensor) -> None:
        """Take over the first process's numbers, a broadcast: unlike processors round differently."""
        if self.count > 1:
            with self.watched():
                for tensor in tensors:
                    distributed.broadcast(tensor, 0)

    def wait(self) -> None:
        """Wait for all others to come here, a barrier."""
        if self.count > 1:
            with self.watched():
                self.fabric.barrier()

    def require_same(self, what: str) -> None:
        """Refuse to go on with another view of the run than the first process has.

        Raises:
            ValueError: If the text, which tells all that must be the same, is another one.
        """
        digest = torch.frombuffer(bytearray(hashlib.sha256(what.encode()).digest()), dtype=torch.uint8)
        own = digest.to(self.fabric.device)
        first = own.clone()
        self.follow(first)
        if not torch.equal(own, first):
            raise ValueError(
                f"process {self.rank} of {self.count} must see the data, options and folder of the run that "
                "process 0 sees, got others; put them where all hosts read them"
            )

    @contextmanager
    def together(self) -> Iterator[None]:
        """Go on after this only if no process fails in it; what is inside must not communicate in vain.

        Raises:
            SystemExit: In all but the first, where the first tells what is wrong.
            ProcessLostError: In the first, where only others failed, which told why.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        failed = torch.zeros(self.count, device=self.fabric.device)
        failed[self.rank] = failure is not None
        if self.count > 1:
            try:
                failed = self._sum(failed)
            except ProcessLostError as lost:
                raise failure or lost from None
        if failed[0] and not self.is_first:
            raise SystemExit(1)  # the first one tells
        if failure is not None:
            raise failure
        if failed.any():
            raise ProcessLostError(
                f"process {int(failed.argmax())} of {self.count} could not begin, and told why; all must see "
                "the same files"
            )

    def _sum(self, tensor: Tensor) -> Tensor:
        with self.watched():
            distributed.all_reduce(tensor)  # Fabric's own waits at a barrier before
        return tensor

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Tell by :class:`ProcessLostError` where a process ended with which those inside communicate."""
        try:
            yield
        except RuntimeError as error:
            if self.count == 1:
                raise
            reason = str(error).strip().partition("\n")[0][:150]
            raise ProcessLostError(
                f"another of the {self.count} processes of this run ended ({reason})"
            ) from error


def _fabric(config: FabricConfig, run: RunDirectory) -> Fabric:
    accelerator = config.accelerator
    if accelerator == "auto":  # Fabric's own choice may be one without float64, as Apple's
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    if accelerator == "cuda" and not torch.cuda.is_available():
        raise ValueError("`fabric.accelerator` must be 'auto' or 'cpu' here, got 'cuda': torch sees no GPU")
    devices, hosts = _numbers(config)
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(
            f"`fabric.devices` must be at most the {torch.cuda.device_count()} GPUs here, got {devices}"
        )
    most = max(16, 4 * (os.cpu_count() or 1))
    if accelerator == "cpu" and devices > most:  # each takes half a gigabyte
        raise ValueError(
            f"`fabric.devices` must be at most {most}, four processes for each CPU here, got {devices:,}"
        )
    strategy = "ddp" if devices * hosts > 1 else "auto"
    logger = TensorBoardLogger(run.tensorboard, "", "")
    return Fabric(
        accelerator=accelerator, devices=devices, num_nodes=hosts, strategy=strategy, loggers=logger
    )


def _numbers(config: FabricConfig) -> tuple[int, int]:
    """Give processes a host and hosts: torchrun's, where it started this process."""
    if not torch.distributed.is_torchelastic_launched():
        return config.devices, config.num_nodes
    total, local = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    started = local, total // local
    if (config.devices, config.num_nodes) not in ((1, 1), started):
        raise ValueError(
            f"`fabric.devices` and `fabric.num_nodes` must be {started[0]} and {started[1]}, as torchrun "
            f"started them, got {config.devices} and {config.num_nodes}; leave them out"
        )
    return started


def _watch_over(fabric: Fabric) -> None:
    """End this process where another ended and it does not notice, as in NCCL's operations.

    Fabric's own observer would kill it at once, without a word or a checkpoint.
    """
    children: list[subprocess.Popen] = getattr(cast(Any, fabric.strategy).launcher, "procs", [])
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            cast(Any, thread)._run = lambda: True
    parent = os.getppid() if fabric.local_rank > 0 and "TORCHELASTIC_RUN_ID" not in os.environ else None
    threading.Thread(target=_end_when_alone, args=(children, parent), daemon=True).start()


def _end_when_alone(children: Sequence[subprocess.Popen], parent: int | None) -> None:
    while all(child.poll() in (None, 0) for child in children) and parent in (None, os.getppid()):
        time.sleep(1)
    time.sleep(_PATIENCE)
    print("pyg-schnet: another process of this run ended; --resume goes on", file=sys.stderr, flush=True)
    for child in children:
        child.kill()
    os._exit(1)
