"""Compressed text files, whose unpacked size is bounded: kilobytes of bzip2 may be gigabytes of nothing."""

from __future__ import annotations

import bz2
import gzip
import lzma
import math
import zlib
from pathlib import Path
from typing import Any

COMPRESSED: dict[str, Any] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}  # by ending
_LARGE, _INFLATION = 2**24, 200  # bytes, from which no file may unpack to so many times its size
_CHUNK = 2**20


def unpacked_limit(path: Path) -> float:
    """Return to how many bytes a file may unpack; infinite where it is not compressed."""
    if path.suffix.lower() not in COMPRESSED:
        return math.inf
    return max(_LARGE, _INFLATION * path.stat().st_size)


def check_unpacked(path: Path) -> None:
    """Check a compressed file, by unpacking it once; its readers hold all of it in memory.

    Raises:
        ValueError: If it is damaged, or unpacks to far more bytes than it has.
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
