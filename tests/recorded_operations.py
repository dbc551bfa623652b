"""A capture of operations of CPU tensors, which treats them as a CUDA graph treats kernels.

Numbers of the host are recorded as they are, tensors by their address. Recording changes nothing, and nothing
may wait for the device.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.gpu_like import LaunchCounter


def _tensors(tree) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def _place(tensor: Tensor) -> int:
    return tensor.untyped_storage().data_ptr()


class RecordedOperations:
    """A capture for :class:`~pyg_schnet.training.captured_step.CapturedStep`.

    Attributes:
        recordings: Number of recordings so far.
        replays: Number of repetitions so far.
    """

    def __init__(self, device: torch.device | None = None):
        self.recordings = self.replays = 0

    def capture(self, warm_up: Callable[[], None], function: Callable[[], None]) -> Callable[[], None]:
        warm_up()
        recording = _Recording()
        with LaunchCounter() as counter, recording:
            function()
        recording.undo()
        if counter.synchronizations:
            raise RuntimeError(f"operation not permitted when stream is capturing\n{counter.report()}")
        self.recordings += 1

        def replay() -> None:
            self.replays += 1
            recording.replay()

        return replay


class _Recording(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self._calls: list[tuple] = []
        self._own: dict[int, Tensor] = {}  # results, by address
        self._before: dict[int, tuple[Tensor, Tensor]] = {}  # what it writes, with its values

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        for tensor in _written(func, args, kwargs):
            place = _place(tensor)
            if place not in self._own and place not in self._before:
                whole = tensor.new_empty(0).set_(tensor.untyped_storage())
                self._before[place] = whole, whole.clone()
        out = func(*args, **kwargs)
        known = {_place(tensor) for tensor in _tensors((args, kwargs))}
        for tensor in _tensors(out):
            if _place(tensor) not in known:
                self._own[_place(tensor)] = tensor
        if func.namespace != "profiler":
            self._calls.append((func, args, kwargs, out))
        return out

    def undo(self) -> None:
        for tensor, value in self._before.values():
            tensor.copy_(value)
        for tensor in self._own.values():  # they hold no values before a replay
            tensor.detach().fill_(torch.nan if tensor.is_floating_point() else 0)

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, out in self._calls:
            for old, new in zip(_tensors(out), _tensors(func(*args, **kwargs)), strict=True):
                if _place(old) != _place(new):
                    old.detach().copy_(new)


def _written(func, args: tuple, kwargs: dict) -> Iterator[Tensor]:
    for place, argument in enumerate(func._schema.arguments):
        if argument.alias_info is not None and argument.alias_info.is_write:
            yield from _tensors(args[place] if place < len(args) else kwargs.get(argument.name))
