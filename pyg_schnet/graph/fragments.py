"""Fragments of molecules: parts that are farther from each other than atoms that hold together."""

from __future__ import annotations

import numpy as np
import torch
from ase.data import covalent_radii
from ase.data.vdw_alvarez import vdw_radii
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from pyg_schnet.graph.neighbors import neighbor_list

# Å by atomic number. Source: Cordero et al., Dalton Trans. 2008, 2832, as in ASE.
COVALENT_RADII = torch.tensor(covalent_radii)
# Å by atomic number. Source: Alvarez, Dalton Trans. 2013, 8617, as in ASE; 2.5 Å for elements without one.
VAN_DER_WAALS_RADII = torch.tensor(vdw_radii).nan_to_num(2.5)


def find_fragments(pos: Tensor, radii: Tensor) -> np.ndarray:
    """Return the number of the fragment of each atom of a molecule, from 0, ``(atoms,)``.

    Args:
        pos: Positions in Å, ``(atoms, 3)``.
        radii: Radii of the atoms in Å, ``(atoms,)``; two atoms closer than the sum are in one fragment.
    """
    pos = pos.cpu().double()
    (source, target), _ = neighbor_list(pos, 2 * float(radii.max()), None)
    near = (pos[source] - pos[target]).norm(dim=1) < radii[source] + radii[target]
    edges = source[near].numpy(), target[near].numpy()
    graph = coo_matrix((np.ones(len(edges[0]), bool), edges), (len(pos), len(pos)))
    return connected_components(graph, directed=False)[1]


def separation(distance: Tensor, radii: Tensor) -> Tensor:
    """Compute how far a part of a molecule is from the rest, in sums of radii, ``(molecules,)``.

    It is the smallest factor of the radii for which the molecule is one fragment.

    Args:
        distance: Distances in Å, ``(molecules, atoms, atoms)``.
        radii: Radii of the atoms in Å, ``(molecules, atoms)``.

    Source:
        The longest edge of the minimum spanning tree, by Prim, Bell Syst. Tech. J. 36, 1389 (1957).
    """
    ratio = distance / (radii[:, :, None] + radii[:, None, :])
    molecules = torch.arange(len(ratio))
    nearest, largest = ratio[:, 0].clone(), ratio.new_zeros(len(ratio))
    inside = torch.zeros_like(nearest, dtype=torch.bool)
    inside[:, 0] = True
    for _ in range(ratio.size(1) - 1):
        value, atom = nearest.masked_fill(inside, torch.inf).min(dim=1)
        largest = torch.maximum(largest, value)
        inside[molecules, atom] = True
        nearest = torch.minimum(nearest, ratio[molecules, atom])
    return largest


def describe_fragments(parts: np.ndarray, pos: Tensor) -> str:
    """Return how many fragments there are, and how far the smallest is from the others.

    Args:
        parts: Number of the fragment of each atom, of two at least.
        pos: Positions in Å, ``(atoms, 3)``.
    """
    sizes = np.bincount(parts)
    inside = torch.from_numpy(parts == sizes.argmin())
    own, others = (each.nonzero().flatten().tolist() for each in (inside, ~inside))
    distance = torch.cdist(pos[own].cpu().double(), pos[others].cpu().double())
    nearest = int(distance.argmin())
    i, j = sorted((own[nearest // len(others)], others[nearest % len(others)]))
    return (
        f"it is in {len(sizes)} fragments: the smallest has {len(own)} of {len(parts)} atoms and is "
        f"{float(distance.min()):.2f} Å from the rest, between atoms {i} and {j}"
    )
