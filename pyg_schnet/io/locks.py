"""Locks that keep two processes from writing the same file or folder."""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import filelock
from filelock import SoftFileLock, Timeout

from pyg_schnet.io.atomic import remove_leftovers

_NOTICE_AFTER = 1.0  # s; a process that waits longer logs what it waits for
_log = logging.getLogger(__name__)


class FileLock:
    """Lock of a file or folder that is being written, held until release or the end of the process.

    The lock is an operating-system lock (``flock``) on an empty hidden file: ``.NAME.lock`` beside a file,
    ``.lock`` inside a folder. As that file is next to the output, the lock is shared by all processes,
    users and hosts of the file system, and by every name of the output (links are resolved).
    :meth:`release` removes the file before it unlocks it; a process that opened it before locks an
    unlinked file, which ``filelock`` discards. After a kill the empty file remains; it is not locked, and the
    next release removes it.

    Not covered: programs that do not acquire the lock; an output that is renamed or replaced by a link while
    it is written; network file systems that are mounted without locks across hosts (NFS with ``nolock``).
    On file systems without locks, the existence of the file is the lock: one that remains after a kill blocks
    the next process, whose error names the file to remove.

    Args:
        path: File or folder that is written.
        is_folder: Whether ``path`` is a folder.

    Attributes:
        lock_file: The hidden file that is locked.
    """

    def __init__(self, path: str | os.PathLike, is_folder: bool = False):
        self._path = os.fspath(path)
        resolved = Path(os.path.realpath(path))
        self.lock_file = resolved / ".lock" if is_folder else resolved.with_name(f".{resolved.name}.lock")
        self._lock = filelock.FileLock(self.lock_file)

    @property
    def is_supported(self) -> bool:
        """Return whether the file system has locks; known after :meth:`acquire`."""
        return not isinstance(self._lock, SoftFileLock)

    def acquire(self, wait: bool = False) -> None:
        """Acquire the lock.

        Args:
            wait: Wait while another process holds the lock, and log this after a second.

        Raises:
            FileExistsError: If another process holds the lock and ``wait`` is not set.
            OSError: If the folder is not writable.
        """
        try:
            self._acquire(_NOTICE_AFTER if wait else 0)
        except Timeout:
            if not wait:
                raise FileExistsError(
                    f"{self._path}: another process is writing to it; wait until that ends, or use another "
                    f"name{self._advice()}"
                ) from None
            _log.warning(
                "%s: waiting for another process that is writing to it and holds %s%s",
                self._path,
                self.lock_file,
                self._advice(),
            )
            self._acquire(-1)

    def _acquire(self, timeout: float) -> None:
        """Acquire the lock within ``timeout`` seconds; -1 waits forever."""
        while True:
            try:
                self._lock.acquire(timeout)
                return
            except Timeout:
                raise
            except OSError as error:
                if error.errno == getattr(errno, "ESTALE", None):
                    continue  # NFS: another host removed the file between our opening and locking it
                reason = error.strerror or error
                raise type(error)(
                    f"{self._path}: nothing can be written there ({reason}); choose another folder"
                ) from None

    def release(self) -> None:
        """Release the lock, if it is held, and remove its file."""
        if not self._lock.is_locked:
            return
        if self.is_supported:  # else the lock removes its file itself
            with suppress(OSError):  # Windows does not remove an open file
                self.lock_file.unlink(missing_ok=True)
        self._lock.release(force=True)

    def _advice(self) -> str:
        """Return what to do where the existence of the file is the lock, which a killed process leaves."""
        if self.is_supported:
            return ""
        return (
            f"; if there is none, a killed process left {self.lock_file} on this file system without locks: "
            "remove it"
        )


@contextmanager
def locked(*paths: str | os.PathLike | None, is_folder: bool = False, wait: bool = False) -> Iterator[None]:
    """Hold the locks of some outputs; remove what killed processes left of files among them.

    Args:
        *paths: Files or folders that are written; ``None`` for none.
        is_folder: Whether the paths are folders.
        wait: As for :meth:`FileLock.acquire`, which also states the errors.
    """
    with ExitStack() as stack:
        for path in paths:
            if path is None:
                continue
            lock = FileLock(path, is_folder)
            lock.acquire(wait)
            stack.callback(lock.release)
            if not is_folder:
                remove_leftovers(Path(path))
        yield
