"""Splits: which structures train, validate and test."""

from __future__ import annotations

import hashlib
import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor


class Split(NamedTuple):
    """Numbers of structures, counted from 0; disjoint.

    A random split is sorted and holds all structures; an official one may leave some out, and may have
    no ``val`` part.
    """

    train: Tensor
    val: Tensor
    test: Tensor

    def check(self, name: str, structures: int) -> None:
        """Refuse numbers that are not those of structures.

        Args:
            name: Of the split, for the message.
            structures: How many there are.

        Raises:
            ValueError: If there are any.
        """
        for part in self:
            if part.dim() != 1 or part.is_floating_point() or part.dtype == torch.bool:
                raise ValueError(
                    f"split '{name}' must hold lists of numbers, got {part.dtype} of {part.dim()} dimensions"
                )
            wrong = part[(part < 0) | (part >= structures)]
            if len(wrong):
                known = f"the structures from 0 to {structures - 1}"
                raise ValueError(f"split '{name}' must number {known}, got {int(wrong[0])}")

    def sha256(self) -> str:
        """Hash the numbers, to tell whether two splits are the same."""
        digest = hashlib.sha256()
        for part in self:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.to(torch.int64).numpy().astype("<i8").tobytes())
        return digest.hexdigest()


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
            f"the file, got {n_train} and {n_val}; leave out `data.n_train` to train on all that validation "
            "leaves"
        )
    order = torch.randperm(n, generator=torch.Generator().manual_seed(seed))
    parts = order.split([n_train, n_val, n - n_train - n_val])
    return Split(*(part.sort().values for part in parts))


def without_copies(val: Tensor, train: Tensor) -> Tensor:
    """Find the structures that do not occur in another set.

    Args:
        val: Fingerprints of structures, or all their numbers, ``(structures, ...)``.
        train: Those of the other set.

    Returns:
        Numbers of the structures of ``val`` that are in ``train`` nowhere.
    """
    known = np.isin(_as_bytes(val), _as_bytes(train))
    return torch.from_numpy(np.flatnonzero(~known))


def _as_bytes(rows: Tensor) -> np.ndarray:
    flat = np.ascontiguousarray(rows.numpy().reshape(len(rows), math.prod(rows.shape[1:])))
    return flat.view(np.dtype((np.void, flat.shape[1] * flat.itemsize))).reshape(len(rows))
