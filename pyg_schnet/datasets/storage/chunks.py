"""Chunks: structures of a data set in the layout of PyG's ``InMemoryDataset``, and their concatenation."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyg_schnet.io.formats.frames import Frames


@dataclass(frozen=True)
class Chunk:
    """Some structures of a data set.

    Attributes:
        fields: Concatenated values of all structures, ``(rows, ...)``, by name; texts are lists of one string
            per structure.
        counts: Number of rows of each structure, shape ``(structures,)``, by name; omitted for fields with
            exactly one row per structure.
    """

    fields: dict[str, Tensor | list[str]]
    counts: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_frames(cls, frames: Frames) -> Chunk:
        """Build a chunk that shares the memory of frames; the data set adds ``idx``.

        Args:
            frames: Structures with labels, as readers return them.
        """
        counts = torch.from_numpy(frames.counts)
        arrays = {"z": frames.numbers, "pos": frames.positions}
        arrays |= {name: getattr(frames, name) for name in ("energy", "forces", "stress", "cell", "pbc")}
        arrays |= frames.properties
        fields: dict[str, Tensor | list[str]] = {
            name: torch.from_numpy(array) for name, array in arrays.items() if array is not None
        }
        per_atom = [name for name in ("z", "pos", "forces") if name in fields]
        per_atom += [name for name, array in frames.properties.items() if len(array) != len(frames)]
        return cls(fields, dict.fromkeys(per_atom, counts))

    def __len__(self) -> int:
        name, value = next(iter(self.fields.items()))
        return len(self.counts[name]) if name in self.counts else _rows(name, value)

    def size(self) -> int:
        """Return the size of the tensors in bytes."""
        tensors = [value for value in self.fields.values() if isinstance(value, Tensor)]
        return sum(value.numel() * value.itemsize for value in tensors)

    def kinds(self) -> dict[str, str]:
        """Return type and shape of a row of each field, which all chunks of a data set must share."""
        return {name: _kind(name, value) for name, value in self.fields.items()}

    def check(self, kinds: dict[str, str]) -> None:
        """Check that the chunk can be joined with the first one.

        Args:
            kinds: Result of :meth:`kinds` for the first chunk.

        Raises:
            ValueError: If the fields differ from those of the first chunk, or the rows of a field from its
                counts.
        """
        own = self.kinds()
        if own.keys() != kinds.keys():
            other = sorted(own.keys() ^ kinds.keys())[0]
            raise ValueError(f"all structures must have the same fields, got `{other}` in some of them only")
        for name, kind in own.items():
            if kind != kinds[name]:
                raise ValueError(f"`{name}` must be alike in all structures, got {kind} after {kinds[name]}")
        for name, value in self.fields.items():
            counts, rows = self.counts_of(name), _rows(name, value)
            if len(counts) != len(self) or int(counts.sum()) != rows:
                raise ValueError(
                    f"`{name}` must have a count for each of the {len(self)} structures, adding up to "
                    f"its {rows} rows, got {len(counts)} that add up to {int(counts.sum())}"
                )

    def counts_of(self, name: str) -> Tensor:
        """Return the number of rows of each structure in a field, shape ``(structures,)``.

        Args:
            name: Name of the field.
        """
        counts = self.counts.get(name)
        return torch.ones(len(self), dtype=torch.long) if counts is None else counts.long()


def join(chunks: Iterable[Chunk]) -> tuple[dict[str, Tensor | list[str]], dict[str, Tensor]]:
    """Concatenate chunks in memory to the fields and slices of PyG's ``InMemoryDataset``.

    Raises:
        ValueError: If there is no structure, or the fields of the chunks differ.
    """
    whole = list(chunks)
    if sum(map(len, whole)) == 0:
        raise ValueError("a data set must hold at least one structure, got none")
    kinds = whole[0].kinds()
    for chunk in whole:
        chunk.check(kinds)
    fields: dict[str, Tensor | list[str]] = {}
    slices: dict[str, Tensor] = {}
    for name, first in whole[0].fields.items():
        values: list[Any] = [chunk.fields[name] for chunk in whole]
        if isinstance(first, list):
            fields[name] = [text for value in values for text in value]
        else:
            fields[name] = values[0] if len(values) == 1 else torch.cat(values, dim=_dimension(name))
        own = offsets(torch.cat([chunk.counts_of(name) for chunk in whole]))
        slices[name] = next((known for known in slices.values() if torch.equal(known, own)), own)
    return fields, slices


def offsets(counts: Tensor) -> Tensor:
    """Compute the first row of each structure, and the end of the last one."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def is_index(name: str) -> bool:
    """Return whether PyG concatenates a field along its last dimension."""
    return "index" in name or name == "face"


def _dimension(name: str) -> int:
    return -1 if is_index(name) else 0


def _rows(name: str, value: Tensor | list[str]) -> int:
    return len(value) if isinstance(value, list) else value.size(_dimension(name))


def _kind(name: str, value: Tensor | list[str]) -> str:
    if isinstance(value, list):
        return "texts"
    shape = tuple(value.shape[:-1] if is_index(name) else value.shape[1:])
    return f"{value.dtype} rows of shape {shape}"
