"""Files that grow by whole pieces."""

from __future__ import annotations

import os
from pathlib import Path

from pyg_schnet.io.outputs import check_appendable


def append_error(path: str | os.PathLike, error: OSError) -> OSError:
    """Name the file that a full disk, or another reason, kept from growing; the system names none."""
    return OSError(f"{os.fspath(path)}: cannot be written ({error.strerror or error}); what it had is kept")


class AppendOnlyFile:
    """A file whose pieces are there in whole or not: what a full disk cuts off is taken back.

    Only the kill of the process may leave a part of the last one.

    Args:
        path: Where.
        keep: Bytes of a file that is there which stay; the others go. Without any, the file is a new one:
            what has the name is not emptied, for it may have other names.

    Raises:
        FileExistsError: If what is there is no file of one name.
    """

    def __init__(self, path: str | os.PathLike, keep: int = 0):
        self._path = os.fspath(path)
        check_appendable(path) if keep else Path(path).unlink(missing_ok=True)
        self._file = open(path, "r+b" if keep else "xb", buffering=0)  # noqa: SIM115 - closed by `close`
        self.size = self._file.seek(self._file.truncate(keep))

    def append(self, piece: str | bytes) -> None:
        """Write a piece at once, a text in UTF-8.

        Raises:
            OSError: If it cannot be written, with the name of the file.
        """
        left = memoryview(piece.encode() if isinstance(piece, str) else piece)
        size = self.size + len(left)
        try:
            while left:
                left = left[self._file.write(left) :]
        except BaseException as error:
            self._file.seek(self._file.truncate(self.size))
            if isinstance(error, OSError):
                raise append_error(self._path, error) from error
            raise
        self.size = size

    def close(self) -> None:
        """Close the file."""
        self._file.close()
