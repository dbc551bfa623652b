"""Training steps that are recorded once for each size of batches, as CUDA graphs, and then only repeated.

A step of SchNet on a few molecules is hundreds of kernels of microseconds, which the host launches more
slowly than a GPU computes. A CUDA graph launches all of them at once: loss, gradients, clipping, optimizer
and average of the weights. It is recorded with fixed tensors: batches are padded and copied into them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import torch
from torch import Tensor

from pyg_schnet.graph.memory import describe_out_of_memory
from pyg_schnet.graph.padding import PaddedBatch, Sizes
from pyg_schnet.kernels import on_accelerator
from pyg_schnet.nn import SchNet
from pyg_schnet.nn.snapshot import has_hooks
from pyg_schnet.training.config import TrainerConfig
from pyg_schnet.training.device_data import CollatedBatches, TrainingBatch
from pyg_schnet.training.progress import Report
from pyg_schnet.training.step import TrainingStep

_FIRST_STEPS = 2  # with kernels of optimizer and average that no earlier step has used
_MAX_BUCKETS = 16  # batches of varied sizes need about ten
_HOOKS_OF_WEIGHTS = ("_backward_hooks", "_post_accumulate_grad_hooks")


class GraphCapture(Protocol):
    """A capture of the work of functions on a device, to be repeated."""

    def capture(self, warm_up: Callable[[], None], function: Callable[[], None]) -> Callable[[], None]:
        """Record what a function would do, without doing it, and return a function that does it.

        Args:
            warm_up: Does nearly the same before, for all that is initialized at first use.
            function: The function, which reads and writes the same tensors each time.
        """
        ...


class CudaGraphs:
    """A capture of work as CUDA graphs.

    They share their memory, for one runs at a time and its results are copied before the next.

    Args:
        device: Device of all tensors, which need not be the current one.

    Source:
        PyTorch, "CUDA semantics", sections "CUDA Graphs" and "Graph memory management".
    """

    def __init__(self, device: torch.device):
        self._device = device
        self._stream = torch.cuda.Stream(device)  # the same one for all: a condition of sharing memory
        self._pool = torch.cuda.graph_pool_handle()

    def capture(self, warm_up: Callable[[], None], function: Callable[[], None]) -> Callable[[], None]:
        """Record what a function would do as a CUDA graph, and return a function that launches it."""
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                warm_up()
            current.wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream):
                    function()
            finally:  # torch leaves the stream of a capture that fails
                torch.cuda.set_stream(current)
        return graph.replay


CAPTURES: dict[str, Callable[[torch.device], GraphCapture]] = {"cuda": CudaGraphs}  # by type of device


class _Bucket:
    """The tensors and the recorded step of batches of one bucket.

    Attributes:
        batch: Tensors that batches are copied into.
        outputs: Options of a potential's call that request the outputs with labels.
        loss: Loss of the last step, float64, shape ``()``.
        norm: Norm of its gradient, if it is clipped.
        replay: Repeats the recorded step; ``None`` before it is recorded.
        is_used: Whether there was a step with this bucket.
    """

    def __init__(self, first: TrainingBatch, sizes: Sizes, clips: bool):
        assert first.graph is not None
        self.batch, self.outputs = PaddedBatch(first.batch, first.graph, sizes), first.outputs
        self.loss = self.batch.weights.new_zeros(())
        self.norm = first.graph.pos.new_zeros((), dtype=torch.float64) if clips else None
        self.replay: Callable[[], None] | None = None
        self.is_used = False

    @property
    def part(self) -> TrainingBatch:
        """The padded batch."""
        return TrainingBatch(self.batch.data, self.batch.graph, self.outputs)


class CapturedStep:
    """A step of a training that is recorded for each bucket of sizes, and repeated.

    The first two steps and the first batch of a bucket are computed operation by operation, and the next
    batch of a bucket is recorded. Outside of
    the recording are initial bases of SOAP, their refresh, all counters and, before the second, fourth,
    eighth, … step, the check whether tables of filters have enough knots.

    Args:
        eager: The same step, operation by operation: for all that is not recorded.
        capture: Capture of the work of the device.
        report: Output for the user.
    """

    def __init__(self, eager: TrainingStep, capture: GraphCapture, report: Report):
        self._eager, self._capture, self._report = eager, capture, report
        self._buckets: dict[tuple, _Bucket] = {}  # the last used is the last
        self._fails = False
        self._steps, self._tables = 0, None

    def __call__(
        self, ids: Tensor, parts: Sequence[Tensor], numbers: Callable[[], tuple[float, ...]]
    ) -> tuple[Tensor, tuple[float, ...]]:
        """Do a step; arguments, results and errors are those of :class:`TrainingStep`."""
        if self._fails or len(parts) != 1:
            return self._eager(ids, parts, numbers)
        with describe_out_of_memory(lambda: self._eager.too_large(parts[0])):
            loss, norm = self._step(self._eager.data.cut(parts[0].tolist()))
        self._eager.check(ids, loss, norm)
        return loss, numbers()

    def _step(self, batch: TrainingBatch) -> tuple[Tensor, Tensor | None]:
        """Do a step, and return its loss and the norm of its gradient."""
        assert batch.graph is not None
        self._steps += 1
        if self._steps > 1 and self._steps & (self._steps - 1) == 0:
            self._measure_tables()
        bucket, state = self._bucket(batch), self._eager.state
        bucket.batch.fill(batch.batch, batch.graph, 1 / self._eager.loss.mean_size)
        if not bucket.is_used or self._steps <= _FIRST_STEPS:
            bucket.is_used = True
            self._compute_gradients(bucket)
            state.step()
        else:
            state.begin_captured_step()
            if bucket.replay is None and not self._fails:
                self._record(bucket)
            if bucket.replay is None:
                self._compute(bucket)
            else:
                bucket.replay()
            state.end_captured_step()
        return bucket.loss.clone(), None if bucket.norm is None else bucket.norm.clone()

    def _bucket(self, batch: TrainingBatch) -> _Bucket:
        """Return the bucket of a batch; a new one may replace the least recently used one."""
        assert batch.graph is not None
        sizes = Sizes.of(batch.graph).bucket()
        key = sizes, batch.graph.distance_range, *batch.outputs.items()
        bucket = self._buckets.pop(key, None) or _Bucket(batch, sizes, self._eager.clip_norm is not None)
        self._buckets[key] = bucket
        if len(self._buckets) > _MAX_BUCKETS:
            del self._buckets[next(iter(self._buckets))]
        return bucket

    def _compute(self, bucket: _Bucket) -> None:
        """Do on the device all of a step, reading and writing the same tensors each time."""
        self._compute_gradients(bucket)
        self._eager.state.update()

    def _compute_gradients(self, bucket: _Bucket) -> None:
        loss = self._eager.loss(bucket.part, bucket.batch.weights)
        loss.backward()
        self._eager.state.collect_gradients()
        norm = self._eager.clip()
        bucket.loss.copy_(loss.detach())
        if bucket.norm is not None and norm is not None:
            bucket.norm.copy_(norm)

    def _record(self, bucket: _Bucket) -> None:
        """Record the step of a bucket; report why if that fails."""
        weights = self._eager.loss.potential

        def warm_up() -> None:  # with the weights of the recording, for what is kept for them
            self._eager.loss(bucket.part, bucket.batch.weights).backward()
            weights.zero_grad(set_to_none=True)

        self._measure_tables()
        try:
            bucket.replay = self._capture.capture(warm_up, lambda: self._compute(bucket))
        except RuntimeError as error:
            weights.zero_grad(set_to_none=True)
            self._fails = True
            self._buckets.clear()
            cause = error.__context__ or error  # the end of a capture hides why it failed
            reason = str(cause).strip().partition("\n")[0][:150]
            self._report.line(f"Steps are not captured: {reason}.")

    def _measure_tables(self) -> None:
        """Measure whether tables of filters have enough knots, and discard recordings with too few.

        The weights are not measured again in the next evaluation, so that it does not wait for the device.
        """
        model = self._eager.loss.potential.model
        if not isinstance(model, SchNet) or model.filters == "exact":
            return
        with torch.no_grad():
            tables = model.filter_tables.features(model)
        if tables is not self._tables:
            for bucket in self._buckets.values():
                bucket.replay = None
        self._tables = tables


def choose_step(step: TrainingStep, config: TrainerConfig, report: Report) -> TrainingStep | CapturedStep:
    """Return a step that is captured where that is possible; report why it is not on an accelerator.

    Args:
        step: The step, operation by operation.
        config: Option ``compile``, which must not be false.
        report: Output for the user.
    """
    weights = step.state.weights.values
    if not on_accelerator(weights):
        return step
    reason = _why_not_captured(step, config)
    if reason is None:
        return CapturedStep(step, CAPTURES[weights.device.type](weights.device), report)
    report.line(f"Steps are not captured: {reason}.")
    return step


def _why_not_captured(step: TrainingStep, config: TrainerConfig) -> str | None:
    """Return why steps cannot be recorded, in a few words."""
    device, potential = step.state.weights.values.device.type, step.loss.potential
    if config.compile is False:
        return "`trainer.compile` is false"
    if device not in CAPTURES:
        return f"{device} has no CUDA graphs"
    if step.processes.world_size > 1:
        return f"{step.processes.world_size} processes sum their gradients in each step"
    if not isinstance(potential.model, SchNet):
        return f"{type(potential.model).__name__} is not a SchNet"
    if isinstance(step.data, CollatedBatches):
        return "pairs are found in each step"
    of_weights = (getattr(p, name) for p in potential.parameters() for name in _HOOKS_OF_WEIGHTS)
    has_any = any(map(has_hooks, potential.modules())) or any(of_weights)
    return "the model has hooks" if has_any else None
