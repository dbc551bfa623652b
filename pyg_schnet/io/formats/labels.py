"""Labels: under which names files keep them, and which ones are meant."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from pyg_schnet.io.units import Units

_CHARGES = ("charge", "total_charge")  # names of the charge of a structure

# Names by kind, in the order of preference; each may follow a prefix of the level of theory.
_NAMES = {
    "energy": ("energy", "total_energy", "totenergy", "tot_energy", "potential_energy", "energies"),
    "forces": ("forces", "force", "atomic_forces", "total_forces", "total_force", "total_gradient"),
    "stress": ("stress", "virial_stress", "virial", "virials"),
}
_SHORT = {"energy": ("e", "u0"), "forces": ("f",), "stress": ()}
_LEVELS = ("", "ref_", "dft_", "qm_")
# What some places can hold; the others hold anything.
_KINDS = {"info": ("energy", "stress"), "key_value_pairs": ("energy", "stress"), "arrays": ("forces",)}


class Keys(NamedTuple):
    """Which labels the user asks for: a name, ``None`` for what is recognised, ``"none"`` for none."""

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None


@dataclass(frozen=True)
class Label:
    """One label of a structure.

    Attributes:
        place: Where it is kept, as ``"info"``; nothing where a file has one place only.
        name: Its name there.
    """

    place: str
    name: str

    def __str__(self) -> str:
        return f"'{self.name}' ({self.place})" if self.place else f"'{self.name}'"

    def of(self, places: Mapping[str, Mapping[str, Any]]) -> Any:
        """Look the label up; ``None`` where it is missing."""
        return places.get(self.place, {}).get(self.name)


class Labels(NamedTuple):
    """The labels that are read; ``None`` for those that are not."""

    energy: Label
    forces: Label | None
    stress: Label | None


@functools.lru_cache(maxsize=4096)
def level_of(name: str, kind: str) -> str | None:
    """Tell the level of theory that a name has in front.

    Args:
        name: As ``"REF_energy"``; upper and lower case are the same.
        kind: ``"energy"``, ``"forces"`` or ``"stress"``.

    Returns:
        As ``"ref_"`` or ``""``; ``None`` if it is no name of this kind, for instance ``"free_energy"``.
    """
    low = name.lower()
    if low in _SHORT[kind]:
        return ""
    found = (x for x in _LEVELS if low.startswith(x) and low[len(x) :] in _NAMES[kind])
    return next(found, None)


def choose(places: Mapping[str, Mapping[str, Any]], keys: Keys, source: str) -> Labels:
    """Choose the labels by the first structure.

    Of equal energies the calculator's is named; different ones are a question. Forces and stress must belong
    to the same level of theory as the energy: ``REF_forces`` to ``REF_energy``, those of the calculator to
    its own.

    Args:
        places: What is kept, by place and name.
        keys: What the user asks for.
        source: Named in the messages.

    Raises:
        ValueError: If a name is not there, if no energy is recognised, or if it is not clear which is meant.
    """
    energy = _named(places, keys.energy, "energy", source) or _recognised(places, "energy", None, source)
    if energy is None:
        raise ValueError(
            f"{source}: has no energy that is recognised, but {listing(places)}; name it with `energy_key`"
        )
    level = level_of(energy.name, "energy")
    forces = _named(places, keys.forces, "forces", source)
    if keys.forces is None:
        forces = _recognised(places, "forces", level, source)
        foreign = next(_candidates(places, "forces"), None)
        if forces is None and foreign is not None:
            raise ValueError(
                f"{source}: has forces {foreign}, of which it is not clear whether they belong to the energy "
                f"{energy}; set `forces_key` to '{foreign.name}', or to 'none'"
            )
    stress = _named(places, keys.stress, "stress", source)
    if keys.stress is None:
        stress = next((x for x in _candidates(places, "stress") if level_of(x.name, "stress") == level), None)
    return Labels(energy, forces, stress)


def appears(places: Mapping[str, Mapping[str, Any]], kind: str, energy: Label) -> bool:
    """Tell whether a structure has a label that :func:`choose` would take."""
    level = level_of(energy.name, "energy")
    return any(level_of(label.name, kind) == level for label in _candidates(places, kind))


def describe(labels: Labels, units: Units) -> dict[str, str]:
    """Say from where each label is taken and in which unit, as ``{"energy": "'E' (kcal/mol)"}``."""
    force = f"{units.energy}/{units.length}"
    unit = {
        "energy": units.energy,
        "forces": units.forces or force,
        "stress": units.stress or f"{force}^3",
    }
    texts = {}
    for kind, label in labels._asdict().items():
        if label is not None:
            notes = [label.place, units.energy if is_virial(label.name) else unit[kind]]
            notes += ["sign changed"] if is_gradient(label.name) or is_virial(label.name) else []
            texts[kind] = f"'{label.name}' ({', '.join(filter(None, notes))})"
    return texts


def is_gradient(name: str) -> bool:
    """Tell by its name whether an array is minus the forces, as SPICE's ``dft_total_gradient``."""
    return name.lower().endswith(("gradient", "gradients"))


