"""Restart files, from which an interrupted run continues."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import monotonic
from typing import Any

import torch
from ase import Atoms

from pyg_schnet.io.append_only import AppendOnlyFile
from pyg_schnet.io.atomic import remove_leftovers
from pyg_schnet.nn import SchNet
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.integrators import MDSettings
from pyg_schnet.simulation.statistics import Statistics
from pyg_schnet.simulation.structures import constraint_to_dict, hash_structure, stored_results

_KIND, BATCHED_KIND = "dynamics", "batched dynamics"
_ENERGY_TOLERANCE = 1e-4  # eV per atom; a float32 network is reproduced to 1e-6
MIN_PAUSE = 1.0  # s between two files; one takes some ms, as long as a step of a small molecule


@dataclass(frozen=True)
class RestartPoint:
    """The step from which a run continues.

    Attributes:
        step: Number of the step.
        size: Length of the trajectory up to its frame, see :attr:`TrajectoryFile.size`.
        energy: Potential energy in eV.
        statistics: Statistics up to and including the step.
        memory: State of the integrator beside the structure, see :func:`integrator_state`.
        arrays: Positions, momenta and cell in full precision.
    """

    step: int
    size: int
    energy: float
    statistics: Statistics
    memory: list[float]
    arrays: Mapping[str, torch.Tensor]

    def restore(self, system: Atoms) -> None:
        """Set cell, positions and momenta of a structure."""
        system.set_cell(self.arrays["cell"].numpy())
        system.set_positions(self.arrays["positions"].numpy(), apply_constraint=False)
        system.set_momenta(self.arrays["momenta"].numpy(), apply_constraint=False)

    def check_energy(self, energy: float, atoms: int) -> None:
        """Raise if the energy in eV of the restored structure is another one: so is then the potential."""
        if not abs(energy - self.energy) <= _ENERGY_TOLERANCE * atoms:
            raise ValueError(
                f"`atoms.calc` must be as it was to resume, got the energy {energy:.6f} eV at step "
                f"{self.step}, which had {self.energy:.6f} eV; begin a new run with another potential"
            )


class RestartFile:
    """A recent frame of a trajectory in full precision, in ``TRAJECTORY.restart``.

    It is replaced atomically, at most once a second while frames are written and with the last one when the
    run ends, however it ends, except by a kill of the process. It holds the length of the trajectory at that
    frame: what follows, complete or not, is removed and computed again.

    Args:
        trajectory: Path of the trajectory.
        settings: Settings of the run.
        atoms: The initial structure with its calculator.
        log: Path of the log of the run, if it has one.
    """

    def __init__(
        self, trajectory: Path, settings: MDSettings, atoms: Atoms, log: str | os.PathLike | None = None
    ):
        self.path = restart_path(trajectory)
        self._trajectory, self._atoms = trajectory, atoms.copy()
        self._run = {
            "settings": asdict(settings),
            "start": hash_structure(atoms),
            "log": None if log is None else _relative(Path(log), trajectory.parent),
            "potential": _hash_potential(atoms.calc),
        }
        self._version_read: tuple[int, int] | None = None
        self._pending: tuple[dict[str, Any], dict[str, torch.Tensor]] | None = None
        self._written = monotonic()

    def read(self) -> tuple[RestartPoint | None, bool]:
        """Return the step to continue from, and whether the run had the same log.

        Returns:
            No step if the run has no frame yet.

        Raises:
            FileNotFoundError: If there is a trajectory, but no restart file.
            ValueError: If the run had another structure, other settings, another potential, or constraints
                that cannot be compared.
        """
        if not self.path.exists():
            if self._trajectory.exists():
                raise FileNotFoundError(
                    f"{self.path}: no such file, and without it {self._trajectory.name} cannot be continued; "
                    "begin a new run from its last frame"
                )
            return None, False
        self._version_read = file_version(self.path)
        header, arrays = checkpoint.read(self.path, _KIND)
        try:
            point = _to_point(header, arrays, len(self._atoms))
            settings, start = dict(header["settings"]), str(header["start"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{self.path}: is damaged ({error}); begin a new run") from None
        self._check(settings, start, header.get("potential"))  # absent in files of earlier versions
        return point, self._run["log"] is not None and header.get("log") == self._run["log"]

    def _check(self, settings: Mapping[str, Any], start: str, potential: str | None) -> None:
        """Raise if the file belongs to another run."""
        for name, value in self._run["settings"].items():
            earlier = settings.get(name, getattr(MDSettings, name, None))  # absent in earlier versions
            if earlier != value:
                raise ValueError(
                    f"`{name}` must be {repr(earlier)[:80]} as in the run of {self.path} to "
                    f"resume it, got {value!r}"
                )
        unknown = (
            type(each).__name__ for each in self._atoms.constraints if constraint_to_dict(each) is None
        )
        if (name := next(unknown, None)) is not None:
            raise ValueError(
                f"`atoms` must have constraints that can be compared by todict() with those of {self.path} "
                f"to resume it, got {name}; begin a new run"
            )
        if start != self._run["start"]:
            raise ValueError(
                f"`atoms` must be the structure with which the run of {self.path} began to resume it, got "
                "another one"
            )
        if None not in (potential, self._run["potential"]) and potential != self._run["potential"]:
            raise ValueError(
                f"`atoms.calc` must have the potential with which the run of {self.path} began to resume it, "
                "got other weights or settings; begin a new run with another potential"
            )

    def begin(self) -> None:
        """Write that the run begins, to which any earlier restart file does not belong."""
        self._write({"step": None}, {})

    def check_unchanged(self) -> None:
        """Raise if another process continued the run since it was read; the trajectory must be locked."""
        if self._version_read is not None and file_version(self.path) != self._version_read:
            raise FileExistsError(f"{self.path}: another process continued this run; resume again")
        remove_leftovers(self.path)

    def update(self, frame: Atoms, size: int, statistics: Statistics, memory: list[float]) -> None:
        """Keep a frame, which :meth:`flush` writes.

        Args:
            frame: The structure with its results and ``info["step"]``.
            size: Length of the trajectory with it.
            statistics: Statistics up to it.
            memory: State of the integrator.
        """
        header = {
            "step": frame.info["step"],
            "size": size,
            "energy": stored_results(frame)["energy"],
            "memory": memory,
            "statistics": asdict(statistics),
        }
        arrays = {"positions": frame.positions, "momenta": frame.get_momenta(), "cell": frame.cell.array}
        self._pending = header, {name: torch.tensor(values) for name, values in arrays.items()}

    @property
    def is_due(self) -> bool:
        """Return whether the file is old enough to be replaced."""
        return monotonic() - self._written >= MIN_PAUSE

    def flush(self, files: Sequence[AppendOnlyFile]) -> None:
        """Write the frame kept last, if it is not written yet.

        Args:
            files: Files whose length at the frame must be on the disk before it.
        """
        if self._pending is not None:
            for file in files:
                file.sync()
            self._write(*self._pending)
            self._pending, self._written = None, monotonic()

    def _write(self, header: dict[str, Any], arrays: Mapping[str, torch.Tensor]) -> None:
        checkpoint.write(os.fspath(self.path), _KIND, self._run | header, arrays)


def restart_path(trajectory: str | os.PathLike) -> Path:
    """Return the path of the restart file of a trajectory."""
    return Path(f"{os.fspath(trajectory)}.restart")


def resumable_step(trajectory: str | os.PathLike, batched: bool = False) -> int | None:
    """Read the step from which a run can be resumed; ``None`` without a frame or a restart file.

    Args:
        trajectory: Trajectory of the run.
        batched: Whether the run is of several structures; the step is that of the present group.
    """
    path = restart_path(trajectory)
    return checkpoint.read(path, BATCHED_KIND if batched else _KIND)[0].get("step") if path.exists() else None


@dataclass(frozen=True)
class RecordedRun:
    """What a restart file states about its run.

    Attributes:
        settings: Settings of the run.
        atoms: Number of atoms.
        statistics: Statistics over all steps.
        potential: Hash of the potential, see :func:`hash_potential`; ``None`` for another calculator.
    """

    settings: MDSettings
    atoms: int
    statistics: Statistics
    potential: str | None


def read_recorded_run(log: str | os.PathLike) -> RecordedRun | None:
    """Find the restart file beside a log and read what it states; ``None`` if there is none.

    Raises:
        ValueError: If the file is damaged.
    """
    log = Path(log).resolve()
    for path in sorted(log.parent.glob("*.restart")):
        header, arrays = checkpoint.read(path, _KIND)
        if header.get("log") != _relative(log, log.parent):
            continue
        try:
            point = _to_point(header, arrays, len(arrays["positions"]))
            settings = MDSettings(**header["settings"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ValueError(f"{path}: is damaged ({error}); remove it") from None
        if point is not None:
            return RecordedRun(settings, len(arrays["positions"]), point.statistics, header.get("potential"))
    return None


def file_version(path: Path) -> tuple[int, int] | None:
    """Return what distinguishes a file from one that replaces it; ``None`` without a file."""
    return (path.stat().st_ino, path.stat().st_mtime_ns) if path.exists() else None


def _to_point(
    header: Mapping[str, Any], arrays: Mapping[str, torch.Tensor], atoms: int
) -> RestartPoint | None:
    """Build a restart point from a file, or raise if it is invalid; ``None`` without a frame."""
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
        raise ValueError("energy, memory and statistics must be numbers")
    if type(step) is not int or type(size) is not int or min(step, size) < 0:
        raise ValueError(f"step {step} and size {size} must be numbers from 0")
    return RestartPoint(step, size, energy, statistics, memory, arrays)


def _hash_potential(calculator: Any) -> str | None:
    """Compute the hash of a calculator's potential; ``None`` for other calculators."""
    potential = getattr(calculator, "potential", None)
    return hash_potential(potential) if isinstance(potential, Potential | Ensemble) else None


def hash_potential(potential: Potential | Ensemble) -> str:
    """Compute the SHA-256 of weights and configurations of a potential.

    It depends on the names of classes, parameters and settings: after renaming one, earlier runs would not
    resume.
    """
    configs = [asdict(module.config) for module in potential.modules() if isinstance(module, SchNet)]
    classes = [type(module).__name__ for module in potential.modules()]
    return checkpoint.checksum(f"{classes} {configs}", potential.state_dict())


def _relative(path: Path, folder: Path) -> str:
    """Return a path relative to a folder that contains it, so that both can be moved; else the full path."""
    path, folder = path.resolve(), folder.resolve()
    return (path.relative_to(folder) if path.is_relative_to(folder) else path).as_posix()
