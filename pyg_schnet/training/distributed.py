"""Distributed training: the processes of a run, their shards of each batch, and their communication.

Several processes compute the same step as one: each takes a shard of every batch, and the gradients are
summed before the step. The loss, stop requests and the clock are summed with them, so that all processes
agree; on GPUs, the host therefore synchronizes at each step.
"""

from __future__ import annotations

import hashlib
import logging
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor, distributed

from pyg_schnet.potentials.device import check_device
from pyg_schnet.training.config import FabricConfig

_log = logging.getLogger(__name__)
_GRACE_SECONDS = 60  # in which a process should notice by itself that another ended


class ProcessLostError(RuntimeError):
    """Another process of the run ended."""


class Processes:
    """The processes of a run, seen from one of them; with a single process, nothing is communicated.

    Args:
        fabric: Lightning Fabric, launched if there are several processes.

    Attributes:
        fabric: Device and precision.
        rank: Number of this process, from 0.
        world_size: Number of processes.
        local_world_size: Number of processes on this host.
    """

    def __init__(self, fabric: Fabric):
        self.fabric = fabric
        self.rank, self.world_size = fabric.global_rank, fabric.world_size
        self.local_world_size: int = getattr(fabric.strategy, "num_processes", 1)

    @classmethod
    def start(cls, config: FabricConfig) -> Processes:
        """Start the other processes, which run the same command, or join those that torchrun started.

        Raises:
            ValueError: If there is no such device, or torchrun started another number of processes.
        """
        fabric = _fabric(config)
        if fabric.world_size > 1:
            logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it logs each registration
            fabric.launch()
            _exit_when_others_end(fabric)
        return cls(fabric)

    @property
    def is_rank_zero(self) -> bool:
        """Whether this is rank 0, which writes the files and the output."""
        return self.rank == 0

    def shard(self, ids: Tensor, work: Tensor | None) -> Tensor:
        """Return this process's shard of a batch; all shards have about the same work.

        Structures are assigned in order of decreasing work, each to the process with the least work so far.

        Args:
            ids: Indices of the structures of a step, shape ``(structures,)``.
            work: Work of each structure of the data set, such as its number of edges; ignored by a single
                process.
        """
        if self.world_size == 1:
            return ids
        assert work is not None
        amount = work[ids]
        loads = [0] * self.world_size
        mine = []
        for place in amount.argsort(descending=True, stable=True).tolist():
            least = loads.index(min(loads))
            loads[least] += int(amount[place]) + 1  # a structure without edges is work, too
            if least == self.rank:
                mine.append(place)
        return ids[sorted(mine)]

    def all_reduce(
        self, gradient: Tensor, loss: Tensor, numbers: tuple[float, ...]
    ) -> tuple[Tensor, tuple[float, ...]]:
        """Sum a gradient over all processes in place, and a loss and some numbers with it.

        Args:
            gradient: Gradient of this process's part of the loss, one-dimensional.
            loss: This process's part of the loss, shape ``()``.
            numbers: Other numbers to sum.

        Returns:
            The sums of the loss and of the numbers.

        Raises:
            ProcessLostError: If another process ended; the gradient is undefined then.
        """
        if self.world_size == 1:
            return loss, numbers
        scalars = torch.tensor([0.0, *numbers], dtype=torch.float64, device=loss.device)
        scalars[0] = loss
        with self.communication_errors():
            pending = distributed.all_reduce(scalars, async_op=True)
            distributed.all_reduce(gradient)
            cast(distributed.Work, pending).wait()
        return scalars[0], tuple(scalars[1:].tolist())

    def broadcast(self, *tensors: Tensor) -> None:
        """Copy the tensors of rank 0 into those of all processes: different processors round differently."""
        if self.world_size > 1:
            with self.communication_errors():
                for tensor in tensors:
                    distributed.broadcast(tensor, 0)

    def of_rank_zero(self, flag: bool) -> bool:
        """Return the flag of rank 0 in all processes."""
        if self.world_size == 1:
            return flag
        number = torch.tensor(float(flag), device=self.fabric.device)
        self.broadcast(number)
        return bool(number)

    def barrier(self) -> None:
        """Wait until all processes call this."""
        if self.world_size > 1:
            with self.communication_errors():
                self.fabric.barrier()

    def require_identical(self, text: str) -> None:
        """Raise if a text, which describes all that must agree, differs from that of rank 0.

        Raises:
            ValueError: If it differs.
        """
        digest = torch.frombuffer(bytearray(hashlib.sha256(text.encode()).digest()), dtype=torch.uint8)
        own = digest.to(self.fabric.device)
        first = own.clone()
        self.broadcast(first)
        if not torch.equal(own, first):
            raise ValueError(
                f"process {self.rank} of {self.world_size} must have the same data, options and run folder "
                "as process 0, got others; put them where all hosts read them"
            )

    @contextmanager
    def collective_errors(self) -> Iterator[None]:
        """Raise in all processes if the body raises in one; it must not wait for other processes.

        Raises:
            SystemExit: In all but rank 0, if rank 0 failed and reports the error.
            ProcessLostError: In rank 0, if only others failed, which reported the error.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        failed = torch.zeros(self.world_size, device=self.fabric.device)
        failed[self.rank] = failure is not None
        if self.world_size > 1:
            try:
                with self.communication_errors():
                    distributed.all_reduce(failed)  # Fabric's own has a barrier before it
            except ProcessLostError as lost:
                raise failure or lost from None
        if failed[0] and not self.is_rank_zero:
            raise SystemExit(1)  # rank 0 reports the error
        if failure is not None:
            raise failure
        if failed.any():
            raise ProcessLostError(
                f"process {int(failed.argmax())} of {self.world_size} could not start, and reported why; all "
                "must have the same files"
            )

    @contextmanager
    def communication_errors(self) -> Iterator[None]:
        """Raise :class:`ProcessLostError` in place of PyTorch's error if another process ended."""
        try:
            yield
        except RuntimeError as error:
            if self.world_size == 1:
                raise
            reason = str(error).strip().partition("\n")[0][:150]
            raise ProcessLostError(
                f"another of the {self.world_size} processes of this run ended ({reason})"
            ) from error


