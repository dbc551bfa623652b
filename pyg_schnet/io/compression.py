"""Compressed text files with a bounded unpacked size: kilobytes of bzip2 may unpack to gigabytes."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import zlib
from pathlib import Path
from typing import Any

COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # by suffix
_LARGE, _INFLATION = 2**24, 200  # largest unpacked size in bytes, or ratio to the compressed size
_CHUNK = 2**20


def unpacked_limit(path: Path) -> float:
    """Return the largest allowed unpacked size of a file in bytes; infinite if it is not compressed."""
    if path.suffix.lower() not in COMPRESSED:
        return math.inf
    return max(_LARGE, _INFLATION * path.stat().st_size)


def check_unpacked(path: Path) -> None:
    """Check a compressed file by unpacking it once, before a reader holds all of it in memory.

    Raises:
        ValueError: If it is damaged, or unpacks to far more bytes than its size.
    """
    opened = COMPRESSED.get(path.suffix.lower())
    if opened is None:
        return
    size, most = 0, unpacked_limit(path)
    try:
        with opened(path, "rb") as file:
            while size <= most and (piece := file.read(_CHUNK)):
                size += len(piece)
    except (EOFError, OSError, lzma.LZMAError, zlib.error) as error:
        raise ValueError(f"{path}: is damaged ({error}); copy it again") from None
    if size > most:
        raise ValueError(
            f"{path}: must unpack to at most {most:,} bytes, got more; unpack it if you trust it"
        )
