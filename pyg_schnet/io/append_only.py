"""Files that grow by whole records."""

from __future__ import annotations

import os
from contextlib import ExitStack
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import TypeVar

from pyg_schnet.io.atomic import flush, flush_folder
from pyg_schnet.io.locks import locked
from pyg_schnet.io.outputs import check_appendable, check_replaceable

_File = TypeVar("_File", bound="AppendOnlyFile")


def append_error(path: str | os.PathLike, error: OSError) -> OSError:
    """Return an error of the same reason, as a full disk, that names the file; the system names none."""
    return OSError(f"{os.fspath(path)}: cannot be written ({error.strerror or error}); what it had is kept")


def check_creatable(path: Path, overwrite: bool) -> None:
    """Raise if an existing file must not be replaced by a new one.

    Raises:
        FileExistsError: If it exists and ``overwrite`` is not set, or is no regular file.
    """
    check_replaceable(path)
    if path.exists() and not overwrite:
        raise FileExistsError(
            f"{path} exists; choose another name, or replace it with overwrite=True (--overwrite)"
        )


class AppendOnlyFile:
    """A file that grows by whole records. The first record creates it, or truncates an existing one.

    A record that cannot be written in full, for instance on a full disk, is removed again. Only a kill of the
    process can leave a part of the last record. A new file never empties an existing one, which may have
    other names, but takes its place. Within a ``with`` block the file is locked against other processes.

    Args:
        path: The file, in an existing folder.
        overwrite: Whether an existing file may be replaced.
        keep: Number of bytes of the existing file to continue; what follows is removed. ``None`` starts a
            new file.

    Raises:
        FileExistsError: If the file exists and ``overwrite`` is not set, is no regular file, or, to be
            continued, has several names.
        FileNotFoundError: If the folder, or the file to continue, does not exist.
        ValueError: If the file to continue is shorter than ``keep``.
    """

    def __init__(self, path: str | os.PathLike, overwrite: bool = False, keep: int | None = None):
        self.path = Path(path)
        self._overwrite, self._keep = overwrite, keep
        self._file: FileIO | None = None
        self._lock = ExitStack()
        self.check()

    @property
    def size(self) -> int:
        """Number of bytes written, the continued ones included."""
        return self._keep or 0 if self._file is None else self._file.tell()

    @property
    def is_open(self) -> bool:
        """Return whether the file was created or continued by this process."""
        return self._file is not None

    def check(self) -> None:
        """Raise if the file can be neither created nor continued."""
        if not self.path.parent.is_dir():
            raise FileNotFoundError(f"{self.path}: its folder must exist; create {self.path.parent}")
        if self._keep is None:
            check_creatable(self.path, self._overwrite)
            return
        check_appendable(self.path)
        if not self.path.exists():
            raise FileNotFoundError(f"{self.path}: no such file to resume; begin a new run")
        if (length := self._length()) < self._keep:
            raise ValueError(
                f"{self.path}: must be at least as long as when the run was interrupted, {self._keep}, got "
                f"{length}; begin a new run"
            )

    def append(self, record: str | bytes) -> None:
        """Write a record at once, a string in UTF-8.

        Raises:
            OSError: If it cannot be written, with the name of the file.
        """
        self.open()
        assert self._file is not None
        left = memoryview(record.encode() if isinstance(record, str) else record)
        size = self._file.tell()
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:
            self._file.seek(self._file.truncate(size))
            if isinstance(error, OSError):
                raise append_error(self.path, error) from error
            raise

    def open(self) -> None:
        """Create the file, or truncate it to what is kept, unless that is done."""
        if self._file is not None:
            return
        if self._keep is None:
            self.path.unlink(missing_ok=True)
        self._file = FileIO(self.path, "x" if self._keep is None else "r+")
        self._file.seek(self._file.truncate(self._keep or 0))

    def sync(self) -> None:
        """Flush the file and its name to the disk, if it exists."""
        if not self.path.exists():
            return
        try:
            flush(self.path)
        except OSError as error:
            raise append_error(self.path, error) from error
        flush_folder(self.path.parent)

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()

    def _length(self) -> int:
        return self.path.stat().st_size

    def __enter__(self: _File) -> _File:
        self._lock.enter_context(locked(self.path))
        try:
            self.check()  # again: another process may have written it meanwhile
        except BaseException:
            self._lock.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        with self._lock:
            if kind is None and self._keep is not None:
                self.open()  # which removes what a kill left at the end
            self.close()
