"""Checksums of a processed data set, which detect damage in the blocks that are read.

The last tensor of the file, ``crc32:blocks``, holds a CRC-32 of the header and the other checksums, followed
by one for each block of 64 KiB of all other tensors in the order of the file. A file that is read into memory
is verified completely; of a memory-mapped file, each block is verified when it is first read.

CRC-32 detects all damage within 32 neighboring bits, and misses other damage with a probability of 2⁻³². It
does not protect against intent.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from io import FileIO
from typing import BinaryIO

import numpy as np

NAME = "crc32:blocks"
BLOCK = 2**16  # bytes: a read of some hundred µs from a disk, checked in 40 µs


def rows(size: int) -> int:
    """Return the number of checksums of a file with tensors of this size in bytes, including the header's."""
    return 1 + -(-size // BLOCK)


class BlockWriter:
    """Writer that computes the checksums of the blocks of a file.

    Args:
        file: File open for writing, at its beginning.
        header: First bytes of the file.
    """

    def __init__(self, file: BinaryIO, header: bytes):
        self._file, self._header = file, header
        self._sums: list[int] = []
        self._current = self._filled = 0
        file.write(header)

    def write(self, piece: bytes | memoryview) -> None:
        """Append bytes."""
        self._file.write(piece)
        left = memoryview(piece)
        while left:
            part = left[: BLOCK - self._filled]
            self._current = zlib.crc32(part, self._current)
            self._filled += len(part)
            left = left[len(part) :]
            if self._filled == BLOCK:
                self._end_block()

    def finish(self) -> None:
        """Append the checksums."""
        if self._filled:
            self._end_block()
        blocks = np.array(self._sums, dtype="<u4").tobytes()
        self._file.write(np.array([_first(self._header, blocks)], dtype="<u4").tobytes() + blocks)

    def _end_block(self) -> None:
        self._sums.append(self._current)
        self._current = self._filled = 0


class Checksums:
    """Checksums of a file.

    Args:
        file: A safetensors file of :class:`BlockWriter`, open without a buffer; it must stay open.
        start: Length of its header, where the tensors begin.
        place: Offsets of the begin and end of the checksums, relative to ``start``.

    Raises:
        ValueError: If the header or the checksums are damaged.
    """

    def __init__(self, file: FileIO, start: int, place: tuple[int, int]):
        self._file, self._start, self._end = file, start, place[0]
        header = self._read(0, start)
        found = np.frombuffer(self._read(start + place[0], place[1] - place[0]), dtype="<u4")
        if len(found) != rows(self._end) or found[0] != _first(header, found[1:].tobytes()):
            raise ValueError("its header or its checksums are not what was written")
        self._sums = found[1:]
        self._unread = np.ones(len(self._sums), dtype=bool)
        self._left = len(self._sums)

    @property
    def is_done(self) -> bool:
        """Return whether all blocks were verified."""
        return self._left == 0

    def check(self, first: np.ndarray, end: np.ndarray) -> None:
        """Verify the blocks of ranges of bytes that were not verified before.

        Args:
            first: Offsets of the first byte of each range, relative to the end of the header.
            end: Offsets of the end of each range.

        Raises:
            ValueError: If a block is damaged.
        """
        there = end > first
        low, high = first[there] // BLOCK, (end[there] - 1) // BLOCK
        self._check_blocks(_all_between(low, high))

    def check_all(self) -> None:
        """Verify all blocks."""
        self._check_blocks(np.arange(len(self._sums)))

    def _check_blocks(self, blocks: np.ndarray) -> None:
        new = np.unique(blocks[self._unread[blocks]])
        if len(new) == 0:
            return
        for block in new.tolist():
            place, length = self._start + block * BLOCK, min(BLOCK, self._end - block * BLOCK)
            if zlib.crc32(self._read(place, length)) != self._sums[block]:
                raise ValueError(f"bytes {place:,} to {place + length - 1:,} are not what was written")
        self._unread[new] = False
        self._left = int(self._unread.sum())

    def _read(self, place: int, length: int) -> bytes:
        """Read from the file rather than from its map, to which the user may have written."""
        if hasattr(os, "pread"):  # forked processes share the file position
            return os.pread(self._file.fileno(), length, place)
        self._file.seek(place)
        return self._file.read(length)


def checksums_of(file: FileIO, start: int, table: Mapping[str, Mapping]) -> Checksums | None:
    """Return the checksums of a processed data set; ``None`` for files of earlier versions without them.

    Args:
        file: The file, open without a buffer.
        start: Length of its header.
        table: Entries of the header, by name of the tensor.

    Raises:
        ValueError: If the header or the checksums are damaged.
    """
    entry = table.get(NAME)
    return None if entry is None else Checksums(file, start, tuple(entry["data_offsets"]))


def verify(path: str | os.PathLike) -> None:
    """Verify a processed data set completely by its checksums, if it has any.

    Raises:
        ValueError: If it is damaged.
    """
    with open(path, "rb", buffering=0) as file:
        length = int.from_bytes(file.read(8), "little")
        found = checksums_of(file, 8 + length, json.loads(file.read(length)))
        if found is not None:
            found.check_all()


def _first(header: bytes, blocks: bytes) -> int:
    return zlib.crc32(blocks, zlib.crc32(header))


def _all_between(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    if not (high - low > 1).any():
        return np.concatenate([low, high])
    return np.concatenate([np.arange(one, other + 1) for one, other in zip(low, high, strict=True)])
