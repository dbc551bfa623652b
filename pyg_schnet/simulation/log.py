"""The log of a run: a table that grows with it."""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from pyg_schnet.simulation.growing_file import GrowingFile

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


class RunLog:
    """A CSV file with a row for each frame, complete after each; it opens with the first.

    Args:
        path: Where to; ``None`` writes nothing.
        overwrite: Whether a file that is there may be replaced.
        after: The step to go on from: rows up to it are kept, those after it go.

    Raises:
        FileExistsError: If there is such a file, and it is not gone on with.
        FileNotFoundError: If there is no such folder.
        ValueError: If it is not a log of this program that is gone on with.
    """

    def __init__(self, path: str | os.PathLike | None, overwrite: bool = False, after: int | None = None):
        self.path = None if path is None else Path(path)
        self._file: GrowingFile | None = None
        self._kept = 0  # bytes
        if self.path is None:
            return
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"`log` must be in a folder that exists; create {self.path.parent}")
        if not self.path.exists():
            return
        if after is not None:
            self._kept = _length(self.path, after)
        elif not overwrite:
            raise FileExistsError(
                f"{self.path} exists; choose another name, or replace it with overwrite=True (--overwrite)"
            )

    def write(self, **values: float | None) -> None:
        """Append a row; what is not given stays empty."""
        if self.path is None:
            return
        if self._file is None:
            self._file = GrowingFile(self.path, self._kept)
            if not self._kept:
                self._file.append(_HEADER)
        cells = ((values.get(name), form) for name, form in COLUMNS.items())
        row = ",".join("" if value is None else format(value, form) for value, form in cells)
        self._file.append(row + "\n")

    def __enter__(self) -> RunLog:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            self._file.close()


def _length(path: Path, after: int) -> int:
    """Count the bytes of the header and the rows up to a step; the last row may be broken off."""
    header, *rows = path.read_text(encoding="utf-8").splitlines(keepends=True) or [""]
    if _HEADER.startswith(header) and not rows and not header.endswith("\n"):
        return 0  # the header itself was broken off
    if header != _HEADER:
        raise ValueError(f"{path}: must be the log of the run to resume, got another file; name another")
    whole = [row for row in rows if row.endswith("\n")]
    return len(header + "".join(row for row in whole if int(row.split(",")[0]) <= after))
