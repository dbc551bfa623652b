"""Splits: which structures train, validate and test."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Split(NamedTuple):
    """Numbers of structures, sorted; disjoint, and together all."""

    train: Tensor
    val: Tensor
    test: Tensor


def random_split(n: int, n_train: int | None, n_val: int | None, seed: int) -> Split:
    """Split at random, reproducibly.

    Args:
        n: Number of structures.
        n_train: How many to train on; all that validation leaves if ``None``.
        n_val: How many to validate on; a tenth, 1,000 at most, if ``None``.
        seed: Of the order.

    Returns:
        The split; the test set is what the other two leave.

    Raises:
        ValueError: If there are too few structures.
    """
    if n_val is None:
        n_val = min(1000, -(-n // 10))
    if n_train is None:
        n_train = n - n_val
    if n_train < 1 or n_val < 0 or n_train + n_val > n:
        raise ValueError(
            f"`data.n_train` and `data.n_val` must be at least 1 and 0 and fit into the {n} structures of "
            f"the file, got {n_train} and {n_val}"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    parts = order.split([n_train, n_val, n - n_train - n_val])
    return Split(*(part.sort().values for part in parts))


def without_copies(val: Tensor, train: Tensor) -> Tensor:
    """Find the structures that do not occur in another set.

    Args:
        val: Positions, ``(structures, ...)``.
        train: Positions of the other set.

    Returns:
        Numbers of the structures of ``val`` whose positions are in no structure of ``train``.
    """
    seen = {row.numpy().tobytes() for row in train}
    kept = [i for i, row in enumerate(val) if row.numpy().tobytes() not in seen]
    return torch.tensor(kept, dtype=torch.long)
