"""Data sets of the user's own files."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch_geometric.data import Data

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.io.formats.frames import merge_labels
from pyg_schnet.io.formats.labels import Keys
from pyg_schnet.io.formats.registry import list_files, parts_of, read_frames
from pyg_schnet.io.hashes import file_signature
from pyg_schnet.io.units import Units

# Fields of an item that are no properties.
_FIELDS = ("z", "pos", "cell", "pbc", "idx", "energy", "forces", "stress", "edge_index", "shift", "ptr")

Fields = dict[str, Tensor | list[str]]
Slices = dict[str, Tensor]


class AtomsDataset(MoleculeDataset):
    """Structures with energies, forces and stresses where there are any, and other properties, in eV and Å.

    Each item is a :class:`~torch_geometric.data.Data` with ``z (atoms,)``, ``pos (atoms, 3)`` in Å, ``energy
    (1,)`` in eV, ``forces (atoms, 3)`` in eV/Å and ``stress (1, 3, 3)`` in eV/Å³, positive under tension,
    labels in float64, and ``idx (1,)``, the number of the structure, from 0. If any structure is periodic,
    all have ``cell (1, 3, 3)`` and ``pbc (1, 3)``. Each of the ``properties`` is a field of its own name,
    ``(1,)`` or, if there is a value for each atom, ``(atoms,)``, in float64 and in the unit of the file; NaN
    marks a missing value.

    ``labels`` holds the sources of the labels, as ``{"energy": "'energies' (kcal/mol)"}``, and
    ``units`` the units of the files. ``charged`` is the number of structures with a total charge,
    which models ignore. ``available`` holds the names of further values that could be properties, each
    with ``"structure"`` or ``"atom"``.

    Args:
        root: Folder of the processed file, which is updated when a file has changed; ``None`` keeps the data
            in memory.
        path: A file in any format of :func:`~pyg_schnet.datasets.read_frames`, a folder or a list of such
            files; or one processed file of any data set, which is opened without ``root``.
        energy_key: Name of the energies; a recognized name by default. In a processed file, any scalar field,
            for instance ``"gap"``, which becomes ``energy``; forces and stresses then have to be named, too.
            ``"none"`` reads no energies, forces and stresses.
        forces_key: Name of the forces; those that belong to the energies by default, ``"none"`` for none.
        stress_key: Name of the stresses, or of virials in units of energy (minus stress times volume); those
            that belong to the energies by default, ``"none"`` for none.
        units: Units of the files, as ``"kcal/mol"``, ``"Hartree, Bohr"`` or, with forces in a unit other than
            energy per length, ``"Hartree, Hartree/Bohr"``; by default those that a file states or implies.
        transform: Transform of each item, for instance :class:`~pyg_schnet.RadiusGraph`.
        pre_transform: Transform of each item before it is stored.
        pre_filter: Function that returns whether an item is kept.
        force_reload: Whether to process again.
        dtype: Type of the positions; PyTorch's default type by default. Labels are always float64.
        memory_map: Whether to leave the tensors on disk.
        properties: Names of further numbers of structures or atoms in the file, for instance ``("gap",
            "charges")``, which some structures may lack. Of vectors whose name contains ``dipole``, the
            length is read.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``path`` is missing.
        ValueError: If a file does not hold the labels, or is damaged; the message names file and reason. If
            no structure has one of the properties, it lists those that could be.
    """

    units: Units  # of the files
    labels: dict[str, str]
    charged: int = 0  # structures with a total charge, which is ignored
    available: dict[str, str]

    def __init__(
        self,
        root: str | os.PathLike | None = None,
        path: str | os.PathLike | Sequence[str | os.PathLike] | None = None,
        energy_key: str | None = None,
        forces_key: str | None = None,
        stress_key: str | None = None,
        units: str | Units | None = None,
        transform: Callable | None = None,
        pre_transform: Callable | None = None,
        pre_filter: Callable | None = None,
        force_reload: bool = False,
        *,
        dtype: torch.dtype | None = None,
        memory_map: bool = False,
        properties: Sequence[str] = (),
    ):
        if path is None:
            example = "FILE" if root is None else os.fspath(root)
            raise TypeError(f"`path` must name the data, got none; write AtomsDataset(path={example!r})")
        if root is not None and Path(root).is_file():
            raise ValueError(
                f"`root` must be a folder, got the file {os.fspath(root)}; name data with `path`"
            )
        self.files = list_files(path)
        self.path = os.fspath(path) if isinstance(path, (str, os.PathLike)) else _names(self.files)
        self.keys = Keys(energy_key, forces_key, stress_key, _checked(properties))
        self.keys.check()
        self.stated_units = Units.parse(units) if isinstance(units, str) else units
        self.labels, self.available = {}, {}
        self.states = [file_signature(part) for file in self.files for part in parts_of(file)]
        self.is_processed = len(self.files) == 1 and self.files[0].suffix == ".safetensors"
        if self.is_processed:
            self._check_nothing_to_process(pre_transform, pre_filter)
            root = self.files[0].parent  # nothing is written there
        root = None if root is None else os.fspath(root)
        options = {"dtype": dtype, "memory_map": memory_map}
        super().__init__(root, transform, pre_transform, pre_filter, force_reload, **options)
        if not self.in_memory:
            self._restore_notes()

    @property
    def processed_file_names(self) -> str:
        """Name of the processed file, from that of the source and a hash of the arguments."""
        files = [str(file.absolute()) for file in self.files]
        properties = [self.keys.properties] if self.keys.properties else []  # earlier versions had none
        arguments = json.dumps([files, self.keys[:3], repr(self.stated_units), *properties])
        suffix = hashlib.sha256(arguments.encode()).hexdigest()[:8]
        return f"{Path(self.path).stem[:100]}-{suffix}.safetensors"

    @property
    def processed_paths(self) -> list[str]:
        """Path of the processed file."""
        return [str(self.files[0])] if self.is_processed else super().processed_paths

    @property
    def recipe(self) -> dict[str, Any]:
        """Signatures of the files before they were read, and the arguments."""
        return {
            "files": self.states,
            "keys": list(self.keys[:3]),
            "units": repr(self.stated_units),
            **({"properties": list(self.keys.properties)} if self.keys.properties else {}),
        }

    @property
    def notes(self) -> dict[str, Any]:
        """Sources of the labels, units of the files, and possible properties."""
        units = [unit or "" for unit in astuple(self.units)]
        while not units[-1]:  # earlier versions expect two
            units.pop()
        others = {"charged": self.charged, "available": self.available}
        return {"labels": self.labels, "units": units, **{name: x for name, x in others.items() if x}}

    def chunks(self) -> Iterator[Chunk]:
        """Read the files.

        Yields:
            Chunks of structures, in Å, with labels in eV and Å and float64.
        """
        self.labels, self.available, self.charged, skipped = {}, {}, 0, 0
        keys = self.keys
        for frames in read_frames(
            self.files, keys.energy, keys.forces, keys.stress, self.stated_units, keys.properties
        ):
            self.units = frames.units
            self.labels = merge_labels([self.labels, frames.labels])
            skipped += frames.skipped
            self.charged += frames.charged
            for name, kind in frames.available.items():
                if name not in keys.properties and not is_reserved(name):
                    self.available[name] = kind
            yield Chunk.from_frames(frames.loaded() if self.in_memory else frames)
        if skipped:
            self.labels["left out"] = f"{skipped} structures without labels (NaN)"

    def _process(self) -> None:
        if not self.is_processed:
            super()._process()

    def _take(self, fields: dict[str, Tensor | list[str]], slices: dict[str, Tensor]) -> None:
        if self.is_processed:
            fields, slices = select_labels(fields, slices, self.keys, self.path)
            labels = ("energy", "forces", "stress", *self.keys.properties)
            self.casts |= dict.fromkeys(labels, torch.float64)
        super()._take(fields, slices)

    def _check_nothing_to_process(self, *steps: Callable | None) -> None:
        if any(step is not None for step in steps):
            raise ValueError(
                f"{self.path}: is processed already, so `pre_transform` and `pre_filter` must be left out; "
                "use `transform`, or a subset of the data set"
            )
        if self.stated_units not in (None, Units("eV")):
            raise ValueError(f"{self.path}: is in eV and Å, as processed files are; leave `units` out")

    def _restore_notes(self) -> None:
        """Restore labels and units from the processed file."""
        self.units, self.labels = Units("eV"), {}
        if self.has_energy:
            self.labels["energy"] = f"'{self.keys.energy or 'energy'}'"
        if self.is_processed:
            kinds = {name: "atom" if self.is_atomic(name) else "structure" for name in self.properties}
            self.available = {name: kind for name, kind in kinds.items() if name not in self.keys.properties}
            self.labels |= {name: f"'{name}'" for name in self.keys.properties}
        if not self.is_processed or self.keys.energy in (None, "energy"):
            notes = self.header.get("notes", {})
            try:
                energy, length, *apart = notes["units"]
                units = Units(energy, length, *(unit or None for unit in apart))
                labels = {str(k): str(x) for k, x in notes["labels"].items()}
            except (AttributeError, KeyError, TypeError, ValueError):
                pass  # a file of another data set, in eV
            else:
                self.units, self.labels = units, labels
                self.charged = int(notes.get("charged", 0))
                if not self.is_processed:
                    self.available = {str(name): str(x) for name, x in notes.get("available", {}).items()}
        for kind, key in zip(("forces", "stress"), self.keys[1:3], strict=True):
            if self.is_processed and key == "none":
                self.labels.pop(kind, None)
            elif self.is_processed and key is not None:
                self.labels[kind] = f"'{key}'"


def _names(files: Sequence[Path]) -> str:
    others = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{others}"


def is_reserved(name: str) -> bool:
    """Return whether a field of this name has another meaning here or in PyG."""
    if name in _FIELDS or name.startswith("_") or ":" in name:
        return True
    # PyG adds an offset to such fields in batches
    return "index" in name or "batch" in name or (hasattr(Data, name) and name != "y")


def _checked(properties: Sequence[str]) -> tuple[str, ...]:
    """Return the names of properties.

    Raises:
        ValueError: If one is given twice, or is the name of another field.
    """
    names = (properties,) if isinstance(properties, str) else tuple(properties)
    for number, name in enumerate(names):
        if not name or is_reserved(name):
            hint = "read energies with `energy_key`" if name == "energy" else "rename it in the file"
            raise ValueError(
                f"`properties` must not have names of other fields ({', '.join(_FIELDS)}, PyG's own, or with "
                f"'index' or 'batch' in them), got '{name}'; {hint}"
            )
        if name in names[:number]:
            raise ValueError(f"`properties` must have different names, got '{name}' twice; remove one")
    return names


def select_labels(fields: Fields, slices: Slices, keys: Keys, source: str) -> tuple[Fields, Slices]:
    """Rename fields of a processed file to ``energy``, ``forces`` and ``stress``, without a copy.

    Args:
        fields: Fields of the file.
        slices: Offsets of the structures by field.
        keys: Names of the fields that are the labels, ``"energy"`` by default; the file's forces and stress
            are kept by default only with its own energy. With the energy ``"none"`` there are no energies,
            forces and stress. All other fields are kept.
        source: Name of the file, for error messages.

    Returns:
        The fields and their offsets, with ``energy``, ``forces`` and ``stress`` if selected.

    Raises:
        ValueError: If a field is missing or of another shape, or a property is no field with a value for each
            structure or atom.
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
    names = {} if keys.energy == "none" else {"energy": keys.energy or "energy"}
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
    properties = dict.fromkeys([*known["energy"], *_of_shape(fields, slices, atoms, ())])
    for name in keys.properties:
        if name not in properties:
            there = ", ".join(f"'{one}'" for one in properties if one not in known) or "none"
            raise ValueError(
                f"{source}: `properties` must name fields with a value for each structure or atom, some of "
                f"{there}; got '{name}'"
            )
    chosen = {name: name for name in fields if name not in known} | names
    return {new: fields[old] for new, old in chosen.items()}, {
        new: slices[old] for new, old in chosen.items()
    }


def _of_shape(fields: Fields, slices: Slices, rows: Tensor, shape: tuple[int, ...]) -> list[str]:
    """Return the names of floating-point fields with these offsets and this shape of a row."""
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
    """Raise if the fields are not structures with valid atomic numbers: the file may be of any origin."""
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
