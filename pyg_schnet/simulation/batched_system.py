"""Several structures in one call of the potential, for batched dynamics and relaxation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.validation import check_predictions
from pyg_schnet.graph.verlet_graph import VerletGraph
from pyg_schnet.graph.verlet_list import VerletList
from pyg_schnet.kernels import has_kernels, on_accelerator, segment_sum
from pyg_schnet.nn.readout import sum_by_molecule
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.structures import (
    StructureError,
    check_initial_structure,
    check_structure,
    with_results,
)
from pyg_schnet.transforms.ase_atoms import from_ase

_SKIN = 0.75  # Å beyond the cutoff


class BatchedSystem:
    """Structures with their energies and forces, computed in one call of the potential.

    Structures are addressed by their index in the batch; errors name the ``numbers`` of the caller.

    Args:
        potential: Potential in evaluation mode.
        structures: Structures to simulate; constraints are left to the caller.
        numbers: Number of each structure, for errors.

    Attributes:
        data: The batch.
        pos: Positions in Å, ``(atoms, 3)``, float64.
        batch: Index of the structure of each atom, ``(atoms,)``.
        sizes: Number of atoms of each structure.
        mass: Masses in u, ``(atoms, 1)``.
        pairs: Pairs that stay on an accelerator; ``None`` on CPUs, and for models that find pairs themselves.
        energy: Energies in eV, ``(structures,)``.
        forces: Forces in eV/Å, ``(atoms, 3)``.

    Raises:
        StructureError: If the potential rejects structures, or their energies or forces are not finite.
    """

    def __init__(self, potential: Potential | Ensemble, structures: Sequence[Atoms], numbers: Sequence[int]):
        self.potential, self.structures, self.numbers = potential, list(structures), list(numbers)
        lattice = any(atoms.pbc.any() for atoms in structures)
        items = [from_ase(atoms, lattice) for atoms in structures]
        sizes = torch.tensor([len(item.z) for item in items])
        device = potential.scale.device
        fields = {name: torch.cat([item[name] for item in items]).to(device) for name in items[0].to_dict()}
        self.batch = torch.repeat_interleave(torch.arange(len(items)), sizes).to(device)
        self.sizes = sizes.tolist()
        self.data = Data(**fields, batch=self.batch)
        self.data.num_graphs = len(items)
        ends = torch.tensor([0, *self.sizes]).cumsum(0).int().to(device)
        self._rowptr = ends if on_accelerator(self.batch) else None  # where each structure begins
        masses = [torch.from_numpy(atoms.get_masses()) for atoms in structures]
        self.mass = torch.cat(masses).to(device)[:, None]
        cutoff = potential.cutoff
        self.neighbors = VerletList(cutoff, _SKIN) if cutoff < math.inf else None
        self.pairs = None
        if on_accelerator(self.pos) and potential.takes_graph(self.data):
            self.pairs = VerletGraph(cutoff, _SKIN)
        self._fields = self.data.to_dict() | {"num_graphs": len(items)}
        self.evaluate()
        self._check_finite()

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def pos(self) -> Tensor:
        """Positions; changed in place before :meth:`evaluate`."""
        assert self.data.pos is not None
        return self.data.pos

    def evaluate(self) -> None:
        """Compute energies and forces at the present positions."""
        try:
            if self.pairs is not None:
                out = self.potential(self.data, graph=self.pairs.update(self._fields))
            else:
                if self.neighbors is not None:
                    self.neighbors.add_to(self.data)
                out = self.potential(self.data)
        except ValueError:
            self._evaluate_separately()
            raise
        self.energy, self.forces = out["energy"], out["forces"].double()

    def evaluate_listed(self) -> None:
        """Compute energies and forces with the pairs of the last search, without checks: nothing is read."""
        assert self.pairs is not None
        out = self.potential(self.data, graph=self.pairs.at(self.pos))
        self.energy, self.forces = out["energy"], out["forces"].double()

    def move(self, displacement: Tensor, find_rejected: Callable[[], dict[int, str]]) -> dict[int, str]:
        """Move atoms and evaluate; reset rejected structures to where they were, with the results there.

        Args:
            displacement: Displacements in Å, ``(atoms, 3)``.
            find_rejected: Returns structures that must not stay where they are now, with the reasons.

        Returns:
            The reasons by index, also of structures that the potential rejects.
        """
        before, energy, forces = self.pos.clone(), self.energy, self.forces
        self.pos.add_(displacement)
        invalid: dict[int, str] = {}
        while True:
            try:
                self.evaluate()
                break
            except StructureError as error:
                for each in (error, *error.others):
                    index = self.numbers.index(each.number)
                    if index in invalid:  # although it was valid there before
                        raise
                    invalid[index] = each.reason
                self._reset(invalid, before)
        if rejected := find_rejected():
            self._reset(rejected, before)
            self.energy = torch.where(self.structure_mask(rejected), energy, self.energy)
            self.forces = torch.where(self.atom_mask(rejected), forces, self.forces)
        return invalid | rejected

    def _reset(self, indices: Iterable[int], before: Tensor) -> None:
        self.pos.copy_(torch.where(self.atom_mask(indices), before, self.pos))

    def structure_mask(self, indices: Iterable[int]) -> Tensor:
        """Return a mask of some structures, ``(structures,)``."""
        mask = torch.zeros(len(self), dtype=torch.bool, device=self.batch.device)
        mask[list(indices)] = True
        return mask

    def atom_mask(self, indices: Iterable[int]) -> Tensor:
        """Return a mask of the atoms of some structures, ``(atoms, 1)``."""
        return self.gather(self.structure_mask(indices))

    def sum(self, values: Tensor) -> Tensor:
        """Sum values of atoms by structure, ``(structures, …)``."""
        if self._rowptr is not None and has_kernels(values):
            return segment_sum(values, self._rowptr)
        return sum_by_molecule(values, self.batch, len(self))

    def gather(self, values: Tensor) -> Tensor:
        """Return the value of each atom's structure, ``(atoms, 1)``."""
        return values.index_select(0, self.batch)[:, None]

    def split(self, values: Tensor) -> list[Tensor]:
        """Split values of atoms by structure, on the CPU."""
        return list(values.cpu().split(self.sizes))

    def frames(self, indices: Sequence[int] | None = None) -> list[Atoms]:
        """Return structures, all by default, with their present positions, energies and forces."""
        pos, forces, energy = self.split(self.pos), self.split(self.forces), self.energy.tolist()
        frames = []
        for k in range(len(self)) if indices is None else indices:
            frame = self.structures[k].copy()
            frame.positions = pos[k].numpy()
            frames.append(with_results(frame, energy[k], forces[k].numpy()))
        return frames

    def _check_finite(self) -> None:
        """Raise a StructureError of the structures whose energy or forces are not finite."""
        if bool(self.energy.isfinite().all() and self.forces.isfinite().all()):
            return
        errors = []
        for number, energy, forces in zip(
            self.numbers, self.energy.cpu(), self.split(self.forces), strict=True
        ):
            try:
                check_predictions({"energy": energy, "forces": forces})
            except ValueError as error:
                errors.append(StructureError(number, str(error)))
        _raise_first(errors)

    def _evaluate_separately(self) -> None:
        """Raise a StructureError of the structures that the potential rejects."""
        errors = []
        for number, atoms, pos in zip(self.numbers, self.structures, self.split(self.pos), strict=True):
            moved = atoms.copy()
            moved.positions = pos.numpy()
            try:
                self.potential(from_ase(moved).to(str(self.potential.scale.device)))
            except ValueError as error:
                errors.append(StructureError(number, str(error)))
        _raise_first(errors)


