"""The user's own data as a PyG data set."""

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
from pyg_schnet.datasets.label_selection import present
from pyg_schnet.datasets.storage.chunks import Chunk
from pyg_schnet.io.formats.frames import merge_labels
from pyg_schnet.io.formats.labels import Keys
from pyg_schnet.io.formats.registry import list_files, parts_of, read_frames
from pyg_schnet.io.hashes import file_signature
from pyg_schnet.io.units import Units


class AtomsDataset(MoleculeDataset):
    """Structures with energies, and forces and stresses where there are any, in eV and Å.

    Each item is a :class:`~torch_geometric.data.Data` with ``z (atoms,)``, ``pos (atoms, 3)`` in Å, ``energy
    (1,)`` in eV, ``forces (atoms, 3)`` in eV/Å and ``stress (1, 3, 3)`` in eV/Å³, positive under tension,
    labels in float64, and ``idx (1,)``, the number of the structure, from 0. If any structure is periodic,
    all have ``cell (1, 3, 3)`` and ``pbc (1, 3)``.

    :attr:`labels` tells from where the labels were taken, as ``{"energy": "'energies' (kcal/mol)"}``, and
    :attr:`units` in which units they were. :attr:`charged` structures have a charge, which no model takes.

    Args:
        root: Folder of the processed file, which is made again when a file has changed; with none, everything
            stays in memory.
        path: A file of any kind that :func:`~pyg_schnet.datasets.read_frames` knows, a folder or a list of
            such files. Or one processed file of any of our data sets, which is opened as it is, without
            ``root``.
        energy_key: Which energies; those that are recognised by default. Of a processed file, any number for
            each structure, as ``"gap"``, which is then its ``energy``; forces and stresses are left out then,
            unless they are named too.
        forces_key: Which forces; those that belong to the energies by default, ``"none"`` for none.
        stress_key: Which stresses, or virials in units of energy (minus stress times volume); those that
            belong to the energies by default, ``"none"`` for none.
        units: Of the file, as ``"kcal/mol"``, ``"Hartree, Bohr"`` or, where forces are in another unit than
            energies per length, ``"Hartree, Hartree/Bohr"``; what it says or implies by default.
        transform: Applied to each item, for instance :class:`~pyg_schnet.RadiusGraph`.
        pre_transform: Applied to each item once, before it is stored.
        pre_filter: Tells by an item whether it is kept.
        force_reload: Process again.
        dtype: Of the positions; PyTorch's own by default. Labels are always float64.
        memory_map: Leave the tensors on disk.

    Raises:
        FileNotFoundError: If there is no such file.
        TypeError: If there is no ``path``.
        ValueError: If the file does not hold what is asked for; the message says which and why.
    """

    units: Units  # of the source
    labels: dict[str, str]
    charged: int = 0  # structures whose charge is left out

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
            root = self.files[0].parent  # where nothing will be written
        root = None if root is None else os.fspath(root)
        options = {"dtype": dtype, "memory_map": memory_map}
        super().__init__(root, transform, pre_transform, pre_filter, force_reload, **options)
        if not self.in_memory:
            self._remember()

    @property
    def processed_file_names(self) -> str:
        """Name of the processed file: that of the source, and a sign of what was asked of it."""
        asked = json.dumps(
            [[str(file.absolute()) for file in self.files], self.keys, repr(self.stated_units)]
        )
        sign = hashlib.sha256(asked.encode()).hexdigest()[:8]
        return f"{Path(self.path).stem[:100]}-{sign}.safetensors"

    @property
    def processed_paths(self) -> list[str]:
        """Where the processed file is."""
        return [str(self.files[0])] if self.is_processed else super().processed_paths

    @property
    def recipe(self) -> dict[str, Any]:
        """The files, as they were before they were read, and what is asked of them."""
        return {
            "files": self.states,
            "keys": list(self.keys),
            "units": repr(self.stated_units),
        }

    @property
    def notes(self) -> dict[str, Any]:
        """From where the labels were taken, and their units."""
        units = [unit or "" for unit in astuple(self.units)]
        while not units[-1]:  # earlier versions read two
            units.pop()
        return {"labels": self.labels, "units": units, **({"charged": self.charged} if self.charged else {})}

    def chunks(self) -> Iterator[Chunk]:
        """Read the files."""
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
            fields, slices = present(fields, slices, self.keys, self.path)
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

    def _remember(self) -> None:
        """Take labels and units from the processed file."""
        self.units, self.labels = Units("eV"), {"energy": f"'{self.keys.energy or 'energy'}'"}
        if not self.is_processed or self.keys.energy in (None, "energy"):
            notes = self.header.get("notes", {})
            try:
                energy, length, *apart = notes["units"]
                units = Units(energy, length, *(unit or None for unit in apart))
                labels = {str(k): str(x) for k, x in notes["labels"].items()}
            except (AttributeError, KeyError, TypeError, ValueError):
                pass  # of another data set, in eV
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
