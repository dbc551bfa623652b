"""Operations registered with torch.library; `c` implements them for CPUs, `triton` for GPUs."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

_LIBRARY = torch.library.Library("pyg_schnet", "DEF")
IMPLEMENTATIONS: dict[object, Callable] = {}  # functions for CPUs, by operation, free of torch's dispatcher
HOST_DEVICES = ("cpu", "meta")  # whose values are read without waiting; tests take CPUs out


def define(schema: str, fake: Callable) -> None:
    """Define an operation.

    Args:
        schema: Name, arguments and results, in torch's notation.
        fake: Function that returns results of the right shapes and types, without values.
    """
    _LIBRARY.define(schema)
    torch.library.register_fake(f"pyg_schnet::{schema.partition('(')[0]}", fake, lib=_LIBRARY)


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


def on_accelerator(tensor: Tensor) -> bool:
    """Return whether the host must wait for a device to read values of a tensor, as of a GPU.

    Code that avoids such synchronization asks this function alone.
    """
    return tensor.device.type not in HOST_DEVICES
