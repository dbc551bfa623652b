"""The record of a run: trajectory, log and restart file, which grow and continue together."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType

from ase import Atoms
from ase.md.md import MolecularDynamics

from pyg_schnet.io.append_only import AppendOnlyFile
from pyg_schnet.io.outputs import check_appendable, check_distinct
from pyg_schnet.simulation.integrators import MDSettings, conserved_energy, integrator_state
from pyg_schnet.simulation.restart import RestartFile
from pyg_schnet.simulation.statistics import Statistics
from pyg_schnet.simulation.trajectory import TrajectoryFile

COLUMNS = {
    "step": "d",
    "time_ps": ".6f",  # a thousandth of a fs, however long the run
    "potential_eV": ".8f",
    "kinetic_eV": ".8f",
    "total_eV": ".8f",
    "temperature_K": ".3f",
    "pressure_GPa": ".5f",
    "volume_A3": ".4f",
    "drift_meV_per_atom_ps": ".5f",
}
_HEADER = ",".join(COLUMNS) + "\n"
_ROUNDING = 2e-8  # eV, of an energy in a row


class Recorder:
    """The trajectory, log and restart file of a run, and its statistics.

    Within a ``with`` block the files are locked against other processes. A kill at any moment leaves files
    from which the run continues.

    Args:
        system: The initial structure with its calculator.
        settings: Settings of the run.
        trajectory: Path of the trajectory, see :class:`TrajectoryFile`; ``None`` writes none, and no restart
            file.
        log: Path of the log; ``None`` writes none.
        overwrite: Whether existing files may be replaced.
        resume: Whether to continue the run of ``trajectory``, if there is one.

    Attributes:
        resumed: The step from which the run continues; ``None`` for a new run.
        statistics: Statistics over all steps of the run so far.
        trajectory: The trajectory.
        log: The log, if there is one.

    Raises:
        FileExistsError: If a file exists, or is being written by another process.
        FileNotFoundError: If a folder or the restart file does not exist.
        ValueError: If the files are not those of this run, or two have the same name.
    """

    def __init__(
        self,
        system: Atoms,
        settings: MDSettings,
        trajectory: str | os.PathLike | None,
        log: str | os.PathLike | None,
        overwrite: bool = False,
        resume: bool = False,
    ):
        if resume and trajectory is None:
            raise ValueError("`resume` needs the `trajectory` to continue, got None")
        self._settings, self._atoms = settings, len(system)
        self._restart = None if trajectory is None else RestartFile(Path(trajectory), settings, system, log)
        self.resumed = point = None
        replaces, continues_log = overwrite, False
        if self._restart is not None and resume:
            replaces = overwrite or self._restart.path.exists()  # the run may have no frame yet
            self.resumed, continues_log = self._restart.read()
            point = self.resumed
        self.trajectory = TrajectoryFile(trajectory, replaces, None if point is None else point.size)
        step, energy = (-1, None) if point is None else (point.step, point.energy)
        # A log that does not belong to the run is never continued.
        self.log = None if log is None else RunLog(log, overwrite, step if continues_log else None, energy)
        self.statistics = Statistics() if point is None else point.statistics
        self._growing: list[AppendOnlyFile] = [
            file for file in (self.trajectory.frames, self.log) if file is not None
        ]
        self._check_distinct()
        self._locks = ExitStack()

    def _check_distinct(self) -> None:
        """Raise if two of the files have the same name."""
        files = {"trajectory": self.trajectory.path}
        if (frames := self.trajectory.frames) is not None and frames.path != self.trajectory.path:
            files["trajectory.extxyz"] = frames.path
        files["trajectory.restart"] = None if self._restart is None else self._restart.path
        files["log"] = None if self.log is None else self.log.path
        check_distinct({}, files)

    @property
    def drift(self) -> float | None:
        """Drift of the conserved energy in meV per atom and ps; ``None`` with a bath of noise."""
        if not self._settings.has_conserved_quantity:
            return None
        return self.statistics.drift(self._settings.timestep, self._atoms)

    @property
    def fluctuation(self) -> float | None:
        """Deviation of the conserved energy from its drift in meV per atom; ``None`` with a bath of noise."""
        return self.statistics.fluctuation(self._atoms) if self._settings.has_conserved_quantity else None

    def begin(self) -> None:
        """Mark the restart file as that of a new run, which has no frame yet."""
        if self._restart is not None:
            self._restart.begin()

    def record(self, frame: Atoms, values: dict[str, float], integrator: MolecularDynamics) -> None:
        """Add a step to the statistics and, every ``interval`` steps, to the files.

        Args:
            frame: The structure with its results and ``info["step"]``.
            values: The columns of the log that were measured.
            integrator: The integrator at this step.
        """
        step, settings = frame.info["step"], self._settings
        averaged = (values.get(name, 0.0) for name in ("temperature_K", "pressure_GPa", "volume_A3"))
        self.statistics.add(step, conserved_energy(integrator, values["total_eV"]), *averaged)
        if step % settings.interval:
            return
        self.trajectory.write(frame)
        if self.log is not None:
            time = step * settings.timestep / 1000
            self.log.write(step=step, time_ps=time, drift_meV_per_atom_ps=self.drift, **values)
        if self._restart is not None:
            self._restart.update(frame, self.trajectory.size, self.statistics, integrator_state(integrator))
            if self._restart.is_due:
                self._restart.flush(self._growing)

    def __enter__(self) -> Recorder:
        with ExitStack() as locks:
            locks.enter_context(self.trajectory)
            if self.log is not None:
                locks.enter_context(self.log)
            if self._restart is not None:
                self._restart.check_unchanged()
            self._locks = locks.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if self._restart is not None:
                self._restart.flush(self._growing)
        finally:
            self._locks.__exit__(kind, error, traceback)


class RunLog(AppendOnlyFile):
    """A CSV file with a row per frame.

    Args:
        path: The file.
        overwrite: Whether an existing log may be replaced; another file never is.
        after: Number of the step from which to continue: rows up to it are kept, the others removed.
        energy: The potential energy at that step in eV, which the log must hold, too.

    Raises:
        FileExistsError: If the file exists and is not continued, is not a log, or is being written by another
            process.
        FileNotFoundError: If the folder does not exist.
        ValueError: If the file to continue is not the log of the run up to that step.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        overwrite: bool = False,
        after: int | None = None,
        energy: float | None = None,
    ):
        self._after, self._energy = after, energy
        super().__init__(path, overwrite)

    def check(self) -> None:
        """Raise if the file can be neither created nor continued."""
        self._keep = None
        if self._after is not None and self.path.exists():
            check_appendable(self.path)
            self._keep = _length_up_to(self.path, self._after, self._energy)
        super().check()
        if self._keep is None and self.path.exists() and not _is_log(self.path):
            raise FileExistsError(
                f"{self.path}: is not a log of molecular dynamics, so it is not overwritten; choose another "
                "name, or remove it"
            )

    def write(self, **values: float | None) -> None:
        """Append a row; columns without a value stay empty."""
        cells = ((values.get(name), form) for name, form in COLUMNS.items())
        row = ",".join("" if value is None else format(value, form) for value, form in cells)
        self.append(("" if self.size else _HEADER) + row + "\n")


