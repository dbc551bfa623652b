"""Restart files: what a run that was killed goes on from."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from ase import Atoms

from pyg_schnet import checkpoint
from pyg_schnet.simulation.settings import Settings
from pyg_schnet.simulation.statistics import Statistics

_KIND = "dynamics"
_SAME = 1e-4  # eV an atom; a float32 network is reproduced to 1e-6


@dataclass(frozen=True)
class Point:
    """A step to go on from.

    Attributes:
        step: Its number.
        size: Of the trajectory with its frame, see :attr:`FrameWriter.size`.
        energy: Potential energy in eV.
        statistics: Up to it, itself included.
        memory: What the integrator knows beside the structure.
        arrays: Positions, momenta and cell, to the bit.
    """

    step: int
    size: int
    energy: float
    statistics: Statistics
    memory: list[float]
    arrays: Mapping[str, torch.Tensor]

    def place(self, system: Atoms) -> None:
        """Put a structure there."""
        system.set_cell(self.arrays["cell"].numpy())
        system.set_positions(self.arrays["positions"].numpy(), apply_constraint=False)
        system.set_momenta(self.arrays["momenta"].numpy(), apply_constraint=False)

    def check_energy(self, energy: float, atoms: int) -> None:
        """Refuse another potential than that of the run so far."""
        if not abs(energy - self.energy) <= _SAME * atoms:
            raise ValueError(
                f"`atoms.calc` must be as it was to resume, got the energy {energy:.6f} eV at step "
                f"{self.step}, which had {self.energy:.6f} eV; begin a new run with another potential"
            )


class RestartFile:
    """The last frame of a trajectory to all digits, in a file beside it.

    It is replaced after each frame, at once or not at all, and knows how long the trajectory was then: what
    came after it, in whole or in part, is cut off and computed again.

    Args:
        trajectory: Which; without one there is no file.
        settings: Of the run.
        atoms: Its start.
    """

    def __init__(self, trajectory: Path | None, settings: Settings, atoms: Atoms):
        self.path = None if trajectory is None else trajectory.with_name(f"{trajectory.name}.restart")
        self._trajectory, self._settings, self._start = trajectory, settings, _fingerprint(atoms)

    @property
    def has_begun(self) -> bool:
        """Whether there is the file."""
        return self.path is not None and self.path.exists()

    def begin(self) -> None:
        """Tell that a run begins, which any other file there does not belong to."""
        self._write({"step": None}, {})

    def write(self, step: int, frame: Atoms, size: int, statistics: Statistics, memory: list[float]) -> None:
        """Tell where the run is."""
        if self.path is None:
            return
        energy = frame.get_potential_energy(apply_constraint=False)
        header = {
            "step": step,
            "size": size,
            "energy": energy,
            "memory": memory,
            "statistics": asdict(statistics),
        }
        arrays = {"positions": frame.positions, "momenta": frame.get_momenta(), "cell": frame.cell.array}
        self._write(header, {name: torch.tensor(values) for name, values in arrays.items()})

    def read(self) -> Point | None:
        """Find the step to go on from; none if the run has no frame yet.

        Raises:
            FileNotFoundError: If there is a trajectory, but no restart file.
            ValueError: If ``resume`` has no trajectory, or the run had other settings.
        """
        if self.path is None or self._trajectory is None:
            raise ValueError("`resume` needs the `trajectory` to go on with, got None")
        if not self.path.exists():
            if self._trajectory.exists():
                raise FileNotFoundError(
                    f"{self.path}: no such file, and without it {self._trajectory.name} cannot go on; "
                    "begin a new run from its last frame"
                )
            return None
        header, arrays = checkpoint.read(self.path, _KIND)
        self._check(header)
        if header["step"] is None:
            return None
        header["statistics"] = Statistics(**header["statistics"])
        names = ("step", "size", "energy", "statistics", "memory")
        return Point(**{name: header[name] for name in names}, arrays=arrays)

    def _check(self, header: Mapping[str, Any]) -> None:
        for name, value in asdict(self._settings).items():
            before = header["settings"].get(name)
            if before != value:
                raise ValueError(
                    f"`{name}` must be {before!r} as in the run that {self.path} is of, to resume it; got "
                    f"{value!r}"
                )
        if header["start"] != self._start:
            raise ValueError(
                f"`atoms` must be the structure that the run of {self.path} began with, to resume it; got "
                "another one"
            )

    def _write(self, header: dict[str, Any], arrays: Mapping[str, torch.Tensor]) -> None:
        if self.path is None:
            return
        about = {"settings": asdict(self._settings), "start": self._start}
        checkpoint.write(os.fspath(self.path), _KIND, about | header, arrays)


def _fingerprint(atoms: Atoms) -> str:
    """Give a hash of all that the trajectory depends on."""
    digest = hashlib.sha256()
    for values in (
        atoms.numbers.astype("i8"),
        atoms.positions,
        atoms.cell.array,
        atoms.pbc,
        atoms.get_masses(),
    ):
        digest.update(values.tobytes())
    digest.update(json.dumps([str(constraint) for constraint in atoms.constraints]).encode())
    return digest.hexdigest()
