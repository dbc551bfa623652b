"""Files that are whole or absent, whatever ends the process that writes them."""

from __future__ import annotations

import glob
import os
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
    try:
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        os.close(handle)
        temporary = Path(name)
        yield temporary
        _flush(temporary)
        os.chmod(temporary, 0o644)  # mkstemp's files are private
        os.replace(temporary, path)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise OSError(
            f"{path}: cannot be written ({reason}); what was there before is left as it was. Make room or "
            "choose another folder"
        ) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def remove_leftovers(path: Path) -> None:
    """Remove what killed processes left of a file; nobody may be writing it."""
    for left in path.parent.glob(f".{glob.escape(path.name)}.*"):
        left.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Bring a file to the disk: else a power cut may leave the name without the content."""
    handle = os.open(path, os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
