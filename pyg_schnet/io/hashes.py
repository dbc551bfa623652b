"""The stamp of a file: by which a data set notices that its source was replaced."""

from __future__ import annotations

from pathlib import Path


def stamp(path: Path) -> list[str | int]:
    """Give a file's place, its size in bytes, and when it was written, in nanoseconds."""
    state = path.stat()
    return [str(path.absolute()), state.st_size, state.st_mtime_ns]
