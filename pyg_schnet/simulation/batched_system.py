"""Many structures in one call of the model: what batched dynamics and relaxation share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import torch
from ase import Atoms
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.graph.neighbors import neighbor_list
from pyg_schnet.graph.validation import check_predictions
from pyg_schnet.graph.verlet_list import VerletList
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
    """Structures side by side, with energies and forces.

    Args:
        potential: In evaluation mode.
        structures: Which; what is constrained is the caller's business.
        numbers: What the caller calls them, for errors.

    Attributes:
        data: The batch.
        pos: Positions in Å, ``(atoms, 3)``, float64.
        batch: Number of the structure of each atom.
        mass: In u, ``(atoms, 1)``.
        energy: In eV, ``(structures,)``.
        forces: In eV/Å, ``(atoms, 3)``.
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
        masses = [torch.from_numpy(atoms.get_masses()) for atoms in structures]
        self.mass = torch.cat(masses).to(device)[:, None]
        cutoff = potential.cutoff
        self.neighbors = VerletList(cutoff, _SKIN) if cutoff < math.inf else None
        self.evaluate()
        self._check_start()

    def __len__(self) -> int:
        return len(self.structures)

    @property
    def pos(self) -> Tensor:
        """Positions; changed in place before :meth:`evaluate`."""
        assert self.data.pos is not None
        return self.data.pos

    def evaluate(self) -> None:
        """Compute energies and forces where the atoms are now."""
        try:
            if self.neighbors is not None:
                self.neighbors.add_to(self.data)
            out = self.potential(self.data)
        except ValueError:
            self._evaluate_apart()
            raise
        self.energy, self.forces = out["energy"], out["forces"].double()

    def _check_start(self) -> None:
        """Raise StructureError for the structures whose energy or forces are not finite."""
        if bool(self.energy.isfinite().all() and self.forces.isfinite().all()):
            return
        refused = []
        for place, (energy, forces) in enumerate(
            zip(self.energy.cpu(), self.split(self.forces), strict=True)
        ):
            try:
                check_predictions({"energy": energy, "forces": forces})
            except ValueError as error:
                refused.append(StructureError(self.numbers[place], str(error)))
        _raise(refused)

    def move(self, move: Tensor, why_not: Callable[[], dict[int, str]]) -> dict[int, str]:
        """Move atoms and evaluate; structures that cannot be there are put back, with what they had.

        Args:
            move: In Å, ``(atoms, 3)``.
            why_not: Looks at all structures, and says which cannot stay and why, by place.

        Returns:
            Why, by place; also those that the potential refuses.
        """
        before, energy, forces = self.pos.clone(), self.energy, self.forces
        self.pos.add_(move)
        refused: dict[int, str] = {}
        while True:
            try:
                self.evaluate()
                break
            except StructureError as error:
                for each in (error, *error.others):
                    place = self.numbers.index(each.number)
                    if place in refused:  # where it was fine before
                        raise
                    refused[place] = each.reason
                self._put_back(refused, before)
        if unsound := why_not():
            self._put_back(unsound, before)
            self.energy = torch.where(self.places(unsound), energy, self.energy)
            self.forces = torch.where(self.atoms_of(unsound), forces, self.forces)
        return refused | unsound

    def _put_back(self, places: Iterable[int], before: Tensor) -> None:
        self.pos.copy_(torch.where(self.atoms_of(places), before, self.pos))

    def places(self, places: Iterable[int]) -> Tensor:
        """Mark some structures, ``(structures,)``."""
        chosen = torch.zeros(len(self), dtype=torch.bool, device=self.batch.device)
        chosen[list(places)] = True
        return chosen

    def atoms_of(self, places: Iterable[int]) -> Tensor:
        """Mark the atoms of some structures, ``(atoms, 1)``."""
        return self.spread(self.places(places))

    def _evaluate_apart(self) -> None:
        """Find the structures that the potential refuses.

        Raises:
            StructureError: Of the first, with the others.
        """
        refused = []
        for number, atoms, pos in zip(self.numbers, self.structures, self.split(self.pos), strict=True):
            alone = atoms.copy()
            alone.positions = pos.numpy()
            try:
                self.potential(from_ase(alone).to(str(self.potential.scale.device)))
            except ValueError as error:
                refused.append(StructureError(number, str(error)))
        _raise(refused)

    def sum(self, values: Tensor) -> Tensor:
        """Add up rows of atoms by structure."""
        return sum_by_molecule(values, self.batch, len(self))

    def spread(self, values: Tensor) -> Tensor:
        """Give each atom its structure's value, as a column."""
        return values.index_select(0, self.batch)[:, None]

    def split(self, values: Tensor) -> list[Tensor]:
        """Divide rows of atoms by structure, on the CPU."""
        return list(values.cpu().split(self.sizes))

    def frames(self, places: Sequence[int] | None = None) -> list[Atoms]:
        """Give structures, all or some, with their positions, energies and forces of now."""
        rows = list(
            zip(
                self.structures,
                self.split(self.pos),
                self.energy.tolist(),
                self.split(self.forces),
                strict=True,
            )
        )
        frames = []
        for atoms, pos, energy, forces in rows if places is None else [rows[place] for place in places]:
            moved = atoms.copy()
            moved.calc = None
            moved.positions = pos.numpy()
            frames.append(with_results(moved, energy, forces.numpy()))
        return frames


