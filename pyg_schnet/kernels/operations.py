"""Operations of the package registered with torch.library; `c` implements them for CPUs."""

from __future__ import annotations

from collections.abc import Callable

import torch

_LIBRARY = torch.library.Library("pyg_schnet", "DEF")
IMPLEMENTATIONS: dict[object, Callable] = {}  # functions for CPUs, by operation, free of torch's dispatcher


def define(schema: str, fake: Callable) -> None:
    """Define an operation.

    Args:
        schema: Name, arguments and results, in torch's notation.
        fake: Function that returns results of the right shapes and types, without values.
    """
    _LIBRARY.define(schema)
    torch.library.register_fake(f"pyg_schnet::{schema.partition('(')[0]}", fake, lib=_LIBRARY)


def implement(function: Callable) -> None:
    """Register the implementation for CPUs of the operation that has a function's name."""
    _LIBRARY.impl(function.__name__, function, "CPU")
    IMPLEMENTATIONS[getattr(torch.ops.pyg_schnet, function.__name__).default] = function
