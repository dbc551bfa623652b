"""SOAP, Adam in the eigenbasis of each layer's gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_schnet.training.execution import one_thread

# Root mean squares below this fraction of a matrix's largest are rounding errors of larger entries. They must
# not be amplified where there is no gradient, as in rows of the embedding of absent elements.
_RMS_FLOOR = 1e-5


class Soap(torch.optim.Optimizer):
    r"""Adam for vectors and, for each weight matrix, Adam in the eigenbasis of its gradients.

    With the gradient :math:`G` of a matrix :math:`W`

    .. math::
        L \leftarrow \beta_2 L + (1 - \beta_2)\, G G^T, \quad
        R \leftarrow \beta_2 R + (1 - \beta_2)\, G^T G, \\
        W \leftarrow W - \eta\, Q_L\, \mathrm{Adam}(Q_L^T G Q_R)\, Q_R^T,

    with the eigenvectors :math:`Q_L` of :math:`L` and :math:`Q_R` of :math:`R`, which are updated by one step
    of orthogonal iteration every ``refresh_every`` steps. Sides longer than ``max_side`` are not rotated, nor
    is, until the first such update, a layer whose first gradient is zero. With SOAP, SchNet on a thousand
    structures needs a tenth of Adam's steps (benchmarks/LOG.md).

    Matrices of the same shape are processed as one batch, several times faster than one by one as in
    libraries. The mean of the gradients is rotated with the basis; their mean squares, as in the paper, are
    not.

    Args:
        params: Weights, or parameter groups as for any optimizer.
        lr: Learning rate :math:`\eta`.
        betas: Decays of the mean and of the mean squares of the gradients.
        eps: Added to the root of the mean squares.
        refresh_every: Steps between two updates of the bases.
        max_side: Longest side of a matrix that is rotated.

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
        self._batches: list[list[_Batch]] = []  # by parameter group, from the first step on
        defaults = {"lr": lr, "betas": betas, "eps": eps, "refresh_every": refresh_every}
        super().__init__(params, {**defaults, "max_side": max_side})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with their own options; matrices of the same shape in a group are one batch."""
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        self._batches = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._batches = []

    def initialize(self) -> None:
        """Create the optimizer's state, as the first step does."""
        self._batches = [_batches(group) for group in self.param_groups]
        for group, batches in zip(self.param_groups, self._batches, strict=True):
            for batch in batches:
                if not self.state[batch.members[0]]:
                    self.state[batch.members[0]] = batch.new_state(group["max_side"])

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the weights that have gradients; the first step only initializes the bases."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._batches:
            self.initialize()
        with one_thread():  # on some processors, matrix products depend on the number of threads
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
    """Group the matrices of a parameter group by shape, and all other weights together."""
    members: dict[tuple, list[Tensor]] = {}
    for param in group["params"]:
        matrix = param.dim() == 2 and any(1 < length <= group["max_side"] for length in param.shape)
        shape = tuple(param.shape) if matrix else ()
        members.setdefault((shape, param.dtype, param.device), []).append(param)
    return [_Batch(shape, params) for (shape, _, _), params in members.items()]


