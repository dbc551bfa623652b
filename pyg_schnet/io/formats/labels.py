"""Labels: the names under which files keep energy, forces and stress, and the choice among them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np

from pyg_schnet.io.units import Units

# Values of one structure that may be labels, by section ("calculator", "info", …) and name. A file without
# sections has the section "", in which a name maps to its description.
Sections: TypeAlias = Mapping[str, Mapping[str, Any]]

_CHARGES = ("charge", "total_charge")  # names of the charge of a structure

# Names by kind, in order of preference; a prefix may name the level of theory.
NAMES = {
    "energy": ("energy", "total_energy", "totenergy", "tot_energy", "potential_energy", "energies"),
    "forces": (
        *("forces", "force", "atomic_forces", "total_forces", "total_force"),
        *("total_gradient", "gradient", "gradients"),
    ),
    "stress": ("stress", "virial_stress", "virial", "virials"),
}
SHORT_NAMES = {"energy": ("e", "u0"), "forces": ("f",), "stress": ()}
LEVELS = ("", "ref_", "dft_", "qm_")
# Kinds of labels that a section can hold; sections that are not listed can hold all.
_KINDS = {"info": ("energy", "stress"), "key_value_pairs": ("energy", "stress"), "arrays": ("forces",)}


class Keys(NamedTuple):
    """Names of the labels to read.

    Attributes:
        energy: Name of the energies in the file; ``None`` for a recognized name, ``"none"`` to read no
            energies, forces and stresses.
        forces: Name of the forces; ``None`` for those of the same level of theory as the energies, ``"none"``
            to read no forces.
        stress: Name of the stresses or virials; ``None`` and ``"none"`` as for forces.
        properties: Names of further values of structures or atoms.
    """

    energy: str | None = None
    forces: str | None = None
    stress: str | None = None
    properties: tuple[str, ...] = ()

    def check(self) -> None:
        """Check that forces and stresses are read with energies only.

        Raises:
            ValueError: If they are named, and the energies are ``"none"``.
        """
        for kind in ("forces", "stress"):
            if self.energy == "none" and (name := getattr(self, kind)) not in (None, "none"):
                raise ValueError(
                    f"`{kind}_key` must be left out where `energy_key` is 'none', got '{name}'; {kind} are "
                    "read together with energies"
                )


@dataclass(frozen=True)
class Label:
    """Name of a label in a file.

    Attributes:
        section: Section that holds it, for instance ``"info"``; empty in files without sections.
        name: Name in the section.
    """

    section: str
    name: str

    def __str__(self) -> str:
        return f"'{self.name}' ({self.section})" if self.section else f"'{self.name}'"

    def value(self, sections: Sections) -> Any:
        """Return the value of the label in a structure; ``None`` if it is missing."""
        return sections.get(self.section, {}).get(self.name)


class Labels(NamedTuple):
    """The chosen labels; ``None`` for kinds that are not read."""

    energy: Label | None
    forces: Label | None
    stress: Label | None


class Factors(NamedTuple):
    """Factors from the numbers of a file to eV, eV/Å and eV/Å³.

    Attributes:
        energy: Factor of energies.
        forces: Factor of forces; negative for a gradient.
        stress: Factor of stresses, or of virials divided by the volume; negative for a virial.
    """

    energy: float
    forces: float
    stress: float


@functools.lru_cache(maxsize=4096)
def level_of(name: str, kind: str) -> str | None:
    """Return the prefix of a label name that states the level of theory.

    Args:
        name: Name of a label, for instance ``"REF_energy"``; the case is ignored.
        kind: ``"energy"``, ``"forces"`` or ``"stress"``.

    Returns:
        The prefix in lower case, for instance ``"ref_"`` or ``""``; ``None`` if the name is unknown for this
        kind, for instance ``"free_energy"``.
    """
    low = name.lower()
    if low in SHORT_NAMES[kind]:
        return ""
    found = (x for x in LEVELS if low.startswith(x) and low[len(x) :] in NAMES[kind])
    return next(found, None)


def choose(sections: Sections, keys: Keys, source: str) -> Labels:
    """Choose the labels to read, from the values of one structure.

    Of several equal energies the calculator's is taken; different ones are ambiguous. Forces and stress must
    have the level of theory of the energy: ``REF_forces`` belong to ``REF_energy``, and those of the
    calculator to its own energy.

    Args:
        sections: Values of the structure, by section and name.
        keys: Requested names.
        source: Name of the file, for error messages.

    Raises:
        ValueError: If a requested name is missing, no energy is recognized, or the choice is ambiguous.
    """
    keys.check()
    if keys.energy == "none":
        return Labels(None, None, None)
    energy = _requested(sections, keys.energy, "energy", source) or _recognized_energy(sections, source)
    level = level_of(energy.name, "energy")
    forces = _requested(sections, keys.forces, "forces", source)
    if keys.forces is None:
        forces = _recognized(sections, "forces", level, source)
        foreign = next(_candidates(sections, "forces"), None)
        if forces is None and foreign is not None:
            raise ValueError(
                f"{source}: has forces {foreign}, which may not belong to the energy {energy}; set "
                f"`forces_key` to '{foreign.name}', or to 'none'"
            )
    stress = _requested(sections, keys.stress, "stress", source)
    if keys.stress is None:
        candidates = _candidates(sections, "stress")
        stress = next((label for label in candidates if level_of(label.name, "stress") == level), None)
    return Labels(energy, forces, stress)


def appears(sections: Sections, kind: str, energy: Label) -> bool:
    """Return whether a structure has a label that :func:`choose` would take."""
    level = level_of(energy.name, "energy")
    return any(level_of(label.name, kind) == level for label in _candidates(sections, kind))


def factors(labels: Labels, units: Units) -> Factors:
    """Return the factors from labels in the units of a file to eV, eV/Å and eV/Å³, with their sign."""
    energy, length = units.energy_in_eV, units.length_in_angstrom
    forces, stress = units.forces_in_eV_per_angstrom, units.stress_in_eV_per_cubic_angstrom
    if labels.forces is not None and is_gradient(labels.forces.name):
        forces = -forces
    if labels.stress is not None and is_virial(labels.stress.name):
        stress = -energy / length**3
    return Factors(energy, forces, stress)


def describe(labels: Labels, units: Units) -> dict[str, str]:
    """Return source and unit of each label, for instance ``{"energy": "'E' (kcal/mol)"}``."""
    force = f"{units.energy}/{units.length}"
    unit = {
        "energy": units.energy,
        "forces": units.forces or force,
        "stress": units.stress or f"{force}^3",
    }
    texts = {}
    for kind, label in labels._asdict().items():
        if label is not None:
            notes = [label.section, units.energy if is_virial(label.name) else unit[kind]]
            notes += ["sign changed"] if is_gradient(label.name) or is_virial(label.name) else []
            texts[kind] = f"'{label.name}' ({', '.join(filter(None, notes))})"
    return texts


def is_gradient(name: str) -> bool:
    """Return whether an array holds minus the forces by its name, such as SPICE's ``dft_total_gradient``."""
    return name.lower().endswith(("gradient", "gradients"))


