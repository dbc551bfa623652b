"""Layouts of npz and HDF5 files: which arrays hold what, in which units."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from pyg_schnet.io.formats.labels import Keys, Labels, choose
from pyg_schnet.io.units import Units

NUMBERS = ("z", "nuclear_charges", "atomic_numbers", "numbers", "species", "Z")
POSITIONS = ("R", "coords", "coordinates", "positions", "pos", "xyz", "conformations", "geometry")


@dataclass(frozen=True)
class Layout:
    """The names of a file's arrays, and the units that they imply.

    Attributes:
        numbers: Name of the atomic numbers.
        positions: Name of the positions.
        partners: Names of energies with those of the forces that belong to them, empty where there are none;
            the first that is there by default.
        units: Of positions and labels; ``None`` where the names do not tell.
        has_gaps: Whether NaN stands for what was not computed.
    """

    numbers: str
    positions: str
    partners: Mapping[str, str] = field(default_factory=dict)
    units: Units | None = None
    has_gaps: bool = False

    def labels(self, names: Mapping[str, str], keys: Keys, source: str) -> Labels:
        """Choose the labels.

        Args:
            names: The arrays that are there, with a description of each for the messages.
            keys: What the user asks for.
            source: Named in the messages.

        Raises:
            ValueError: If a name is not there, if none is recognised, or if several are.
        """
        energy = keys.energy or next((name for name in self.partners if name in names), None)
        if energy is not None and energy in self.partners:
            partner = self.partners[energy]
            forces = keys.forces or (partner if partner in names else "none")
            keys = keys._replace(energy=energy, forces=forces)
        return choose({"": names}, keys, source)

    def units_of(self, labels: Labels, source: str) -> Units:
        """Give the units that the names imply.

        Raises:
            ValueError: If they imply none.
        """
        known = {*self.partners.keys(), *self.partners.values()}
        chosen = [label.name for label in labels[:2] if label is not None]
        if self.units is None or not known.issuperset(chosen):
            foreign = next((name for name in chosen if name not in known), chosen[0])
            raise ValueError(
                f"{source}: the unit of '{foreign}' is not known; set `units`, "
                'for example "kcal/mol" or "Hartree, Bohr"'
            )
        return self.units


MD17 = Layout("z", "R", {"E": "F"}, Units("kcal/mol"))
REVISED_MD17 = Layout(
    "nuclear_charges",
    "coords",
    {"energies": "forces", "old_energies": "old_forces"},
    Units("kcal/mol"),
)
ANI_1X = Layout(
    "atomic_numbers",
    "coordinates",
    {
        "wb97x_dz.energy": "wb97x_dz.forces",
        "wb97x_tz.energy": "wb97x_tz.forces",
        **dict.fromkeys(("ccsd(t)_cbs.energy", "hf_dz.energy", "hf_tz.energy", "hf_qz.energy"), ""),
    },
    Units("Hartree"),
    has_gaps=True,
)
ANI_1 = Layout("species", "coordinates", {"energies": "forces"}, Units("Hartree"))
SPICE = Layout(
    "atomic_numbers",
    "conformations",
    # Formation energies lack a constant of each molecule, and so have the same gradient.
    {"dft_total_energy": "dft_total_gradient", "formation_energy": "dft_total_gradient"},
    Units("Hartree", "Bohr"),
)
# modelforge's files of ANI-1x and QM9, whose arrays state their units; older ones have a geometry.
_OF_MODELFORGE = {
    "wb97x_dz_energy": "wb97x_dz_forces",
    "wb97x_tz_energy": "wb97x_tz_forces",
    "internal_energy_at_0K": "",
}
MODELFORGE = tuple(
    Layout("atomic_numbers", positions, _OF_MODELFORGE, has_gaps=True)
    for positions in ("positions", "geometry")
)
DEEPMD = Layout("type", "coord", {"energy": "force"})


def recognise(names: Iterable[str], layouts: Sequence[Layout], source: str) -> Layout:
    """Find the layout that a file has.

    Args:
        names: Of the file's arrays.
        layouts: Published ones, which are preferred.
        source: Named in the message.

    Raises:
        ValueError: If there are no atomic numbers or positions under a known name.
    """
    names = list(names)
    for layout in layouts:
        if layout.numbers in names and layout.positions in names:
            return layout
    numbers = next((name for name in NUMBERS if name in names), None)
    positions = next((name for name in POSITIONS if name in names), None)
    if numbers is None or positions is None:
        raise ValueError(
            f"{source}: must have atomic numbers, as {_either(NUMBERS)}, and positions, as "
            f"{_either(POSITIONS)}; got {', '.join(repr(name) for name in sorted(names)) or 'no arrays'}"
        )
    return Layout(numbers, positions)


def _either(names: Sequence[str]) -> str:
    return " or ".join([", ".join(f"'{name}'" for name in names[:-1]), f"'{names[-1]}'"])
