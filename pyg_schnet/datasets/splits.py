"""Splits into training, validation and test structures, and fingerprints that identify duplicates."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.io.formats.npz import open_npz, read_array

# Odd constants of splitmix64 (Steele, Lea, Flood 2014) as signed integers; products wrap around.
_MULTIPLIERS = (-7046029254386353131, -4658895280553007687, -7723592293110705685)
_ORDER = 3202034522624059733


class Split(NamedTuple):
    """Disjoint sets of numbers of structures, from 0.

    A random split is sorted and contains all structures; a published one may omit some, and its ``val`` part
    may be empty.
    """

    train: Tensor
    val: Tensor
    test: Tensor

    def check(self, name: str, structures: int) -> None:
        """Check that all numbers are those of structures.

        Args:
            name: Name of the split, for error messages.
            structures: Number of structures.

        Raises:
            ValueError: If one is not.
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
        """Return a hash of the numbers, equal for equal splits."""
        digest = hashlib.sha256()
        for part in self:
            digest.update(len(part).to_bytes(8, "little"))
            digest.update(part.to(torch.int64).numpy().astype("<i8").tobytes())
        return digest.hexdigest()


def random_split(n: int, n_train: int | None, n_val: int | None, seed: int) -> Split:
    """Split at random, reproducibly.

    Args:
        n: Number of structures.
        n_train: Number of training structures; all that are not used for validation if ``None``.
        n_val: Number of validation structures; a tenth, at most 1,000, if ``None``.
        seed: Seed of the random order.

    Returns:
        The split; the remaining structures are the test set.

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
    """Return the structures that do not occur in another set.

    Args:
        val: Fingerprints or values of structures, shape ``(structures, ...)``.
        train: Those of the other set.

    Returns:
        Numbers of the structures in ``val`` that are not in ``train``.
    """
    known = np.isin(_as_bytes(val), _as_bytes(train))
    return torch.from_numpy(np.flatnonzero(~known))


def _as_bytes(rows: Tensor) -> np.ndarray:
    flat = np.ascontiguousarray(rows.numpy().reshape(len(rows), math.prod(rows.shape[1:])))
    return flat.view(np.dtype((np.void, flat.shape[1] * flat.itemsize))).reshape(len(rows))


def read_split(path: Path) -> Split:
    """Read a split from the arrays ``train``, ``val`` and ``test`` of an npz file.

    :meth:`Split.check` compares the numbers with those of the structures.

    Raises:
        ValueError: If the file is damaged, or an array is missing or of another kind.
    """
    with open_npz(path) as file:
        if missing := [part for part in Split._fields if part not in file.files]:
            raise ValueError(
                f"{path}: must be an npz file of the arrays train, val and test, and has no '{missing[0]}'"
            )
        return Split(*(_numbers(path, part, read_array(path, file, part)) for part in Split._fields))


def _numbers(path: Path, part: str, values: np.ndarray) -> Tensor:
    if values.ndim != 1 or (
        values.dtype.kind not in "iu" and len(values)
    ):  # an empty list becomes an array of floats
        raise ValueError(
            f"{path}: '{part}' must be one row of integers, got {values.dtype} of shape {values.shape}"
        )
    return torch.from_numpy(values.astype(np.int64))


def fingerprints(batch: Data) -> Tensor:
    """Compute a 64-bit hash of each structure from its atomic numbers and the bits of its positions.

    Two structures that differ, also in the order of their atoms, have equal fingerprints with a probability
    of 2⁻⁶⁴.

    Args:
        batch: Batch with ``z``, ``pos``, ``batch`` and ``ptr``.

    Returns:
        Fingerprints, shape ``(structures,)``, int64.
    """
    molecule, ptr = cast(Tensor, batch.batch), cast(Tensor, batch.ptr)
    place = torch.arange(len(molecule), device=molecule.device) - ptr[molecule]
    bits = (cast(Tensor, batch.pos).double() + 0.0).view(torch.int64)  # + 0.0 removes negative zeros
    code = _mixed(place * _ORDER + cast(Tensor, batch.z))
    for axis, multiplier in enumerate(_MULTIPLIERS):
        code = _mixed((code ^ bits[:, axis]) * multiplier)
    total = torch.zeros(len(ptr) - 1, dtype=torch.int64, device=molecule.device)
    return total.index_add_(0, molecule, code)


def _mixed(code: Tensor) -> Tensor:
    code = (code ^ (code >> 30)) * _MULTIPLIERS[1]
    code = (code ^ (code >> 27)) * _MULTIPLIERS[2]
    return code ^ (code >> 31)
