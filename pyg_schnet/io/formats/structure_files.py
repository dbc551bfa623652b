"""Formats of ASE, of files that may be damaged or hostile."""

from __future__ import annotations

from pathlib import Path

from ase.io.formats import UnknownFileTypeError, filetype, ioformats

from pyg_schnet.io.compression import COMPRESSED, check_unpacked
from pyg_schnet.io.formats.ase import FAILURES, is_runner_data, shortened

# Formats of ASE whose readers ask servers, or open other files that the first one names: devices, too.
_LEADING_ELSEWHERE = frozenset(
    {
        *("acemolecule-input", "acemolecule-out", "bundletrajectory", "elk", "eon", "mysql", "onetep-in"),
        *("postgresql", "struct", "xtd"),
    }
)


def check_kind(path: Path) -> str:
    """Return the format of a file by ASE's name.

    Raises:
        FileNotFoundError: If there is no such file.
        ValueError: If it is no regular file, of no format that ASE reads, or of one that leads elsewhere.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file; give one with structures")
    if not path.is_file():  # a pipe or a device may have no end
        raise ValueError(f"{path}: must be a file with structures, got a folder, pipe or device")
    if not (path.suffix.lower() in COMPRESSED and path.stem.lower().endswith((".xyz", ".extxyz"))):
        check_unpacked(path)  # extended xyz streams
    if is_runner_data(path):
        return "runnerdata"
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
