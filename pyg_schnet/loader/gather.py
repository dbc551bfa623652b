"""Which rows of a data set's tensors belong to a batch: a few index operations, not one object a molecule."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Rows:
    """Rows of a batch's molecules in a field.

    Attributes:
        offsets: Where each molecule begins in the batch, shape ``(molecules + 1,)``.
        index: Where the rows are, shape ``(rows,)``; the numbers of the molecules where ``size`` is given.
        size: Rows of every molecule, where all have as many and lie one behind the other.
    """

    offsets: Tensor
    index: Tensor
    size: int | None = None

    @property
    def lengths(self) -> Tensor:
        """Rows of each molecule, shape ``(molecules,)``."""
        return self.offsets.diff()

    @property
    def position(self) -> Tensor:
        """Where the rows are, shape ``(rows,)``."""
        if self.size is None or self.size == 1:
            return self.index
        own = torch.arange(self.size, device=self.index.device)
        return (self.index[:, None] * self.size + own).view(-1)

    def take(self, value: Tensor, dimension: int) -> Tensor:
        """Gather the rows of a field, which lie along a dimension."""
        if not value.is_contiguous():  # index_select would copy it all first, bonds of QM9 in 80 ms
            return value[(slice(None),) * (dimension % value.dim()) + (self.position,)]
        if self.size is None or self.size == 1 or dimension != 0:
            return value.index_select(dimension, self.position)
        shape = value.shape[1:]  # blocks of whole molecules are copied faster than single rows
        return value.view(-1, self.size, *shape).index_select(0, self.index).view(-1, *shape)

    def molecules(self) -> Tensor:
        """Number the molecule of each row within the batch, shape ``(rows,)``."""
        numbers = torch.arange(len(self.offsets) - 1, device=self.index.device)
        if self.size is not None:
            return numbers.repeat_interleave(self.size)
        return torch.repeat_interleave(numbers, self.lengths, output_size=len(self.index))


class Pointer:
    """Offsets of the molecules in a field, as in the ``slices`` of PyG's ``InMemoryDataset``.

    Args:
        slices: Shape ``(molecules + 1,)``.
    """

    def __init__(self, slices: Tensor):
        self.slices = slices
        lengths = slices.diff()
        first = int(lengths[0]) if len(lengths) else 0
        alike = first > 0 and int(slices[0]) == 0 and bool((lengths == first).all())
        self.size = first if alike else None  # of all molecules, if they lie one behind the other

    def rows(self, molecules: Tensor) -> Rows:
        """Find the rows of molecules, in this order."""
        if self.size is None:
            return self._of_any_size(molecules)
        count, device = len(molecules), molecules.device
        offsets = torch.arange(0, count * self.size + 1, self.size, device=device)
        return Rows(offsets, molecules, self.size)

    def _of_any_size(self, molecules: Tensor) -> Rows:
        starts = self.slices.index_select(0, molecules)
        lengths = self.slices.index_select(0, molecules + 1) - starts
        offsets = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)])
        position = torch.arange(int(offsets[-1]), device=molecules.device)
        position += torch.repeat_interleave(starts - offsets[:-1], lengths, output_size=len(position))
        return Rows(offsets, position)


class Pointers:
    """The pointers of all fields; fields with the same offsets share one.

    Args:
        slices: Of an ``InMemoryDataset``, by field.
        device: Where the fields are.
    """

    def __init__(self, slices: dict[str, Tensor], device: torch.device):
        self._slices = dict(slices)
        pointers: list[Pointer] = []
        self.number: dict[str, int] = {}
        for name, value in slices.items():
            moved = value.to(device)
            same = (i for i, other in enumerate(pointers) if torch.equal(other.slices, moved))
            self.number[name] = next(same, len(pointers))
            if self.number[name] == len(pointers):
                pointers.append(Pointer(moved))
        self.pointers = pointers
        self.device = device

    def fit(self, slices: dict[str, Tensor], device: torch.device) -> bool:
        """Whether these are still the pointers of some slices, the same tensors."""
        own = self._slices
        return (
            self.device == device
            and own.keys() == slices.keys()
            and all(own[name] is value for name, value in slices.items())
        )

    def rows(self, molecules: Tensor) -> dict[str, Rows]:
        """Find the rows of molecules in each field."""
        found = [pointer.rows(molecules) for pointer in self.pointers]
        return {name: found[number] for name, number in self.number.items()}
