"""The ASE calculator of a potential."""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Sequence
from typing import Any, TypeAlias, cast

import numpy as np
import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, PropertyNotImplementedError, all_changes
from ase.outputs import Properties, all_outputs
from ase.stress import full_3x3_to_voigt_6_stress
from torch_geometric.data import Data

from pyg_schnet.graph.validation import check_predictions
from pyg_schnet.graph.verlet_list import VerletList
from pyg_schnet.potentials.checkpoint import load
from pyg_schnet.potentials.ensemble import Ensemble, is_ensemble_file
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.transforms.ase_atoms import from_ase

Model: TypeAlias = Potential | Ensemble | str | os.PathLike | Sequence[str | os.PathLike]
_EVALUATIONS_TO_COMPILE_AFTER = 50  # eager ones take a millisecond longer than compiled ones


class SchNetCalculator(Calculator):
    """Energies in eV, forces in eV/Å and stresses in eV/Å³ of a potential, for anything that ASE does.

    Asked for forces, it keeps the energy that comes with them; asked for the energy alone, it
    computes no gradient. Once the stress was asked for, it comes with the forces. Positions enter in float64,
    whatever the precision of the network. ``free_energy`` is the energy: there is no electronic temperature.
    ``energies`` are what the atoms add to it, which only sums of have a physical meaning.

    Args:
        potential: A potential or the path of a checkpoint; an ensemble or several paths, whose mean moves the
            atoms, with ``energy_deviation`` (eV) and ``forces_deviation`` (eV/Å, of each atom) among the
            ``results``. The calculator evaluates its own copy in evaluation mode,
            ``calculator.potential``: yours keeps its mode and device, and training it further changes
            nothing here.
        compile: Whether to compile the copy, which takes a second: ``"auto"`` after 50 evaluations.
        device: Where to compute; by default where the potential is, the CPU for a path.
        dtype: ``torch.float32`` or ``torch.float64``, of the network; its own by default.
        skin: How far beyond the cutoff neighbors of periodic systems are listed, in Å, so that they are
            searched again only when one may be missing.
        **kwargs: ASE's own: ``atoms``, ``label``, ``directory``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        TypeError: If ``potential`` is something else, or an argument is unknown.
        ValueError: If ``skin`` is negative. On evaluation, if a structure is empty, holds an element that was
            absent from training, has two atoms at one point, has no stress and is asked for it, or if what
            is predicted is not finite.

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
        if compile not in (True, False, "auto"):
            raise ValueError(f"`compile` must be 'auto', True or False, got {compile!r}")
        super().__init__(**kwargs)
        self.potential = evaluation_copy(potential, device, dtype)
        neighbors = VerletList(self.potential.cutoff, skin)
        self.neighbors = neighbors if neighbors.cutoff < math.inf else None  # of periodic systems
        self._stress_is_wanted = False
        self._until_compiled = {True: 0, False: -1, "auto": _EVALUATIONS_TO_COMPILE_AFTER}[compile]
        self._kept: Atoms | None = None  # the structure of the last evaluation, through ASE's resets
        self._data: Data | None = None  # the same for the potential, unless it is periodic

    def set(self, **kwargs) -> dict[str, Any]:
        """Refuse parameters: ASE would store any, misspelled ones included."""
        if kwargs:
            raise TypeError(
                f"SchNetCalculator has no parameter {next(iter(kwargs))!r}; it takes potential, "
                "device, compile, dtype, skin, atoms, label and directory"
            )
        return {}

    def check_state(self, atoms: Atoms, tol: float = 0.0) -> list[str]:
        """Tell what changed of what the energy depends on; called by ASE.

        Bytes are compared, which takes ASE's own comparison 80 µs and this one 4; a step of dynamics has
        several of them.
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
        """Forget the results; called by ASE when something changed."""
        self._kept = self.atoms
        super().reset()

    def calculate(
        self,
        atoms: Atoms | None = None,
        properties: Sequence[str] = ("energy",),
        system_changes: Sequence[str] = all_changes,
    ) -> None:
        """Evaluate the potential; called by ASE."""
        if atoms is not None:
            self._follow(atoms, moved=list(system_changes) == ["positions"])
        if self.atoms is None:
            raise ValueError(
                "`atoms` must be given to a calculator that has evaluated none; use atoms.get_…()"
            )
        if self._until_compiled == 0 and self.potential.compiled is None:
            self.potential.compile(constant=True)  # a copy of our own
        self._until_compiled -= self._until_compiled > 0
        data = self._as_data(self.atoms)
        known = {} if system_changes else self.results
        if list(properties) != ["energies"] or "energy" not in known:
            known = {**self._evaluate(data, properties), **known}  # the energy that was told stays
        if "energies" in properties:
            if isinstance(self.potential, Ensemble):
                raise PropertyNotImplementedError(
                    "`energies` of atoms are those of one potential, not of several"
                )
            known = {**known, "energies": self.potential.atomic_energies(data).cpu().numpy()}
        self.results = known

    def export_properties(self) -> Properties:
        """Give the results that ASE has a name for; called by ASE."""
        return Properties({name: self.results[name] for name in all_outputs if name in self.results})

    def _evaluate(self, data: Data, properties: Sequence[str]) -> dict[str, Any]:
        forces, stress = "forces" in properties, "stress" in properties
        self._stress_is_wanted |= stress
        # Whoever asks for stress asks for forces too, of the same structure, and each costs half of both.
        both = {"stress": True} if stress or (self._stress_is_wanted and forces and _has_stress(data)) else {}
        out = self.potential(data, forces=forces or stress, **both)
        energy = out["energy"].item()
        results = {"energy": energy, "free_energy": energy}
        if "forces" in out:
            results["forces"] = out["forces"].cpu().numpy()
        for name in ("energy_deviation", "forces_deviation"):
            if name in out:
                value = out[name].double().cpu().numpy()
                results[name] = value if name.startswith("forces") else value.item()
        if "stress" in out:
            results["stress"] = full_3x3_to_voigt_6_stress(out["stress"][0].cpu().numpy())
        # One number that is not finite makes their sum such; looking at each costs a twentieth of a step.
        arrays = (value for value in results.values() if isinstance(value, np.ndarray))
        if not math.isfinite(sum((float(np.add.reduce(array, None)) for array in arrays), energy)):
            check_predictions(out)
        return results

    def _follow(self, atoms: Atoms, moved: bool) -> None:
        """Keep a copy of a structure, as ASE does; of one that only moved, only the positions."""
        own = self._kept if moved else None
        if own is None or own.numbers.tobytes() != atoms.numbers.tobytes():
            self.atoms = atoms.copy()
        else:
            own.positions[:] = atoms.positions
            self.atoms = own

    def _as_data(self, atoms: Atoms) -> Data:
        """Convert a structure; of a molecule that only moved, only the positions."""
        data, numbers = self._data, atoms.numbers.tobytes()
        if data is not None and numbers == self._numbers and not atoms.pbc.any():
            data.pos.copy_(torch.from_numpy(atoms.positions))  # pyright: ignore[reportOptionalMemberAccess]
            return data
        data = from_ase(atoms).to(str(self.potential.scale.device))
        self._data, self._numbers = None if atoms.pbc.any() else data, numbers
        if self.neighbors is not None and atoms.pbc.any():
            self.neighbors.add_to(data)
        return data


