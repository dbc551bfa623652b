"""The ASE calculator of a potential."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.outputs import Properties, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress
from torch_geometric.data import Data

from pyg_schnet.graph.validation import check_predictions
from pyg_schnet.graph.verlet_list import VerletList
from pyg_schnet.kernels import on_accelerator
from pyg_schnet.potentials.checkpoint import load
from pyg_schnet.potentials.device import check_device
from pyg_schnet.potentials.ensemble import Ensemble, is_ensemble_file
from pyg_schnet.potentials.intended_use import warn_of_other_molecules
from pyg_schnet.potentials.model_files import Model as Model
from pyg_schnet.potentials.model_files import resolve_models
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.resident_structure import ResidentStructure
from pyg_schnet.simulation.structures import has_volume
from pyg_schnet.transforms.ase_atoms import from_ase

_EVALUATIONS_TO_COMPILE_AFTER = 50  # eager ones take a millisecond longer than compiled ones


class SchNetCalculator(Calculator):
    """ASE calculator of energies in eV, forces in eV/Å and stresses in eV/Å³.

    Forces come with the energy; the energy alone is computed without a gradient. After the first request of
    a stress, it is computed with the forces. Positions are passed in float64, whatever the precision of the
    network. ``free_energy`` is the energy: there is no electronic temperature. ``energies`` are the
    contributions of the atoms, of which only sums have a physical meaning.

    Args:
        potential: A potential, or the path of a checkpoint or of a run; or an ensemble or several paths,
            whose mean is the result, with ``energy_deviation`` (eV) and ``forces_deviation`` (eV/Å,
            ``(atoms,)``) among the ``results``. The calculator evaluates a copy in evaluation mode,
            ``calculator.potential``, so that mode, device and further training of the original have no effect
            on either.
        compile: Whether to compile the copy, which takes a second, on accelerators a minute; ``"auto"``
            compiles after 50 evaluations.
        device: Device of the computation; by default that of the potential, the CPU for a path.
        dtype: Precision of the network, ``torch.float32`` or ``torch.float64``; its own by default.
        skin: Distance in Å beyond the cutoff up to which neighbors of periodic systems are listed, so that
            they are searched again only when one may be missing.
        **kwargs: Arguments of ASE's calculators: ``atoms``, ``label``, ``directory``.

    Raises:
        FileNotFoundError: If the checkpoint does not exist.
        TypeError: If ``potential`` is none, or an argument is unknown.
        ValueError: If ``skin`` is negative. On evaluation, if a structure is empty, holds an element that was
            absent from training, has two atoms at one point or has no volume for a stress, or if a prediction
            is not finite.

    Example:
        >>> from ase.build import molecule
        >>> from pyg_schnet import Potential, SchNet
        >>> atoms = molecule("H2O")
        >>> atoms.calc = SchNetCalculator(Potential(SchNet.paper()))
        >>> atoms.get_forces().shape
        (3, 3)
    """

    implemented_properties = ["energy", "free_energy", "forces", "stress", "energies"]  # noqa: RUF012 - ASE's

    def __init__(
        self,
        potential: Model,
        device: str | torch.device | None = None,
        compile: bool | str = "auto",
        dtype: torch.dtype | None = None,
        skin: float = 0.75,
        **kwargs,
    ):
        self._until_compiled = evaluations_to_compile_after(compile)
        super().__init__(**kwargs)
        self.potential = evaluation_copy(potential, device, dtype)
        neighbors = VerletList(self.potential.cutoff, skin)
        self.neighbors = neighbors if neighbors.cutoff < math.inf else None  # of periodic systems
        self._computes_stress = False
        self._last: Atoms | None = None  # the structure of the last evaluation, kept when ASE resets
        self._skin = skin
        self._resident: ResidentStructure | None = None  # the structure on an accelerator
        self._data: Data | None = None  # that structure as input of the potential, unless it is periodic

    def set(self, **kwargs) -> dict[str, Any]:
        """Reject parameters: ASE would store any, also misspelled ones.

        Args:
            **kwargs: Parameters; there are none.

        Returns:
            No parameters.

        Raises:
            TypeError: If a parameter is given.
        """
        if kwargs:
            raise TypeError(
                f"SchNetCalculator has no parameter {next(iter(kwargs))!r}; it takes potential, "
                "device, compile, dtype, skin, atoms, label and directory"
            )
        return {}

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Return what changed of what the energy depends on; called by ASE.

        Comparing bytes takes 4 µs, ASE's comparison 80; a step of dynamics has several.

        Args:
            atoms: Structure to compare with that of the last evaluation.
            tol: ASE's tolerance; without effect.
        """
        own = self.atoms
        if own is None:
            return list(all_changes)
        pairs = {
            "positions": (own.positions, atoms.positions),
            "numbers": (own.numbers, atoms.numbers),
            "cell": (own.cell.array, atoms.cell.array),
            "pbc": (own.pbc, atoms.pbc),
        }
        return [name for name, (old, new) in pairs.items() if old.tobytes() != new.tobytes()]

    def reset(self) -> None:
        """Discard the results; called by ASE when something changed."""
        self._last = self.atoms
        super().reset()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate the potential; called by ASE, which returns the ``results``.

        Args:
            atoms: Structure; that of the last evaluation if ``None``.
            properties: Names of the requested results: ``"energy"`` and ``"free_energy"`` in eV, ``"forces"``
                in eV/Å, ``"stress"`` in eV/Å³, ``"energies"`` in eV.
            system_changes: What changed since the last evaluation.

        Raises:
            PropertyNotImplementedError: If ``energies`` are requested of an ensemble.
            ValueError: If there is no structure, or the potential rejects it.
        """
        if atoms is not None:
            self._copy(atoms, moved=list(system_changes) == ["positions"])
        if self.atoms is None:
            raise ValueError(
                "`atoms` must be set before the first evaluation of a calculator; use atoms.get_…()"
            )
        if self._until_compiled == 0 and self.potential.compiled is None:
            self.potential.compile(constant=True)  # its weights do not change
        self._until_compiled -= self._until_compiled > 0
        known = {} if system_changes else self.results
        if list(properties) != ["energies"] or "energy" not in known:
            # An energy once returned stays the same.
            known = {**self._evaluate(self.atoms, properties), **known}
        if "energies" in properties:
            if isinstance(self.potential, Ensemble):
                raise PropertyNotImplementedError(
                    "`energies` of atoms are available from one potential, not from an ensemble"
                )
            energies = self.potential.atomic_energies(self._as_data(self.atoms))
            known = {**known, "energies": energies.cpu().numpy()}
        self.results = known

    def export_properties(self) -> Properties:
        """Return the results that ASE has a name for; called by ASE."""
        return Properties({name: self.results[name] for name in all_outputs if name in self.results})

    def _evaluate(self, atoms: Atoms, properties: Sequence[str]) -> dict[str, Any]:
        forces, stress = "forces" in properties, "stress" in properties
        self._computes_stress |= stress
        # Callers request stress and forces of the same structure, and each alone costs half of both.
        both = stress or (self._computes_stress and forces and has_volume(atoms))
        resident = self._resident_structure(atoms) if on_accelerator(self.potential.scale) else None
        if resident is not None:
            found = resident.evaluate(atoms, forces or stress, both)
        else:
            data, more = self._as_data(atoms), {"stress": True} if both else {}
            out = self.potential(data, forces=forces or stress, **more)
            found = {name: values.cpu().numpy() for name, values in out.items()}
        energy = found["energy"].item()
        results = {"energy": energy, "free_energy": energy}
        if "forces" in found:
            results["forces"] = found["forces"]
        for name in ("energy_deviation", "forces_deviation"):
            if name in found:
                value = found[name].astype(np.float64)
                results[name] = value if name.startswith("forces") else value.item()
        if "stress" in found:
            results["stress"] = full_3x3_to_voigt_6_stress(found["stress"][0])
        # A number that is not finite makes the sum so; checking each takes a twentieth of a step.
        arrays = (value for value in results.values() if isinstance(value, np.ndarray))
        if not math.isfinite(sum((float(np.add.reduce(array, None)) for array in arrays), energy)):
            check_predictions({name: torch.from_numpy(values) for name, values in found.items()})
        return results

    def _resident_structure(self, atoms: Atoms) -> ResidentStructure | None:
        """Return the structure on the accelerator; ``None`` for models that find their pairs themselves."""
        if self._resident is None or not self._resident.fits(self.potential, atoms):
            self._resident = None
            warn_of_other_molecules(self.potential, [atoms])
            members = self.potential.potentials if isinstance(self.potential, Ensemble) else [self.potential]
            bounded = any(getattr(member.model, "max_num_neighbors", None) for member in members)
            if not bounded and self.potential.takes_graph(from_ase(atoms)):
                self._resident = ResidentStructure(self.potential, atoms, self._skin)
        return self._resident

    def _copy(self, atoms: Atoms, moved: bool) -> None:
        """Keep a copy of a structure, as ASE does; copy only positions if only they changed."""
        own = self._last if moved else None
        if own is None or own.numbers.tobytes() != atoms.numbers.tobytes():
            self.atoms = atoms.copy()
        else:
            own.positions[:] = atoms.positions
            self.atoms = own

    def _as_data(self, atoms: Atoms) -> Data:
        """Convert a structure; of a molecule, only positions if only they changed."""
        data, numbers = self._data, atoms.numbers.tobytes()
        if data is not None and numbers == self._numbers and not atoms.pbc.any():
            data.pos.copy_(torch.from_numpy(atoms.positions))  # pyright: ignore[reportOptionalMemberAccess]
            return data
        warn_of_other_molecules(self.potential, [atoms])
        data = from_ase(atoms).to(str(self.potential.scale.device))
        self._data, self._numbers = None if atoms.pbc.any() else data, numbers
        if self.neighbors is not None and atoms.pbc.any():
            self.neighbors.add_to(data)
        return data


def evaluations_to_compile_after(compile: bool | str) -> int:
    """Return the number of evaluations before a potential is compiled; -1 for never.

    Args:
        compile: See :class:`SchNetCalculator`.
    """
    if compile not in (True, False, "auto"):
        raise ValueError(f"`compile` must be 'auto', True or False, got {compile!r}")
    return {True: 0, False: -1, "auto": _EVALUATIONS_TO_COMPILE_AFTER}[compile]


def compile_copy(own: Potential | Ensemble) -> None:
    """Compile a result of :func:`evaluation_copy`; a compiled form of the original is reused."""
    for potential in own.potentials if isinstance(own, Ensemble) else [own]:
        potential = cast(Potential, potential)
        if potential.compiled is None:
            potential.compile(constant=True)
        else:
            potential.compiled.constant = True  # its weights do not change


def evaluation_copy(
    potential: Model,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
    needs_energy: bool = True,
) -> Any:
    """Load or copy a potential or an ensemble, in evaluation mode and with frozen weights.

    Args:
        potential: See :class:`SchNetCalculator`.
        device: Device of the copy.
        dtype: Precision of the network.
        needs_energy: Whether to reject potentials that predict no energies.

    Returns:
        A ``Potential`` or an ``Ensemble``.
    """
    if dtype not in (None, torch.float32, torch.float64):
        raise ValueError(f"`dtype` must be torch.float32 or torch.float64, got {dtype}")
    load_device = "cpu" if device is None else device
    if isinstance(potential, Potential | Ensemble):
        own = copy.deepcopy(potential)
        if device is not None:
            own = own.to(check_device(device))
    else:
        paths = resolve_models(potential, "potential")
        if len(paths) > 1:
            own = Ensemble.load(paths, load_device)
        elif is_ensemble_file(paths[0]):
            own = Ensemble.load(paths[0], load_device)
        else:
            network = getattr(potential, "network", None)  # of a run that trained another model than SchNet
            own = load(paths[0], load_device, copy.deepcopy(network))
    if needs_energy:
        own.require_energy()
    return own.to(dtype).eval().requires_grad_(False)