def is_virial(name: str) -> bool:
    """Return whether a matrix is a virial by its name: minus the stress times the volume, an energy."""
    return name.lower().endswith(("virial", "virials"))


def listing(sections: Sections) -> str:
    """List the names in a structure, for error messages."""
    texts = []
    for section, values in sections.items():
        names = ", ".join(sorted(values[name] if not section else f"'{name}'" for name in values))
        texts += [f"{section}: {names}" if section else names] if names else []
    return "; ".join(texts) or "nothing that could be one"


def charge_of(values: Mapping[str, Any]) -> float:
    """Return the total charge of a structure in elementary charges; 0 if none is stated.

    Args:
        values: Values by name, for instance ``atoms.info``.
    """
    for name in _CHARGES:
        value = values.get(name)
        if isinstance(value, (int, float, np.number, np.ndarray)) and np.size(value) == 1:
            return float(np.asarray(value).item())
    return 0.0


def _requested(sections: Sections, name: str | None, kind: str, source: str) -> Label | None:
    if name in (None, "none"):
        return None
    for section, values in sections.items():
        if name in values:
            return Label(section, name)
    raise ValueError(
        f"{source}: has no {kind} '{name}', but {listing(sections)}; choose another with `{kind}_key`"
    )


def _recognized_energy(sections: Sections, source: str) -> Label:
    energy = _recognized(sections, "energy", None, source)
    if energy is None:
        raise ValueError(
            f"{source}: has no energy that is recognized, but {listing(sections)}; name it with `energy_key` "
            "('none' reads no energies)"
        )
    return energy


def _recognized(sections: Sections, kind: str, level: str | None, source: str) -> Label | None:
    """Return the recognized label of a kind: an energy of any level of theory, or forces of this one."""
    found = list(_candidates(sections, kind))
    if kind != "energy":
        found = [label for label in found if level_of(label.name, kind) == level]
        found = [label for label in found if not is_gradient(label.name)] or found
    if len(found) < 2:
        return found[0] if found else None
    values = [np.asarray(label.value(sections)) for label in found]
    if any(not np.array_equal(values[0], other) for other in values):
        raise ValueError(
            f"{source}: has several that could be {kind}, {', '.join(map(str, found))}; choose with "
            f"`{kind}_key`"
        )
    return found[0]


def _candidates(sections: Sections, kind: str) -> Iterator[Label]:
    """Yield the recognized labels of a kind: the calculator's first, then by preference of the name."""
    for section, values in sections.items():
        if section == "calculator":
            if kind in values:
                yield Label(section, kind)
        elif kind in _KINDS.get(section, NAMES):
            ranks = {name: _rank(name, kind) for name in values if isinstance(name, str)}
            known = [name for name, rank in ranks.items() if rank is not None]
            yield from (Label(section, name) for name in sorted(known, key=lambda name: ranks[name] or 0))


def _rank(name: str, kind: str) -> int | None:
    level = level_of(name, kind)
    if level is None:
        return None
    names = (*NAMES[kind], *SHORT_NAMES[kind])
    return len(names) * LEVELS.index(level) + names.index(name.lower()[len(level) :])