def is_virial(name: str) -> bool:
    """Tell by its name whether a matrix is a virial: minus the stress times the volume, an energy."""
    return name.lower().endswith(("virial", "virials"))


def listing(places: Mapping[str, Mapping[str, Any]]) -> str:
    """List what a structure holds, for messages; what is in no place has a description as its value."""
    texts = []
    for place, values in places.items():
        names = ", ".join(sorted(values[name] if not place else f"'{name}'" for name in values))
        texts += [f"{place}: {names}" if place else names] if names else []
    return "; ".join(texts) or "nothing that could be one"


def _named(places: Mapping[str, Mapping[str, Any]], name: str | None, kind: str, source: str) -> Label | None:
    if name is None or (name == "none" and kind != "energy"):
        return None
    for place, values in places.items():
        if name in values:
            return Label(place, name)
    raise ValueError(
        f"{source}: has no {kind} '{name}', but {listing(places)}; choose another with `{kind}_key`"
    )


def _recognised(
    places: Mapping[str, Mapping[str, Any]], kind: str, level: str | None, source: str
) -> Label | None:
    """Find the label of a kind; of any level of theory where this is the energy."""
    found = list(_candidates(places, kind))
    if kind != "energy":
        found = [label for label in found if level_of(label.name, kind) == level]
    if len(found) < 2:
        return found[0] if found else None
    values = [np.asarray(label.of(places)) for label in found]
    if any(not np.array_equal(values[0], other) for other in values):
        raise ValueError(
            f"{source}: has several that could be {kind}, {', '.join(map(str, found))}; choose with "
            f"`{kind}_key`"
        )
    return found[0]


def _candidates(places: Mapping[str, Mapping[str, Any]], kind: str) -> Iterator[Label]:
    """Give the labels of a kind that are recognised, the calculator's and the most usual names first."""
    for place, values in places.items():
        if place == "calculator":
            if kind in values:
                yield Label(place, kind)
        elif kind in _KINDS.get(place, _NAMES):
            ranks = {name: _rank(name, kind) for name in values if isinstance(name, str)}
            known = [name for name, rank in ranks.items() if rank is not None]
            yield from (Label(place, name) for name in sorted(known, key=lambda name: _rank(name, kind) or 0))


def _rank(name: str, kind: str) -> int | None:
    level = level_of(name, kind)
    if level is None:
        return None
    names = (*_NAMES[kind], *_SHORT[kind])
    return len(names) * _LEVELS.index(level) + names.index(name.lower()[len(level) :])


def charge_of(values: Mapping[str, Any]) -> float:
    """Return the total charge of a structure, in elementary charges; 0 where there is none.

    Args:
        values: By name, as ``atoms.info``.
    """
    for name in _CHARGES:
        value = values.get(name)
        if isinstance(value, (int, float, np.number, np.ndarray)) and np.size(value) == 1:
            return float(np.asarray(value).item())
    return 0.0
