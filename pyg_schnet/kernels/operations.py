"""Operations registered with torch.library; `c` implements them for CPUs, `triton` for GPUs."""

from __future__ import annotations

from collections.abc import Callable
from functools import reduce
from operator import or_
from typing import Any

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("pyg_schnet", "DEF")
#: Functions for CPUs by operation, free of PyTorch's dispatcher.
IMPLEMENTATIONS: dict[object, Callable] = {}
_ROUNDED = (torch.float16, torch.bfloat16)
_AUTOCAST = ("AutocastCPU", "AutocastCUDA")
_AUTOCAST_KEYS = reduce(or_, (torch._C.DispatchKeySet(getattr(torch._C.DispatchKey, k)) for k in _AUTOCAST))
HOST_DEVICES = ("cpu", "meta")  # whose values are read without waiting; tests take CPUs out


def define(schema: str, fake: Callable) -> None:
    """Define an operation.

    Args:
        schema: Name, arguments and results, in torch's notation.
        fake: Function that returns results of the right shapes and types, without values.
    """
    _LIBRARY.define(schema)
    name = schema.partition("(")[0]
    torch.library.register_fake(f"pyg_schnet::{name}", fake, lib=_LIBRARY)
    _register_autocast(name)


def empty_like(tensor: Tensor, wanted: bool = True) -> Tensor:
    """Return memory for a result, row by row as kernels write it; none where the result is not wanted."""
    if not wanted:
        return tensor.new_empty(0)
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def implement(name: str, function: Callable, device: str = "CPU") -> None:
    """Register an implementation of an operation.

    Args:
        name: Name of the operation.
        function: The implementation.
        device: torch's dispatch key of the devices that it is for.
    """
    _LIBRARY.impl(name, function, device)
    if device == "CPU":
        IMPLEMENTATIONS[getattr(torch.ops.pyg_schnet, name).default] = function


def differentiate(name: str, function: type[torch.autograd.Function], *constants: object) -> None:
    """Register the derivative of an operation, for callers of the operation itself.

    Args:
        name: Name of the operation.
        function: Its values and derivative. Its ``forward`` calls the operation by :func:`call`.
        constants: Last arguments of the function, which the operation does not have.
    """
    operation = getattr(torch.ops.pyg_schnet, name).default

    def differentiable(*arguments):
        tracked = any(isinstance(a, Tensor) and a.requires_grad for a in arguments)
        if tracked and torch.is_grad_enabled():
            return function.apply(*arguments, *constants)
        return call(operation, *arguments)

    _LIBRARY.impl(name, differentiable, "Autograd")


def call(operation: Callable, *arguments: Any) -> Any:
    """Call an operation without its derivative, within a function that has the derivative."""
    with torch._C._AutoDispatchBelowAutograd():
        return operation(*arguments)


def full_precision(tensor: Tensor) -> Tensor:
    """Return a tensor as it is, or in float32 where autocast has rounded it to 16 bits."""
    if tensor.dtype in _ROUNDED and torch.is_autocast_enabled(tensor.device.type):
        return tensor.float()
    return tensor


def _register_autocast(name: str) -> None:
    """Register an operation to be computed in float32 under autocast."""

    def in_full_precision(*arguments):
        given = [full_precision(a) if isinstance(a, Tensor) else a for a in arguments]
        with torch._C._ExcludeDispatchKeyGuard(_AUTOCAST_KEYS):
            return getattr(torch.ops.pyg_schnet, name)(*given)

    for key in _AUTOCAST:
        _LIBRARY.impl(name, in_full_precision, key)


def on_accelerator(tensor: Tensor) -> bool:
    """Return whether the host must wait for a device to read values of a tensor, as of a GPU.

    Code that avoids such synchronization asks this function alone.

    Args:
        tensor: A tensor of any shape, whose device counts.
    """
    return tensor.device.type not in HOST_DEVICES