class _Batch:
    """Matrices of one shape; for the shape ``()``, all other weights as one vector."""

    def __init__(self, shape: tuple[int, ...], members: list[Tensor]):
        self.shape, self.members = shape, members
        self.sizes = [param.numel() for param in members]

    def new_state(self, max_side: int) -> dict[str, Tensor]:
        """Return the state before the first step; its names are those in training-state files."""
        first = self.members[0].detach()
        shape = (len(self.members), *self.shape) if self.shape else (sum(self.sizes),)
        state = {"step": torch.zeros(()), "mean": first.new_zeros(shape), "squares": first.new_zeros(shape)}
        for side, length in enumerate(self.shape):
            if 1 < length <= max_side:
                for name in ("covariance", "basis"):
                    state[f"{name}-{side}"] = first.new_zeros(len(self.members), length, length)
        return state

    def step(self, state: dict[str, Tensor], group: dict[str, Any]) -> Sequence[Tensor]:
        """Update the state; return the direction of each member, to be scaled by the learning rate."""
        state["step"] += 1
        step, (beta1, beta2) = int(state["step"]), group["betas"]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.members]
        if any(gradient.is_sparse for gradient in gradients):
            raise ValueError("gradients must be dense for Soap, got sparse ones; use Embedding(sparse=False)")
        if self.shape:
            gradient, matrices = torch.stack(gradients), _Matrices(state)
            matrices.update_covariances(gradient, beta2)
            if step == 1:
                matrices.initialize_bases()
            gradient = matrices.to_basis(gradient)
        else:
            gradient, matrices = torch.cat([gradient.reshape(-1) for gradient in gradients]), None
        mean, squares = state["mean"], state["squares"]
        mean.lerp_(gradient, 1 - beta1)
        squares.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
        root = squares.sqrt().div_(math.sqrt(1 - beta2**step)).add_(group["eps"])
        if matrices is not None:
            root = torch.maximum(root, _RMS_FLOOR * root.amax((1, 2), keepdim=True))
        change = (mean / root).div_(1 - beta1**step)
        if step == 1:
            change.zero_()
        if matrices is None:
            return change.split(self.sizes)
        change = matrices.from_basis(change)
        if step % group["refresh_every"] == 0:
            matrices.update_bases()
        return change.unbind()


class _Matrices:
    """Covariances and bases of matrices of one shape, views of the optimizer's state."""

    def __init__(self, state: dict[str, Tensor]):
        self.mean, self.squares = state["mean"], state["squares"]
        sides = [side for side in (0, 1) if f"basis-{side}" in state]
        self.covariances = {side: state[f"covariance-{side}"] for side in sides}
        self.bases = {side: state[f"basis-{side}"] for side in sides}

    def update_covariances(self, gradients: Tensor, beta: float) -> None:
        """Update the moving averages of the covariances of rows and columns."""
        for side, covariance in self.covariances.items():
            left, right = (gradients, gradients.mT) if side == 0 else (gradients.mT, gradients)
            covariance.baddbmm_(left, right, beta=beta, alpha=1 - beta)

    def to_basis(self, matrices: Tensor) -> Tensor:
        """Rotate matrices into the bases."""
        for side, basis in self.bases.items():
            matrices = basis.mT @ matrices if side == 0 else matrices @ basis
        return matrices

    def from_basis(self, matrices: Tensor) -> Tensor:
        """Rotate matrices back from the bases."""
        for side, basis in self.bases.items():
            matrices = basis @ matrices if side == 0 else matrices @ basis.mT
        return matrices

    def initialize_bases(self) -> None:
        """Set the bases to the eigenvectors, with descending eigenvalues."""
        with one_thread():  # small matrices are slower with more
            for side, covariance in self.covariances.items():
                finite = torch.nan_to_num(covariance)  # non-finite gradients show in the weights
                self.bases[side].copy_(_decompose(torch.linalg.eigh, finite)[1].flip(-1))

    def update_bases(self) -> None:
        """Update the eigenvectors by one orthogonal iteration; the mean is rotated along."""
        mean = self.from_basis(self.mean)
        with one_thread():
            for side, covariance in self.covariances.items():
                product = covariance @ self.bases[side]
                order = (self.bases[side] * product).sum(1).argsort(1, descending=True)
                self.squares.copy_(_take(self.squares, order, 1 + side))
                self.bases[side].copy_(_decompose(torch.linalg.qr, _take(product, order, 2))[0])
        self.mean.copy_(self.to_basis(mean))


def _take(matrices: Tensor, order: Tensor, dim: int) -> Tensor:
    """Reorder the rows (``dim`` 1) or columns (2) of each matrix."""
    return matrices.gather(dim, order.unsqueeze(3 - dim).expand_as(matrices))


def _decompose(function: Callable, matrices: Tensor) -> Sequence[Tensor]:
    """Decompose matrices, in single precision if theirs is lower."""
    return function(matrices if matrices.dtype == torch.float64 else matrices.float())
