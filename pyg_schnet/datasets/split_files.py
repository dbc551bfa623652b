"""Splits in npz files: the arrays train, val and test of numbers of structures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyg_schnet.datasets.splits import Split
from pyg_schnet.io.formats.npz import open_npz, read_array


def read_split(path: Path) -> Split:
    """Read a split; whether there are such structures is not known here, see :meth:`Split.check`.

    Raises:
        ValueError: If the file is damaged, or does not hold the three arrays.
    """
    with open_npz(path) as file:
        if missing := [part for part in Split._fields if part not in file.files]:
            raise ValueError(
                f"{path}: must be an npz file of the arrays train, val and test, and has no '{missing[0]}'"
            )
        return Split(*(_numbers(path, part, read_array(path, file, part)) for part in Split._fields))


def _numbers(path: Path, part: str, values: np.ndarray) -> Tensor:
    if values.ndim != 1 or (values.dtype.kind not in "iu" and len(values)):  # NumPy's empty list is of floats
        raise ValueError(
            f"{path}: '{part}' must be one row of integers, got {values.dtype} of shape {values.shape}"
        )
    return torch.from_numpy(values.astype(np.int64))
