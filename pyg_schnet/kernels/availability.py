"""Which tensors have kernels: in C on CPUs, in Triton on CUDA; plain PyTorch computes with others."""

from __future__ import annotations

import logging
import os
import shutil
from functools import cache
from importlib import import_module

import torch
from torch import Tensor

from pyg_schnet.kernels.c.library import library, missing_reason

_CAPABILITY = (8, 0)  # the kernels are compiled for this and newer ones
_TRITON = (3, 6)  # older ones round the spline's origin and spacing to float32
_TYPES = (torch.float32, torch.float64)
_log = logging.getLogger(__name__)


def has_kernels(like: Tensor) -> bool:
    """Return whether kernels can compute with such a tensor now.

    Args:
        like: A tensor of any shape, whose device and type count.
    """
    transformed = torch._C._are_functorch_transforms_active()  # vmap and torch.func.grad see plain operations
    if torch.compiler.is_compiling() or transformed:
        return False
    if like.device.type == "cpu":
        return library(like.dtype) is not None
    return like.dtype in _TYPES and missing_on(like.device) is None


def unavailable_reason(like: Tensor) -> str:
    """Return why there are no kernels for a tensor, in one line.

    Args:
        like: A tensor of any shape, whose device and type count.
    """
    if like.device.type != "cpu" and (reason := missing_on(like.device)) is not None:
        return reason
    return missing_reason(like.dtype)


@cache
def missing_on(device: torch.device) -> str | None:
    """Return why there are no kernels for an accelerator, after a warning, or ``None`` if there are."""
    reason = _reason(device)
    if reason is not None and device.type != "meta":
        _log.warning("no kernels are in use on %s; plain PyTorch is, which is slower: %s", device, reason)
    return reason


def _reason(device: torch.device) -> str | None:
    if device.type != "cuda" or torch.version.hip is not None:
        return f"there are kernels for CPUs and NVIDIA's GPUs only, not for {device}"
    if os.environ.get("PYG_SCHNET_NATIVE") == "0":
        return "switched off by PYG_SCHNET_NATIVE=0"
    try:
        version = import_module("triton").__version__
    except ImportError:
        return "Triton is not installed; install it: pip install triton (on Windows: triton-windows)"
    if tuple(map(int, version.split(".")[:2])) < _TRITON:
        needed = ".".join(map(str, _TRITON))
        return f"kernels need Triton {needed} or newer, got {version}; update to PyTorch 2.10 or newer"
    if not (os.environ.get("CC") or shutil.which("gcc") or shutil.which("clang")):
        return "Triton needs a C compiler, and there is none; install gcc, or set the variable CC"
    found = torch.cuda.get_device_capability(device)
    if found < _CAPABILITY:
        needed, has = (".".join(map(str, version)) for version in (_CAPABILITY, found))
        return f"kernels need a GPU of compute capability {needed} or newer, {device} has {has}"
    return None
