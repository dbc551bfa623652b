"""Structures that functions take and return: one, several, or those of a file."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias, overload

from ase import Atoms
from ase.io.formats import filetype

from pyg_schnet.datasets.structure_file import StructureFile
from pyg_schnet.io.outputs import check_output, check_stores_many
from pyg_schnet.potentials.training_domain import TrainingDomain
from pyg_schnet.prediction.export import encode, export
from pyg_schnet.prediction.partial_output import Reasons
from pyg_schnet.prediction.run import out_of_domain_reason, with_number, without_results

Structures: TypeAlias = Atoms | Sequence[Atoms] | str | os.PathLike


class PredictionFile(Sequence[Atoms]):
    """Structures with results in a file, which are read when they are needed.

    Args:
        path: The file.
        count: Number of structures in it.
        earlier: Number of those that an earlier run computed.
        seconds: Duration of the run in seconds.
        rejected: Structures of the input without results, with reasons.
        outside: Structures outside the training domain of the model, with reasons.
        was_complete: Whether all structures had results before.
        units: Units of what the model predicts, by name.
    """

    def __init__(
        self,
        path: Path,
        count: int,
        earlier: int,
        seconds: float,
        rejected: Reasons,
        outside: Reasons,
        was_complete: bool,
        units: Mapping[str, str],
    ):
        self.path, self.earlier, self.seconds = path, earlier, seconds
        self.rejected, self.outside, self.was_complete = rejected, outside, was_complete
        self.units, self._count = dict(units), count

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Atoms]:
        return (atoms for _, atoms in StructureFile(str(self.path)))

    @overload
    def __getitem__(self, index: int) -> Atoms: ...
    @overload
    def __getitem__(self, index: slice) -> list[Atoms]: ...
    def __getitem__(self, index: int | slice) -> Atoms | list[Atoms]:
        if isinstance(index, slice):
            return list(self)[index]
        return next(StructureFile(str(self.path)).read([range(len(self))[index]]))[1]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self.path)!r}, {len(self):,} structures)"


def read_structures(structures: Structures, index: int | str) -> tuple[list[Atoms], bool]:
    """Return copies of structures without results of earlier runs, and whether one was asked for by itself.

    Args:
        structures: A structure, a list of them, or a file.
        index: Number of a structure in the file, or a slice of several.

    Raises:
        TypeError: If ``structures`` is something else.
        ValueError: If a structure of the file cannot be read.
    """
    if isinstance(structures, str | os.PathLike):
        found = StructureFile(os.fspath(structures), str(index))
        return [with_number(atoms, number) for number, atoms in found], is_number(index)
    one = isinstance(structures, Atoms)
    several = [structures] if one else structures
    if not isinstance(several, list | tuple) or not all(isinstance(atoms, Atoms) for atoms in several):
        raise TypeError(
            f"`structures` must be an ase.Atoms, a list of them, or a file, got {type(structures).__name__}"
        )
    if not several:
        raise ValueError("`structures` must hold at least one ase.Atoms, got none")
    return [without_results(atoms.copy()) for atoms in several], one


def is_number(index: int | str) -> bool:
    """Return whether an index is that of one structure."""
    return not isinstance(index, str) or ":" not in index


def write_structures(frames: Sequence[Atoms], out: str) -> None:
    """Write structures with results to a file, which appears under its name when it is complete."""
    kind = filetype(out, read=False)
    export((encode(_copy(frame), kind) for frame in frames), Path(out), kind)


def _copy(frame: Atoms) -> Atoms:
    copy = frame.copy()
    copy.calc = frame.calc
    return copy


def check_written(out: str, overwrite: bool, several: bool) -> None:
    """Raise if structures could not be written to a file."""
    check_output(out, overwrite)
    if several:
        check_stores_many(out)


def warn_outside(reasons: Reasons) -> None:
    """Warn of structures outside the training domain of a model."""
    if reasons.total:
        number, reason = reasons.first[0]
        which = "1 structure is" if reasons.total == 1 else f"{reasons.total:,} structures are"
        warnings.warn(
            f"{which} outside the training domain of the model, and energies may be far off; the first is "
            f"{number}: {reason}",
            stacklevel=3,
        )


def reasons_outside(
    frames: Sequence[Atoms],
    domain: TrainingDomain | None,
    reason_of: Callable[[Atoms, TrainingDomain | None], str | None] = out_of_domain_reason,
) -> Reasons:
    """Return which structures are outside a training domain, and why.

    Args:
        frames: The structures.
        domain: The domain; ``None`` if it is unknown.
        reason_of: Returns how a structure is outside, if it is.
    """
    outside = []
    for number, frame in enumerate(frames):
        if reason := reason_of(frame, domain):
            outside.append((frame.info.get("input_frame", number), reason))
    return Reasons(outside, len(outside))
