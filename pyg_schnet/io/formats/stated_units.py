"""Units that structures of ASE state, as ``units="Hartree, Bohr"``, and the choice among given and stated."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import asdict
from typing import Any

from pyg_schnet.io.units import ENERGY, LENGTH, Units

_log = logging.getLogger(__name__)
_SHOWN = 60  # characters of a statement in a message
KEYS = {
    "units?": "",
    "(energy|energies)_units?": "energy",
    "(lengths?|distances?|positions?|pos|coordinates)_units?": "length",
    "(forces?)_units?": "forces",
    "(stress|stresses)_units?": "stress",
}
SYSTEMS = {
    **dict.fromkeys(("atomic", "au", "a.u.", "atomic_unit", "atomic_units"), "Hartree, Bohr"),
    "metal": "eV, Å",
    "real": "kcal/mol, Å",
}


def stated_units(info: Mapping[str, Any]) -> Units | None:
    """Return the units that the ``info`` of a structure states; ``None`` if it states none.

    Recognized keys are ``units``, in the notation of :meth:`~pyg_schnet.io.units.Units.parse`, and
    ``energy_units``, ``length_units``, ``positions_units``, ``forces_units`` and ``stress_units``, also in
    the singular.

    Raises:
        ValueError: If a unit is not known, or if one statement contradicts another.
    """
    found: dict[str, str] = {}
    for name, value in info.items():
        quantity = _quantity(name)
        if quantity is None or not isinstance(value, str):
            continue
        parts = _parse(value)
        own = parts if quantity == "" else {quantity: parts[quantity]} if quantity in parts else {}
        if not own:
            raise ValueError(
                f"it states {name[:_SHOWN]}={value[:_SHOWN]!r}, which is not known; set `units`, for example "
                '"kcal/mol" or "Hartree, Bohr"'
            )
        for field, unit in own.items():
            if found.setdefault(field, unit) != unit:
                raise ValueError(
                    f"it states two units of its {field}, {found[field]} and {unit}; set `units`"
                )
    return Units(found.pop("energy", "eV"), **found) if found else None


def chosen_units(source: str, given: Units | None, stated: Callable[[], Units | None]) -> Units | None:
    """Return the units that the user passes, else those that a file states; warn if they differ.

    Args:
        source: Name of the file, for the warning.
        given: Units that the user passes.
        stated: Function that reads the units of the file; it returns ``None`` if the file states none.

    Raises:
        ValueError: If the user passes none, and a stated unit is not known.
    """
    if given is None:
        return stated()
    try:
        own = stated()
    except ValueError:
        return given
    if own is not None and not own.agrees(given):
        _log.warning("%s: states units of %s; `units` is %s, which is used", source, own, given)
    return given


def require_angstrom(info: Mapping[str, Any]) -> None:
    """Raise if a structure states a unit of positions other than Å.

    Raises:
        ValueError: If it does.
    """
    for name, value in info.items():
        if _quantity(name) in ("", "length") and isinstance(value, str):
            length = _parse(value).get("length", "Å")
            if LENGTH[length] != 1.0:
                raise ValueError(f"positions must be in Å, got {name}={value[:_SHOWN]!r}; convert them")


def _quantity(name: str) -> str | None:
    """Return the quantity whose unit a key states: ``""`` for all, ``None`` if it states none."""
    low = name.lower()
    if "unit" not in low:
        return None
    return next((own for pattern, own in KEYS.items() if re.fullmatch(pattern, low)), None)


def _parse(text: str) -> dict[str, str]:
    """Return the units in a text such as ``"Hartree, Bohr"``; empty if one is unknown or given twice."""
    found: dict[str, str] = {}
    for word in re.split(r"\s*[,;]\s*|\s+", SYSTEMS.get(text.strip().lower(), text).strip()):
        own = _unit(word)
        if not own or not found.keys().isdisjoint(own):
            return {}
        found |= own
    return found


def _unit(word: str) -> dict[str, str]:
    """Return quantity and name of a unit; empty if it is unknown."""
    with suppress(ValueError):
        if (energy := Units.stated(word).energy) in ENERGY:
            return {"energy": energy}
    for field in ("length", "forces", "stress"):
        with suppress(ValueError):
            stated = asdict(Units.stated("eV", **{field: word}))
            return {field: stated[field] or {"forces": "eV/Å", "stress": "eV/Å^3"}[field]}
    return {}
