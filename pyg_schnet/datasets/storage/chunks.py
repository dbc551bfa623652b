"""Chunks: some molecules of a data set in the flat layout, and how they are joined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from pyg_schnet.io.formats.frames import Frames


@dataclass(frozen=True)
class Chunk:
    """Some molecules of a data set.

    Attributes:
        fields: By name, all molecules' values behind each other; texts are lists of one string a molecule.
        counts: Rows a molecule, shape ``(molecules,)``, of the fields that do not have exactly one.
    """

    fields: dict[str, Tensor | list[str]]
    counts: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def from_frames(cls, frames: Frames) -> Chunk:
        """Build a chunk that shares the memory of frames; the data set adds ``idx``."""
        counts = torch.from_numpy(frames.counts)
        arrays = {"z": frames.numbers, "pos": frames.positions}
        arrays |= {name: getattr(frames, name) for name in ("energy", "forces", "stress", "cell", "pbc")}
        fields: dict[str, Tensor | list[str]] = {
            name: torch.from_numpy(array) for name, array in arrays.items() if array is not None
        }
        return cls(fields, {name: counts for name in ("z", "pos", "forces") if name in fields})

    def __len__(self) -> int:
        name, value = next(iter(self.fields.items()))
        return len(self.counts[name]) if name in self.counts else _rows(name, value)

    def size(self) -> int:
        """Count the bytes of its tensors."""
        tensors = [value for value in self.fields.values() if isinstance(value, Tensor)]
        return sum(value.numel() * value.itemsize for value in tensors)

    def kinds(self) -> dict[str, str]:
        """Say of which type and shape the rows of each field are; chunks of a data set agree in it."""
        return {name: _kind(name, value) for name, value in self.fields.items()}

    def check(self, kinds: dict[str, str]) -> None:
        """Refuse what could not be told apart or joined later.

        Args:
            kinds: Of the first chunk.

        Raises:
            ValueError: If the fields differ from those of the first chunk, or if a field has not as many
                rows as its counts say.
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
        """Give the rows a molecule of any field."""
        counts = self.counts.get(name)
        return torch.ones(len(self), dtype=torch.long) if counts is None else counts.long()


def join(chunks: Iterable[Chunk]) -> tuple[dict[str, Tensor | list[str]], dict[str, Tensor]]:
    """Join chunks in memory, as fields and slices of PyG's ``InMemoryDataset``.

    Raises:
        ValueError: If there is no molecule, or if the chunks do not fit together.
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
    """Compute where each molecule begins, and where the last one ends."""
    return torch.cat([counts.new_zeros(1), counts.cumsum(0)])


def is_index(name: str) -> bool:
    """Whether a field is joined along its last dimension, by PyG's convention."""
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
