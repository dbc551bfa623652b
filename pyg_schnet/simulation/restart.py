"""Restart files: what a run that was killed goes on from."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any

import torch
from ase import Atoms

from pyg_schnet.io.append_only import append_error
from pyg_schnet.io.atomic import flush, flush_folder, remove_leftovers
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.integrators import MDSettings
from pyg_schnet.simulation.statistics import Statistics
from pyg_schnet.simulation.structures import constraint_to_dict, hash_structure, stored_results

_KIND = "dynamics"
_SAME = 1e-4  # eV an atom; a float32 network is reproduced to 1e-6
_PAUSE = 1.0  # s between two files; one takes some ms, as long as a step of a small molecule


@dataclass(frozen=True)
class Point:
    """A step to go on from.

    Attributes:
        step: Its number.
        size: Of the trajectory with its frame, see :attr:`TrajectoryFile.size`.
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
    """A late frame of a trajectory to all digits, in a file beside it.

    It is replaced at once or not at all, with a frame once a second and with the last as the run ends,
    whatever ends it but the kill of the process. It knows how long the trajectory was then: what came after,
    in whole or in part, is cut off and computed again.

    Args:
        trajectory: Which; without one there is no file.
        settings: Of the run.
        atoms: Its start.
        log: The log of the run, if it has one.

    Attributes:
        has_log: Whether the run that was read had this log, too.
        companions: Files that a restart file tells the length of: they are brought to the disk before it.
    """

    def __init__(
        self,
        trajectory: Path | None,
        settings: MDSettings,
        atoms: Atoms,
        log: str | os.PathLike | None = None,
    ):
        self.path = None if trajectory is None else trajectory.with_name(f"{trajectory.name}.restart")
        self._trajectory, self._settings = trajectory, settings
        self._start, self._incomparable = hash_structure(atoms), _incomparable(atoms)
        self._potential = _hash_potential(atoms.calc)
        self._atoms = len(atoms)
        self._log = None if trajectory is None or log is None else _relative(Path(log), trajectory.parent)
        self.has_log = False
        self.companions: list[Path] = []
        self._seen: tuple[int, int] | None = None  # what was read
        self._pending: tuple[dict[str, Any], dict[str, torch.Tensor]] | None = None
        self._written = monotonic()

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
        header = {
            "step": step,
            "size": size,
            "energy": stored_results(frame)["energy"],
            "memory": memory,
            "statistics": asdict(statistics),
        }
        arrays = {"positions": frame.positions, "momenta": frame.get_momenta(), "cell": frame.cell.array}
        self._pending = header, {name: torch.tensor(values) for name, values in arrays.items()}
        if monotonic() - self._written >= _PAUSE:
            self._flush()

    def read(self) -> Point | None:
        """Find the step to go on from; none if the run has no frame yet.

        Raises:
            FileNotFoundError: If there is a trajectory, but no restart file.
            ValueError: If ``resume`` has no trajectory, or the run had other settings or another potential,
                or constraints that cannot be compared.
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
        self._seen = _version_of(self.path)
        header, arrays = checkpoint.read(self.path, _KIND)
        try:
            point = _point(header, arrays, self._atoms)
            before, start = dict(header["settings"]), str(header["start"])
            potential = header.get("potential")  # absent in files of earlier versions
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self.path}: is damaged ({error}); begin a new run") from None
        self._check(before, start)
        if None not in (potential, self._potential) and potential != self._potential:
            raise ValueError(
                f"`atoms.calc` must have the potential that the run of {self.path} began with, to resume it; "
                "got other weights or settings; begin a new run with another potential"
            )
        self.has_log = self._log is not None and header.get("log") == self._log
        return point

    def _check(self, settings: Mapping[str, Any], start: str) -> None:
        for name, value in asdict(self._settings).items():
            before = settings.get(name)
            if before != value:
                raise ValueError(
                    f"`{name}` must be {repr(before)[:80]} as in the run that {self.path} is of, to resume "
                    f"it; got {value!r}"
                )
        if self._incomparable is not None:
            raise ValueError(
                f"`atoms` must have constraints that tell by todict() whether they are those of the run that "
                f"{self.path} is of, to resume it; got {self._incomparable}; begin a new run"
            )
        if start != self._start:
            raise ValueError(
                f"`atoms` must be the structure that the run of {self.path} began with, to resume it; got "
                "another one"
            )

    def __enter__(self) -> RestartFile:
        if self.path is not None:  # the writer of the trajectory holds its lock
            if self._seen is not None and _version_of(self.path) != self._seen:
                raise FileExistsError(
                    f"{self.path}: another process just went on with this run; resume again"
                )
            remove_leftovers(self.path)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._flush()

    def _flush(self) -> None:
        if self._pending is not None:
            for path in filter(Path.exists, self.companions):
                try:
                    flush(path)
                except OSError as error:
                    raise append_error(path, error) from error
                flush_folder(path.parent)
            self._write(*self._pending)
            self._pending, self._written = None, monotonic()

    def _write(self, header: dict[str, Any], arrays: Mapping[str, torch.Tensor]) -> None:
        if self.path is None:
            return
        about = {"settings": asdict(self._settings), "start": self._start, "log": self._log}
        about["potential"] = self._potential
        checkpoint.write(os.fspath(self.path), _KIND, about | header, arrays)


def _version_of(path: Path) -> tuple[int, int] | None:
    """Return what tells a file from those that take its place."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def _point(header: Mapping[str, Any], arrays: Mapping[str, torch.Tensor], atoms: int) -> Point | None:
    """Take a step out of a file, or refuse what no run writes; ``None`` where the run had none yet."""
    step = header["step"]
    if step is None:
        return None
    shapes = {"positions": (atoms, 3), "momenta": (atoms, 3), "cell": (3, 3)}
    for name, shape in shapes.items():
        values = arrays[name]
        if values.shape != shape or values.dtype != torch.float64 or not bool(values.isfinite().all()):
            raise ValueError(f"`{name}` must hold finite numbers of shape {shape}")
    size, energy, memory = header["size"], header["energy"], header["memory"]
    statistics = Statistics(**header["statistics"])
    numbers = (energy, *memory, *asdict(statistics).values())
    if not all(type(value) in (int, float) for value in numbers) or type(statistics.count) is not int:
        raise ValueError("something is no number")
    if type(step) is not int or type(size) is not int or min(step, size) < 0:
        raise ValueError(f"step {step} and size {size} must be numbers from 0")
    return Point(step, size, energy, statistics, memory, arrays)


def resumable_step(trajectory: str | os.PathLike) -> int | None:
    """Read up to which step a run can be resumed; ``None`` if it has none, or no restart file."""
    trajectory = Path(trajectory)
    path = trajectory.with_name(f"{trajectory.name}.restart")
    return checkpoint.read(path, _KIND)[0]["step"] if path.exists() else None


def _incomparable(atoms: Atoms) -> str | None:
    """Name a constraint that does not tell what it is, if there is one."""
    return next((type(own).__name__ for own in atoms.constraints if constraint_to_dict(own) is None), None)


def _hash_potential(calculator: Any) -> str | None:
    """Compute the SHA-256 of weights and configurations of a potential; ``None`` for other calculators."""
    potential = getattr(calculator, "potential", None)
    if not isinstance(potential, Potential | Ensemble):
        return None
    configs = [asdict(module.config) for module in potential.modules() if isinstance(module, SchNet)]
    classes = [type(module).__name__ for module in potential.modules()]
    return checkpoint.checksum(f"{classes} {configs}", potential.state_dict())


def _relative(path: Path, folder: Path) -> str:
    """Name a file so that it may move with a folder that it is in."""
    path, folder = path.resolve(), folder.resolve()
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
