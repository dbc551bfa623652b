"""Isolated atoms among the structures of a data set, whose energies are atomic references."""

from __future__ import annotations

from typing import cast

import torch
from ase.data import chemical_symbols
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.io.formats.records import is_isolated

_ALIKE = 1e-3  # eV


def isolated_atoms(dataset: MoleculeDataset) -> dict[int, float]:
    """Find the isolated atoms, unless there is nothing else.

    Returns:
        Their energies in eV, by their numbers in the data set.
    """
    counts = cast(dict[str, Tensor], dataset.slices)["z"].diff()[torch.tensor(list(dataset.indices()))]
    single = (counts == 1).nonzero().flatten().tolist()
    if len(single) == len(counts):
        return {}
    found = {}
    for number in single:
        item = cast(Data, dataset[number])
        cell, pbc = (item[key][0].numpy() if key in item else None for key in ("cell", "pbc"))
        if is_isolated(cell, pbc):
            found[number] = float(item.energy)
    return found


def energies_of(dataset: MoleculeDataset, numbers: dict[int, float]) -> dict[int, float]:
    """Return the energy of each element's isolated atom, in eV by atomic number.

    Raises:
        ValueError: If two of an element differ.
    """
    energies: dict[int, float] = {}
    for number, energy in numbers.items():
        z = int(cast(Data, dataset[number]).z)
        other = energies.setdefault(z, energy)
        if abs(energy - other) > _ALIKE:
            raise ValueError(
                f"structure {number}: an isolated {chemical_symbols[z]} must have the energy of the others, "
                f"{other:.4f} eV, got {energy:.4f} eV; leave one of them, or set `references`"
            )
    return energies
