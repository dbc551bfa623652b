"""Structures to be examined on, from files with labels or without."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase.units import Bohr

from pyg_schnet.datasets import AtomsDataset
from pyg_schnet.io.formats.frame_readers import read_structures
from pyg_schnet.io.formats.reading import has_own_reader
from pyg_schnet.io.formats.structure_files import check_kind
from pyg_schnet.io.units import Units


def open_structures(path: str, units: str | None = None) -> Sequence[Any] | AtomsDataset:
    """Read structures.

    Args:
        path: In any format of ASE, or of our data sets; or a folder of files.
        units: Of the file, as for :class:`~pyg_schnet.datasets.AtomsDataset`; what it states or implies by
            default, Å for other formats of ASE.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it cannot be read.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file; give structures that the model is made for")
    if path.endswith(".safetensors") or has_own_reader(Path(path)):
        return AtomsDataset(path=path, units=units, memory_map=path.endswith(".safetensors"))
    structures = [atoms for _, atoms in read_structures(path)]
    if units is not None:
        length = Units.parse(units).length_in_angstrom
        if check_kind(Path(path)) == "runnerdata":  # which ASE reads as if it were in Bohr
            length /= Bohr
        for atoms in structures:
            atoms.set_cell(length * atoms.cell.array, scale_atoms=False)
            atoms.positions *= length
    return structures
