"""SOAP, Adam in the eigenbasis of each layer's gradients."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from pyg_schnet.kernels import on_accelerator
from pyg_schnet.potentials.device import use_threads

_torch: Any = torch  # functions of lists of tensors are public but for their names
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
    libraries, and elementwise operations run on all batches at once. The mean of the gradients is rotated
    with the basis; their mean squares, as in the paper, are not.

    A step is :meth:`advance`, on the host, :meth:`update`, on the device alone and the same each time, and
    :meth:`refresh`, whose decompositions the host may wait for. A CUDA graph contains :meth:`update` only.

    Args:
        params: Weights of any shapes, or parameter groups as for any optimizer.
        lr: Learning rate :math:`\eta`.
        betas: Decays of the mean and of the mean squares of the gradients.
        eps: Added to the root of the mean squares.
        refresh_every: Steps between two updates of the bases.
        max_side: Longest side of a matrix that is rotated.
        weight_decay: :math:`\lambda` of decoupled weight decay: each step multiplies all weights that have
            gradients by :math:`1 - \eta\lambda`, as AdamW does.

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
        weight_decay: float = 0.0,
    ):
        self._parts: list[_Part] = []  # from the first step on
        defaults = {"lr": lr, "betas": betas, "eps": eps, "refresh_every": refresh_every}
        super().__init__(params, {**defaults, "max_side": max_side, "weight_decay": weight_decay})

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add weights with their own options; matrices of the same shape in a group are one batch.

        Args:
            param_group: ``{"params": weights}``, and options as of the class.

        Raises:
            ValueError: If an option is out of range.
        """
        _check({**self.defaults, **param_group})
        super().add_param_group(param_group)
        self._parts = []

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._parts = []
        for group in self.param_groups:
            group.setdefault("weight_decay", 0.0)  # absent in earlier versions
        for entry in self.state.values():
            if "step" in entry:
                entry["step"] = float(entry["step"])  # a tensor in files

    def initialize(self) -> None:
        """Create the optimizer's state, as the first step does."""
        self._parts = []
        for group in self.param_groups:
            for batches in _batches(group):
                for batch in batches:
                    state = self.state[batch.members[0]]
                    if not state:
                        state.update(batch.new_state(group["max_side"]))
                    batch.state = state
                self._parts.append(_Part(group, batches))

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Update the weights that have gradients; the first step only initializes the bases.

        Args:
            closure: Function that computes the gradients again and returns the loss.

        Returns:
            The loss of ``closure``; ``None`` without it.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self.advance()
        self.update()
        self.refresh()
        return loss

    def advance(self) -> None:
        """Count a step, and write its learning rate and bias corrections to the device."""
        if not self._parts:
            self.initialize()
        for part in self._parts:
            part.advance()

    @torch.no_grad()
    def update(self) -> None:
        """Update averages and weights by the gradients, after :meth:`advance`.

        After the first step, which initializes the bases, the host neither reads from the device nor decides
        anything.
        """
        with use_threads(1):  # on some processors, matrix products depend on the number of threads
            for part in self._parts:
                part.update()

    @torch.no_grad()
    def refresh(self) -> None:
        """Update the bases where it is due, after :meth:`update`."""
        with use_threads(1):
            for part in self._parts:
                part.refresh()


def _check(options: dict[str, Any]) -> None:
    for name in ("lr", "eps", "weight_decay"):
        if not 0 <= options[name] < math.inf:
            raise ValueError(f"`{name}` must be at least 0 and finite, got {options[name]}")
    if not all(0 <= beta < 1 for beta in options["betas"]):
        raise ValueError(f"`betas` must be in [0, 1), got {options['betas']}")
    for name in ("refresh_every", "max_side"):
        if options[name] < 1:
            raise ValueError(f"`{name}` must be at least 1, got {options[name]}")


def _batches(group: dict[str, Any]) -> list[list[_Batch]]:
    """Return batches of the matrices of a group by shape, and of all other weights, by type and device."""
    members: dict[tuple, dict[tuple, list[Tensor]]] = {}
    for param in group["params"]:
        matrix = param.dim() == 2 and any(1 < length <= group["max_side"] for length in param.shape)
        shape = tuple(param.shape) if matrix else ()
        members.setdefault((param.dtype, param.device), {}).setdefault(shape, []).append(param)
    return [[_Batch(*batch) for batch in batches.items()] for batches in members.values()]