def read_log(path: str | os.PathLike) -> list[dict[str, float]]:
    """Read the rows of a log; NaN where a cell is empty. A row that is still being written is left out.

    Args:
        path: CSV file of :func:`~pyg_schnet.simulation.run_md` or ``pyg-schnet md``.

    Raises:
        FileNotFoundError: If it does not exist.
        ValueError: If it is not a log, or a row is not of numbers.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such log; `pyg-schnet md` writes it beside the trajectory")
    header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
    if header != _HEADER.encode():
        raise ValueError(f"{path}: must be the log of a run of `pyg-schnet md`, got another file")
    cells = [_parse_row(row) for row in rows if row.endswith(b"\n")]
    if None in cells:
        raise ValueError(
            f"{path}: must hold a number in each column, and line {cells.index(None) + 2} does not; correct "
            "the file"
        )
    return [row for row in cells if row is not None]


def _is_log(path: Path) -> bool:
    """Return whether a file begins as logs do; those of earlier versions may have other columns."""
    with path.open("rb") as file:
        start = file.read(len(_HEADER))
    return _HEADER.encode().startswith(start) or start.startswith(b"step,time_ps,")


def _length_up_to(path: Path, step: int, energy: float | None) -> int:
    """Count the bytes of the header and of the rows up to a step; what follows may be incomplete.

    Raises:
        ValueError: If a row is incomplete, absent or of another run, or has another energy in eV at the step.
    """
    header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
    if step < 0 and _HEADER.encode().startswith(header) and not rows and not header.endswith(b"\n"):
        return 0  # a kill interrupted the header, before any row
    if header != _HEADER.encode():
        raise ValueError(f"{path}: must be the log of the run to resume, got another file; name another")
    size, last = len(header), -1
    for number, row in enumerate(rows, start=2):
        if last >= step:
            break
        cells = _parse_row(row)
        if cells is None or not last < cells["step"] <= step:
            raise ValueError(
                f"{path}: must hold the rows of the run to resume up to step {step}, and line {number} is "
                "broken or of another run; correct the file or move it away"
            )
        found = cells["potential_eV"]
        if cells["step"] == step and energy is not None and not abs(found - energy) <= _ROUNDING:
            raise ValueError(
                f"{path}: must be the log of the run to resume, whose energy at step {step} was "
                f"{energy:.8f} eV, got {found:.8f} eV; move it away or name another"
            )
        size, last = size + len(row), int(cells["step"])
    if last < step:
        raise ValueError(
            f"{path}: must hold the rows of the run to resume up to step {step}, got those up to step "
            f"{last}; correct the file or move it away"
        )
    return size


def _parse_row(row: bytes) -> dict[str, float] | None:
    """Return the cells of a row, NaN where they are empty; ``None`` if it is no complete row."""
    cells = row.decode(errors="replace").removesuffix("\n").split(",")
    if not row.endswith(b"\n") or len(cells) != len(COLUMNS) or not cells[0].isdecimal():
        return None
    try:
        return {name: float(cell or "nan") for name, cell in zip(COLUMNS, cells, strict=True)}
    except ValueError:
        return None
