"""Targets: what a network learns, with kind, unit and weight in the loss."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from pyg_schnet import nn

if TYPE_CHECKING:
    from torch import Tensor

    from pyg_schnet.nn.readout import Readout

# Names in pyg_schnet.nn, which imports torch at the first use: recipes are checked without.
KINDS = {
    "extensive": "AtomicSum",
    "intensive": "AtomicMean",
    "dipole": "DipoleMagnitude",
    "spatial_extent": "SpatialExtent",
    "atomic": "AtomicValues",
}
# Kind and unit of properties by name: QM9's as this package stores them, and usual names of others.
_KNOWN = {
    **dict.fromkeys(("U0", "U", "H", "G", "zpve"), ("extensive", "eV")),
    **dict.fromkeys(("homo", "lumo", "gap"), ("intensive", "eV")),
    "alpha": ("extensive", "Å³"),
    "Cv": ("extensive", "cal/mol/K"),
    "mu": ("dipole", "D"),
    "r2": ("spatial_extent", "Å²"),
    **dict.fromkeys(("dipole", "dipole_moment"), ("dipole", "")),
    **dict.fromkeys(("charges", "mulliken_charges", "partial_charges"), ("atomic", "e")),
}
_RESERVED = (
    "forces",
    "stress",
    "virial",
    "z",
    "pos",
    "cell",
    "pbc",
    "batch",
    "ptr",
    "idx",
    "edge_index",
    "shift",
)
_ASCII = {"Å": "A", "μ": "u", "²": "2", "³": "3", "/": "_per_"}  # in names of columns


@dataclass(frozen=True)
class Target:
    """A quantity that a network learns.

    The name ``energy`` stands for potential energies, with the forces and stresses of the data. All others
    are properties, each with a readout of its own.

    Attributes:
        name: Key of the labels in the data.
        kind: ``"extensive"`` (a sum over atoms), ``"intensive"`` (a mean), ``"dipole"`` (length of the dipole
            moment), ``"spatial_extent"`` (a sum weighted by squared distances from the center of mass) or
            ``"atomic"`` (a value for each atom); by default that of a known name.
        unit: Unit of the labels, which are not converted; by default that of a known name.
        weight: Weight in the loss.

    Raises:
        ValueError: If the name is unknown and no kind is given, or a value is out of range.

    Example:
        >>> Target("gap")
        Target(name='gap', kind='intensive', unit='eV', weight=1.0)
    """

    name: str
    kind: str | None = None
    unit: str | None = None
    weight: float = 1.0

    def __post_init__(self) -> None:
        if self.name in _RESERVED:
            raise ValueError(
                f"`name` of a target must not be '{self.name}', which has another meaning; forces and "
                "stresses belong to the target `energy`"
            )
        known = _KNOWN.get(self.name, ("extensive", "eV") if self.is_energy else (None, ""))
        for field, default in zip(("kind", "unit"), known, strict=True):
            if getattr(self, field) is None:
                object.__setattr__(self, field, default)
        if self.kind not in KINDS:
            raise ValueError(
                f"`kind` of the target '{self.name}' must be one of {', '.join(KINDS)}, got {self.kind}; "
                f"write {{name: {self.name}, kind: intensive}}, for example"
            )
        if not 0 <= self.weight < math.inf:
            raise ValueError(
                f"`weight` of the target '{self.name}' must be at least 0 and finite, got {self.weight}"
            )

    @classmethod
    def parse(cls, entry: str | Mapping[str, Any]) -> Target:
        """Build a target from an entry of ``data.targets``: a name, or a mapping of attributes.

        Args:
            entry: Entry of a recipe or a checkpoint.

        Raises:
            ValueError: If the entry is of another form, or as the class.
        """
        if isinstance(entry, str):
            return cls(entry)
        if isinstance(entry, Mapping) and isinstance(entry.get("name"), str):
            try:
                return cls(**entry)
            except TypeError:
                pass
        raise ValueError(
            f"`targets` must be names, or mappings with name, kind, unit and weight, got {entry!r}"
        )

    @property
    def is_energy(self) -> bool:
        """Whether this is the potential energy, whose gradients are forces."""
        return self.name == "energy"

    @property
    def is_atomic(self) -> bool:
        """Whether there is a value for each atom."""
        return self.kind == "atomic"

    def column(self, error: str) -> str:
        """Return the name of an error with the unit in ASCII, for tables: ``"gap_mae_eV"``.

        Args:
            error: ``"mae"`` or ``"rmse"``.
        """
        unit = "".join(_ASCII.get(letter, letter) for letter in self.unit or "")
        return "_".join(
            filter(None, (self.name, error, re.sub(r"\W+", "_", unit, flags=re.ASCII).strip("_")))
        )

    @property
    def shown_unit(self) -> str:
        """Unit for tables and axes, ``"as labeled"`` if it is unknown."""
        return self.unit or "as labeled"

    @property
    def label(self) -> str:
        """Name and unit, for tables and axes."""
        return f"{self.name} ({self.unit})" if self.unit else self.name

    def readout(
        self,
        hidden_channels: int,
        mean: float | None = None,
        std: float | None = None,
        atomref: Tensor | None = None,
        zero_output: bool = False,
        activation: str = "shifted_softplus",
    ) -> Readout:
        """Build the readout of a property.

        Args:
            hidden_channels: Number of features of an atom.
            mean: Added to each atom's number, in the unit of the property; not for dipoles and extents, whose
                buffers hold scale and values of elements.
            std: Unit of the network's output; not for dipoles and extents.
            atomref: Values of isolated atoms by atomic number, shape ``(100,)``, in the unit of the property;
                not for dipoles and extents.
            zero_output: Whether the last layer starts at zero; not for dipoles, of which it would be a
                stationary point.
            activation: Activation of the network, see :class:`~pyg_schnet.nn.AtomwiseNetwork`.

        Returns:
            A readout with new weights.
        """
        kind: Any = getattr(nn, KINDS[str(self.kind)])
        network = nn.AtomwiseNetwork(hidden_channels, zero_output and self.kind != "dipole", activation)
        if self.kind == "dipole":
            return kind(network, scale=1.0, charges=())
        return kind(network) if self.kind == "spatial_extent" else kind(network, mean, std, atomref)

    def as_dict(self) -> dict[str, Any]:
        """Return the attributes, for files."""
        return asdict(self)


ENERGY = Target("energy")


def predicted_units(properties: Iterable[Target], has_energy: bool) -> dict[str, str]:
    """Return what a potential predicts, with its unit: energies with forces, and properties by name.

    Args:
        properties: Properties beside the energy.
        has_energy: Whether energies are predicted.
    """
    energy = {"energy": "eV", "forces": "eV/Å"} if has_energy else {}
    return energy | {target.name: target.unit or "" for target in properties}


def parse_targets(entries: Any) -> tuple[Target, ...]:
    """Build targets from the entries of ``data.targets``.

    Args:
        entries: A list of names or mappings.

    Raises:
        ValueError: If there is none, or a name occurs twice.
    """
    if not isinstance(entries, list | tuple) or not entries:
        raise ValueError(f"`targets` must be a list of one name or more, got {entries!r}")
    targets = tuple(map(Target.parse, entries))
    names = [target.name for target in targets]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"`targets` must be different, got '{twice}' twice; remove one")
    return targets
