"""Memory-mapped tensors of a safetensors file."""

from __future__ import annotations

import json
import mmap
import os
import weakref
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

from pyg_schnet.datasets.storage.checksums import checksums_of

DTYPES = {  # by their names in safetensors
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
# Pages that were read count as memory of the process until they are released: some 10 MB for 32 out of a
# million molecules, because the system reads neighboring pages. A batch takes 0.44 ms; 0.34 with 8 reads.
_READS_BETWEEN_RELEASES = 2


class MappedTensors(Mapping[str, Tensor]):
    """Tensors of a file by name, read from disk when they are used.

    Writing to a tensor changes neither the file nor the tensors of other processes; :meth:`release` discards
    such changes.

    Args:
        path: A safetensors file; ``safe_open`` checks its header.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        with safe_open(self.path, framework="pt"):  # raises for offsets outside the file
            pass
        file = open(self.path, "rb", buffering=0)  # noqa: SIM115 - closed with this object
        weakref.finalize(self, file.close)
        length = int.from_bytes(file.read(8), "little")
        table = json.loads(file.read(length))
        self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        table.pop("__metadata__", None)
        self._table = table
        self._whole: set[str] = set()  # names of tensors that were verified completely
        self._checksums = checksums_of(file, 8 + length, table)
        self._tensors = {name: self._view(8 + length, entry) for name, entry in table.items()}
        self._reads = 0

    def __getitem__(self, name: str) -> Tensor:
        return self._tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def check(self, name: str) -> None:
        """Verify a tensor completely before it is read, if the file has checksums.

        Raises:
            ValueError: If it is damaged.
        """
        self._whole.add(name)
        if self._checksums is not None:
            start, end = self._table[name]["data_offsets"]
            self._checksums.check(np.array([start]), np.array([end]))

    def check_molecules(self, slices: Mapping[str, Tensor], molecules: Tensor) -> None:
        """Verify the rows of structures before they are read, if the file has checksums.

        Args:
            slices: Offsets of the structures by name of the tensor.
            molecules: Numbers of the structures.

        Raises:
            ValueError: If they are damaged.
        """
        if self._checksums is None or self._checksums.is_done:
            return
        for name, offsets in slices.items():
            if (entry := self._table.get(name)) is None or name in self._whole:
                continue
            start, end = entry["data_offsets"]
            row = (end - start) // max(entry["shape"][0], 1)
            first, last = offsets[molecules].numpy(), offsets[molecules + 1].numpy()
            try:
                self._checksums.check(start + row * first, start + row * last)
            except ValueError as error:
                raise ValueError(f"{self.path}: is damaged ({error}); make this data set again") from None

    def count_read(self) -> None:
        """Count a read; every second one releases the memory."""
        self._reads += 1
        if self._reads % _READS_BETWEEN_RELEASES == 0:
            self.release()

    def release(self) -> None:
        """Release the memory of pages that were read; they are read again when they are used."""
        if hasattr(self._map, "madvise"):  # not on Windows, which reclaims pages itself
            self._map.madvise(mmap.MADV_DONTNEED)

    def _view(self, offset: int, entry: Mapping) -> Tensor:
        dtype, shape = DTYPES[entry["dtype"]], entry["shape"]
        start, end = entry["data_offsets"]
        if start == end:
            return torch.empty(shape, dtype=dtype)
        count = (end - start) // dtype.itemsize
        return torch.frombuffer(self._map, dtype=dtype, count=count, offset=offset + start).view(shape)
