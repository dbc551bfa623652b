"""Restart files of batched dynamics, from which an interrupted run continues."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from time import monotonic
from typing import Any

import numpy as np
import torch
from ase import Atoms
from torch import Tensor

from pyg_schnet.io.atomic import remove_leftovers
from pyg_schnet.potentials import checkpoint
from pyg_schnet.potentials.ensemble import Ensemble
from pyg_schnet.potentials.potential import Potential
from pyg_schnet.simulation.batched_integrator import BatchedIntegrator, StructureResult
from pyg_schnet.simulation.restart import (
    BATCHED_KIND,
    MIN_PAUSE,
    file_version,
    hash_potential,
    restart_path,
)
from pyg_schnet.simulation.structures import hash_structure, stored_results, with_results
from pyg_schnet.simulation.trajectory import TrajectoryFile

_NUMBERS = ("temperature", "potential_energy", "drift", "fluctuation")


class BatchedRestart:
    """State of a batched run in ``TRAJECTORY.restart``.

    It is replaced atomically, at most once a second and when the run ends, however it ends, except by a kill
    of the process. It holds the results of the groups that are done, and the state of the present one at a
    step whose frames are in the trajectory. What follows in the trajectory is removed and computed again.

    Args:
        trajectory: Path of the trajectory.
        settings: Settings of the run, all JSON.
        potential: The potential in evaluation mode.
        structures: The initial structures.

    Attributes:
        group: Number of the present group.
        size: Length of the trajectory at the state, see :attr:`TrajectoryFile.size`; ``None`` before a read.
    """

    def __init__(
        self,
        trajectory: Path,
        settings: Mapping[str, Any],
        potential: Potential | Ensemble,
        structures: Sequence[Atoms],
    ):
        self._trajectory, self.path = trajectory, restart_path(trajectory)
        self._structures = list(structures)
        start = hashlib.sha256("".join(map(hash_structure, structures)).encode()).hexdigest()
        self._run = {"settings": dict(settings), "start": start, "potential": hash_potential(potential)}
        self.group, self.size = 0, None
        self._header: dict[str, Any] = {}
        self._arrays: dict[str, Tensor] = {}
        self._done: list[StructureResult] = []
        self._pending: tuple[dict[str, Any], dict[str, Tensor], list[StructureResult]] | None = None
        self._version: tuple[int, int] | None = None
        self._written = monotonic()

    def read(self) -> bool:
        """Read the state of an earlier run; return whether there is one.

        Raises:
            FileNotFoundError: If there is a trajectory, but no restart file.
            ValueError: If the file is damaged, or of another run.
        """
        if not self.path.exists():
            if self._trajectory.exists():
                raise FileNotFoundError(
                    f"{self.path}: no such file, and without it {self._trajectory.name} cannot be continued; "
                    "begin a new run from its last frames"
                )
            return False
        self._version = file_version(self.path)
        header, arrays = checkpoint.read(self.path, BATCHED_KIND)
        try:
            known = {name: header[name] for name in self._run}
            group, self.size = int(header["group"]), int(header["size"])
            if not all(bool(each.isfinite().all()) for each in arrays.values() if each.is_floating_point()):
                raise ValueError("numbers must be finite")
            self._done = self._results(header["done"], _within(arrays, "done"))
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise ValueError(f"{self.path}: is damaged ({error}); begin a new run") from None
        self._check(known)
        if "state" not in header:  # it had no frame yet
            return False
        self.group, self._header, self._arrays = group, header, arrays
        return True

    def _check(self, known: Mapping[str, Any]) -> None:
        for name, value in self._run["settings"].items():
            earlier = known["settings"].get(name)
            if earlier != value:
                raise ValueError(
                    f"`{name}` must be {str(earlier)[:80]} as in the run of {self.path} to "
                    f"resume it, got {value}"
                )
        for name, what in (("start", "structures"), ("potential", "potential")):
            if known[name] != self._run[name]:
                raise ValueError(
                    f"the {what} must be those with which the run of {self.path} began to resume it, got "
                    "others; begin a new run"
                )

    def begin(self, resumes: bool) -> None:
        """Check that no other process continued the run, or write that a new one begins.

        Args:
            resumes: Whether the run continues. The trajectory must be locked.

        Raises:
            FileExistsError: If the file changed since it was read.
        """
        if resumes and file_version(self.path) != self._version:
            raise FileExistsError(f"{self.path}: another process continued this run; resume again")
        remove_leftovers(self.path)
        if not resumes:
            checkpoint.write(
                os.fspath(self.path), BATCHED_KIND, self._run | {"group": 0, "size": 0, "done": []}, {}
            )

    def restore(self, integrator: BatchedIntegrator) -> int:
        """Set the state of the present group, if it was read; return its step, 0 if the group begins.

        Raises:
            ValueError: If the file is damaged.
        """
        if "state" not in self._header:
            return 0
        header, self._header = self._header, {}
        try:
            stopped = self._results(header["stopped"], _within(self._arrays, "stopped"))
            integrator.restore(header["state"], _within(self._arrays, "state"), stopped)
            return int(header["step"])
        except (KeyError, TypeError, ValueError, IndexError, RuntimeError) as error:
            raise ValueError(f"{self.path}: is damaged ({error}); begin a new run") from None

    @property
    def done(self) -> list[StructureResult]:
        """Results of the groups before the present one."""
        return self._done

    def finish_group(self, results: list[StructureResult], file: TrajectoryFile) -> None:
        """Write the state of the present group, and add its results; the next group follows.

        Args:
            results: Results of the group.
            file: Trajectory.
        """
        self.flush(file)
        self._done = [*self._done, *results]
        self.group += 1

    def update(self, integrator: BatchedIntegrator, file: TrajectoryFile, step: int) -> None:
        """Keep the state of the present group, and write it if the file is old enough.

        Args:
            integrator: The group.
            file: Trajectory, with the frames of the step.
            step: Number of the step.
        """
        state, arrays = integrator.state()
        stopped = [result for _, result in sorted(integrator.results.items()) if result.stopped is not None]
        header = {"group": self.group, "step": step, "size": file.size, "state": state}
        self._pending = header, arrays, stopped
        if monotonic() - self._written >= MIN_PAUSE:
            self.flush(file)

    def flush(self, file: TrajectoryFile) -> None:
        """Write the state kept last, if it is not written yet.

        Args:
            file: Trajectory, whose frames up to the state must be on the disk before it.
        """
        if self._pending is None:
            return
        header, arrays, stopped = self._pending
        for name, results in (("done", self._done), ("stopped", stopped)):
            header[name] = [_numbers_of(result) for result in results]
        tensors = {f"state.{name}": values for name, values in arrays.items()}
        tensors |= _arrays_of("done", self._done) | _arrays_of("stopped", stopped)
        if file.frames is not None:
            file.frames.sync()
        checkpoint.write(os.fspath(self.path), BATCHED_KIND, self._run | header, tensors)
        self._pending, self._written = None, monotonic()

    def _results(
        self, numbers: Sequence[Mapping[str, Any]], arrays: Mapping[str, Tensor]
    ) -> list[StructureResult]:
        results, begin = [], 0
        for entry in numbers:
            frame = self._structures[entry["system"]].copy()
            rows = slice(begin, begin + len(frame))
            begin += len(frame)
            frame.positions = arrays["positions"][rows].numpy()
            frame = with_results(frame, float(entry["energy"]), arrays["forces"][rows].numpy())
            frame.set_momenta(arrays["momenta"][rows].numpy())
            frame.info |= {"system": entry["system"], "step": entry["step"]}
            results.append(StructureResult(frame, entry["stopped"], *(entry[name] for name in _NUMBERS)))
        return results


def _numbers_of(result: StructureResult) -> dict[str, Any]:
    frame = result.atoms
    found = {name: frame.info[name] for name in ("system", "step")}
    found |= {"energy": stored_results(frame)["energy"], "stopped": result.stopped}
    return found | {name: getattr(result, name) for name in _NUMBERS}


def _arrays_of(prefix: str, results: Sequence[StructureResult]) -> dict[str, Tensor]:
    """Return positions, momenta and forces of results, one structure after the other."""
    frames = [result.atoms for result in results]
    arrays = {
        "positions": [frame.positions for frame in frames],
        "momenta": [frame.get_momenta() for frame in frames],
        "forces": [stored_results(frame)["forces"] for frame in frames],
    }
    return {
        f"{prefix}.{name}": torch.from_numpy(np.concatenate(values))
        for name, values in arrays.items()
        if values
    }


def _within(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return the arrays whose names have a prefix, without it."""
    start = f"{prefix}."
    return {name.removeprefix(start): values for name, values in arrays.items() if name.startswith(start)}
