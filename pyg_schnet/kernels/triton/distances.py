r"""Kernels of distances of pairs of atoms, and of their derivatives.

.. math::
    d_p = |\mathbf r_i - \mathbf r_j|, \qquad
    \frac{\partial}{\partial \mathbf r_i} \sum_p g_p d_p = \sum_{p \ni i} g_p \mathbf n_p, \qquad
    \mathbf n_p = \frac{\mathbf r_i - \mathbf r_j}{d_p},

and of :math:`\sum_i \mathbf a_i \cdot \partial/\partial \mathbf r_i`, with :math:`\mathbf v_p = \mathbf a_i
- \mathbf a_j`, the derivatives :math:`\mathbf n_p \cdot \mathbf v_p` by :math:`g_p` and
:math:`\sum_{p \ni i} g_p (\mathbf v_p - \mathbf n_p\, \mathbf n_p \cdot \mathbf v_p) / d_p` by
:math:`\mathbf r_i`. Atoms are summed along their rows of neighbors, as in ``convolution.py``.
"""

import triton
import triton.language as tl
from torch import Tensor

from pyg_schnet.kernels.operations import empty_like
from pyg_schnet.kernels.triton.launch import blocks, contiguous, launch, rows_of_pairs

_PAIRS = 128  # of one program
_NEIGHBORS = 32  # of an atom at once


@triton.jit
def _load_vector(at, i, mask):
    i = i.to(tl.int64) * 3
    return (
        tl.load(at + i, mask=mask, other=0.0),
        tl.load(at + i + 1, mask=mask, other=0.0),
        tl.load(at + i + 2, mask=mask, other=0.0),
    )


@triton.jit
def _difference(at, i, j, mask):
    x, y, z = _load_vector(at, i, mask)
    u, v, w = _load_vector(at, j, mask)
    return x - u, y - v, z - w


@triton.jit(do_not_specialize=["first", "second", "pairs"])
def distances_kernel(pos, first, second, out, pairs, BLOCK: tl.constexpr):
    """Compute the distances of a block of pairs."""
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = p < pairs
    i = tl.load(first + p, mask=mask, other=0)
    j = tl.load(second + p, mask=mask, other=0)
    x, y, z = _difference(pos, i, j, mask)
    tl.store(out + p, tl.sqrt(x * x + y * y + z * z), mask=mask)


@triton.jit(do_not_specialize=["first", "second", "pairs"])
def pairs_kernel(a, pos, first, second, out, pairs, BLOCK: tl.constexpr):
    """Compute n · (a_i - a_j) of a block of pairs."""
    p = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = p < pairs
    i = tl.load(first + p, mask=mask, other=0)
    j = tl.load(second + p, mask=mask, other=0)
    x, y, z = _difference(pos, i, j, mask)
    u, v, w = _difference(a, i, j, mask)
    square = tl.where(mask, x * x + y * y + z * z, 1.0)
    tl.store(out + p, (x * u + y * v + z * w) / tl.sqrt(square), mask=mask)


@triton.jit
def atoms_kernel(a, g, pos, rowptr, col, pair, out, SECOND: tl.constexpr, BLOCK: tl.constexpr):
    """Sum g n over the neighbors of one atom; with SECOND, g (v - n n · v) / d."""
    atom = tl.program_id(0)
    end = tl.load(rowptr + atom + 1)
    sum_x = tl.zeros((BLOCK,), pos.dtype.element_ty)
    sum_y = tl.zeros((BLOCK,), pos.dtype.element_ty)
    sum_z = tl.zeros((BLOCK,), pos.dtype.element_ty)
    for start in range(tl.load(rowptr + atom), end, BLOCK):
        e = start + tl.arange(0, BLOCK)
        mask = e < end
        j = tl.load(col + e, mask=mask, other=0)
        i = j * 0 + atom
        x, y, z = _difference(pos, i, j, mask)
        square = tl.where(mask, x * x + y * y + z * z, 1.0)
        f = tl.load(g + tl.load(pair + e, mask=mask, other=0), mask=mask, other=0.0) / tl.sqrt(square)
        if SECOND:
            u, v, w = _difference(a, i, j, mask)
            along = (x * u + y * v + z * w) / square
            sum_x += f * (u - along * x)
            sum_y += f * (v - along * y)
            sum_z += f * (w - along * z)
        else:
            sum_x += f * x
            sum_y += f * y
            sum_z += f * z
    at = out + atom.to(tl.int64) * 3
    tl.store(at, tl.sum(sum_x, 0))
    tl.store(at + 1, tl.sum(sum_y, 0))
    tl.store(at + 2, tl.sum(sum_z, 0))


def distances(pos: Tensor, first: Tensor, second: Tensor, layout: list[Tensor]) -> Tensor:
    """Compute the distances of pairs."""
    pos, first, second = contiguous(pos, first, second)
    pairs = first.size(0)
    out = pos.new_empty(pairs)
    launch(distances_kernel, (blocks(pairs, _PAIRS),), pos, first, second, out, pairs, BLOCK=_PAIRS)
    return out


def distances_backward(g: Tensor, pos: Tensor, first: Tensor, second: Tensor, layout: list[Tensor]) -> Tensor:
    """Differentiate ``(g * distances).sum()`` by positions."""
    return _by_positions(None, g, pos, first, second, layout)


def _by_positions(
    a: Tensor | None, g: Tensor, pos: Tensor, first: Tensor, second: Tensor, layout: list[Tensor]
) -> Tensor:
    g, pos = contiguous(g, pos)
    out, rows = empty_like(pos), rows_of_pairs(first, second, pos.size(0), layout)
    launch(
        atoms_kernel,
        (pos.size(0),),
        *(a, g, pos, *rows, out),
        SECOND=a is not None,
        BLOCK=_NEIGHBORS,
        warps=1,
    )
    return out


def distances_double_backward(
    a: Tensor, g: Tensor, pos: Tensor, first: Tensor, second: Tensor, layout: list[Tensor], by_pos: bool
) -> tuple[Tensor, Tensor]:
    """Differentiate ``(a * distances_backward).sum()`` by g and positions."""
    a, g, pos, first, second = contiguous(a, g, pos, first, second)
    to_g, pairs = empty_like(g), first.size(0)
    launch(pairs_kernel, (blocks(pairs, _PAIRS),), a, pos, first, second, to_g, pairs, BLOCK=_PAIRS)
    to_pos = _by_positions(a, g, pos, first, second, layout) if by_pos else pos.new_empty(0)
    return to_g, to_pos
