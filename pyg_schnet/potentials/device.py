"""Devices and threads that potentials compute with, checked before any work."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_MAX_THREADS = 2**10  # PyTorch crashes with many more


def check_threads(threads: int, option: str = "threads") -> None:
    """Raise if a number of threads is out of range.

    Args:
        threads: Number of threads.
        option: Name of the option in error messages.

    Raises:
        ValueError: If it is below 1 or above 1024.
    """
    if threads < 1:
        raise ValueError(f"`{option}` must be at least 1, got {threads}")
    if threads > _MAX_THREADS:
        raise ValueError(f"`{option}` must be at most {_MAX_THREADS:,}, got {threads:,}")


@contextmanager
def use_threads(threads: int) -> Iterator[None]:
    """Compute with a number of PyTorch's threads within the context.

    Args:
        threads: Number of threads; one is fast for small molecules.

    Raises:
        ValueError: If it is below 1 or above 1024.
    """
    check_threads(threads)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def check_device(device: str | torch.device, option: str = "device") -> torch.device:
    """Return a device, after a check that it exists here and computes in float64.

    Args:
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"`` or another name of PyTorch's.
        option: Name of the option in error messages.

    Raises:
        ValueError: If there is no such device, or it has no float64, in which energies are summed.
    """
    try:
        found = torch.device(device)
    except (RuntimeError, TypeError):
        raise ValueError(
            f"`{option}` must be 'cpu', 'cuda', 'cuda:1' or another device of PyTorch's, got {str(device)!r}"
        ) from None
    if found.type == "cpu":
        return found
    count = _device_count(found.type)
    if count == 0:
        raise ValueError(f"`{option}` must be 'cpu' here, got '{found}': PyTorch finds no such device")
    if (found.index or 0) >= count:
        last = f"'{found.type}:{count - 1}'"
        allowed = last if count == 1 else f"from '{found.type}:0' to {last}"
        raise ValueError(f"`{option}` must be {allowed} here, got '{found}'")
    if found.type != "cuda":
        _check_float64(found, option)
    return found


def _device_count(kind: str) -> int:
    count = getattr(getattr(torch, kind, None), "device_count", None)
    return 0 if count is None else count()


def _check_float64(device: torch.device, option: str) -> None:
    try:
        torch.ones(1, dtype=torch.float64, device=device).add(1.0)
    except (RuntimeError, TypeError):  # Apple's GPUs, and some of Intel's
        raise ValueError(
            f"`{option}` must be a device with float64, in which energies are summed, got '{device}', which "
            "has none; use 'cpu'"
        ) from None
