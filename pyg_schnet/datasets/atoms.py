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

from pyg_schnet.datasets.base import MoleculeDataset
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.graph.validation import MAX_ATOMIC_NUMBER
from pyg_schnet.io.formats.frames import merge_labels
from pyg_schnet.io.formats.labels import Keys
from pyg_schnet.io.formats.registry import list_files, parts_of, read_frames
from pyg_schnet.io.hashes import file_signature
from pyg_schnet.io.units import Units

Fields = dict[str, Tensor | list[str]]
Slices = dict[str, Tensor]


class AtomsDataset(MoleculeDataset):
    """Structures with energies, and forces and stresses where there are any, in eV and Å.

    Each item is a :class:`~torch_geometric.data.Data` with ``z (atoms,)``, ``pos (atoms, 3)`` in Å, ``energy
    (1,)`` in eV, ``forces (atoms, 3)`` in eV/Å and ``stress (1, 3, 3)`` in eV/Å³, positive under tension,
    labels in float64, and ``idx (1,)``, the number of the structure, from 0. If any structure is periodic,
    all have ``cell (1, 3, 3)`` and ``pbc (1, 3)``.

    ``labels`` holds the sources of the labels, as ``{"energy": "'energies' (kcal/mol)"}``, and
    ``units`` the units of the files. ``charged`` is the number of structures with a total charge,
    which models ignore.

    Args:
        root: Folder of the processed file, which is updated when a file has changed; ``None`` keeps the data
            in memory.
        path: A file in any format of :func:`~pyg_schnet.datasets.read_frames`, a folder or a list of such
            files; or one processed file of any data set, which is opened without ``root``.
        energy_key: Name of the energies; a recognized name by default. In a processed file, any scalar field,
            for instance ``"gap"``, which becomes ``energy``; forces and stresses then have to be named, too.
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

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If ``path`` is missing.
        ValueError: If a file does not hold the labels, or is damaged; the message names file and reason.
    """

    units: Units  # of the files
    labels: dict[str, str]
    charged: int = 0  # structures with a total charge, which is ignored

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
        self.keys = Keys(energy_key, forces_key, stress_key)
        self.stated_units = Units.parse(units) if isinstance(units, str) else units
        self.labels = {}
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
        arguments = json.dumps(
            [[str(file.absolute()) for file in self.files], self.keys, repr(self.stated_units)]
        )
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
            "keys": list(self.keys),
            "units": repr(self.stated_units),
        }

    @property
    def notes(self) -> dict[str, Any]:
        """Sources of the labels, and units of the files."""
        units = [unit or "" for unit in astuple(self.units)]
        while not units[-1]:  # earlier versions expect two
            units.pop()
        return {"labels": self.labels, "units": units, **({"charged": self.charged} if self.charged else {})}

    def chunks(self) -> Iterator[Chunk]:
        """Read the files.

        Yields:
            Chunks of structures, in Å, with labels in eV and Å and float64.
        """
        self.labels, self.charged, skipped = {}, 0, 0
        for frames in read_frames(self.files, *self.keys, self.stated_units):
            self.units = frames.units
            self.labels = merge_labels([self.labels, frames.labels])
            skipped += frames.skipped
            self.charged += frames.charged
            yield Chunk.from_frames(frames.loaded() if self.in_memory else frames)
        if skipped:
            self.labels["left out"] = f"{skipped} structures without labels (NaN)"

    def _process(self) -> None:
        if not self.is_processed:
            super()._process()

    def _take(self, fields: dict[str, Tensor | list[str]], slices: dict[str, Tensor]) -> None:
        if self.is_processed:
            fields, slices = select_labels(fields, slices, self.keys, self.path)
            self.casts |= dict.fromkeys(("energy", "forces", "stress"), torch.float64)
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
        self.units, self.labels = Units("eV"), {"energy": f"'{self.keys.energy or 'energy'}'"}
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
        for kind, key in zip(("forces", "stress"), self.keys[1:], strict=True):
            if self.is_processed and key == "none":
                self.labels.pop(kind, None)
            elif self.is_processed and key is not None:
                self.labels[kind] = f"'{key}'"


def _names(files: Sequence[Path]) -> str:
    others = f" and {len(files) - 1} more" if len(files) > 1 else ""
    return f"{files[0]}{others}"


def select_labels(fields: Fields, slices: Slices, keys: Keys, source: str) -> tuple[Fields, Slices]:
    """Rename fields of a processed file to ``energy``, ``forces`` and ``stress``, without a copy.

    Args:
        fields: Fields of the file.
        slices: Offsets of the structures by field.
        keys: Names of the fields that are the labels, ``"energy"`` by default; the file's forces and stress
            are kept by default only with its own energy.
        source: Name of the file, for error messages.

    Returns:
        The fields and their offsets, with ``energy`` and, if selected, ``forces`` and ``stress``.

    Raises:
        ValueError: If a field is missing or of another shape.
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
