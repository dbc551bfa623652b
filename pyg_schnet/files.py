"""Files that are whole or absent, whatever ends the process that writes them."""

from __future__ import annotations

import glob
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError


@contextmanager
def written_whole(path: str | os.PathLike) -> Iterator[Path]:
    """Give a file to write to, which gets its name when all is written and on the disk.

    A file that is there is replaced then, and stays as it is where writing fails. What a killed process
    leaves begins with a dot and the file's name.

    Args:
        path: The file.

    Raises:
        OSError: If it cannot be written, as on a full disk, with its name and the reason.
    """
    path = Path(path)
    temporary: Path | None = None
    with _told(path):
        try:
            handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
            os.close(handle)
            temporary = Path(name)
            yield temporary
            flush(temporary)
            os.chmod(temporary, 0o644)  # mkstemp's files are private
            os.replace(temporary, path)
        finally:
            if temporary is not None:
                temporary.unlink(missing_ok=True)


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[Path]:
    """Give a path beside a file to write to, which takes the file's place when all is written.

    As :func:`written_whole`, for writers that tell formats by endings, which the path has, too. Nobody else
    may be writing the file: the path is always the same, so that one that a killed process left is removed.

    Args:
        path: The file, which may be there or not; or a folder, as some formats are.

    Raises:
        OSError: If it cannot be written, as on a full disk, with its name and the reason.
    """
    path = Path(path)
    part = path.with_name(f".part.{path.name}")
    with _told(path):
        _remove(part)
        try:
            yield part
            if part.is_file():
                flush(part)
            if path.is_dir():
                shutil.rmtree(path)  # no folder takes another's place at once
            os.replace(part, path)
        finally:
            _remove(part)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of a file; nobody may be writing it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        left.unlink(missing_ok=True)


@contextmanager
def _told(path: Path) -> Iterator[None]:
    """Name the file in errors of writing it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"{path}: cannot be written ({reason}); what was there before is left as it was. Make room or "
            "choose another folder"
        ) from error


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Bring a file to the disk: else a power cut may leave the name without the content."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
