"""Distances of pairs of atoms, twice differentiable: operations and their derivatives for autograd."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyg_schnet.kernels.convolution import differentiable, position_gradients_enabled
from pyg_schnet.kernels.operations import call, define, differentiate, empty_like, full_precision

_ARGUMENTS = "Tensor pos, Tensor first, Tensor second, Tensor[] layout"
define(f"distances({_ARGUMENTS}) -> Tensor", lambda pos, first, second, layout: pos.new_empty(first.size(0)))
define(
    f"distances_backward(Tensor g, {_ARGUMENTS}) -> Tensor",
    lambda g, pos, first, second, layout: empty_like(pos),
)
define(
    f"distances_double_backward(Tensor a, Tensor g, {_ARGUMENTS}, bool by_pos) -> (Tensor, Tensor)",
    lambda a, g, pos, first, second, layout, by_pos: (
        empty_like(g),
        empty_like(pos, by_pos),
    ),
)


class _Distances(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pos, first, second, layout):
        ctx.save_for_backward(pos, first, second)
        ctx.layout = layout
        return call(torch.ops.pyg_schnet.distances.default, pos, first, second, layout)

    @staticmethod
    def backward(ctx, g):
        if not position_gradients_enabled():
            return None, None, None, None
        return _DistancesBackward.apply(g, *ctx.saved_tensors, ctx.layout), None, None, None


class _DistancesBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx, g, pos, first, second, layout):
        ctx.save_for_backward(g, pos, first, second)
        ctx.layout = layout
        return call(torch.ops.pyg_schnet.distances_backward.default, g, pos, first, second, layout)

    @staticmethod
    def backward(ctx, a):
        if torch.is_grad_enabled():  # a third derivative may follow
            return *_plain_backward(a, *ctx.saved_tensors), None, None, None
        by_pos = ctx.needs_input_grad[1] and position_gradients_enabled()
        to_g, to_pos = torch.ops.pyg_schnet.distances_double_backward(
            a, *ctx.saved_tensors, ctx.layout, by_pos
        )
        return to_g, to_pos if by_pos else None, None, None, None


def _plain_backward(a: Tensor, g: Tensor, pos: Tensor, first: Tensor, second: Tensor) -> tuple[Tensor, ...]:
    """Differentiate ``(a * distances_backward).sum()`` by g and positions, by plain operations."""
    inputs = [*map(differentiable, (g, pos))]
    distance = (inputs[1].index_select(0, first) - inputs[1].index_select(0, second)).norm(dim=1)
    (by_pos,) = torch.autograd.grad(distance, inputs[1], inputs[0], create_graph=True)
    return torch.autograd.grad(by_pos, inputs, a, create_graph=True)


differentiate("distances", _Distances)
differentiate("distances_backward", _DistancesBackward)


def pair_distances(pos: Tensor, pairs: Tensor, layout: Sequence[Tensor] = ()) -> Tensor:
    """Compute distances of pairs of atoms, differentiable by positions.

    Args:
        pos: Positions in Å, ``(atoms, 3)``.
        pairs: Atoms of each pair, ``(2, pairs)``.
        layout: On GPUs, the tensors of the pairs' :class:`~pyg_schnet.graph.csr.Csr`, see there for shapes.

    Returns:
        Distances in Å, ``(pairs,)``.
    """
    ends = (pairs[0].contiguous(), pairs[1].contiguous())
    return _Distances.apply(full_precision(pos).contiguous(), *ends, list(layout))  # pyright: ignore[reportReturnType]