class _Part:
    """Batches of one type and device with common options, which elementwise operations update together.

    Args:
        group: Options.
        batches: At least one, with their states.
    """

    def __init__(self, group: dict[str, Any], batches: list[_Batch]):
        self.group, self.batches = group, batches
        first = batches[0].members[0]
        # Reciprocal of the root's bias, learning rate divided by the mean's bias, and decay. On the host, the
        # biases are divisors, which round differently.
        self.factors = first.new_zeros(3).unbind() if on_accelerator(first) else None

    def biases(self) -> tuple[float, float]:
        """Return the biases of the means and of the roots of mean squares after this step."""
        step, (beta1, beta2) = int(self.batches[0].state["step"]), self.group["betas"]
        return 1 - beta1**step, math.sqrt(1 - beta2**step)

    @property
    def decay(self) -> float:
        """Factor of the weights by weight decay, 1 for none."""
        return 1 - self.group["lr"] * self.group["weight_decay"]

    def advance(self) -> None:
        """Count a step; without waiting, write its factors to the device."""
        for batch in self.batches:
            batch.state["step"] += 1.0
        if self.factors is not None:
            of_mean, of_root = self.biases()
            self.factors[0].fill_(1 / of_root)
            self.factors[1].fill_(self.group["lr"] / of_mean)
            if self.group["weight_decay"]:
                self.factors[2].fill_(self.decay)

    def update(self) -> None:
        """Update averages and weights by the gradients."""
        beta1, beta2 = self.group["betas"]
        is_first = self.batches[0].state["step"] == 1
        gradients = [batch.rotated_gradient(beta2, is_first) for batch in self.batches]
        means = [batch.state["mean"] for batch in self.batches]
        squares = [batch.state["squares"] for batch in self.batches]
        _torch._foreach_lerp_(means, gradients, 1 - beta1)
        _torch._foreach_mul_(squares, beta2)
        _torch._foreach_addcmul_(squares, gradients, gradients, value=1 - beta2)
        if not is_first:
            self._move(means, squares)

    def _move(self, means: list[Tensor], squares: list[Tensor]) -> None:
        of_mean, of_root = self.biases()
        roots = _torch._foreach_sqrt(squares)
        if self.factors is None:
            _torch._foreach_div_(roots, of_root)
        else:
            _torch._foreach_mul_(roots, self.factors[0])
        _torch._foreach_add_(roots, self.group["eps"])
        roots = _with_floors(roots)
        changes, rate = _torch._foreach_div(means, roots), self.group["lr"]
        if self.factors is None:
            _torch._foreach_div_(changes, of_mean)
        else:
            _torch._foreach_mul_(changes, self.factors[1])
            rate = 1.0
        moves = [
            (param, change.view_as(param))
            for batch, changed in zip(self.batches, changes, strict=True)
            for param, change in zip(batch.members, batch.split(changed), strict=True)
            if param.grad is not None
        ]
        if moves:
            params, moves = map(list, zip(*moves, strict=True))
            if self.group["weight_decay"]:
                _torch._foreach_mul_(params, self.decay if self.factors is None else self.factors[2])
            _torch._foreach_sub_(params, moves, alpha=rate)

    def refresh(self) -> None:
        """Update the bases if it is due."""
        if self.batches[0].state["step"] % self.group["refresh_every"] == 0:
            for batch in self.batches:
                if batch.shape:
                    _Matrices(batch.state).update_bases()


def _with_floors(roots: list[Tensor]) -> list[Tensor]:
    """Return root mean squares with the smallest of each matrix replaced; vectors as they are."""
    floors = [root.amax((1, 2), keepdim=True) for root in roots if root.dim() == 3]
    if floors:
        _torch._foreach_mul_(floors, _RMS_FLOOR)
    rest = iter(floors)
    return [torch.maximum(root, next(rest)) if root.dim() == 3 else root for root in roots]


class _Batch:
    """Matrices of one shape; for the shape ``()``, all other weights as one vector."""

    def __init__(self, shape: tuple[int, ...], members: list[Tensor]):
        self.shape, self.members = shape, members
        self.sizes = [param.numel() for param in members]
        self.state: dict[str, Any] = {}

    def new_state(self, max_side: int) -> dict[str, Any]:
        """Return the state before the first step; its names are those in training-state files."""
        first = self.members[0].detach()
        shape = (len(self.members), *self.shape) if self.shape else (sum(self.sizes),)
        state = {"step": 0.0, "mean": first.new_zeros(shape), "squares": first.new_zeros(shape)}
        for side, length in enumerate(self.shape):
            if 1 < length <= max_side:
                for name in ("covariance", "basis"):
                    state[f"{name}-{side}"] = first.new_zeros(len(self.members), length, length)
        return state

    def rotated_gradient(self, beta2: float, is_first: bool) -> Tensor:
        """Return the gradients in the bases, after updating their covariances."""
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in self.members]
        if any(gradient.is_sparse for gradient in gradients):
            raise ValueError("gradients must be dense for Soap, got sparse ones; use Embedding(sparse=False)")
        if not self.shape:
            return torch.cat([gradient.reshape(-1) for gradient in gradients])
        gradient, matrices = torch.stack(gradients), _Matrices(self.state)
        matrices.update_covariances(gradient, beta2)
        if is_first:
            matrices.initialize_bases()
        return matrices.to_basis(gradient)

    def split(self, change: Tensor) -> Sequence[Tensor]:
        """Return the change of each member, rotated back."""
        return _Matrices(self.state).from_basis(change).unbind() if self.shape else change.split(self.sizes)


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
        with use_threads(1):  # small matrices are slower with more
            for side, covariance in self.covariances.items():
                finite = torch.nan_to_num(covariance)  # non-finite gradients show in the weights
                self.bases[side].copy_(_decompose(torch.linalg.eigh, finite)[1].flip(-1))

    def update_bases(self) -> None:
        """Update the eigenvectors by one orthogonal iteration; the mean is rotated along."""
        mean = self.from_basis(self.mean)
        with use_threads(1):
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
