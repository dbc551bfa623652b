"""Units that structures of ASE state beside their numbers, as ``units="Hartree, Bohr"`` in a header."""

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
_KEYS = {
    "units?": "",
    "(energy|energies)_units?": "energy",
    "(lengths?|distances?|positions?|pos|coordinates)_units?": "length",
    "(forces?)_units?": "forces",
    "(stress|stresses)_units?": "stress",
}
_SYSTEMS = {
    **dict.fromkeys(("atomic", "au", "a.u.", "atomic_unit", "atomic_units"), "Hartree, Bohr"),
    "metal": "eV, Å",
    "real": "kcal/mol, Å",
}


def stated_units(info: Mapping[str, Any]) -> Units | None:
    """Return the units that a structure's own information states; ``None`` where it states none.

    Recognised are ``units``, which reads as :meth:`~pyg_schnet.io.units.Units.parse` does, and
    ``energy_units``, ``length_units``, ``positions_units``, ``forces_units`` and ``stress_units``, in
    the singular too.

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
    """Return the units that the user gives, or else those that a file states; warn if they differ.

    Args:
        source: Named in the warning.
        given: What the user asks for.
        stated: Reads the units of the file; ``None`` where it states none.

    Raises:
        ValueError: If the user gives none, and a stated one is not known.
    """
    if given is None:
        return stated()
    try:
        own = stated()
    except ValueError:
        return given
    if own is not None and not own.agrees(given):
        _log.warning("%s: states units of %s; `units` says %s, which is used", source, own, given)
    return given


def require_angstrom(info: Mapping[str, Any]) -> None:
    """Check that a structure does not state that its positions are in another unit than Å.

    Raises:
        ValueError: If it does.
    """
    for name, value in info.items():
        if _quantity(name) in ("", "length") and isinstance(value, str):
            length = _parse(value).get("length", "Å")
            if LENGTH[length] != 1.0:
                raise ValueError(f"positions must be in Å, it states {name}={value[:_SHOWN]!r}; convert them")


def _quantity(name: str) -> str | None:
    """Return of which quantity a key states the unit, ``""`` for all, ``None`` where it states none."""
    low = name.lower()
    if "unit" not in low:
        return None
    return next((own for pattern, own in _KEYS.items() if re.fullmatch(pattern, low)), None)


def _parse(text: str) -> dict[str, str]:
    """Find the units in ``"Hartree, Bohr"``; nothing if one is not known, or there are two of a kind."""
    found: dict[str, str] = {}
    for word in re.split(r"\s*[,;]\s*|\s+", _SYSTEMS.get(text.strip().lower(), text).strip()):
        own = _unit(word)
        if not own or not found.keys().isdisjoint(own):
            return {}
        found |= own
    return found


def _unit(word: str) -> dict[str, str]:
    """Find of which quantity a word is the unit."""
    with suppress(ValueError):
        if (energy := Units.stated(word).energy) in ENERGY:
            return {"energy": energy}
    for field in ("length", "forces", "stress"):
        with suppress(ValueError):
            stated = asdict(Units.stated("eV", **{field: word}))
            return {field: stated[field] or {"forces": "eV/Å", "stress": "eV/Å^3"}[field]}
    return {}
