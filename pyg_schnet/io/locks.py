"""Claims: of two processes, one writes a file or a folder, and the other is told."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from filelock import FileLock, SoftFileLock, Timeout

from pyg_schnet.io.atomic import remove_leftovers

_PATIENCE = 1.0  # s, after which a process that waits says so
_log = logging.getLogger(__name__)


class Claim:
    """Keeps other processes off what this one writes, until it is given back or the process ends.

    An empty file stays behind, ``.NAME.lock`` beside a file and ``.lock`` in a folder: removing it would let
    in two of those that have opened it meanwhile. One that a killed process left holds nobody off, but where
    the file system has no locks: there the file itself is the lock.

    Args:
        path: What is written, by any name; its folder must be there when it is claimed.
        is_folder: Whether it is a folder.

    Attributes:
        place: The file that stays.
    """

    def __init__(self, path: str | os.PathLike, is_folder: bool = False):
        self._path = os.fspath(path)
        whole = Path(os.path.realpath(path))
        self.place = whole / ".lock" if is_folder else whole.with_name(f".{whole.name}.lock")
        self._lock = FileLock(self.place)

    def take(self, wait: bool = False) -> None:
        """Claim it.

        Args:
            wait: Wait while another process has it, and log whom for after a second.

        Raises:
            FileExistsError: If another process has, and ``wait`` is not set.
            OSError: If nothing can be written there.
        """
        try:
            if self.place.is_symlink():  # older versions of filelock empty what it leads to
                raise FileExistsError(0, f"{self.place.name} is a link")
            try:
                self._lock.acquire(timeout=_PATIENCE if wait else 0)
            except Timeout:
                if not wait:
                    raise
                _log.warning(
                    "%s: waiting for another process that is writing to it and holds %s%s",
                    self._path,
                    self.place,
                    self._advice(),
                )
                self._lock.acquire()
        except Timeout:
            raise FileExistsError(
                f"{self._path}: another process is writing to it; wait until that ends, or give another name"
                f"{self._advice()}"
            ) from None
        except OSError as error:
            reason = error.strerror or error
            raise type(error)(
                f"{self._path}: nothing can be written there ({reason}); give another folder"
            ) from None

    def give_back(self) -> None:
        """Let others write, if it was claimed."""
        self._lock.release(force=True)

    def _advice(self) -> str:
        """Return what helps where the lock is a file, which a killed process leaves."""
        if not isinstance(self._lock, SoftFileLock):
            return ""
        return f"; if none is, a killed one left {self.place}, as this file system has no locks: remove it"


@contextmanager
def waited_for(path: str | os.PathLike, is_folder: bool = False) -> Iterator[None]:
    """Wait until no other process writes a file or folder, and keep others off; see :meth:`Claim.take`."""
    claim = Claim(path, is_folder)
    claim.take(wait=True)
    try:
        yield
    finally:
        claim.give_back()


@contextmanager
def claimed(*paths: str | os.PathLike | None, wait: bool = False) -> Iterator[None]:
    """Keep other processes off some files, and remove what killed ones left of them.

    See :meth:`Claim.take` for what it raises.
    """
    with ExitStack() as stack:
        for path in paths:
            if path is not None:
                claim = Claim(path)
                claim.take(wait)
                stack.callback(claim.give_back)
                remove_leftovers(Path(path))
        yield