def _raise(refused: list[StructureError]) -> None:
    """Raise the first of some errors, which names the others."""
    if refused:
        first, *others = refused
        raise StructureError(first.number, first.reason, others)


def check_structures(structures: Sequence[Atoms]) -> None:
    """Refuse what cannot be simulated side by side.

    Raises:
        StructureError: If one is empty, has constraints, or fails :func:`check_initial_structure`.
        TypeError: If it is not a list of structures.
        ValueError: If there are none.
    """
    if isinstance(structures, Atoms):
        raise TypeError("`structures` must be a list of ase.Atoms, got one Atoms; use [atoms]")
    if len(structures) == 0:
        raise ValueError("`structures` must hold at least one ase.Atoms, got none")
    for number, atoms in enumerate(structures):
        check_structure(atoms, number)
        if atoms.constraints:
            raise StructureError(
                number,
                f"side by side there are no constraints, got {atoms.constraints[0]}; simulate it alone",
            )
        try:
            check_initial_structure(atoms)
        except ValueError as error:
            raise StructureError(number, str(error)) from error


def check_known(potential: Potential | Ensemble, atoms: Atoms, number: int) -> None:
    """Refuse a structure of elements that were absent from training, without computing it.

    Raises:
        StructureError: With its number.
    """
    known = set(potential.elements)
    for z in sorted(set(atoms.numbers.tolist()) - known):
        raise StructureError(
            number,
            f"atomic number {z} was absent from training; this potential knows "
            f"{', '.join(map(str, sorted(known)))}",
        )


def by_size(
    potential: Potential | Ensemble, structures: Sequence[Atoms], max_pairs: int
) -> Iterator[list[int]]:
    """Divide structures into groups, of one at least, with a bounded number of pairs of neighbors.

    Args:
        potential: With the cutoff.
        structures: Which.
        max_pairs: Of a group.

    Raises:
        ValueError: If ``max_pairs`` is below one.
    """
    if max_pairs < 1:
        raise ValueError(f"`max_pairs` must be at least 1, got {max_pairs}")
    cutoff, group, total = potential.cutoff, [], 0
    for number, atoms in enumerate(structures):
        pairs = count_pairs(atoms, cutoff)
        if group and total + pairs > max_pairs:
            yield group
            group, total = [], 0
        group.append(number)
        total += pairs
    yield group


def count_pairs(atoms: Atoms, cutoff: float) -> int:
    """Count pairs of neighbors; of a small molecule, all pairs."""
    pairs = len(atoms) * (len(atoms) - 1) // 2
    if cutoff == math.inf or (pairs <= 1000 and not atoms.pbc.any()):
        return pairs
    data = from_ase(atoms)
    assert data.pos is not None
    edges, _ = neighbor_list(data.pos, cutoff, None, data.get("cell"), data.get("pbc"))
    return edges.size(1) // 2
