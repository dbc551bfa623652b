"""Structures to be examined on, from files with labels or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.datasets.structure_files import read_structures

_LABELLED = (".npz", ".h5", ".hdf5", ".safetensors")  # which ASE does not read


def open_structures(path: str, units: str | None = None) -> Sequence[Any] | AtomsDataset:
    """Read structures.

    Args:
        path: In any format of ASE, or ``.npz``, ``.h5``, ``.hdf5`` or processed ``.safetensors``; or a folder
            of such files.
        units: Of a labelled file that does not say, as for :class:`~pyg_schnet.datasets.AtomsDataset`.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file; give structures that the model is made for")
    if Path(path).is_dir() or path.endswith(_LABELLED):
        return AtomsDataset(path=path, units=units, memory_map=path.endswith(".safetensors"))
    return list(read_structures(Path(path)))