def _raise_first(errors: list[StructureError]) -> None:
    """Raise the first of some errors, with the others attached."""
    if errors:
        first, *others = errors
        raise StructureError(first.number, first.reason, others)


def check_sequence(structures: object) -> None:
    """Raise a TypeError if structures are one structure, of which batched simulations need a sequence."""
    if isinstance(structures, Atoms):
        raise TypeError("`structures` must be a list of ase.Atoms, got one Atoms; use [atoms]")


def check_batched(potential: Potential | Ensemble, atoms: Atoms, number: int) -> None:
    """Raise if a structure cannot be simulated in a batch, without computing it; constraints aside.

    Args:
        potential: The potential, which has elements.
        atoms: The structure.
        number: Its number, for errors.

    Raises:
        StructureError: If the structure is empty or unphysical, see :func:`check_initial_structure`, or has
            elements that were absent from training.
        TypeError: If it is no structure.
    """
    check_structure(atoms, number)
    try:
        check_initial_structure(atoms)
    except ValueError as error:
        raise StructureError(number, str(error)) from error
    elements = set(potential.elements)
    for z in sorted(set(atoms.numbers.tolist()) - elements):
        raise StructureError(
            number,
            f"atomic number {z} was absent from training; this potential has "
            f"{', '.join(map(str, sorted(elements)))}",
        )


def group_by_pairs(
    potential: Potential | Ensemble, structures: Sequence[Atoms], max_pairs: int
) -> Iterator[list[int]]:
    """Divide structures into groups, of one at least, with a bounded number of pairs of neighbors.

    Args:
        potential: The potential, which has a cutoff.
        structures: Structures to divide.
        max_pairs: Largest number of pairs of a group.

    Yields:
        Indices of structures.

    Raises:
        ValueError: If ``max_pairs`` is below one.
    """
    if max_pairs < 1:
        raise ValueError(f"`max_pairs` must be at least 1, got {max_pairs}")
    cutoff, group, total = potential.cutoff, [], 0
    for k, atoms in enumerate(structures):
        pairs = count_pairs(atoms, cutoff)
        if group and total + pairs > max_pairs:
            yield group
            group, total = [], 0
        group.append(k)
        total += pairs
    yield group


def count_pairs(atoms: Atoms, cutoff: float) -> int:
    """Count pairs of neighbors; all pairs if the molecule is small."""
    pairs = len(atoms) * (len(atoms) - 1) // 2
    if cutoff == math.inf or (pairs <= 1000 and not atoms.pbc.any()):
        return pairs
    data = from_ase(atoms)
    assert data.pos is not None
    edges, _ = neighbor_list(data.pos, cutoff, None, data.get("cell"), data.get("pbc"))
    return edges.size(1) // 2
