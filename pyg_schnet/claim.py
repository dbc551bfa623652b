"""Claims: of two processes, one writes a file or a folder, and the other is told."""

from __future__ import annotations

import os
from pathlib import Path

from filelock import FileLock, Timeout


class Claim:
    """Keeps other processes off what this one writes, until it is given back or the process ends.

    An empty file stays behind, ``.NAME.lock`` beside a file and ``.lock`` in a folder: removing it would let
    in two of those that have opened it meanwhile. One that a killed process left holds nobody off.

    Args:
        path: What is written; its folder must be there when it is claimed.
        is_folder: Whether it is a folder.

    Attributes:
        place: The file that stays.
    """

    def __init__(self, path: str | os.PathLike, is_folder: bool = False):
        self._path = os.fspath(path)
        whole = Path(path).absolute()
        self.place = whole / ".lock" if is_folder else whole.with_name(f".{whole.name}.lock")
        self._lock = FileLock(self.place)

    def take(self) -> None:
        """Claim it.

        Raises:
            FileExistsError: If another process has.
            OSError: If nothing can be written there.
        """
        try:
            if self.place.is_symlink():  # older versions of filelock empty what it leads to
                raise FileExistsError(0, f"{self.place.name} is a link")
            self._lock.acquire(timeout=0)
        except Timeout:
            raise FileExistsError(
                f"{self._path}: another process is writing to it; wait until that ends, or give another name"
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise type(error)(
                f"{self._path}: nothing can be written there ({reason}); give another folder"
            ) from None

    def give_back(self) -> None:
        """Let others write, if it was claimed."""
        self._lock.release(force=True)
