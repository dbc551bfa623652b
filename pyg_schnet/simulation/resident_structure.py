"""One structure on an accelerator: elements and pairs stay there, positions and results are copied."""

from __future__ import annotations

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from pyg_schnet.graph.strain import volumes
from pyg_schnet.graph.verlet_graph import VerletGraph
from pyg_schnet.graph.verlet_list import Reference
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.structures import has_volume
from pyg_schnet.transforms.ase_atoms import check_lattice, from_ase


class ResidentStructure:
    """A structure whose evaluation takes one upload and one download.

    The host has the positions, and decides before the upload whether neighbors must be searched.

    Args:
        potential: Potential in evaluation mode, on an accelerator, that takes graphs of this structure.
        atoms: The structure; its elements and periodicity stay the same.
        skin: Distance in Å beyond the cutoff up to which pairs are listed.

    Attributes:
        pairs: The pairs, on the accelerator.
    """

    def __init__(self, potential: Potential | Ensemble, atoms: Atoms, skin: float):
        self.potential, device = potential, potential.scale.device
        member = potential.potentials[0] if isinstance(potential, Ensemble) else potential
        self.pairs = VerletGraph(potential.cutoff, skin, member.allowed)  # pyright: ignore[reportArgumentType]
        self._numbers, self._pbc = atoms.numbers.copy(), atoms.pbc.copy()
        self._data = from_ase(atoms).to(str(device))
        self._host = torch.empty(len(atoms) + 3, 3, dtype=torch.float64, pin_memory=device.type == "cuda")
        self._array = self._host.numpy()  # the same memory
        self._positions: np.ndarray | None = None  # at the last search, as the cell
        self._cell = np.zeros((3, 3))

    def fits(self, potential: Potential | Ensemble, atoms: Atoms) -> bool:
        """Return whether potential, cutoff, elements and periodicity are the same."""
        if potential is not self.potential or potential.cutoff != self.pairs.cutoff:
            return False
        same = self._numbers.tobytes() == atoms.numbers.tobytes()
        return same and self._pbc.tobytes() == atoms.pbc.tobytes()

    def evaluate(self, atoms: Atoms, forces: bool, stress: bool) -> dict[str, np.ndarray]:
        """Evaluate the potential at the positions and in the cell of a structure.

        Args:
            atoms: The structure.
            forces: Whether to compute forces.
            stress: Whether to compute the stress.

        Returns:
            The results of the potential.

        Raises:
            ValueError: As the potential's; atoms at one point are named if the results are not finite.
        """
        count, periodic = len(atoms), bool(self._pbc.any())
        is_listed = self._is_listed(atoms)
        if periodic and not is_listed:
            check_lattice(atoms)
        if stress and not has_volume(atoms):
            cell, pbc = torch.from_numpy(atoms.cell.array), torch.from_numpy(self._pbc)
            volumes(cell, pbc, 1)  # raises
        self._array[:count], self._array[count:] = atoms.positions, atoms.cell.array
        moved = self._host.to(self._data.pos.device, non_blocking=True)  # pyright: ignore
        pos, cell = moved[:count], moved[count:][None]
        fields = {"z": self._data.z, "pos": pos}
        if periodic:
            fields |= {"cell": cell, "pbc": self._data.pbc}
        if is_listed:
            changed = periodic and atoms.cell.array.tobytes() != self._cell.tobytes()
            graph = self.pairs.at(pos, cell if changed else None)
        else:
            graph = self.pairs.search(fields)
            self._positions, self._cell = atoms.positions.copy(), atoms.cell.array.copy()
        out = self.potential(self._data, forces, stress, graph)
        found = _download(out)
        if not all(np.isfinite(values).all() for values in found.values()):
            self.pairs.search(fields)
            self._positions, self._cell = atoms.positions.copy(), atoms.cell.array.copy()
        return found

    def _is_listed(self, atoms: Atoms) -> bool:
        """Return whether the list is known to contain all pairs within the cutoff."""
        before, margin = self._positions, self.pairs.margin
        if before is None or margin == 0:
            return False
        if not self._pbc.any() or atoms.cell.array.tobytes() == self._cell.tobytes():
            moved = atoms.positions - before
            return float(np.einsum("ij,ij->i", moved, moved).max()) < (margin / 2) ** 2  # false for NaN
        pbc = torch.from_numpy(self._pbc)[None]
        old, new = (torch.from_numpy(cell)[None] for cell in (self._cell, atoms.cell.array))
        reference = Reference(torch.from_numpy(before), (old, pbc))
        pos = torch.from_numpy(atoms.positions)
        return reference.is_near(pos, None, (new, pbc), self.pairs.cutoff, margin)


def _download(out: dict[str, Tensor]) -> dict[str, np.ndarray]:
    """Copy results to the host in one piece."""
    flat = torch.cat([values.detach().double().flatten() for values in out.values()]).cpu().numpy()
    parts = np.split(flat, np.cumsum([values.numel() for values in out.values()])[:-1])
    return {name: part.reshape(out[name].shape) for name, part in zip(out, parts, strict=True)}