def _fabric(config: FabricConfig) -> Fabric:
    accelerator = config.accelerator
    if accelerator == "auto":  # Fabric may choose one without float64, as Apple's
        accelerator = "cuda" if torch.cuda.is_available() else "cpu"
    device = check_device(accelerator, "fabric.accelerator")
    devices, hosts = _process_counts(config)
    if device.index is not None and devices * hosts > 1:
        raise ValueError(
            f"`fabric.accelerator` must be '{device.type}' for {devices * hosts} processes, each with a "
            f"device of its own, got '{device}'"
        )
    if accelerator == "cuda" and devices > torch.cuda.device_count():
        raise ValueError(
            f"`fabric.devices` must be at most the {torch.cuda.device_count()} GPUs here, got {devices}"
        )
    max_processes = max(16, 4 * (os.cpu_count() or 1))
    if accelerator == "cpu" and devices > max_processes:  # each takes half a gigabyte
        raise ValueError(
            f"`fabric.devices` must be at most {max_processes} here, four processes per CPU, got {devices:,}"
        )
    strategy = "ddp" if devices * hosts > 1 else "auto"
    chosen = devices if device.index is None or device.type == "cpu" else [device.index]
    return Fabric(accelerator=device.type, devices=chosen, num_nodes=hosts, strategy=strategy)


def _process_counts(config: FabricConfig) -> tuple[int, int]:
    """Return processes per host and hosts: torchrun's, if it started this process."""
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


def _exit_when_others_end(fabric: Fabric) -> None:
    """End this process if another ended and the communication does not fail, as NCCL's may not.

    Fabric's own observer would kill it at once, without a message or a checkpoint.
    """
    children: list[subprocess.Popen] = getattr(cast(Any, fabric.strategy).launcher, "procs", [])
    for thread in threading.enumerate():
        if thread.name == "child-process-observer":
            cast(Any, thread)._run = lambda: True
    parent = os.getppid() if fabric.local_rank > 0 and "TORCHELASTIC_RUN_ID" not in os.environ else None
    threading.Thread(target=_observe, args=(children, parent), daemon=True).start()


def _observe(children: Sequence[subprocess.Popen], parent: int | None) -> None:
    while all(child.poll() in (None, 0) for child in children) and parent in (None, os.getppid()):
        time.sleep(1)
    time.sleep(_GRACE_SECONDS)
    _log.error("pyg-schnet: another process of this run ended; resume with --resume")
    for child in children:
        child.kill()
    os._exit(1)
