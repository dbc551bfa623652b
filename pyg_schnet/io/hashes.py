"""Hashes and signatures of files, to detect a changed input."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path


def file_signature(path: Path) -> list[str | int]:
    """Return path, size in bytes and time of modification in nanoseconds of a file."""
    state = path.stat()
    return [str(path.absolute()), state.st_size, state.st_mtime_ns]


def hash_file(path: str | os.PathLike) -> str:
    """Compute the SHA-256 of a file, which may be larger than the memory."""
    digest = hashlib.sha256()
    with Path(path).open("rb") as file:
        while block := file.read(2**22):
            digest.update(block)
    return digest.hexdigest()


def hash_content(path: str | os.PathLike) -> str:
    """Compute the SHA-256 of a file, or of all files in a folder with their names.

    Returns:
        Hexadecimal digits; ``""`` if ``path`` does not exist.
    """
    if not Path(path).is_dir():
        return hash_file(path) if Path(path).is_file() else ""
    files = sorted(file for file in Path(path).rglob("*") if file.is_file())
    parts = [f"{file.relative_to(path)} {hash_file(file)}" for file in files]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
