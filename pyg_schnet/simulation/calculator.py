"""The ASE calculator of a potential."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from typing import Any

import torch
from ase import Atoms
from ase.calculators.calculator import Calculator, all_changes
from torch_geometric.data import Data

from pyg_schnet.checkpoint import load
from pyg_schnet.potential import Potential
from pyg_schnet.structures import from_ase

_EVALUATIONS_TO_COMPILE_AFTER = 50  # eager ones take a millisecond longer than compiled ones


class SchNetCalculator(Calculator):
    """Energies in eV and forces in eV/Å of a potential, for anything that ASE does.

    Asked for forces, it keeps the energy that comes with them; asked for the energy alone, it
    computes no gradient. Positions enter in float64, whatever the precision of the network.
    ``free_energy`` is the energy: there is no electronic temperature.

    Args:
        potential: A potential or the path of a checkpoint. The calculator evaluates its own copy in
            evaluation mode, ``calculator.potential``: yours keeps its mode and device, and training
            it further changes nothing here.
        compile: Whether to compile the copy, which takes a second: ``"auto"`` after 50 evaluations.
        device: Where to compute; by default where the potential is, the CPU for a path.
        **kwargs: ASE's own: ``atoms``, ``label``, ``directory``.

    Raises:
        FileNotFoundError: If there is no such checkpoint.
        TypeError: If ``potential`` is something else, or an argument is unknown.
        ValueError: On evaluation, if a structure is empty or holds an element that was absent from
            training.

    Example:
        >>> from ase.build import molecule
        >>> from pyg_schnet import Potential, SchNet
        >>> atoms = molecule("H2O")
        >>> atoms.calc = SchNetCalculator(Potential(SchNet.paper()))
        >>> atoms.get_forces().shape
        (3, 3)
    """

    implemented_properties = ["energy", "free_energy", "forces"]  # noqa: RUF012 - ASE's attribute

    def __init__(
        self,
        potential: Potential | str | os.PathLike,
        device: str | torch.device | None = None,
        compile: bool | str = "auto",
        **kwargs,
    ):
        if compile not in (True, False, "auto"):
            raise ValueError(f"`compile` must be 'auto', True or False, got {compile!r}")
        super().__init__(**kwargs)
        self.potential = for_evaluation(potential, device)
        self._until_compiled = {True: 0, False: -1, "auto": _EVALUATIONS_TO_COMPILE_AFTER}[compile]
        self._kept: Atoms | None = None  # the structure of the last evaluation, through ASE's resets
        self._data: Data | None = None  # the same for the potential, unless it is periodic

    def set(self, **kwargs) -> dict[str, Any]:
        """Refuse parameters: ASE would store any, misspelled ones included."""
        if kwargs:
            raise TypeError(
                f"SchNetCalculator has no parameter {next(iter(kwargs))!r}; it takes potential, "
                "device, compile, atoms, label and directory"
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
        assert self.atoms is not None
        if self._until_compiled == 0 and self.potential.compiled is None:
            self.potential.compile(constant=True)  # a copy of our own
        self._until_compiled -= self._until_compiled > 0
        out = self.potential(self._as_data(self.atoms), forces="forces" in properties)
        energy = out["energy"].item()
        self.results = {"energy": energy, "free_energy": energy}
        if "forces" in out:
            self.results["forces"] = out["forces"].cpu().numpy()

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
        return data


def for_evaluation(
    potential: Potential | str | os.PathLike, device: str | torch.device | None = None
) -> Potential:
    """Load or copy a potential, in evaluation mode and with frozen weights."""
    if isinstance(potential, str | os.PathLike):
        own = load(potential, "cpu" if device is None else device)
    elif isinstance(potential, Potential):
        own = copy.deepcopy(potential)
        if device is not None:
            own = own.to(device)
    else:
        raise TypeError(
            "`potential` must be a Potential or the path of a checkpoint, got "
            f"{type(potential).__name__}; a model becomes one by Potential(model)"
        )
    return own.eval().requires_grad_(False)
