"""CPU tensors on the paths of CUDA tensors, and a counter of what a GPU would launch and wait for.

``gpu_like`` makes :func:`pyg_schnet.kernels.on_accelerator` true for all tensors. The operations of the
package compute as they do on CPUs. ``LaunchCounter`` counts kernel launches and synchronizations of host and
device in its body, where every tensor counts as one on the device::

    with gpu_like(), LaunchCounter() as counter:
        step()
    assert not counter.synchronizations
    assert counter.launches <= 250
"""

from __future__ import annotations

import os
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name
from torch.utils._python_dispatch import TorchDispatchMode

from pyg_schnet.kernels import LAUNCHES, operations

# Calls that launch nothing: views, allocations, questions about a tensor.
_FREE = {
    "view", "_unsafe_view", "_reshape_alias", "reshape", "t", "transpose", "permute", "select", "slice",
    "squeeze", "unsqueeze", "expand", "detach", "alias", "unbind", "split", "split_with_sizes",
    "as_strided", "diagonal", "unfold", "view_as_real", "lift_fresh", "empty", "empty_like",
    "empty_strided", "new_empty", "new_empty_strided", "resize_", "set_", "scalar_tensor", "is_same_size",
    "sym_size", "sym_numel", "sym_stride", "result_type", "_has_compatible_shallow_copy_type",
    "_local_scalar_dense", "is_pinned", "_pin_memory", "_record_function_enter_new", "_record_function_exit"
}  # fmt: skip
# Launches of calls that need several: radix sorts of 32-bit keys, and what is built on them.
_SEVERAL = {"sort": 5, "argsort": 5, "embedding_dense_backward": 5, "cumsum": 2, "_index_put_impl_": 5}
_SHORT = 128  # mean number of rows up to which kernels for GPUs sum each segment by one launch
_SYNCHRONIZING = {
    "_local_scalar_dense", "is_nonzero", "nonzero", "masked_select", "unique_dim", "_unique2",
    "unique_consecutive", "equal", "bincount", "linalg_inv_ex", "_linalg_svd", "_linalg_eigh", "linalg_qr",
    "linalg_cholesky_ex", "linalg_lu_factor_ex", "_linalg_solve_ex"
}  # fmt: skip
_INDEXING = ("index", "index_put", "index_put_", "_index_put_impl_")
_COPIES = ("tolist", "numpy", "cpu", "__array__", "new_tensor")  # methods
_TO_DEVICE = ("torch.tensor", "torch.as_tensor", "torch.asarray")


@contextmanager
def gpu_like() -> Iterator[None]:
    """Treat CPU tensors as those of an accelerator, in code that asks ``on_accelerator``."""
    with patch.object(operations, "HOST_DEVICES", ("meta",)):
        yield


class LaunchCounter:
    """A count of kernel launches and synchronizations in the body of a ``with`` statement.

    Calls of an operation of torch count as one launch, with exceptions; those of the package's own operations
    as many as their kernels for GPUs need. Synchronizations are reads of values, results whose size depends
    on values, linear algebra that reports failures, and copies between host and device that are not
    asynchronous.

    Attributes:
        launches: Number of launches.
        operations: Number of calls that launch something, by name.
        synchronizations: Number of synchronizations, by operation and place.
    """

    def __init__(self):
        self.launches = 0
        self.operations: Counter[str] = Counter()
        self.synchronizations: Counter[str] = Counter()

    def __enter__(self) -> LaunchCounter:
        self._modes = ExitStack()
        self._modes.enter_context(_Functions(self))
        self._modes.enter_context(_Dispatched(self))
        return self

    def __exit__(self, *exception: object) -> None:
        self._modes.close()

    def synchronize(self, name: str) -> None:
        """Count a synchronization at the lines of the package that are running."""
        frames = [f for f in traceback.extract_stack() if "/pyg_schnet/" in f.filename]
        lines = [f"{f.filename.rpartition('/pyg_schnet/')[2]}:{f.lineno}" for f in reversed(frames[-3:])]
        self.synchronizations[" < ".join([name, *lines])] += 1

    def report(self) -> str:
        """Return the counts in a few lines."""
        calls = ", ".join(f"{name} {count}" for name, count in self.operations.most_common())
        waits = "".join(f"\n  {count} x {place}" for place, count in self.synchronizations.items())
        return f"{self.launches} launches: {calls}\n{self.synchronizations.total()} synchronizations{waits}"


class _Dispatched(TorchDispatchMode):
    """Operations that reach a device."""

    def __init__(self, counter: LaunchCounter):
        super().__init__()
        self._counter = counter

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        namespace, name = func._schema.name.split("::")
        own = namespace == "pyg_schnet"
        launches = _launches_of_own(name, args) if own else _launches_of_torch(name)
        if launches:
            self._counter.launches += launches
            self._counter.operations[name] += 1
        if name in _SYNCHRONIZING or _depends_on_values(name, args, kwargs):
            self._counter.synchronize(name)
        return func(*args, **kwargs)


def _launches_of_own(name: str, args: tuple) -> int:
    skipped = 0
    if name == "convolve_backward":
        by_distance, by_table = args[-2:]
        skipped = (not by_distance) + 2 * (not by_table)
    elif name in ("convolve_double_backward", "distances_double_backward"):
        skipped = not args[-1]
    elif name == "segment_expand":
        skipped = not args[2]
    elif name == "segment_sum":
        values, rowptr = args[:2]
        skipped = values.size(0) <= _SHORT * (rowptr.size(0) - 1)
    return LAUNCHES[name] - skipped


def _launches_of_torch(name: str) -> int:
    return 0 if name in _FREE else _SEVERAL.get(name, 1)


def _depends_on_values(name: str, args: tuple, kwargs: dict[str, Any]) -> bool:
    """Return whether the size of the result depends on values."""
    if name == "repeat_interleave":
        return kwargs.get("output_size") is None
    if name not in _INDEXING:
        return False
    indices = [index for index in args[1] if isinstance(index, Tensor)]
    return any(index.dtype in (torch.bool, torch.uint8) for index in indices)


class _Functions(TorchFunctionMode):
    """Functions that copy between host and device, which CPU tensors do without an operation."""

    def __init__(self, counter: LaunchCounter):
        super().__init__()
        self._counter = counter

    def __torch_function__(self, func: Callable, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        name = resolve_name(func) or ""
        if name in _TO_DEVICE and args and not isinstance(args[0], Tensor):
            self._counter.synchronize(name)
        elif name.startswith("torch.Tensor."):
            method = name.removeprefix("torch.Tensor.")
            to_device = method == "to" and _changes_device(args[1:], kwargs)
            # Torch itself asks for the device at which its tensors are.
            if method in _COPIES or (to_device and not _is_torch(sys._getframe(1).f_code.co_filename)):
                self._counter.synchronize(name)
        return func(*args, **kwargs)


def _is_torch(filename: str) -> bool:
    return filename.startswith(os.path.dirname(torch.__file__) + os.sep)


def _changes_device(args: tuple, kwargs: dict[str, Any]) -> bool:
    names_device = "device" in kwargs or any(isinstance(a, str | torch.device) for a in args)
    return names_device and not kwargs.get("non_blocking", False)
