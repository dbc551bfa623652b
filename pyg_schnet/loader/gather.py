"""Rows of a data set's tensors that form a batch, found by a few index operations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows of a batch's structures in a field.

    Attributes:
        offsets: First row of each structure in the batch, shape ``(structures + 1,)``.
        index: Rows in the field, shape ``(rows,)``; if ``size`` is set, the indices of the structures.
        size: Number of rows of every structure, if all have the same number and are contiguous.
    """

    offsets: Tensor
    index: Tensor
    size: int | None = None

    @property
    def lengths(self) -> Tensor:
        """Number of rows of each structure, shape ``(structures,)``."""
        return self.offsets.diff()

    @property
    def position(self) -> Tensor:
        """Rows in the field, shape ``(rows,)``."""
        if self.size is None or self.size == 1:
            return self.index
        own = torch.arange(self.size, device=self.index.device)
        return (self.index[:, None] * self.size + own).view(-1)

    def take(self, value: Tensor, dimension: int) -> Tensor:
        """Gather the rows of a field along a dimension."""
        if not value.is_contiguous():  # index_select would copy it all: 80 ms for the bonds of QM9
            return value[(slice(None),) * (dimension % value.dim()) + (self.position,)]
        if self.size is None or self.size == 1 or dimension != 0:
            return value.index_select(dimension, self.position)
        shape = value.shape[1:]  # blocks of whole structures are copied faster than single rows
        return value.view(-1, self.size, *shape).index_select(0, self.index).view(-1, *shape)

    def structures(self) -> Tensor:
        """Return the number of each row's structure in the batch, shape ``(rows,)``."""
        numbers = torch.arange(len(self.offsets) - 1, device=self.index.device)
        if self.size is not None:
            return numbers.repeat_interleave(self.size)
        return torch.repeat_interleave(numbers, self.lengths, output_size=len(self.index))


class FieldOffsets:
    """Offsets of the structures in a field.

    Args:
        slices: The field's ``slices`` of PyG's ``InMemoryDataset``, shape ``(structures + 1,)``.
    """

    def __init__(self, slices: Tensor):
        self.slices = slices
        lengths = slices.diff()
        first = int(lengths[0]) if len(lengths) else 0
        uniform = first > 0 and int(slices[0]) == 0 and bool((lengths == first).all())
        self.size = first if uniform else None  # of all structures, if they are contiguous

    def rows(self, ids: Tensor) -> Rows:
        """Return the rows of structures, in the order of their indices."""
        if self.size is None:
            return self._ragged_rows(ids)
        count, device = len(ids), ids.device
        offsets = torch.arange(0, count * self.size + 1, self.size, device=device)
        return Rows(offsets, ids, self.size)

    def _ragged_rows(self, ids: Tensor) -> Rows:
        starts = self.slices.index_select(0, ids)
        lengths = self.slices.index_select(0, ids + 1) - starts
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        position = torch.arange(int(offsets[-1]), device=ids.device)
        position += torch.repeat_interleave(starts - offsets[:-1], lengths, output_size=len(position))
        return Rows(offsets, position)


class DatasetOffsets:
    """Offsets of the structures in all fields of a data set; fields with equal offsets share them.

    Args:
        slices: ``slices`` of an ``InMemoryDataset``, by field.
        device: Device of the fields.
    """

    def __init__(self, slices: dict[str, Tensor], device: torch.device):
        self._slices = dict(slices)
        self._offsets: list[FieldOffsets] = []
        self._number: dict[str, int] = {}
        for name, value in slices.items():
            moved = value.to(device)
            same = (i for i, other in enumerate(self._offsets) if torch.equal(other.slices, moved))
            self._number[name] = next(same, len(self._offsets))
            if self._number[name] == len(self._offsets):
                self._offsets.append(FieldOffsets(moved))
        self.device = device

    def match(self, slices: dict[str, Tensor], device: torch.device) -> bool:
        """Return whether these are the offsets of the given slices, the same tensors."""
        own = self._slices
        return (
            self.device == device
            and own.keys() == slices.keys()
            and all(own[name] is value for name, value in slices.items())
        )

    def rows(self, ids: Tensor) -> dict[str, Rows]:
        """Return the rows of structures in each field."""
        rows = [offsets.rows(ids) for offsets in self._offsets]
        return {name: rows[number] for name, number in self._number.items()}
