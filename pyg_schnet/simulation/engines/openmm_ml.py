"""OpenMM-ML: potentials by the name ``schnet``, alone or mixed with a force field.

OpenMM-ML imports this module, an entry point of its group ``openmmml.potentials``, for any potential: PyTorch
is imported when this one is built.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from openmmml.mlpotential import (  # pyright: ignore[reportMissingImports]
    MLPotentialImpl,
    MLPotentialImplFactory,
)

if TYPE_CHECKING:
    import openmm
    from openmm.app import Topology


class SchNetFactory(MLPotentialImplFactory):
    """Factory of ``MLPotential("schnet", model=…)``."""

    def createImpl(self, name: str, model: Any = None, **options) -> SchNetImpl:
        """Load a potential; called by OpenMM-ML.

        Args:
            name: Name of the potential, ``"schnet"``.
            model: As ``potential`` of :class:`~pyg_schnet.simulation.SchNetCalculator`.
            **options: Its options: ``device``, ``dtype``, ``compile`` and ``skin``.

        Raises:
            TypeError: If there is no model.
        """
        if model is None:
            raise TypeError(
                f"MLPotential({name!r}) needs `model`, a run, a checkpoint or a pretrained model; use "
                f"MLPotential({name!r}, model='RUN')"
            )
        return SchNetImpl(model, options)


class SchNetImpl(MLPotentialImpl):
    """A potential for OpenMM-ML.

    Args:
        model: See :meth:`SchNetFactory.createImpl`.
        options: Options of the calculator.
    """

    def __init__(self, model: Any, options: dict[str, Any]):
        from pyg_schnet.simulation.calculator import evaluation_copy

        self.potential, self.options = evaluation_copy(model), options

    def addForces(
        self,
        topology: Topology,
        system: openmm.System,
        atoms: Iterable[int] | None,
        forceGroup: int,
        **args,
    ) -> None:
        """Add the force of the potential to a system; called by OpenMM-ML.

        Args:
            topology: Elements, and lattice vectors if it is periodic.
            system: The system.
            atoms: Indices of the atoms that the potential computes; all if ``None``.
            forceGroup: Group of the force.
            **args: Of the embedding, ignored.

        Raises:
            ValueError: If an atom has no element, or as for :func:`~pyg_schnet.simulation.openmm_force`.
        """
        from ase import Atoms
        from openmm import unit

        from pyg_schnet.simulation.engines.openmm import openmm_force

        chosen = list(topology.atoms())
        if atoms is not None:
            atoms = list(atoms)
            chosen = [chosen[index] for index in atoms]
        if lacking := next((atom for atom in chosen if atom.element is None), None):
            raise ValueError(
                f"`topology` must hold the elements of the potential's atoms, got none for {lacking}; leave "
                "virtual sites to the force field"
            )
        structure = Atoms([atom.element.atomic_number for atom in chosen])
        vectors, make_whole = topology.getPeriodicBoxVectors(), False
        if vectors is not None:
            make_whole = atoms is not None and math.isinf(self.potential.cutoff)  # a molecule in a box
            structure.cell = vectors.value_in_unit(unit.angstrom)
            structure.pbc = not make_whole
        force = openmm_force(self.potential, structure, make_whole=make_whole, **self.options)
        if atoms is not None:
            force.setParticles(atoms)
        force.setForceGroup(forceGroup)
        system.addForce(force)

    def getMLLongRange(self) -> bool:
        """Return that there are no interactions of images beyond the cutoff."""
        return False
