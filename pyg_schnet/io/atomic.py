"""Atomic writes: a file is complete or absent, whatever ends the process that writes it."""

from __future__ import annotations

import glob
import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def atomic_write(path: str | os.PathLike) -> Iterator[Path]:
    """Yield a path to write to, and rename it to ``path`` when everything is written and on the disk.

    The yielded path has the name of the file, for writers that choose a format by its extension, in a hidden
    folder beside it. An existing file is replaced by the renaming, keeps its permissions, and is unchanged if
    writing fails. A killed process leaves the hidden folder behind: see :func:`remove_leftovers`.

    Args:
        path: File to write, which may exist.

    Raises:
        OSError: If the file cannot be written, for example on a full disk; the message names it.
    """
    path = Path(path)
    with (
        write_errors(path),
        tempfile.TemporaryDirectory(
            dir=path.parent, prefix=f".{path.name}.", ignore_cleanup_errors=True
        ) as folder,
    ):
        part = Path(folder) / path.name
        yield part
        rename_durably(part, path)


@contextmanager
def write_errors(path: Path) -> Iterator[None]:
    """Raise :class:`OSError` with the name of the file for errors of writing it, as on a full disk."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"{path}: cannot be written ({reason}); make room or choose another folder; an existing file is "
            "unchanged"
        ) from error


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of a file; no process may be writing it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        if not is_leftover(left, path.name):
            continue
        if left.is_dir():
            shutil.rmtree(left)
        else:
            left.unlink(missing_ok=True)


def is_leftover(path: Path, name: str) -> bool:
    """Return whether a killed process left this path while it wrote a file ``name``.

    Versions before 0.2 left a hidden file instead of a hidden folder.
    """
    if not re.fullmatch(rf"\.{re.escape(name)}\.[a-z0-9_]{{8}}", path.name) or path.is_symlink():
        return False
    return not path.is_dir() or all(inner.name.startswith(name) for inner in path.iterdir())


def rename_durably(part: Path, path: Path) -> None:
    """Rename a complete file such that after a power cut ``path`` holds either it or the file before.

    The new file gets the permissions of the file that it replaces.
    """
    if part.is_file():
        flush(part)
    if path.is_file():
        part.chmod(path.stat().st_mode & 0o777)
    os.replace(part, path)
    flush_folder(path.parent)


def flush_folder(folder: Path) -> None:
    """Write the names in a folder to the disk, where the system can."""
    with suppress(OSError):  # Windows opens no folders, and some file systems sync none
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def flush(path: Path) -> None:
    """Write a file to the disk; otherwise a power cut may leave its name without its content."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
