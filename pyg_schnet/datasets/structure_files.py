"""Structures in any format of ASE, from files that may be damaged or hostile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from ase import Atoms
from ase.io import iread
from ase.io.formats import UnknownFileTypeError, filetype, ioformats
from ase.spacegroup.spacegroup import SpacegroupError

from pyg_schnet.datasets.ase_files import FAILURES, read_extxyz, shortened
from pyg_schnet.datasets.compression import COMPRESSED, check_unpacked
from pyg_schnet.datasets.stated_units import require_angstrom

# Formats of ASE whose readers ask servers, or open other files that the first one names: devices, too.
_LEADING_ELSEWHERE = frozenset(
    {
        *("acemolecule-input", "acemolecule-out", "bundletrajectory", "elk", "eon", "mysql", "onetep-in"),
        *("postgresql", "struct", "xtd"),
    }
)


def read_structures(path: Path) -> Iterator[Atoms]:
    """Read structures one by one, without labels where ASE recognises none.

    Extended xyz and trajectories stream. Nothing but the file itself is read.

    Args:
        path: A file in a format of ASE, which its ending or its beginning tells.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no regular file, of a format that leads elsewhere, or damaged; the message says
            in which structure, counted from 0.
    """
    kind = check_kind(path)
    number = 0
    try:
        if kind == "extxyz":
            frames: Iterator[Any] = read_extxyz(path)
        else:
            frames = cast(Any, iread(path, index=":", format=kind, do_not_split_by_at_sign=True))
        for atoms in frames:
            if isinstance(atoms, Atoms):
                require_angstrom(atoms.info)
                yield atoms
                number += 1
    except (SpacegroupError, *FAILURES) as error:
        raise ValueError(
            f"{path}: frame {number}, counted from 0, cannot be read ({shortened(error)}); repair the file"
        ) from None


def check_kind(path: Path) -> str:
    """Tell the format of a file by ASE's name, or refuse it; see :func:`read_structures`."""
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give one with structures")
    if not path.is_file():  # a pipe or a device may have no end
        raise ValueError(f"{path}: must be a file with structures, got a folder, pipe or device")
    if not (path.suffix.lower() in COMPRESSED and path.stem.lower().endswith((".xyz", ".extxyz"))):
        check_unpacked(path)  # extended xyz streams
    try:
        kind = filetype(str(path.absolute()))  # else names as postgres.xyz would be servers' addresses
    except (UnknownFileTypeError, *FAILURES) as error:
        raise ValueError(
            f"{path}: ASE cannot read it ({shortened(error)}); its ending must tell its format"
        ) from None
    if kind not in ioformats or not ioformats[kind].can_read:
        raise ValueError(
            f"{path}: ASE cannot read it ('{kind[:40]}' is no format that it reads); its ending must "
            "tell its format"
        )
    if kind in _LEADING_ELSEWHERE:
        raise ValueError(
            f"{path}: must hold its structures itself, got '{kind}', whose reader opens other files or asks "
            "a server; convert it to extended xyz where you trust it"
        )
    return "extxyz" if kind == "xyz" else kind
