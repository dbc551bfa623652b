"""The log of a run: a table that grows with it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from pyg_schnet.io.append_only import AppendOnlyFile
from pyg_schnet.io.locks import FileLock
from pyg_schnet.io.outputs import check_appendable, check_replaceable

COLUMNS = {
    "step": "d",
    "time_ps": ".6f",  # to a thousandth of a fs, however long the run
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


class RunLog:
    """A CSV file with a row for each frame, complete after each; it opens with the first.

    Args:
        path: Where to; ``None`` writes nothing.
        overwrite: Whether a log that is there may be replaced; another file never is.
        after: The step to go on from: rows up to it are kept, those after it go.
        energy: The potential energy at that step in eV, which the log must have, too.

    Raises:
        FileExistsError: If there is such a file, and it is not gone on with, or is not a log, or if another
            process is writing it.
        FileNotFoundError: If there is no such folder.
        ValueError: If what is gone on with is not the log of the run up to that step.
    """

    def __init__(
        self,
        path: str | os.PathLike | None,
        overwrite: bool = False,
        after: int | None = None,
        energy: float | None = None,
    ):
        self.path = None if path is None else Path(path)
        self._file: AppendOnlyFile | None = None
        self._kept = 0  # bytes
        self._overwrite, self._after, self._energy = overwrite, after, energy
        if self.path is None:
            return
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"`log` must be in a folder that exists; create {self.path.parent}")
        self._lock = FileLock(self.path)
        self._check()

    def _check(self) -> None:
        """Raise if what is there must stay, or cannot be gone on with."""
        assert self.path is not None
        check_replaceable(self.path)
        if not self.path.exists():
            return
        if self._after is not None:
            check_appendable(self.path)
            self._kept = _length(self.path, self._after, self._energy)
        elif not self._overwrite:
            raise FileExistsError(
                f"{self.path} exists; choose another name, or replace it with overwrite=True (--overwrite)"
            )
        elif not _is_log(self.path):
            raise FileExistsError(
                f"{self.path}: is not a log of molecular dynamics, so it is not overwritten; choose another "
                "name, or remove it"
            )

    def write(self, **values: float | None) -> None:
        """Append a row; what is not given stays empty."""
        if self.path is None:
            return
        if self._file is None:
            self._file = AppendOnlyFile(self.path, self._kept)
            if not self._kept:
                self._file.append(_HEADER)
        cells = ((values.get(name), form) for name, form in COLUMNS.items())
        row = ",".join("" if value is None else format(value, form) for value, form in cells)
        self._file.append(row + "\n")

    def __enter__(self) -> RunLog:
        if self.path is not None:
            self._lock.acquire()
            try:
                self._check()  # again: another process may just have written it
            except BaseException:
                self._lock.release()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()
        if self.path is not None:
            self._lock.release()


def _is_log(path: Path) -> bool:
    """Return whether a file begins as logs do; those of earlier versions may have other columns."""
    with path.open("rb") as file:
        start = file.read(len(_HEADER))
    return _HEADER.encode().startswith(start) or start.startswith(b"step,time_ps,")


def _length(path: Path, after: int, energy: float | None) -> int:
    """Count the bytes of the header and of the rows up to a step; what follows may be broken off.

    Raises:
        ValueError: If they are not those of one run: a row is broken, or missing, or has another energy.
    """
    header, *rows = path.read_bytes().splitlines(keepends=True) or [b""]
    if after < 0 and _HEADER.encode().startswith(header) and not rows and not header.endswith(b"\n"):
        return 0  # the header itself was broken off, before any row
    if header != _HEADER.encode():
        raise ValueError(f"{path}: must be the log of the run to resume, got another file; name another")
    size, last = len(header), -1
    for number, row in enumerate(rows, start=2):
        if last >= after:
            break
        cells = _cells(row)
        if cells is None or not last < cells["step"] <= after:
            raise ValueError(
                f"{path}: must hold the rows of the run to resume up to step {after}, and line "
                f"{number} is broken or of another run; mend it or move it away"
            )
        found = cells["potential_eV"]
        if cells["step"] == after and energy is not None and not abs(found - energy) <= _ROUNDING:
            raise ValueError(
                f"{path}: must be the log of the run to resume, whose energy at step {after} was "
                f"{energy:.8f} eV, got {found:.8f} eV; move it away or name another"
            )
        size, last = size + len(row), int(cells["step"])
    if last < after:
        raise ValueError(
            f"{path}: must hold the rows of the run to resume up to step {after}, got those up to step "
            f"{last}; mend it or move it away"
        )
    return size


def _cells(row: bytes) -> dict[str, float] | None:
    """Read a row, whose cells may be empty but for the step; ``None`` if it is none."""
    cells = row.decode(errors="replace").removesuffix("\n").split(",")
    if not row.endswith(b"\n") or len(cells) != len(COLUMNS) or not cells[0].isdecimal():
        return None
    try:
        return {name: float(cell or "nan") for name, cell in zip(COLUMNS, cells, strict=True)}
    except ValueError:
        return None
