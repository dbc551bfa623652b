"""Processed files as training data: which of their fields are energy, forces and stress."""

from __future__ import annotations

import torch
from torch import Tensor

from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.io.formats.labels import Keys

Fields = dict[str, Tensor | list[str]]
Slices = dict[str, Tensor]


def present(fields: Fields, slices: Slices, keys: Keys, source: str) -> tuple[Fields, Slices]:
    """Give fields the names of labels, without a copy.

    Args:
        fields: Of a processed file.
        slices: Offsets of the structures by field.
        keys: Which field is the energy, ``energy`` by default; which are forces and stress. Those of the file
            go with its own energy only.
        source: Named in the messages.

    Returns:
        The fields and their offsets, with ``energy``, and with ``forces`` and ``stress`` where there are any.

    Raises:
        ValueError: If a field is not there, or of another shape.
    """
    _check_structures(fields, slices, source)
    atoms = slices["z"]
    structures = torch.arange(len(atoms))
    known = {
        "energy": _of_shape(fields, slices, structures, ()),
        "forces": _of_shape(fields, slices, atoms, (3,)),
        "stress": _of_shape(fields, slices, structures, (3, 3)),
    }
    own = keys.energy in (None, "energy")
    names = {"energy": keys.energy or "energy"}
    for kind, key in (("forces", keys.forces), ("stress", keys.stress)):
        if key not in (None, "none") or (key is None and own and kind in fields):
            names[kind] = key or kind
    for kind, name in names.items():
        if name not in known[kind]:
            there = ", ".join(f"'{one}'" for one in known[kind]) or "none"
            raise ValueError(
                f"{source}: `{kind}_key` must name a field of the shape of {kind}, one of {there}; got "
                f"'{name}'"
            )
    chosen = {name: name for name in fields if name not in known} | names
    return {new: fields[old] for new, old in chosen.items()}, {
        new: slices[old] for new, old in chosen.items()
    }


def _of_shape(fields: Fields, slices: Slices, rows: Tensor, shape: tuple[int, ...]) -> list[str]:
    """Find the fields of real numbers with these offsets and this shape of a row."""
    return [
        name
        for name, value in fields.items()
        if isinstance(value, Tensor)
        and value.is_floating_point()
        and value.shape[1:] == shape
        and torch.equal(slices[name], rows)
        and name not in ("pos", "cell")
    ]


def _check_structures(fields: Fields, slices: Slices, source: str) -> None:
    """Refuse what is no set of molecules: files may come from anywhere."""
    z, pos = fields.get("z"), fields.get("pos")
    if not isinstance(z, Tensor) or not isinstance(pos, Tensor):
        raise ValueError(f"{source}: must hold `z` and `pos`, got {', '.join(fields)}")
    if (
        z.dtype.is_floating_point
        or z.dim() != 1
        or len(z) == 0
        or not 1 <= int(z.min()) <= int(z.max()) <= MAX_ATOMIC_NUMBER
    ):
        raise ValueError(f"{source}: `z` must hold atomic numbers 1 to {MAX_ATOMIC_NUMBER}, got others")
    if pos.shape != (len(z), 3) or not pos.is_floating_point() or not torch.equal(slices["z"], slices["pos"]):
        raise ValueError(
            f"{source}: `pos` must have shape ({len(z)}, 3), a row an atom, got {tuple(pos.shape)}"
        )