def compile_copy(own: Potential | Ensemble) -> None:
    """Compile what :func:`evaluation_copy` gave; programs that the caller's potential has are used again."""
    for potential in own.potentials if isinstance(own, Ensemble) else [own]:
        potential = cast(Potential, potential)
        if potential.compiled is None:
            potential.compile(constant=True)
        else:
            potential.compiled.constant = True  # the weights are our own


def _has_stress(data: Data) -> bool:
    """Whether a system has a volume that a stress may refer to."""
    return "pbc" in data and bool(data.pbc.any()) and bool(data.cell.det().abs() > 0)


def evaluation_copy(
    potential: Model,
    device: str | torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> Any:
    """Load or copy a potential or several, in evaluation mode and with frozen weights."""
    if dtype not in (None, torch.float32, torch.float64):
        raise ValueError(f"`dtype` must be torch.float32 or torch.float64, got {dtype}")
    place = "cpu" if device is None else device
    if isinstance(potential, list | tuple) and len(potential) == 1:
        potential = potential[0]
    if isinstance(potential, str | os.PathLike):
        own = (Ensemble.load if is_ensemble_file(potential) else load)(potential, place)
    elif isinstance(potential, list | tuple):
        own = Ensemble.load(potential, place)
    elif isinstance(potential, Potential | Ensemble):
        own = copy.deepcopy(potential)
        if device is not None:
            own = own.to(device)
    else:
        raise TypeError(
            "`potential` must be a Potential or the path of a checkpoint, got "
            f"{type(potential).__name__}; a model becomes one by Potential(model)"
        )
    return own.to(dtype).eval().requires_grad_(False)
