"""Comparison of a program with eager mode: results, and gradients of all weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from pyg_schnet.compile.inputs import Inputs

if TYPE_CHECKING:
    from pyg_schnet.potentials.potential import Potential

# Largest difference from eager mode, relative to the largest value. Both are the same float32 sums in another
# order: measured 1e-5 for gradients of weights with forces in the loss; wrong programs differ by 0.1 or more.
_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-9}


def with_nonzero_weights(potential: Potential) -> Potential:
    """Copy a potential, with random numbers instead of weights that are all zero.

    A last layer that starts at zero would make forces and most gradients zero, which compare well.
    """
    own = copy.deepcopy(potential)
    own.compiled = None
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in own.parameters():
            if not bool(parameter.any()):
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator, device="cpu"))
    return own


def difference(
    potential: Potential,
    inputs: Inputs,
    expected: dict[str, Tensor],
    found: dict[str, Tensor],
    trained: bool,
    largest_force: float,
) -> str | None:
    """Compare results and, for every parameter by itself, the gradients of an arbitrary loss of them.

    Forces that cancel, as in a perfect crystal, have the rounding error of ``largest_force``, on sites.
    """
    tolerance = _TOLERANCE[next(potential.model.parameters()).dtype]
    graph = inputs.graph
    none = graph.pos.new_zeros(graph.num_molecules, dtype=torch.float64)
    references = potential.scaled(none, graph.z, graph.batch, graph.num_molecules)
    for name, value in expected.items():
        base = references if name == "energy" else torch.zeros_like(value)  # which would hide any difference
        from_forces = name in ("forces", "stress")
        rounding = 1e-13 * base.abs().max() + 1e-3 * tolerance * largest_force * from_forces
        if not _agree(found[name] - base, value - base, tolerance, rounding):
            return f"{name} differ" if name == "forces" else f"{name} differs"
    if not trained:
        return None
    losses = []
    for results in (expected, found):
        generator = torch.Generator().manual_seed(0)
        shapes = {name: results[name].shape for name in expected}  # in one order
        noise = {
            name: torch.randn(shape, generator=generator, device="cpu") for name, shape in shapes.items()
        }
        losses.append([(value * noise[name].to(value)).sum() for name, value in results.items()])
    names, parameters = zip(
        *((n, p) for n, p in potential.named_parameters() if p.requires_grad), strict=True
    )
    pairs = [torch.autograd.grad(parts, parameters, allow_unused=True) for parts in losses]
    for name, value, other in zip(names, *pairs, strict=True):
        if not _agree(other, value, tolerance):
            return f"gradient of {name} differs"
    return None


def _agree(
    found: Tensor | None, expected: Tensor | None, tolerance: float, rounding: Tensor | float = 0.0
) -> bool:
    if found is None or expected is None:
        return all(value is None or not bool(value.any()) for value in (found, expected))
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max() + rounding)
