"""Lists of periodic structures in JSON, as pymatgen writes them: ``structure`` and ``outputs`` for each."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import atomic_numbers

from pyg_schnet.io.formats.frames import Frames
from pyg_schnet.io.formats.labels import Keys
from pyg_schnet.io.formats.records import Record, collect
from pyg_schnet.io.units import Units, conversion

_KBAR = conversion("kbar", "eV/Å^3")


def read(path: Path, keys: Keys, units: Units | None) -> Iterator[Frames]:
    """Read structures with their labels, in eV and Å.

    ``outputs.virial_stress`` has VASP's convention: six numbers in kbar, in the order xx yy zz xy yz xz,
    positive under compression. It is converted to the stress in eV/Å³, positive under tension.

    Args:
        path: The file.
        keys: Names of the labels in ``outputs``; recognized ones by default.
        units: ``None``, or eV and Å.

    Raises:
        ValueError: If the file is damaged or of another kind, or labels are missing.
    """
    if units not in (None, Units("eV")):
        raise ValueError(f"{path}: `units` must be eV and Å, the units of such files, got {units}")
    for frames in collect(_records(path), str(path), keys, Units("eV")):
        stress = frames.labels.get("stress", "").startswith("'virial_stress'")
        own = {"stress": "'virial_stress' (outputs, kbar, sign changed)"} if stress else {}
        yield replace(frames, labels=frames.labels | own)


def is_periodic(path: Path) -> bool:
    """Return ``True``: all structures have a lattice."""
    return True


def is_list(path: Path) -> bool:
    """Return whether a JSON file begins with a list; a database of ASE begins with an object."""
    with path.open("rb") as file:
        return file.read(64).lstrip()[:1] == b"["


def _records(path: Path) -> Iterator[Record]:
    try:
        entries = json.loads(path.read_bytes(), object_pairs_hook=_unique)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path}: is damaged ({error}); download or write it again") from None
    for number, entry in enumerate(entries):
        try:
            yield _record(entry)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            raise ValueError(
                f"{path}: frame {number} must have `structure` and `outputs` as pymatgen writes them "
                f"({type(error).__name__}: {str(error)[:80]}); convert the file, for example to extended xyz"
            ) from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Raise if a name occurs twice in an object; ``json`` would silently take the last value."""
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(name for name, times in Counter(name for name, _ in pairs).items() if times > 1)
        raise ValueError(f"an object has two entries {twice[:40]!r}")
    return found


def _record(entry: Mapping[str, Any]) -> Record:
    lattice = np.array(entry["structure"]["lattice"]["matrix"], dtype=np.float64).reshape(3, 3)
    sites = entry["structure"]["sites"]
    outputs = dict(entry["outputs"])
    if outputs.get("virial_stress") is not None:
        outputs["virial_stress"] = _stress(outputs["virial_stress"])
    return Record(
        numbers=np.array([_number(site["species"]) for site in sites]),
        positions=np.array([site["xyz"] for site in sites], dtype=np.float64).reshape(len(sites), 3),
        cell=lattice,
        pbc=np.ones(3, dtype=bool),
        sections={"outputs": outputs},
    )


def _number(species: list[Mapping[str, Any]]) -> int:
    if len(species) != 1 or species[0].get("occu", 1) != 1:
        raise ValueError(f"a site must hold one whole atom, got {species}")
    return atomic_numbers[species[0]["element"]]


def _stress(kbar: list[float]) -> np.ndarray:
    """Convert VASP's stress in kbar to ASE's as a matrix in eV/Å³."""
    xx, yy, zz, xy, yz, xz = (-_KBAR * float(value) for value in kbar)
    return np.array([[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]])
