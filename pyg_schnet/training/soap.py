"""SOAP: Adam in the basis in which the gradients of a layer's weights are least correlated."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_schnet.training.threads import one_thread

# Of the largest root of mean squares of a matrix: what is smaller is rounding of what is larger, which must
# not be blown up where no gradient is, as in the rows of an embedding's unseen elements.
_NOTHING = 1e-5


class Soap(torch.optim.Optimizer):
    r"""Adam for vectors, and for each matrix of weights Adam in a basis of its own.

    With the gradient :math:`G` of a matrix :math:`W`

    .. math::
        L \leftarrow \beta_2 L + (1 - \beta_2)\, G G^T, \quad
        R \leftarrow \beta_2 R + (1 - \beta_2)\, G^T G, \\
        W \leftarrow W - \eta\, Q_L\, \mathrm{Adam}(Q_L^T G Q_R)\, Q_R^T,

    with the eigenvectors :math:`Q_L` of :math:`L` and :math:`Q_R` of :math:`R`, which a step of orthogonal
    iteration follows now and then. A side longer than ``max_side`` stays as it is, and so does, until the
    first such step, a layer whose first gradient is zero. SchNet on a thousand structures needs a tenth of
    Adam's steps with it (benchmarks/LOG.md).

    Matrices of one shape are one batch, several times faster than one after the other as in libraries. The
    mean of the gradients turns with the basis; their mean squares, as in the paper, do not.

    Args:
        params: Weights, or groups of them as for any optimizer.
        lr: Learning rate :math:`\eta`.
        betas: Decays of mean and mean squares.
        eps: Added to the root of the mean squares.
        refresh_every: Steps after which the basis is brought up to date.
        max_side: Longest side of a matrix that gets a basis.

    Raises:
        ValueError: If an argument is out of range.

    Example:
        >>> from pyg_schnet import SchNet
        >>> optimizer = Soap(SchNet.paper().parameters(), lr=4e-3)

    Source:
        Vyas et al., "SOAP: Improving and stabilizing Shampoo using Adam", ICLR 2025
        (arXiv:2409.11321), algorithm 3.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 2e-3,
        betas: tuple[float, float] = (0.95, 0.98),
        eps: float = 1e-8,
        refresh_every: int = 10,
        max_side: int = 128,
    ):
        self._batches: list[list[_Batch]] = []  # of each group, from the first step on
        defaults = {"lr": lr, "betas": betas, "eps": eps, "refresh_every": refresh_every}
        super().__init__(params, {**defaults, "max_side": max_side})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with options of their own; matrices of one shape in a group are one batch."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        self._batches = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._batches = []

    def initialize(self) -> None:
        """Make what is kept between steps, as the first step does."""
        self._batches = [_batches(group) for group in self.param_groups]
        for group, batches in zip(self.param_groups, self._batches, strict=True):
            for batch in batches:
                if not self.state[batch.members[0]]:
                    self.state[batch.members[0]] = batch.new_state(group["max_side"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Change the weights, those without a gradient excepted; the first step only looks."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._batches:
            self.initialize()
        with one_thread():  # on some processors the sums of a product depend on their number
            for group, batches in zip(self.param_groups, self._batches, strict=True):
                for batch in batches:
                    changes = batch.step(self.state[batch.members[0]], group)
                    for param, change in zip(batch.members, changes, strict=True):
                        if param.grad is not None:
                            param.sub_(change.view_as(param), alpha=group["lr"])
        return loss


def _check(options: dict[str, Any]) -> None:
    for name in ("lr", "eps"):
        if not 0 <= options[name] < math.inf:
            raise ValueError(f"`{name}` must be at least 0 and finite, got {options[name]}")
    if not all(0 <= beta < 1 for beta in options["betas"]):
        raise ValueError(f"`betas` must be in [0, 1), got {options['betas']}")
    for name in ("refresh_every", "max_side"):
        if options[name] < 1:
            raise ValueError(f"`{name}` must be at least 1, got {options[name]}")


def _batches(group: dict[str, Any]) -> list[_Batch]:
    """Put the matrices of a group together by shape, and all other weights."""
    found: dict[tuple, list[Tensor]] = {}
    for param in group["params"]:
        matrix = param.dim() == 2 and any(1 < length <= group["max_side"] for length in param.shape)
        shape = tuple(param.shape) if matrix else ()
        found.setdefault((shape, param.dtype, param.device), []).append(param)
    return [_Batch(shape, members) for (shape, _, _), members in found.items()]


class _Batch:
    """Matrices of one shape; or, of the shape ``()``, all other weights in a row."""

    def __init__(self, shape: tuple[int, ...], members: list[Tensor]):
        self.shape, self.members = shape, members
        self.sizes = [param.numel() for param in members]

    def new_state(self, max_side: int) -> dict[str, Tensor]:
        """Give what an optimizer keeps before the first step, under names that go into files."""
        first = self.members[0].detach()
        shape = (len(self.members), *self.shape) if self.shape else (sum(self.sizes),)
        state = {"step": torch.zeros(()), "mean": first.new_zeros(shape), "squares": first.new_zeros(shape)}
        for side, length in enumerate(self.shape):
            if 1 < length <= max_side:
                for name in ("covariance", "basis"):
                    state[f"{name}-{side}"] = first.new_zeros(len(self.members), length, length)
        return state

    def step(self, state: dict[str, Tensor], group: dict[str, Any]) -> Sequence[Tensor]:
        """Follow the gradients; give the change of each member, to be multiplied by the learning rate."""
        state["step"] += 1
        step, (beta1, beta2) = int(state["step"]), group["betas"]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.members]
        if any(gradient.is_sparse for gradient in gradients):
            raise ValueError("gradients must be dense for Soap, got sparse ones; use Embedding(sparse=False)")
        if self.shape:
            gradient, matrices = torch.stack(gradients), _Matrices(state)
            matrices.observe(gradient, beta2)
            if step == 1:
                matrices.diagonalize()
            gradient = matrices.turn(gradient)
        else:
            gradient, matrices = torch.cat([gradient.reshape(-1) for gradient in gradients]), None
        mean, squares = state["mean"], state["squares"]
        mean.lerp_(gradient, 1 - beta1)
        squares.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = squares.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        if matrices is not None:
            root = torch.maximum(root, _NOTHING * root.amax((1, 2), keepdim=True))
        change = (mean / root).div_(1 - beta1**step)
        if step == 1:
            change.zero_()
        if matrices is None:
            return change.split(self.sizes)
        change = matrices.turn_back(change)
        if step % group["refresh_every"] == 0:
            matrices.refresh()
        return change.unbind()


class _Matrices:
    """The mean squares and bases that an optimizer keeps for matrices of one shape."""

    def __init__(self, state: dict[str, Tensor]):
        self.mean, self.squares = state["mean"], state["squares"]
        sides = [side for side in (0, 1) if f"basis-{side}" in state]
        self.covariances = {side: state[f"covariance-{side}"] for side in sides}
        self.bases = {side: state[f"basis-{side}"] for side in sides}

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
        with one_thread():  # more make small matrices slower
            for side, covariance in self.covariances.items():
                finite = torch.nan_to_num(covariance)  # what is not shows in the weights, as with others
                self.bases[side].copy_(_in_lapack(torch.linalg.eigh, finite)[1].flip(-1))

    def refresh(self) -> None:
        """Follow the eigenvectors by one orthogonal iteration; the mean keeps its direction."""
        mean = self.turn_back(self.mean)
        with one_thread():
            for side, covariance in self.covariances.items():
                turned = covariance @ self.bases[side]
                order = (self.bases[side] * turned).sum(1).argsort(1, descending=True)
                self.squares.copy_(_take(self.squares, order, 1 + side))
                self.bases[side].copy_(_in_lapack(torch.linalg.qr, _take(turned, order, 2))[0])
        self.mean.copy_(self.turn(mean))


def _take(matrices: Tensor, order: Tensor, dim: int) -> Tensor:
    """Take rows (``dim`` 1) or columns (2) of each matrix in an order of its own."""
    return matrices.gather(dim, order.unsqueeze(3 - dim).expand_as(matrices))


def _in_lapack(function: Callable, matrices: Tensor) -> Sequence[Tensor]:
    """Decompose in single precision what has less."""
    return function(matrices if matrices.dtype == torch.float64 else matrices.float())
