"""SOAP: Adam in the basis in which the gradients of a layer's weights are least correlated."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Soap(torch.optim.Optimizer):
    r"""Adam for vectors, and for each matrix of weights Adam in a basis of its own.

    With the gradient :math:`G` of a matrix :math:`W`

    .. math::
        L \leftarrow \beta_2 L + (1 - \beta_2)\, G G^T, \quad
        R \leftarrow \beta_2 R + (1 - \beta_2)\, G^T G, \\
        W \leftarrow W - \eta\, Q_L\, \mathrm{Adam}(Q_L^T G Q_R)\, Q_R^T,

    with the eigenvectors :math:`Q_L` of :math:`L` and :math:`Q_R` of :math:`R`, which a step of orthogonal
    iteration follows now and then. A side longer than ``max_side`` stays as it is. SchNet on a thousand
    structures needs a tenth of Adam's steps with it, each of which takes a quarter longer
    (benchmarks/LOG.md).

    Matrices of one shape are one batch, several times faster than one after the other as in libraries. The
    mean of the gradients turns with the basis; their mean squares, as in the paper, do not.

    Args:
        values: All weights in one tensor, as in :class:`~pyg_schnet.training.flat.FlatParameters`.
        shapes: Of the weights, in the order of ``values``.
        lr: Learning rate :math:`\eta`.
        betas: Decays of mean and mean squares.
        eps: Added to the root of the mean squares.
        refresh_every: Steps after which the basis is brought up to date.
        max_side: Longest side of a matrix that gets a basis.

    Source:
        Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", ICLR 2025
        (arXiv:2409.11321), algorithm 3.
    """

    def __init__(
        self,
        values: nn.Parameter,
        shapes: Iterable[torch.Size],
        lr: float,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-8,
        refresh_every: int = 10,
        max_side: int = 128,
    ):
        super().__init__([values], {"lr": lr})
        self.betas, self.eps, self.refresh_every, self.max_side = betas, eps, refresh_every, max_side
        shapes = list(shapes)
        self._sizes = [shape.numel() for shape in shapes]
        self._matrices: dict[tuple[int, int], list[int]] = {}
        self._vectors = []  # and what is not turned on any side
        for index, shape in enumerate(shapes):
            if len(shape) == 2 and self._turned(shape):
                self._matrices.setdefault((shape[0], shape[1]), []).append(index)
            else:
                self._vectors.append(index)
        state = self.state[values]
        state["step"] = torch.zeros(())
        length = sum(self._sizes[index] for index in self._vectors)
        state["mean"], state["squares"] = values.new_zeros(2, length).unbind()
        for shape, members in self._matrices.items():
            name = "x".join(map(str, shape))
            for what in ("mean", "squares"):
                state[f"{name}-{what}"] = values.new_zeros(len(members), *shape)
            for side in self._turned(shape):
                for what in ("covariance", "basis"):
                    state[f"{name}-{what}-{side}"] = values.new_zeros(len(members), shape[side], shape[side])

    def _turned(self, shape: Sequence[int]) -> list[int]:
        return [side for side in (0, 1) if 1 < shape[side] <= self.max_side]

    @torch.no_grad()
    def step(self, closure=None) -> None:
        """Change the weights; the first step only looks at the gradients."""
        (group,) = self.param_groups
        (values,) = group["params"]
        state = self.state[values]
        state["step"] += 1
        step = int(state["step"])
        gradients = values.grad.split(self._sizes)
        changes = list(gradients)
        for shape, members in self._matrices.items():
            stack = torch.stack([gradients[index] for index in members]).view(-1, *shape)
            matrices = _Matrices(state, shape, self._turned(shape))
            matrices.observe(stack, self.betas[1])
            if step == 1:
                matrices.diagonalize()
            change = self._adam(matrices.turn(stack), matrices.mean, matrices.squares, step)
            for index, part in zip(members, matrices.turn_back(change).flatten(1), strict=True):
                changes[index] = part
            if step % self.refresh_every == 0:
                matrices.refresh()
        if self._vectors:
            vector = torch.cat([gradients[index] for index in self._vectors])
            change = self._adam(vector, state["mean"], state["squares"], step)
            for index, part in zip(
                self._vectors, change.split([self._sizes[index] for index in self._vectors]), strict=True
            ):
                changes[index] = part
        if step > 1:
            values.sub_(torch.cat(changes), alpha=group["lr"])

    def _adam(self, gradient: Tensor, mean: Tensor, squares: Tensor, step: int) -> Tensor:
        mean.lerp_(gradient, 1 - self.betas[0])
        squares.mul_(self.betas[1]).addcmul_(gradient, gradient, value=1 - self.betas[1])
        root = squares.sqrt().div_(math.sqrt(1 - self.betas[1] ** step)).add_(self.eps)
        return (mean / root).div_(1 - self.betas[0] ** step)


class _Matrices:
    """Matrices of one shape, with the mean squares and bases that an optimizer keeps for them."""

    def __init__(self, state: dict[str, Tensor], shape: tuple[int, int], sides: list[int]):
        name = "x".join(map(str, shape))
        self.mean, self.squares = state[f"{name}-mean"], state[f"{name}-squares"]
        self.covariances = {side: state[f"{name}-covariance-{side}"] for side in sides}
        self.bases = {side: state[f"{name}-basis-{side}"] for side in sides}

    def observe(self, gradients: Tensor, beta: float) -> None:
        """Follow the covariances of rows and columns."""
        for side, covariance in self.covariances.items():
            left, right = (gradients, gradients.mT) if side == 0 else (gradients.mT, gradients)
            covariance.baddbmm_(left, right, beta=beta, alpha=1 - beta)

    def turn(self, matrices: Tensor) -> Tensor:
        """Go into the bases."""
        for side, basis in self.bases.items():
            matrices = basis.mT @ matrices if side == 0 else matrices @ basis
        return matrices

    def turn_back(self, matrices: Tensor) -> Tensor:
        """Leave them."""
        for side, basis in self.bases.items():
            matrices = basis @ matrices if side == 0 else matrices @ basis.mT
        return matrices

    def diagonalize(self) -> None:
        """Begin with the eigenvectors, of the largest eigenvalue first."""
        with _one_thread():
            for side, covariance in self.covariances.items():
                self.bases[side].copy_(torch.linalg.eigh(covariance).eigenvectors.flip(-1))

    def refresh(self) -> None:
        """Follow the eigenvectors by one orthogonal iteration; the mean keeps its direction."""
        mean = self.turn_back(self.mean)
        with _one_thread():
            for side, covariance in self.covariances.items():
                turned = covariance @ self.bases[side]
                order = (self.bases[side] * turned).sum(1).argsort(1, descending=True)
                self.squares.copy_(_take(self.squares, order, 1 + side))
                self.bases[side].copy_(torch.linalg.qr(_take(turned, order, 2)).Q)
        self.mean.copy_(self.turn(mean))


def _take(matrices: Tensor, order: Tensor, dim: int) -> Tensor:
    """Take rows (``dim`` 1) or columns (2) of each matrix in an order of its own."""
    return matrices.gather(dim, order.unsqueeze(3 - dim).expand_as(matrices))


@contextmanager
def _one_thread() -> Iterator[None]:
    """LAPACK's results depend on the number of threads, and small matrices take longer with more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
