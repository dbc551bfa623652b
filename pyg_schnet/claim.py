"""Claims: of two processes, one writes a file or a folder, and the other is told."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout


class Claim:
    """Keeps other processes off what this one writes, until it is given back or the process ends.

    Args:
        path: What is written.
        place: A file that is there meanwhile; one that a killed process left holds nobody off.
    """

    def __init__(self, path: str | os.PathLike, place: str | os.PathLike):
        self._path, self._place = os.fspath(path), Path(place)
        self._lock = FileLock(self._place)

    def take(self) -> None:
        """Claim it; the folder must be there.

        Raises:
            FileExistsError: If another process has.
            OSError: If nothing can be written there.
        """
        try:
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
        if self._lock.is_locked:
            with suppress(OSError):  # Windows removes no open file
                self._place.unlink(missing_ok=True)  # while it is held: nobody else's is removed
            self._lock.release(force=True)
