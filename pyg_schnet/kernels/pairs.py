"""Pairs of atoms and their distances, twice differentiable: what `pairs.c` computes, for autograd."""

from __future__ import annotations

import ctypes
import math

import torch
from torch import Tensor

from pyg_schnet.kernels.convolution import differentiable, position_gradients_enabled
from pyg_schnet.kernels.library import LIBRARY, library, pointer

_MOST_PAIRS = 2**22  # compared at once: beyond, trees and cells are faster


def _address(tensor: Tensor | None) -> int | None:
    return None if tensor is None else tensor.data_ptr()


def find_pairs(
    z: Tensor,
    allowed: Tensor,
    pos: Tensor,
    batch: Tensor | None,
    cutoff: float | None,
    edge_index: Tensor | None,
) -> tuple[Tensor, float, float] | None:
    """Check molecules and find their pairs, in one call.

    Args:
        z: Atomic numbers, ``(atoms,)``, int64.
        allowed: Whether each atomic number from 0 is allowed, bool.
        pos: Positions in Å, ``(atoms, 3)``.
        batch: Index of the molecule of each atom, int64; one molecule if ``None``.
        cutoff: In Å; all pairs if ``None``.
        edge_index: Edges, ``(2, edges)``, if they are known.

    Returns:
        The pairs closer than the cutoff, ``(2, pairs)``, each once with the lower index first, and the
        shortest and the longest distance in Å; ``None`` for wrong input, edges without their reverse,
        no pair, or more pairs than are compared one by one.
    """
    z, pos = z.contiguous(), pos.contiguous()
    batch = None if batch is None else batch.contiguous()
    edge_index = None if edge_index is None else edge_index.contiguous()
    if (loaded := library(pos.dtype)) is None or not allowed.is_contiguous():
        return None
    atoms = len(pos)
    if edge_index is None:
        rows, edges = loaded.count_pairs(_address(batch), atoms), -1
        if not 0 < rows <= _MOST_PAIRS:
            return None
    else:
        edges = edge_index.size(1)
        rows = edges // 2
    out = torch.empty(2 * rows, dtype=torch.long, device="cpu")
    reach = (ctypes.c_double * 2)()
    address = out.data_ptr()
    count = loaded.prepare(
        *(z.data_ptr(), allowed.data_ptr(), len(allowed), pos.data_ptr(), _address(batch), atoms),
        *(math.inf if cutoff is None else cutoff, _address(edge_index), edges, rows),
        *(address, address + 8 * rows, reach),
    )
    if count <= 0:
        return None
    pairs = out.view(2, rows)
    return (pairs if count == rows else pairs[:, :count].contiguous()), *reach


_GIVEN = "Tensor pos, Tensor first, Tensor second"
LIBRARY.define(f"distances({_GIVEN}) -> Tensor")
LIBRARY.define(f"distances_backward(Tensor g, {_GIVEN}) -> Tensor")
LIBRARY.define(f"distances_double_backward(Tensor a, Tensor g, {_GIVEN}, bool by_pos) -> (Tensor, Tensor)")


def _loaded(like: Tensor) -> ctypes.CDLL:
    loaded = library(like.dtype)
    assert loaded is not None  # `has_kernels` was asked
    return loaded


def distances(pos: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Measure pairs."""
    out = pos.new_empty(len(first))
    pairs = ctypes.c_int64(len(first))
    _loaded(pos).distances(pointer(pos), pointer(first), pointer(second), pairs, pointer(out))
    return out


def distances_backward(g: Tensor, pos: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Differentiate ``(g * distances).sum()`` by positions."""
    g, out = g.contiguous(), torch.empty_like(pos)
    sizes = ctypes.c_int64(len(first)), ctypes.c_int64(len(pos))
    inputs = map(pointer, (g, pos, first, second))
    _loaded(pos).distances_backward(*inputs, *sizes, pointer(out))
    return out


def distances_double_backward(
    a: Tensor, g: Tensor, pos: Tensor, first: Tensor, second: Tensor, by_pos: bool
) -> tuple[Tensor, Tensor]:
    """Differentiate ``(a * distances_backward).sum()`` by g and positions."""
    a, g, to_g = a.contiguous(), g.contiguous(), torch.empty_like(g, memory_format=torch.contiguous_format)
    to_pos = torch.empty_like(pos) if by_pos else pos.new_empty(0)
    sizes = ctypes.c_int64(len(first)), ctypes.c_int64(len(pos))
    inputs = map(pointer, (a, g, pos, first, second))
    outputs = pointer(to_g), pointer(to_pos if by_pos else None)
    _loaded(pos).distances_double_backward(*inputs, *sizes, *outputs)
    return to_g, to_pos


for _kernel in (distances, distances_backward, distances_double_backward):
    LIBRARY.impl(_kernel.__name__, _kernel, "CPU")


@torch.library.register_fake("pyg_schnet::distances", lib=LIBRARY)
def _(pos, first, second):
    return pos.new_empty(first.size(0))


@torch.library.register_fake("pyg_schnet::distances_backward", lib=LIBRARY)
def _(g, pos, first, second):
    return torch.empty_like(pos)


@torch.library.register_fake("pyg_schnet::distances_double_backward", lib=LIBRARY)
def _(a, g, pos, first, second, by_pos):
    return torch.empty_like(g), torch.empty_like(pos) if by_pos else pos.new_empty(0)


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pos, first, second):
        ctx.save_for_backward(pos, first, second)
        return torch.ops.pyg_schnet.distances(pos, first, second)

    @staticmethod
    def backward(ctx, g):
        if not position_gradients_enabled():
            return None, None, None
        return _DistancesBackward.apply(g, *ctx.saved_tensors), None, None


class _DistancesBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, pos, first, second):
        ctx.save_for_backward(g, pos, first, second)
        return torch.ops.pyg_schnet.distances_backward(g, pos, first, second)

    @staticmethod
    def backward(ctx, a):
        if torch.is_grad_enabled():  # somebody may differentiate a third time
            return *_plain_backward(a, *ctx.saved_tensors), None, None
        by_pos = ctx.needs_input_grad[1] and position_gradients_enabled()
        to_g, to_pos = torch.ops.pyg_schnet.distances_double_backward(a, *ctx.saved_tensors, by_pos)
        return to_g, to_pos if by_pos else None, None, None


def _plain_backward(a: Tensor, g: Tensor, pos: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
    """Differentiate ``(a * distances_backward).sum()`` by g and positions, by plain operations."""
    inputs = [*map(differentiable, (g, pos))]
    distance = (inputs[1].index_select(0, first) - inputs[1].index_select(0, second)).norm(dim=1)
    (by_pos,) = torch.autograd.grad(distance, inputs[1], inputs[0], create_graph=True)
    return torch.autograd.grad(by_pos, inputs, a, create_graph=True)


def pair_distances(pos: Tensor, pairs: Tensor) -> Tensor:
    """Measure pairs of atoms, twice differentiable by positions.

    Args:
        pos: In Å, ``(atoms, 3)``.
        pairs: ``(2, pairs)``.

    Returns:
        Distances in Å, ``(pairs,)``.
    """
    return _Distances.apply(pos.contiguous(), pairs[0].contiguous(), pairs[1].contiguous())  # pyright: ignore[reportReturnType]
