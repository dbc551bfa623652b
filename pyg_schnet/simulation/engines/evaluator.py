"""Several structures in one call of a potential, for engines that hold tensors or arrays of all of them."""

from __future__ import annotations

import math

import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.validation import check_predictions
from pyg_schnet.graph.verlet_graph import VerletGraph
from pyg_schnet.graph.verlet_list import VerletList
from pyg_schnet.kernels import on_accelerator
from pyg_schnet.potentials.intended_use import warn_of_motion, warn_of_other_molecules
from pyg_schnet.simulation.calculator import (
    Model,
    compile_copy,
    evaluation_copy,
    evaluations_to_compile_after,
)


class Evaluator:
    """Energies, forces and stresses of a batch of structures whose atoms an engine moves.

    Neighbors are searched again only when one may be missing, or when the batch holds other structures.

    Args:
        potential: As for :class:`~pyg_schnet.simulation.SchNetCalculator`, as all arguments.
        device: Device of the computation.
        compile: Whether to compile the potential.
        dtype: Precision of the network.
        skin: Distance in Å beyond the cutoff up to which neighbors are listed.

    Attributes:
        potential: The evaluated copy.
    """

    def __init__(
        self,
        potential: Model,
        device: str | torch.device | None = None,
        compile: bool | str = "auto",
        dtype: torch.dtype | None = None,
        skin: float = 0.75,
    ):
        self._until_compiled = evaluations_to_compile_after(compile)
        self.potential = evaluation_copy(potential, device, dtype)
        self._skin = VerletList(self.potential.cutoff, skin).skin  # checked
        self._structures: tuple[Tensor, Tensor] | None = None  # elements and batch that the list is of
        self._neighbors: VerletList | None = None
        self._graph: VerletGraph | None = None
        warn_of_motion(self.potential)

    def __call__(
        self,
        z: Tensor,
        pos: Tensor,
        batch: Tensor,
        structures: int,
        cell: Tensor | None = None,
        pbc: Tensor | None = None,
        stress: bool = False,
    ) -> dict[str, Tensor]:
        """Evaluate the potential; tensors are on its device.

        Args:
            z: Atomic numbers, ``(atoms,)``.
            pos: Positions in Å, ``(atoms, 3)``.
            batch: Index of the structure of each atom in ascending order, ``(atoms,)``.
            structures: Number of structures.
            cell: Lattice vectors in rows, in Å, ``(structures, 3, 3)``; ``None`` without a lattice.
            pbc: Which of them are periodic, ``(structures, 3)``.
            stress: Whether to compute stresses.

        Returns:
            ``energy`` in eV, ``(structures,)``; ``forces`` in eV/Å, ``(atoms, 3)``; ``stress`` in eV/Å³,
            ``(structures, 3, 3)``; without gradients.

        Raises:
            ValueError: As the potential's, or if a result is not finite.
        """
        if self._until_compiled == 0:
            compile_copy(self.potential)
        self._until_compiled -= self._until_compiled >= 0
        data = Data(z=z.long(), pos=pos, batch=batch)
        if cell is not None and pbc is not None and bool(pbc.any()):
            data.cell, data.pbc = cell, pbc
        data.num_graphs = structures
        self._follow(data)
        graph = None
        if self._graph is not None:
            graph = self._graph.update(data.to_dict() | {"num_graphs": structures})
        elif self._neighbors is not None:
            self._neighbors.add_to(data)
        out = self.potential(data, forces=True, stress=stress, graph=graph)
        check_predictions(out)
        return {name: values.detach() for name, values in out.items()}

    def _follow(self, data: Data) -> None:
        """Start new lists where the batch holds other structures than in the last call."""
        z, batch, last = data.z, data.batch, self._structures
        assert z is not None
        assert batch is not None
        if last is not None and torch.equal(last[0], z) and torch.equal(last[1], batch):
            return
        self._structures = (z.clone(), batch.clone())
        counts = torch.bincount(batch, minlength=data.num_graphs).tolist()
        warn_of_other_molecules(self.potential, [Atoms(numbers.cpu().numpy()) for numbers in z.split(counts)])
        cutoff, self._graph, self._neighbors = self.potential.cutoff, None, None
        if on_accelerator(z) and self.potential.takes_graph(data):
            self._graph = VerletGraph(cutoff, self._skin)
        elif cutoff < math.inf:
            self._neighbors = VerletList(cutoff, self._skin)
